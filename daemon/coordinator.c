#include "daemon/coord_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int coord_grow(void *array, uint32_t n, uint32_t *cap, size_t size, struct sl_error *e)
{
    void **a = array, *p;
    uint32_t want = *cap ? *cap * 2 : 8;

    if (n < *cap)
        return 0;
    p = realloc(*a, want * size);
    if (!p)
        return sl_fail(e, SL_EFAIL, "out of memory");
    *a = p;
    *cap = want;
    return 0;
}

/* ---- sessions */

struct session *coord_session(struct sl_coord *c, uint64_t peer)
{
    for (uint32_t i = 0; i < c->n_sessions; i++)
        if (c->sessions[i]->peer == peer)
            return c->sessions[i];
    return NULL;
}

struct worker *coord_worker(struct sl_coord *c, const char *instance)
{
    for (uint32_t i = 0; i < c->n_workers; i++)
        if (strcmp(c->workers[i]->instance, instance) == 0)
            return c->workers[i];
    return NULL;
}

static void free_session(struct session *s)
{
    free(s->watch_jobs);
    free(s->waits);
    free(s);
}

static void free_worker(struct worker *w)
{
    free(w->held);
    free(w->specs);
    cJSON_Delete(w->gpus);
    free(w);
}

void coord_drop_session(struct sl_coord *c, struct session *s)
{
    if (s->worker && s->worker->peer == s->peer) {
        s->worker->peer = 0;
        s->worker->want = 0;
        s->worker->n_specs = 0;
        s->worker->rate = 0;
    }
    for (uint32_t i = 0; i < c->n_sessions; i++)
        if (c->sessions[i] == s)
            c->sessions[i] = c->sessions[--c->n_sessions];
    free_session(s);
}

/* Workers that are gone and hold nothing leave the memory. */
static void sweep_workers(struct sl_coord *c)
{
    for (uint32_t i = 0; i < c->n_workers;) {
        struct worker *w = c->workers[i];

        if (w->peer || w->n_held) {
            i++;
            continue;
        }
        c->workers[i] = c->workers[--c->n_workers];
        free_worker(w);
    }
}

/* ---- messages out */

static int leave(struct sl_coord *c, struct sl_outgoing m, struct sl_error *e)
{
    if (coord_grow(&c->out, c->n_out, &c->cap_out, sizeof *c->out, e) < 0) {
        free(m.bytes);
        return SL_EFAIL;
    }
    c->out[c->n_out++] = m;
    return 0;
}

/* A grant may overtake answers to tasks, but not what decides whether it is understood. */
static bool may_pass(const struct sl_coord *c, uint64_t peer)
{
    for (uint32_t i = 0; i < c->n_waiting; i++)
        if (c->waiting[i].m.peer == peer && c->waiting[i].id != SL_M_ACK && c->waiting[i].id != SL_M_NACK &&
            c->waiting[i].id != SL_M_PONG && c->waiting[i].id != SL_M_PING)
            return false;
    return true;
}

static int enqueue(struct sl_coord *c, struct sl_outgoing m, enum sl_message_id id, bool early,
                   struct sl_error *e)
{
    if (early && may_pass(c, m.peer))
        return leave(c, m, e);
    if (coord_grow(&c->waiting, c->n_waiting, &c->cap_waiting, sizeof *c->waiting, e) < 0) {
        free(m.bytes);
        return SL_EFAIL;
    }
    c->waiting[c->n_waiting++] = (struct waiting){m, c->tx, id};
    return 0;
}

/* Takes m. What cannot be said (too large) becomes an error that says so. */
static int send_message(struct sl_coord *c, uint64_t peer, struct sl_msg *m, bool early,
                        struct sl_error *e)
{
    struct session *s = coord_session(c, peer);
    uint8_t *bytes = NULL;
    struct sl_error why;
    size_t n = 0;
    int rc = sl_wire_encode(m, &bytes, &n, &why);

    if (s)
        s->sent_ms = c->now.boot_ms;
    if (rc == 0) {
        enum sl_message_id id = m->id;

        sl_msg_free(m);
        return enqueue(c, (struct sl_outgoing){peer, bytes, n}, id, early, e);
    }
    if (m->id != SL_M_ERROR) {
        char re[65] = "";
        const char *was = sl_get_str(m->tree, "re");

        snprintf(re, sizeof re, "%s", was ? was : "");
        sl_msg_free(m);
        return coord_refuse(c, peer, re, NULL, &why, e);
    }
    sl_msg_free(m);
    return sl_fail(e, SL_EFAIL, "%s", why.text);
}

