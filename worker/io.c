#include "worker/io.h"

#include <errno.h>
#include <stdlib.h>

/* Transfers without progress that are tried again before giving up. */
#define STALLS_MAX 64

struct sl_io {
    const struct sl_io_backend *be;
    void *priv;
};

static bool failed(struct sl_io_op *op, int err)
{
    op->err = err;
    return true;
}

bool sl_io_advance(struct sl_io_op *op, int64_t res)
{
    uint32_t before = op->got;

    if (res < 0) {
        if ((res == -EINTR || res == -EAGAIN) && op->stalls++ < STALLS_MAX)
            return false;
        return failed(op, (int)-res);
    }
    if (res > (int64_t)(op->len - op->got))
        return failed(op, EIO);
    if (res == 0)
        return failed(op, op->kind == SL_IO_WRITE ? EIO : op->got >= op->need ? 0 : SL_IO_END_OF_FILE);
    op->got += (uint32_t)res;
    if (op->got >= op->need)
        return failed(op, 0);
    /* A direct transfer goes on at a boundary; a read that stays inside its block met the end. */
    if (op->direct) {
        op->got -= op->got % SL_IO_ALIGN;
        if (op->got == before && op->stalls++ >= 2)
            return failed(op, op->kind == SL_IO_WRITE ? EIO : SL_IO_END_OF_FILE);
    }
    return false;
}

int64_t sl_io_transfer(struct sl_faults *f, const struct sl_io_op *op)
{
    uint8_t *buf = op->buf + op->got;
    uint32_t len = op->len - op->got, unit = op->direct ? SL_IO_ALIGN : 1;

    return op->kind == SL_IO_WRITE ? sl_sys_pwrite(f, op->fd, buf, len, op->off + op->got, unit)
                                   : sl_sys_pread(f, op->fd, buf, len, op->off + op->got, unit);
}

int sl_io_open(enum sl_io_mode mode, const struct sl_io_conf *c, struct sl_io **out,
               struct sl_error *e)
{
    struct sl_io *io = calloc(1, sizeof *io);
    int rc = SL_EUNSUPPORTED;

    if (!io)
        return sl_fail(e, SL_EFAIL, "out of memory for the I/O layer");
    if (mode != SL_IO_PREAD) {
        io->be = &sl_io_backend_uring;
        rc = io->be->open(c, &io->priv, e);
    }
    if (mode == SL_IO_PREAD || (mode == SL_IO_AUTO && rc < 0)) {
        io->be = &sl_io_backend_pread;
        rc = io->be->open(c, &io->priv, e);
    }
    if (rc < 0) {
        free(io);
        return rc;
    }
    *out = io;
    return 0;
}

void sl_io_submit(struct sl_io *io, struct sl_io_op *op)
{
    if (op->kind == SL_IO_WRITE)
        op->need = op->len;
    op->err = 0;
    op->got = 0;
    op->injected = 0;
    op->stalls = 0;
    op->next = NULL;
    io->be->submit(io->priv, op);
}

int sl_io_wait(struct sl_io *io, struct sl_io_op **done, struct sl_error *e)
{
    *done = NULL;
    return io->be->wait(io->priv, done, e);
}

void sl_io_wake(struct sl_io *io)
{
    io->be->wake(io->priv);
}

const char *sl_io_name(const struct sl_io *io)
{
    return io->be->name;
}

bool sl_io_registered(const struct sl_io *io)
{
    return io->be->registered(io->priv);
}

void sl_io_close(struct sl_io *io)
{
    if (!io)
        return;
    io->be->close(io->priv);
    free(io);
}
