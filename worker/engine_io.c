/* The I/O thread: cuts tasks into units, reads their sources into free slabs,
 * writes what comes back, and finishes tasks. */
#include "worker/engine_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Gives the finished task to sl_engine_wait. */
static void finish_task(struct sl_engine *en, struct sl_engine_task *t)
{
    sl_task_remove(&en->current, t);
    pthread_mutex_lock(&en->lock);
    if (t->code == 0 && sl_hash_final(t->sum, &t->checksum, NULL) < 0)
        t->code = sl_fail(&t->err, SL_EFAIL, "cannot hash the output");
    if (t->code < 0)
        atomic_fetch_sub(&en->members[t->member].source_bytes, t->counted);
    sl_task_push(&en->results, t);
    en->under_way--;
    pthread_cond_signal(&en->done);
    pthread_mutex_unlock(&en->lock);
}

static void finish_if_done(struct sl_engine *en, struct sl_engine_task *t)
{
    if (t->cut_done && t->settled == t->issued)
        finish_task(en, t);
}

static void settle(struct sl_engine *en, struct sl_engine_unit *u)
{
    struct sl_engine_task *t = u->task, *twin = t->twin;

    /* t may be gone once it is finished. */
    t->settled++;
    finish_if_done(en, t);
    if (twin) {
        u->task = twin;
        u->code = u->read_code;
        u->drop = false;
        sl_engine_ready(en, u);
        return;
    }
    u->next = en->free_units;
    en->free_units = u;
    en->n_free++;
}

static void start_read(struct sl_engine *en, struct sl_engine_unit *u, struct sl_engine_op *op)
{
    struct sl_unit_read r;
    struct sl_srcfile *f = NULL;
    int rc;

    op->read = u->reads_begun++;
    sl_unit_read(&en->env, &u->u, op->read, &r);
    rc = sl_srcfile_get(en->files, r.file, &f, &u->err);
    if (rc < 0) {
        u->code = rc;
        return;
    }
    op->file = r.file;
    op->tensor = r.tensor;
    op->unit = u;
    op->io.kind = SL_IO_READ;
    op->io.direct = r.big && f->direct >= 0 && !f->drop;
    if (op->io.direct) {
        uint32_t lead = (uint32_t)(r.off % SL_IO_ALIGN);

        op->io.fd = f->direct;
        op->io.off = r.off - lead;
        op->io.need = lead + r.bytes;
        op->io.len = (op->io.need + SL_IO_ALIGN - 1) / SL_IO_ALIGN * SL_IO_ALIGN;
        sl_unit_placed(&u->u, op->read, r.place + lead);
        atomic_store(&en->direct, true);
    } else {
        op->io.fd = f->fd;
        op->io.off = r.off;
        op->io.need = op->io.len = r.bytes;
        sl_unit_placed(&u->u, op->read, r.place);
    }
    op->io.buf = u->slab + r.place;
    u->pending++;
    sl_io_submit(en->io, &op->io);
}

static void read_failed(struct sl_engine *en, struct sl_engine_op *op)
{
    struct sl_engine_unit *u = op->unit;
    const char *path = en->env.ck->files[op->file].path;
    const char *name = en->env.ck->tensors[op->tensor].name;

    if (u->code < 0)
        return;
    if (op->io.err == SL_IO_END_OF_FILE)
        u->code = sl_fail(&u->err, SL_ESOURCE, "'%s' got shorter while it was read: tensor '%s' ends at "
                          "byte %llu, the file at %llu; restore it, or begin anew (convert and submit: with --force)", path, name,
                          (unsigned long long)(op->io.off + op->io.need),
                          (unsigned long long)(op->io.off + op->io.got));
    else
        u->code = sl_fail(&u->err, sl_source_code(op->io.err), "cannot read tensor '%s' in '%s' at byte %llu: %s", name,
                          path, (unsigned long long)(op->io.off + op->io.got), strerror(op->io.err));
}

static void reads_done(struct sl_engine *en, struct sl_engine_unit *u)
{
    u->read_code = u->code;
    sl_engine_ready(en, u);
}

