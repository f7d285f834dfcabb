/* Asynchronous reads and writes of one I/O thread: io_uring, or a pool of
 * threads that call pread and pwrite, behind the same interface.
 *
 * All functions but sl_io_wake belong to the thread that opened it. An
 * operation is the caller's struct, borrowed from submit until wait returns
 * it. Short transfers are continued inside; a finished operation has moved
 * all it had to, or has failed. */
#ifndef SLUICE_WORKER_IO_H
#define SLUICE_WORKER_IO_H

#include "worker/engine.h"
#include "worker/sysio.h"

/* Offsets, lengths and addresses of direct transfers are multiples of this. */
#define SL_IO_ALIGN 4096u

/* sl_io_op.err of a read that met the end of the file before `need` bytes. */
#define SL_IO_END_OF_FILE (-1)

enum sl_io_kind { SL_IO_READ, SL_IO_WRITE };

struct sl_io_op {
    enum sl_io_kind kind;
    int fd;
    bool direct;       /* fd is O_DIRECT */
    uint8_t *buf;
    uint64_t off;      /* in the file */
    uint32_t len;      /* bytes; < 2^31 */
    uint32_t need;     /* read: so many must arrive, the rest may lie past the end of the file */
    int err;           /* result: 0, an errno, or SL_IO_END_OF_FILE */
    uint32_t got;      /* result: bytes moved */
    struct sl_io_op *next; /* links finished operations; the backend's while it is under way */
    int injected;      /* the backend's */
    unsigned stalls;   /* the backend's */
};

struct sl_io_conf {
    unsigned depth;    /* operations under way at a time; more are queued */
    uint8_t *arena;    /* slabs * slab_bytes bytes where most buffers lie, to be registered */
    uint64_t slab_bytes;
    unsigned slabs;
    struct sl_faults *faults;
};

struct sl_io;

/* Effect: opens a backend: io_uring or the pool as asked for, or io_uring with
 * the pool as its replacement (AUTO). Errors: SL_EUNSUPPORTED (io_uring asked
 * for and refused by the system), SL_EFAIL. */
int sl_io_open(enum sl_io_mode mode, const struct sl_io_conf *c, struct sl_io **out,
               struct sl_error *e) SL_MUST_USE;

/* Effect: queues the operation; its failure is found in op->err later. */
void sl_io_submit(struct sl_io *io, struct sl_io_op *op);

/* Effect: starts what is queued, then sleeps until an operation finishes or
 * sl_io_wake is called. *done: the finished ones, linked by next (may be
 * NULL). Errors: SL_EFAIL when the backend itself is broken. */
int sl_io_wait(struct sl_io *io, struct sl_io_op **done, struct sl_error *e) SL_MUST_USE;

/* Effect: makes the present or the next sl_io_wait return. Any thread. */
void sl_io_wake(struct sl_io *io);

const char *sl_io_name(const struct sl_io *io); /* "io_uring", "pread" */
bool sl_io_registered(const struct sl_io *io);  /* the arena's pages are pinned once for all */

/* Effect: frees everything. What is under way, in a backend that broke, is waited for. */
void sl_io_close(struct sl_io *io);

/* What a backend is. open fills *priv; submit, wait, wake and close as above. */
struct sl_io_backend {
    const char *name;
    int (*open)(const struct sl_io_conf *c, void **priv, struct sl_error *e);
    void (*submit)(void *priv, struct sl_io_op *op);
    int (*wait)(void *priv, struct sl_io_op **done, struct sl_error *e);
    void (*wake)(void *priv);
    bool (*registered)(const void *priv);
    void (*close)(void *priv);
};
extern const struct sl_io_backend sl_io_backend_uring, sl_io_backend_pread;

/* Effect: takes one transfer's result (bytes, or -errno) into the operation.
 * Returns whether the operation is finished; if not, the rest from op->got on
 * is to be started again. */
bool sl_io_advance(struct sl_io_op *op, int64_t res);

/* Effect: one transfer of what is left of the operation, by pread or pwrite. Returns bytes, or -errno. */
int64_t sl_io_transfer(struct sl_faults *f, const struct sl_io_op *op) SL_MUST_USE;

#endif