int coord_send(struct sl_coord *c, uint64_t peer, struct sl_msg *m, struct sl_error *e)
{
    return send_message(c, peer, m, false, e);
}

int coord_send_early(struct sl_coord *c, uint64_t peer, struct sl_msg *m, struct sl_error *e)
{
    return send_message(c, peer, m, true, e);
}

int coord_refuse(struct sl_coord *c, uint64_t peer, const char *re, const char *name,
                 const struct sl_error *why, struct sl_error *e)
{
    struct sl_msg m;

    c->stats.refused++;
    SL_TRY(sl_msg_new(SL_M_ERROR, re, &m, e));
    sl_put_uint(m.tree, "code", (uint64_t)-why->code);
    sl_put_str(m.tree, "text", why->text);
    if (name && *name)
        sl_put_str(m.tree, "message", name);
    return coord_send(c, peer, &m, e);
}

static int send_simple(struct sl_coord *c, uint64_t peer, enum sl_message_id id, const char *re,
                       const char *field, uint64_t v, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(id, re, &m, e));
    if (field)
        sl_put_uint(m.tree, field, v);
    return coord_send(c, peer, &m, e);
}

int coord_event(struct sl_coord *c, const char *kind, const struct job *j, int64_t task,
                const char *worker, struct sl_error *e, const char *fmt, ...)
{
    struct pending_event *p;
    va_list ap;

    SL_TRY(coord_grow(&c->events, c->n_events, &c->cap_events, sizeof *c->events, e));
    p = &c->events[c->n_events];
    va_start(ap, fmt);
    vsnprintf(p->text, sizeof p->text, fmt, ap);
    va_end(ap);
    snprintf(p->worker, sizeof p->worker, "%s", worker ? worker : "");
    snprintf(p->kind, sizeof p->kind, "%s", kind);
    p->ev = (struct sl_event){.time_ms = c->now.wall_ms, .job = j ? j->id : 0, .task = task,
                              .worker = p->worker, .kind = p->kind, .text = p->text};
    SL_TRY(sl_queue_add_event(c->q, &p->ev, e));
    c->n_events++;
    return coord_tell_watchers(c, &p->ev, e);
}

/* ---- messages in */

static int dispatch(struct sl_coord *c, const struct sl_peer *from, const struct sl_msg *m,
                    const char *re, struct sl_error *e)
{
    struct session *s = coord_session(c, from->id);

    if (m->id == SL_M_HELLO)
        return coord_on_hello(c, from, m, re, e);
    if (!s)
        return send_simple(c, from->id, SL_M_REHELLO, re, NULL, 0, e);
    s->seen_ms = c->now.boot_ms;
    if (s->worker) {
        s->worker->seen_ms = c->now.boot_ms;
        s->worker->silent = false;
    }
    if (m->id == SL_M_PING)
        return send_simple(c, from->id, SL_M_PONG, re, "n", sl_get_uint(m->tree, "n", 0), e);
    if (m->id == SL_M_PONG)
        return 0;
    if (m->id == SL_M_BYE && !s->worker) {
        coord_drop_session(c, s);
        return 0;
    }
    return s->worker ? coord_on_work(c, s, m, e) : coord_on_client(c, s, m, re, e);
}

/* A commit is under way: may this message be taken all the same? */
static bool needs_no_queue(const struct session *s, const struct sl_msg *m)
{
    return s && !s->in_order && (m->id == SL_M_PULL || m->id == SL_M_PROGRESS || m->id == SL_M_GPUS || m->id == SL_M_PING ||
                                 m->id == SL_M_PONG);
}

/* Takes m. */
static int defer(struct sl_coord *c, struct session *s, const struct sl_peer *from, struct sl_msg *m,
                 const char *re, struct sl_error *e)
{
    struct deferred *d;

    if (coord_grow(&c->deferred, c->n_deferred, &c->cap_deferred, sizeof *c->deferred, e) < 0) {
        sl_msg_free(m);
        return SL_EFAIL;
    }
    d = &c->deferred[c->n_deferred++];
    *d = (struct deferred){.from = *from, .m = *m};
    snprintf(d->re, sizeof d->re, "%s", re);
    if (s) {
        s->seen_ms = c->now.boot_ms;
        s->in_order |= m->id == SL_M_HELLO || m->id == SL_M_BYE;
    }
    return 0;
}

uint64_t sl_coord_committing(const struct sl_coord *c)
{
    return c->committing ? c->tx - 1 : 0;
}

