/* The source files that are open: at most a few at a time, whatever number of
 * shards a checkpoint has. Belongs to the I/O thread. */
#ifndef SLUICE_WORKER_SRCFILE_H
#define SLUICE_WORKER_SRCFILE_H

#include "worker/engine.h"
#include "worker/sysio.h"

#define SL_SRCFILES_OPEN 12u /* of a checkpoint's files, each once more for O_DIRECT */

struct sl_srcfiles;

/* A file while it is in use. */
struct sl_srcfile {
    int fd;      /* buffered; -1: closed */
    int direct;  /* O_DIRECT; -1: none */
    bool drop;   /* O_DIRECT was wanted and refused: use fd, and drop the pages read from the cache */
    unsigned refs;
    uint64_t used; /* when, in calls */
};

/* Effect: no file is open yet. The checkpoint must outlive *out (sl_srcfiles_close). Errors: SL_EFAIL. */
int sl_srcfiles_open(const struct sl_checkpoint *ck, enum sl_direct direct, struct sl_faults *faults,
                     struct sl_srcfiles **out, struct sl_error *e) SL_MUST_USE;

/* Effect: opens file i, unless it is open, and holds it until sl_srcfile_put.
 * On opening, its size and time are held against the plan's. AUTO reads a file
 * that is mostly in the page cache from there. Errors: SL_ESOURCE. */
int sl_srcfile_get(struct sl_srcfiles *s, uint32_t i, struct sl_srcfile **out, struct sl_error *e)
    SL_MUST_USE;
/* Returns file i, which is held already. */
struct sl_srcfile *sl_srcfile_held(struct sl_srcfiles *s, uint32_t i);
/* Effect: the file may be closed when others want its place. */
void sl_srcfile_put(struct sl_srcfiles *s, uint32_t i);

/* Effect: compares the open file's size and time with the plan's once more;
 * called when reads from it are done. Errors: SL_ESOURCE. */
int sl_srcfile_unchanged(struct sl_srcfiles *s, uint32_t i, struct sl_error *e) SL_MUST_USE;

/* Effect: O_DIRECT was refused for a read: this file is read buffered from now on. */
void sl_srcfile_refuse_direct(struct sl_srcfiles *s, uint32_t i);

/* Closes all of them. NULL is allowed. */
void sl_srcfiles_close(struct sl_srcfiles *s);

#endif