static void read_done(struct sl_engine *en, struct sl_engine_op *op)
{
    struct sl_engine_unit *u = op->unit;
    struct sl_srcfile *f = sl_srcfile_held(en->files, op->file);

    atomic_fetch_add(&en->read_bytes, op->io.got);
    if (op->io.err == EINVAL && op->io.direct) {
        sl_srcfile_refuse_direct(en->files, op->file);
        op->io.fd = f->fd;
        op->io.direct = false;
        sl_io_submit(en->io, &op->io);
        return;
    }
    if (op->io.err)
        read_failed(en, op);
    else if (u->code == 0)
        u->code = sl_srcfile_unchanged(en->files, op->file, &u->err);
    if (!op->io.direct && f->drop)
        posix_fadvise(f->fd, (off_t)op->io.off, op->io.len, POSIX_FADV_DONTNEED);
    sl_srcfile_put(en->files, op->file);
    u->pending--;
    if (u->code == 0 && u->reads_begun < u->u.n_reads)
        start_read(en, u, op);
    if (!u->pending) {
        sl_gauge_add(&en->reading, -1);
        reads_done(en, u);
    }
}

/* Returns a descriptor or -errno; a FIFO's other end is not waited for, and nothing goes into it. */
static int open_segment(struct sl_engine *en, const char *path, int flags)
{
    int fd = sl_sys_open(en->opts.faults, path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | flags), err = 0;
    struct stat st;

    if (fd < 0)
        return fd;
    if (fstat(fd, &st) != 0 || fcntl(fd, F_SETFL, flags) != 0)
        err = errno;
    else if (S_ISFIFO(st.st_mode))
        err = ENXIO;
    if (err)
        close(fd);
    return err ? -err : fd;
}

static struct sl_segment *segment(struct sl_engine *en, struct sl_member *m, uint32_t i, int *err)
{
    struct sl_segment *s = &m->segments[i];
    const char *path = m->segment_paths[i];
    bool direct = sl_engine_opens_direct(en->opts.direct, m->env.plan->segments[i].file_bytes);

    *err = 0;
    if (s->fd < 0)
        s->fd = open_segment(en, path, 0);
    if (s->fd < 0) {
        *err = -s->fd;
        s->fd = -1;
        return NULL;
    }
    if (s->direct == -1 && direct)
        s->direct = open_segment(en, path, O_DIRECT);
    if (s->direct < 0)
        s->direct = SL_NO_DIRECT;
    return s;
}

static void write_failed(struct sl_engine *en, struct sl_engine_unit *u, uint32_t seg, int err)
{
    const char *path = en->members[u->task->member].segment_paths[seg];
    int code = sl_write_code(err);

    if (code == SL_ENOSPACE)
        u->code = sl_fail(&u->err, code, "no room left for '%s' (%s): free some and run again", path,
                          strerror(err));
    else
        u->code = sl_fail(&u->err, code, "cannot write '%s': %s", path, strerror(err));
    pthread_mutex_lock(&en->lock);
    sl_task_fail(u->task, u->index, u->code, &u->err);
    pthread_mutex_unlock(&en->lock);
}

/* Whatever was there before is gone then. Returns false where the zeros must be
 * written: a filesystem without holes. */
static bool make_hole(struct sl_engine *en, struct sl_engine_unit *u, int fd)
{
    uint32_t seg = u->op[0].file;
    int err = -sl_sys_punch(en->opts.faults, fd, u->u.file_at, u->u.out_bytes);

    if (err == EOPNOTSUPP || err == ENOSYS)
        return false;
    if (err)
        write_failed(en, u, seg, err);
    else
        atomic_fetch_add(&en->hole_bytes, u->u.out_bytes);
    atomic_store(&en->members[u->task->member].segments[seg].dirty, true);
    settle(en, u);
    return true;
}

static void push_write(struct sl_engine *en, struct sl_engine_unit *u, bool direct, uint64_t from,
                       uint64_t to)
{
    const struct sl_segment *s = &en->members[u->task->member].segments[u->op[0].file];
    struct sl_engine_op *op = &u->op[u->pending];

    if (from == to)
        return;
    op->unit = u;
    op->file = u->op[0].file;
    op->io.kind = SL_IO_WRITE;
    op->io.fd = direct ? s->direct : s->fd;
    op->io.direct = direct;
    op->io.buf = u->slab + u->u.out_at + (from - u->u.file_at);
    op->io.off = from;
    op->io.len = (uint32_t)(to - from);
    u->pending++;
    sl_io_submit(en->io, &op->io);
}