bool sl_coord_full(const struct sl_coord *c)
{
    return c->n_deferred >= 1024;
}

int sl_coord_receive(struct sl_coord *c, const struct sl_peer *from, const uint8_t *bytes,
                     size_t n, struct sl_now now, struct sl_error *e)
{
    char re[65], name[33];
    struct sl_error why = {0};
    struct session *s;
    struct sl_msg m;
    unsigned side = SL_FROM_WORKER | SL_FROM_CLIENT;
    int rc;

    c->now = now;
    c->stats.messages++;
    if (c->broken)
        return 0; /* the sender repeats it */
    s = coord_session(c, from->id);
    if (s)
        side = s->worker ? SL_FROM_WORKER : SL_FROM_CLIENT;
    if (sl_wire_decode(bytes, n, side, &m, re, name, &why) < 0) {
        rc = coord_refuse(c, from->id, re, name, &why, e);
    } else if (c->committing && !needs_no_queue(s, &m)) {
        rc = defer(c, s, from, &m, re, e);
    } else {
        rc = dispatch(c, from, &m, re, e);
        sl_msg_free(&m);
    }
    c->broken |= rc < 0;
    return rc;
}

/* ---- time */

static int expire_worker(struct sl_coord *c, struct worker *w, struct sl_error *e)
{
    for (uint32_t i = 0; i < w->n_held;) {
        struct job *j = w->held[i].job;
        uint32_t task = w->held[i].task;
        const struct task *t = coord_task(j, task);
        uint64_t since = t->granted_ms > w->progress_ms ? t->granted_ms : w->progress_ms;

        if (c->now.boot_ms < since + c->o.lease_ms) {
            i++;
            continue;
        }
        c->stats.expired++;
        SL_TRY(coord_event(c, "lease_lost", j, task, w->name, e,
                           "no progress for %u ms; the task goes back", c->o.lease_ms));
        if (w->peer) {
            struct sl_msg m;

            SL_TRY(sl_msg_new(SL_M_REVOKE, NULL, &m, e));
            sl_put_uint(m.tree, "job", j->id);
            sl_put_uints(m.tree, "tasks", (uint64_t[]){task}, 1);
            sl_put_str(m.tree, "text", "no progress: the lease has expired");
            SL_TRY(coord_send(c, w->peer, &m, e));
        }
        SL_TRY(coord_return(c, j, task, e));
    }
    return 0;
}

static int tick_session(struct sl_coord *c, struct session *s, bool *gone, struct sl_error *e)
{
    uint64_t beat = c->o.heartbeat_ms, now = c->now.boot_ms;

    *gone = now >= s->seen_ms + SILENT_BEATS * beat;
    if (!*gone && now >= s->sent_ms + beat)
        return send_simple(c, s->peer, SL_M_PING, NULL, "n", 0, e);
    if (*gone && s->worker) {
        s->worker->silent = true;
        return coord_event(c, "worker_silent", NULL, -1, s->worker->name, e,
                           "nothing heard for %llu ms; %u leases run on",
                           (unsigned long long)(now - s->seen_ms), s->worker->n_held);
    }
    return 0;
}

int sl_coord_tick(struct sl_coord *c, struct sl_now now, struct sl_error *e)
{
    int rc = 0;

    c->now = now;
    c->tick_due = c->committing;
    if (c->broken || c->committing)
        return 0;
    for (uint32_t i = 0; rc == 0 && i < c->n_workers; i++)
        rc = expire_worker(c, c->workers[i], e);
    for (uint32_t i = 0; rc == 0 && i < c->n_sessions;) {
        bool gone;

        rc = tick_session(c, c->sessions[i], &gone, e);
        if (gone)
            coord_drop_session(c, c->sessions[i]);
        else
            i++;
    }
    if (rc == 0)
        rc = coord_status(c, e);
    sweep_workers(c);
    c->broken |= rc < 0;
    return rc;
}

/* ---- commit */

static void drop_deferred(struct sl_coord *c)
{
    for (uint32_t i = 0; i < c->n_deferred; i++)
        sl_msg_free(&c->deferred[i].m);
    c->n_deferred = 0;
}

static void drop_waiting(struct sl_coord *c)
{
    for (uint32_t i = 0; i < c->n_waiting; i++)
        free(c->waiting[i].m.bytes);
    c->n_waiting = 0;
}

