/* The one error convention of the whole program.
 *
 * A function that can fail returns 0 (or a non-negative result) or one of the
 * negative codes below, and says why in the caller's struct sl_error: one line
 * that names the file or tensor, what was expected, and what to do. The code
 * is the negated exit status, so a main ends with `return -code`. Only mains
 * call exit; nothing calls abort. */
#ifndef SLUICE_PROTO_ERROR_H
#define SLUICE_PROTO_ERROR_H

#include <stdarg.h>

#define SL_MUST_USE __attribute__((warn_unused_result))

enum sl_code {
    SL_OK = 0,
    SL_EFAIL = -1,         /* anything else: system call, memory, a bug */
    SL_EUSAGE = -2,        /* command line, recipe or configuration text */
    SL_EWARN = -3,         /* finished, with warnings */
    SL_EUNREACHABLE = -4,  /* daemon unreachable */
    SL_ENOJOB = -5,        /* no such job */
    SL_EUNSUPPORTED = -6,  /* model, tensor or type that Sluice does not know */
    SL_ESOURCE = -7,       /* source damaged, incomplete or missing */
    SL_EVERIFY = -8,       /* output is not what it must be */
    SL_ENOSPACE = -9,      /* not enough room on the disk */
    SL_EDEVICE = -10,      /* a GPU failed or was lost; the same command goes on */
    SL_ELACKS = -11,       /* a folder of the job is not on this machine; another's may have it. Of a worker's `fail` alone */
    SL_ENOSOURCE = -12,    /* so the source; where no machine has it, it ends as SL_ESOURCE */
    SL_EEXISTS = -13,      /* output exists already */
    SL_EINTERRUPTED = -75, /* stopped at a safe point; the same command goes on */
    SL_ETIMEOUT = -124,    /* `sluice wait --timeout`, as timeout(1); never in a message */
};

struct sl_error {
    int code;
    char text[1024]; /* one line, no newline, always NUL-terminated */
};

/* Effect: writes code and the formatted line into *e (e may be NULL; a longer
 * line is cut). Control characters and invalid UTF-8 in the result are shown
 * as '?', since names come from strangers' files. Returns code. */
int sl_fail(struct sl_error *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same of "out of memory", SL_EFAIL. */
int sl_no_memory(struct sl_error *e);

/* sl_fail with the arguments in ap. */
int sl_vfail(struct sl_error *e, int code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* Effect: puts "context: " before the line already in *e. Returns e's code
 * (SL_EFAIL when e is NULL). */
int sl_fail_context(struct sl_error *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The same with a path, unless the line begins with it already, or with a path below it. */
int sl_fail_in(struct sl_error *e, const char *path);

/* Returns the code of a source's file that cannot be opened: SL_EFAIL where err, its errno, speaks of
 * this process or machine (memory, files open), else SL_ESOURCE. */
int sl_source_code(int err);

/* Effect: writes that a thread cannot be started, err being pthread_create's. Returns SL_EFAIL. */
int sl_fail_thread(struct sl_error *e, int err);

/* Returns the code of a failed write, sync or reservation: SL_ENOSPACE where err, its errno, says
 * that the disk or a quota is full, else SL_EFAIL. */
int sl_write_code(int err);

/* The same of a new file that cannot be made: SL_EUSAGE where its folder is not there. */
int sl_make_code(int err);

/* Passes a failure on. */
#define SL_TRY(call)                 \
    do {                             \
        int sl_try_rc_ = (call);     \
        if (sl_try_rc_ < 0)          \
            return sl_try_rc_;       \
    } while (0)

#endif