/* A page of the page cache, 4 to 64 KiB: direct and buffered writes must not meet in one, or the
 * kernel reports EIO at the next sync. */
static uint64_t cache_page(void)
{
    long page = sysconf(_SC_PAGESIZE);

    return page > (long)SL_IO_ALIGN ? (uint64_t)page : SL_IO_ALIGN;
}

/* The whole pages go past the page cache; what shares its page with a neighbour does not. */
static void start_write(struct sl_engine *en, struct sl_engine_unit *u)
{
    struct sl_member *m = &en->members[u->task->member];
    uint32_t seg = m->env.plan->tensors[u->u.tensor].segment;
    uint64_t from = u->u.file_at, to = from + u->u.out_bytes;
    uint64_t page = cache_page(), first = (from + page - 1) / page * page, last = to / page * page;
    int err = 0;
    struct sl_segment *s;

    if (u->drop) {
        settle(en, u);
        return;
    }
    s = segment(en, m, seg, &err);
    if (!s) {
        write_failed(en, u, seg, err);
        settle(en, u);
        return;
    }
    u->op[0].file = seg;
    if (u->zeros && make_hole(en, u, s->fd))
        return;
    sl_gauge_add(&en->writing, 1);
    if (s->direct < 0 || s->refused || u->u.out_bytes < SL_UNIT_BIG || first >= last ||
        (u->u.out_at ^ from) % SL_IO_ALIGN) {
        push_write(en, u, false, from, to);
        return;
    }
    atomic_store_explicit(&en->direct_out, true, memory_order_relaxed);
    push_write(en, u, false, from, first);
    push_write(en, u, true, first, last);
    push_write(en, u, false, last, to);
}

static void write_done(struct sl_engine *en, struct sl_engine_op *op)
{
    struct sl_engine_unit *u = op->unit;
    struct sl_segment *s = &en->members[u->task->member].segments[op->file];

    atomic_fetch_add(&en->written_bytes, op->io.got);
    atomic_store(&s->dirty, true);
    if (op->io.err == EINVAL && op->io.direct) {
        s->refused = true;
        op->io.fd = s->fd;
        op->io.direct = false;
        sl_io_submit(en->io, &op->io);
        return;
    }
    if (op->io.err)
        write_failed(en, u, op->file, op->io.err);
    if (--u->pending)
        return;
    sl_gauge_add(&en->writing, -1);
    settle(en, u);
}

/* rc: how the last cut ended. */
static void end_cutting(struct sl_engine *en, struct sl_engine_task *t, int rc, const struct sl_error *err)
{
    en->cutting = NULL;
    while (t) {
        struct sl_engine_task *twin = t->twin;

        t->cut_done = true;
        if (rc < 0) {
            pthread_mutex_lock(&en->lock);
            sl_task_fail(t, t->issued, rc, err);
            pthread_mutex_unlock(&en->lock);
        }
        finish_if_done(en, t);
        t = twin;
    }
}

static void issue(struct sl_engine *en, struct sl_engine_task *t)
{
    struct sl_engine_unit *u = en->free_units;
    bool wanted = false;
    int rc = 0;

    pthread_mutex_lock(&en->lock);
    for (const struct sl_engine_task *m = t; m; m = m->twin)
        wanted |= m->code == 0;
    pthread_mutex_unlock(&en->lock);
    if (wanted)
        rc = sl_cut_next(&en->env, &t->cut, &u->u, &u->err);
    if (rc <= 0) {
        end_cutting(en, t, rc, &u->err);
        return;
    }
    en->free_units = u->next;
    en->n_free--;
    u->task = t;
    u->index = t->issued;
    for (struct sl_engine_task *m = t; m; m = m->twin)
        m->issued++;
    u->code = 0;
    u->drop = false;
    u->reads_begun = 0;
    u->pending = 0;
    for (unsigned i = 0; i < SL_UNIT_OPS && u->code == 0 && u->reads_begun < u->u.n_reads; i++)
        start_read(en, u, &u->op[i]);
    if (u->pending)
        sl_gauge_add(&en->reading, 1);
    else
        reads_done(en, u);
}