/* What waited for transactions up to `synced` may leave. */
static int release(struct sl_coord *c, uint64_t synced, struct sl_error *e)
{
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < c->n_waiting; i++) {
        if (c->waiting[i].tx > synced || rc < 0)
            c->waiting[n++] = c->waiting[i];
        else
            rc = leave(c, c->waiting[i].m, e);
    }
    c->n_waiting = n;
    return rc;
}

/* Reads everything again; peers say hello anew, so that held tasks are settled.
 * Grants that left early are not in the queue: their holders will name them. */
static int recover(struct sl_coord *c, struct sl_error *e)
{
    sl_queue_rollback(c->q);
    drop_waiting(c);
    drop_deferred(c);
    c->n_events = c->n_grants = c->n_unwritten = 0;
    coord_forget_jobs(c);
    for (uint32_t i = 0; i < c->n_workers; i++)
        c->workers[i]->n_held = 0;
    c->synced = c->tx++;
    c->tx_ms = 0;
    c->adoptable = sl_queue_last_epoch(c->q);
    SL_TRY(coord_load_jobs(c, 0, e));
    c->broken = false;
    while (c->n_sessions > 0) {
        uint64_t peer = c->sessions[0]->peer;

        coord_drop_session(c, c->sessions[0]);
        SL_TRY(send_simple(c, peer, SL_M_REHELLO, NULL, NULL, 0, e));
    }
    return release(c, c->tx, e);
}

/* A commit has succeeded, or there was nothing to commit. */
static int committed(struct sl_coord *c, uint64_t tx, struct sl_error *e)
{
    c->synced = tx;
    c->epochs_synced = sl_queue_epochs_synced(c->q);
    SL_TRY(release(c, tx, e));
    for (uint32_t i = 0; i < c->n_events && c->o.on_event; i++) {
        struct pending_event *p = &c->events[i];

        p->ev.worker = p->worker;
        p->ev.kind = p->kind;
        p->ev.text = p->text;
        c->o.on_event(c->o.user, &p->ev);
    }
    c->n_events = 0;
    coord_sweep_ended(c);
    return 0;
}

/* The queue is free: what came meanwhile is done, grants first, since results may be theirs. */
static int catch_up(struct sl_coord *c, struct sl_error *e)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < c->n_unwritten; i++) {
        const struct unwritten *u = &c->unwritten[i];
        const struct sl_new_lease l = {u->job, u->epoch, u->task, u->worker, u->owner};

        SL_TRY(rc = sl_queue_lease(c->q, &l, e));
        rc = rc == 1 ? 0 : sl_fail(e, SL_EFAIL, "queue: task %u of job %llu is not ready on disk", u->task,
                                   (unsigned long long)u->job);
    }
    c->n_unwritten = 0;
    for (uint32_t i = 0; i < c->n_sessions; i++)
        c->sessions[i]->in_order = false;
    for (uint32_t i = 0; rc == 0 && i < c->n_deferred; i++)
        rc = dispatch(c, &c->deferred[i].from, &c->deferred[i].m, c->deferred[i].re, e);
    drop_deferred(c);
    if (rc == 0 && c->tick_due)
        rc = sl_coord_tick(c, c->now, e);
    return rc;
}

/* Takes the end of the commit under way. */
static int end_commit(struct sl_coord *c, bool wait, struct sl_error *e)
{
    int rc = sl_committer_end(c->committer, wait, e);

    if (rc == 1)
        return 0;
    c->committing = false;
    SL_TRY(rc);
    c->stats.commits++;
    SL_TRY(committed(c, c->tx - 1, e));
    return catch_up(c, e);
}

static int begin_commit(struct sl_coord *c, struct sl_error *e)
{
    uint64_t tx = c->tx++;

    c->tx_ms = 0;
    if (c->committer) {
        c->committing = true;
        sl_committer_begin(c->committer);
        return 0;
    }
    SL_TRY(sl_queue_commit(c->q, e));
    c->stats.commits++;
    return committed(c, tx, e);
}

static int flush(struct sl_coord *c, bool all, struct sl_error *e)
{
    if (c->committing)
        SL_TRY(end_commit(c, all, e));
    SL_TRY(coord_schedule(c, e));
    if (c->committing)
        return 0;
    if (!sl_queue_uncommitted(c->q))
        return committed(c, c->tx, e);
    if (!c->tx_ms)
        c->tx_ms = c->now.boot_ms;
    if (all || c->n_waiting || c->n_events || c->now.boot_ms >= c->tx_ms + SL_COORD_LEASES_MS)
        return begin_commit(c, e);
    return 0;
}

