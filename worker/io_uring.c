/* io_uring: one ring, one thread, buffers registered where the limits allow. */
#include "worker/io.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Submissions refused in a row (kernel out of memory) before the ring counts as broken. */
#define REFUSED_MAX 1000

/* What a user can do about a ring that fails while it is used. */
#define WITHOUT "; --io pread does without io_uring"

struct uring {
    struct io_uring ring;
    unsigned depth, under_way;
    struct sl_io_op *head, **tail; /* queued, not yet in the ring */
    const uint8_t *arena;
    uint64_t slab_bytes;
    unsigned slabs;
    bool registered;
    struct sl_faults *faults;
    int wake_fd;
    uint64_t wake_count; /* where the armed read of wake_fd puts its value */
    bool wake_armed;
    int wake_err;        /* errno of a wake-up that cannot be armed, or 0 */
};

static int ring_init(struct uring *u, unsigned entries)
{
    const unsigned flags[] = {
#if defined(IORING_SETUP_SINGLE_ISSUER) && defined(IORING_SETUP_DEFER_TASKRUN)
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
#endif
        0,
    };
    int rc = -ENOSYS;

    for (unsigned i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        struct io_uring_params p = {.flags = flags[i] | IORING_SETUP_CLAMP};

        rc = io_uring_queue_init_params(entries, &u->ring, &p);
        if (rc != -EINVAL)
            break;
    }
    return rc;
}

/* Pinned pages count against RLIMIT_MEMLOCK unless the user may lock memory. */
static bool register_arena(struct uring *u, const struct sl_io_conf *c)
{
    struct iovec *v = calloc(c->slabs ? c->slabs : 1, sizeof *v);
    struct rlimit r;
    int rc;

    if (!v)
        return false;
    for (unsigned i = 0; i < c->slabs; i++)
        v[i] = (struct iovec){c->arena + i * c->slab_bytes, c->slab_bytes};
    rc = c->slabs ? io_uring_register_buffers(&u->ring, v, c->slabs) : -EINVAL;
    if (rc == -ENOMEM && !getrlimit(RLIMIT_MEMLOCK, &r) && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        if (!setrlimit(RLIMIT_MEMLOCK, &r))
            rc = io_uring_register_buffers(&u->ring, v, c->slabs);
    }
    free(v);
    return rc == 0;
}

static int uring_open(const struct sl_io_conf *c, void **priv, struct sl_error *e)
{
    struct uring *u = calloc(1, sizeof *u);
    int rc;

    if (!u)
        return sl_fail(e, SL_EFAIL, "out of memory for the ring");
    u->depth = c->depth ? c->depth : 1;
    u->tail = &u->head;
    u->faults = c->faults;
    u->arena = c->arena;
    u->slab_bytes = c->slab_bytes;
    u->slabs = c->slabs;
    u->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (u->wake_fd < 0) {
        rc = errno;
        free(u);
        return sl_fail(e, SL_EFAIL, "cannot make an eventfd: %s", strerror(rc));
    }
    rc = ring_init(u, u->depth + 1);
    if (rc < 0) {
        close(u->wake_fd);
        free(u);
        return sl_fail(e, SL_EUNSUPPORTED,
                       "io_uring is refused by this system (%s): allow it (kernel.io_uring_disabled, "
                       "the container's seccomp profile) or use --io pread", strerror(-rc));
    }
    u->registered = register_arena(u, c);
    *priv = u;
    return 0;
}

static void uring_submit(void *priv, struct sl_io_op *op)
{
    struct uring *u = priv;

    *u->tail = op;
    u->tail = &op->next;
}

static void prepare(struct uring *u, struct io_uring_sqe *sqe, struct sl_io_op *op)
{
    uint32_t len = op->len - op->got;
    uint64_t at = (uint64_t)(op->buf - u->arena), off = op->off + op->got;
    bool fixed = u->registered && op->buf >= u->arena && at < u->slabs * u->slab_bytes;
    int index = fixed ? (int)(at / u->slab_bytes) : 0;
    uint8_t *buf = op->buf + op->got;
    uint32_t unit = op->direct ? SL_IO_ALIGN : 1;

    if (op->kind == SL_IO_WRITE)
        op->injected = sl_fault_check(u->faults, SL_SYS_WRITE, &len, unit);
    else
        op->injected = sl_fault_check(u->faults, SL_SYS_READ, &len, unit);
    if (op->injected)
        io_uring_prep_nop(sqe);
    else if (op->kind == SL_IO_WRITE && fixed)
        io_uring_prep_write_fixed(sqe, op->fd, buf, len, off, index);
    else if (op->kind == SL_IO_WRITE)
        io_uring_prep_write(sqe, op->fd, buf, len, off);
    else if (fixed)
        io_uring_prep_read_fixed(sqe, op->fd, buf, len, off, index);
    else
        io_uring_prep_read(sqe, op->fd, buf, len, off);
    io_uring_sqe_set_data(sqe, op);
}