/* Takes over what other threads left. Returns the units that are to be written. */
static struct sl_engine_unit *take_over(struct sl_engine *en, bool *stop)
{
    struct sl_engine_unit *back;

    pthread_mutex_lock(&en->lock);
    back = en->back;
    en->back = NULL;
    en->back_tail = &en->back;
    *stop = en->stop;
    if (!en->cutting && !en->stop && en->n_free) {
        en->cutting = sl_task_pop(&en->queue);
        for (struct sl_engine_task *t = en->cutting; t; t = t->twin)
            sl_task_push(&en->current, t);
    } else if (en->cutting && en->stop) {
        struct sl_error err;

        sl_fail(&err, SL_EINTERRUPTED, "stopped");
        for (struct sl_engine_task *t = en->cutting; t; t = t->twin)
            sl_task_fail(t, UINT64_MAX, SL_EINTERRUPTED, &err);
    }
    pthread_mutex_unlock(&en->lock);
    return back;
}

static bool more_queued(struct sl_engine *en)
{
    bool more;

    pthread_mutex_lock(&en->lock);
    more = en->queue.head != NULL;
    pthread_mutex_unlock(&en->lock);
    return more;
}

/* One round: write, read, sleep, take completions. Returns 1 when all is over. */
static int round_once(struct sl_engine *en, struct sl_error *e)
{
    struct sl_engine_unit *back;
    struct sl_io_op *done = NULL;
    uint64_t since;
    bool stop;

    do {
        back = take_over(en, &stop);
        while (back) {
            struct sl_engine_unit *u = back;

            back = u->next;
            start_write(en, u);
        }
        while (en->cutting && en->n_free)
            issue(en, en->cutting);
    } while (en->n_free && !stop && more_queued(en));
    if (stop && !en->cutting && en->n_free == en->slabs.n)
        return 1;
    since = en->cutting && !en->n_free ? sl_now_ns() : 0;
    SL_TRY(sl_io_wait(en->io, &done, e));
    if (since)
        atomic_fetch_add(&en->slab_wait_ns, sl_now_ns() - since);
    while (done) {
        struct sl_engine_op *op = (struct sl_engine_op *)(void *)done;

        done = done->next;
        if (op->io.kind == SL_IO_READ)
            read_done(en, op);
        else
            write_done(en, op);
    }
    return 0;
}

static int start(struct sl_engine *en, struct sl_error *e)
{
    const struct sl_io_conf c = {.depth = 2 * en->slabs.n, .arena = en->slabs.base,
                                 .slab_bytes = en->slabs.slab_bytes, .slabs = en->slabs.n,
                                 .faults = en->opts.faults};

    SL_TRY(sl_srcfiles_open(en->env.ck, en->opts.direct, en->opts.faults, &en->files, e));
    return sl_io_open(en->opts.io, &c, &en->io, e);
}

void *sl_engine_io_thread(void *arg)
{
    struct sl_engine *en = arg;
    struct sl_error err = {0, ""};
    int rc = start(en, &err);

    pthread_mutex_lock(&en->lock);
    en->io_up = rc == 0;
    en->io_name = rc == 0 ? sl_io_name(en->io) : "none";
    en->registered = rc == 0 && sl_io_registered(en->io);
    pthread_cond_broadcast(&en->done);
    while (rc == 0) {
        pthread_mutex_unlock(&en->lock);
        rc = round_once(en, &err);
        pthread_mutex_lock(&en->lock);
    }
    if (rc < 0) {
        en->broken = true;
        en->err = err;
    }
    en->io_up = false;
    en->no_more = true;
    pthread_cond_broadcast(&en->work);
    pthread_cond_broadcast(&en->help);
    pthread_cond_broadcast(&en->done);
    pthread_mutex_unlock(&en->lock);
    sl_io_close(en->io);
    sl_srcfiles_close(en->files);
    return NULL;
}