static int flush_or_recover(struct sl_coord *c, struct sl_now now, bool all, struct sl_error *e)
{
    struct sl_error later;
    int rc = 0;

    c->now = now;
    if (!c->broken)
        rc = flush(c, all, e);
    if (!c->broken && rc == 0)
        return 0;
    c->broken = true;
    if (recover(c, &later) < 0 && rc == 0) {
        *e = later;
        rc = later.code;
    }
    return rc;
}

int sl_coord_flush(struct sl_coord *c, struct sl_now now, struct sl_error *e)
{
    return flush_or_recover(c, now, false, e);
}

int sl_coord_settle(struct sl_coord *c, struct sl_now now, struct sl_error *e)
{
    do
        SL_TRY(flush_or_recover(c, now, true, e));
    while (c->committing || sl_queue_uncommitted(c->q));
    return 0;
}

int sl_coord_next(struct sl_coord *c, struct sl_outgoing *out)
{
    if (c->next_out == c->n_out) {
        c->next_out = c->n_out = 0;
        return 0;
    }
    *out = c->out[c->next_out++];
    return 1;
}

void sl_coord_gone(struct sl_coord *c, uint64_t peer)
{
    struct session *s = coord_session(c, peer);

    if (s)
        coord_drop_session(c, s);
}

void sl_coord_say_bye(struct sl_coord *c, const char *text)
{
    struct sl_error e;

    for (uint32_t i = 0; i < c->n_sessions; i++) {
        struct sl_msg m;

        if (sl_msg_new(SL_M_BYE, NULL, &m, &e) < 0)
            return;
        sl_put_str(m.tree, "text", text);
        if (coord_send(c, c->sessions[i]->peer, &m, &e) < 0)
            return;
    }
    if (release(c, c->tx, &e) < 0)
        drop_waiting(c);
}

/* ---- opening */

int sl_coord_open(struct sl_queue *q, const struct sl_coord_opts *o, struct sl_now now,
                  struct sl_coord **out, struct sl_error *e)
{
    struct sl_coord *c = calloc(1, sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return sl_fail(e, SL_EFAIL, "out of memory");
    c->q = q;
    c->o = *o;
    c->o.heartbeat_ms = o->heartbeat_ms ? o->heartbeat_ms : 5000;
    c->o.lease_ms = o->lease_ms ? o->lease_ms : 60000;
    c->o.attempts = o->attempts ? o->attempts : 5;
    c->o.quarantine_workers = o->quarantine_workers ? o->quarantine_workers : 3;
    c->now = c->opened = now;
    c->tx = 1;
    /* Whatever the last process reserved it may have given. */
    c->adoptable = sl_queue_last_epoch(q);
    rc = coord_load_jobs(c, 0, e);
    if (rc == 0)
        rc = sl_queue_commit(q, e);
    c->epochs_synced = sl_queue_epochs_synced(q);
    if (rc == 0 && o->background)
        rc = sl_committer_open(q, o->wake_fd, &c->committer, e);
    if (rc < 0) {
        sl_coord_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void sl_coord_close(struct sl_coord *c)
{
    if (!c)
        return;
    sl_committer_close(c->committer);
    coord_forget_jobs(c);
    drop_waiting(c);
    drop_deferred(c);
    for (uint32_t i = 0; i < c->n_sessions; i++)
        free_session(c->sessions[i]);
    for (uint32_t i = 0; i < c->n_workers; i++)
        free_worker(c->workers[i]);
    for (uint32_t i = c->next_out; i < c->n_out; i++)
        free(c->out[i].bytes);
    free(c->sessions);
    free(c->workers);
    free(c->jobs);
    free(c->out);
    free(c->waiting);
    free(c->deferred);
    free(c->unwritten);
    free(c->grants);
    free(c->events);
    free(c);
}

void sl_coord_stats(const struct sl_coord *c, struct sl_coord_stats *out)
{
    *out = c->stats;
    memset(out->jobs, 0, sizeof out->jobs);
    out->workers = out->clients = out->leased = out->ready = 0;
    for (uint32_t i = 0; i < c->n_jobs; i++) {
        out->jobs[c->jobs[i]->state]++;
        out->ready += c->jobs[i]->n_ready;
        out->leased += c->jobs[i]->n_leased;
    }
    for (uint32_t i = 0; i < c->n_sessions; i++)
        *(c->sessions[i]->worker ? &out->workers : &out->clients) += 1;
    out->n_gpus = 0;
    for (uint32_t i = 0; i < c->n_workers; i++)
        if (c->workers[i]->peer && !c->workers[i]->silent)
            coord_gpu_stats(c->workers[i], out);
}