/* Moves queued operations into the ring, and arms the wake-up. */
static void fill_ring(struct uring *u)
{
    struct io_uring_sqe *sqe;

    if (!u->wake_armed && (sqe = io_uring_get_sqe(&u->ring))) {
        io_uring_prep_read(sqe, u->wake_fd, &u->wake_count, sizeof u->wake_count, 0);
        io_uring_sqe_set_data(sqe, u);
        u->wake_armed = true;
    }
    while (u->head && u->under_way < u->depth && (sqe = io_uring_get_sqe(&u->ring))) {
        struct sl_io_op *op = u->head;

        u->head = op->next;
        if (!u->head)
            u->tail = &u->head;
        op->next = NULL;
        prepare(u, sqe, op);
        u->under_way++;
    }
}

/* Takes every completion there is. Returns whether the caller has to hear of it. */
static bool reap(struct uring *u, struct sl_io_op **done)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;
    bool heard = false;

    io_uring_for_each_cqe(&u->ring, head, cqe) {
        void *data = io_uring_cqe_get_data(cqe);
        struct sl_io_op *op = data;
        int64_t res;

        n++;
        if (data == u) {
            u->wake_armed = false;
            if (cqe->res < 0 && cqe->res != -EINTR && cqe->res != -EAGAIN)
                u->wake_err = -cqe->res;
            heard = true;
            continue;
        }
        u->under_way--;
        res = op->injected ? -op->injected : cqe->res;
        if (res == -ECANCELED) /* the kernel could not start a thread for it */
            res = sl_io_transfer(u->faults, op);
        if (sl_io_advance(op, res)) {
            op->next = *done;
            *done = op;
            heard = true;
        } else {
            op->next = NULL;
            uring_submit(u, op);
        }
    }
    io_uring_cq_advance(&u->ring, n);
    return heard;
}

static int uring_wait(void *priv, struct sl_io_op **done, struct sl_error *e)
{
    struct uring *u = priv;
    unsigned refused = 0;
    int rc;

    do {
        fill_ring(u);
        rc = io_uring_submit_and_wait(&u->ring, 1);
        if (rc == -EAGAIN || rc == -EBUSY) {
            const struct timespec ms = {0, 1000000};

            if (++refused > REFUSED_MAX)
                return sl_fail(e, SL_EFAIL, "io_uring takes no more requests: %s" WITHOUT, strerror(-rc));
            nanosleep(&ms, NULL);
        } else if (rc < 0 && rc != -EINTR) {
            return sl_fail(e, SL_EFAIL, "io_uring failed: %s" WITHOUT, strerror(-rc));
        }
    } while (!reap(u, done));
    if (u->wake_err)
        return sl_fail(e, SL_EFAIL, "io_uring cannot read an eventfd: %s" WITHOUT, strerror(u->wake_err));
    return 0;
}

static void uring_wake(void *priv)
{
    const struct uring *u = priv;
    const uint64_t one = 1;
    ssize_t n;

    do
        n = write(u->wake_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

static bool uring_registered(const void *priv)
{
    return ((const struct uring *)priv)->registered;
}

/* What the kernel has taken is brought home: the armed read points into u, and of a ring that broke
 * the others into the caller's buffers. */
static void uring_close(void *priv)
{
    struct uring *u = priv;
    struct sl_io_op *done = NULL;
    struct io_uring_cqe *cqe;
    int rc = 0;

    if (u->wake_armed)
        uring_wake(u);
    while (u->under_way + u->wake_armed > io_uring_sq_ready(&u->ring) && (rc >= 0 || rc == -EINTR)) {
        rc = io_uring_wait_cqe(&u->ring, &cqe);
        reap(u, &done);
    }
    io_uring_queue_exit(&u->ring);
    close(u->wake_fd);
    free(u);
}

const struct sl_io_backend sl_io_backend_uring = {
    "io_uring", uring_open, uring_submit, uring_wait, uring_wake, uring_registered, uring_close,
};
