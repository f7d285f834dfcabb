/* The folders below which daemon and workers act for others. A path is opened
 * by the kernel relative to its root (openat2, RESOLVE_BENEATH), so "..",
 * symlinks and renames under way cannot lead out of it. */
#ifndef SLUICE_PROTO_ROOTS_H
#define SLUICE_PROTO_ROOTS_H

#include "proto/error.h"

#define SL_ROOTS_MAX 64

struct sl_roots;

/* Effect: opens n folders, kept open until sl_roots_close. No root allows
 * nothing. Errors: SL_EUSAGE (not absolute, not a folder, too many),
 * SL_EUNSUPPORTED (a kernel without openat2, before 5.6). */
int sl_roots_open(const char *const *paths, unsigned n, struct sl_roots **out,
                  struct sl_error *e) SL_MUST_USE;
void sl_roots_close(struct sl_roots *r);

/* Effect: opens an absolute path below one of the roots. flags as open(2)'s
 * (O_CLOEXEC is added; no O_CREAT). Symlinks are followed as long as they stay
 * below the root. Returns a descriptor, the caller's. Errors: SL_EUSAGE when
 * the path lies outside or leads outside; SL_ESOURCE when it is not there;
 * SL_EFAIL otherwise. */
int sl_roots_open_path(const struct sl_roots *r, const char *path, int flags,
                       struct sl_error *e) SL_MUST_USE;

/* Effect: tells whether an open file lies below a root, whatever names led to
 * it. Returns 0, or SL_EUSAGE naming what. For files that a library opened. */
int sl_roots_check_fd(const struct sl_roots *r, int fd, const char *what, struct sl_error *e)
    SL_MUST_USE;

/* A name for an open file or folder that cannot be redirected: "/proc/self/fd/N". */
void sl_roots_pin(int fd, char path[32]);

#endif
