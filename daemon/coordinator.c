#include "daemon/coord_priv.h"

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
        return sl_no_memory(e);
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
    free(w->lacks);
    free(w->specs);
    cJSON_Delete(w->gpus);
    free(w);
}

void coord_drop_session(struct sl_coord *c, struct session *s)
{
    if (s->worker && s->worker->peer == s->peer) {
        coord_note_left(c, s->worker);
        s->worker->peer = 0;
        coord_turns_changed(c);
        s->worker->want = 0;
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

/* ---- messages in */

int coord_dispatch(struct sl_coord *c, const struct sl_peer *from, const struct sl_msg *m,
                   const char *re, struct sl_error *e)
{
    struct session *s = coord_session(c, from->id);

    if (m->id == SL_M_HELLO)
        return coord_on_hello(c, from, m, re, e);
    if (!s)
        return coord_send_simple(c, from->id, SL_M_REHELLO, re, NULL, 0, e);
    s->seen_ms = c->now.run_ms;
    if (s->worker) {
        s->worker->seen_ms = c->now.run_ms;
        s->worker->silent = false;
    }
    if (m->id == SL_M_PING)
        return coord_send_simple(c, from->id, SL_M_PONG, re, "n", sl_get_uint(m->tree, "n", 0), e);
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

/* The disk failed: is this one answered from what is on it? */
static bool only_reads(const struct session *s, const struct sl_msg *m)
{
    switch (m->id) {
    case SL_M_HELLO:
        return strcmp(sl_get_str(m->tree, "role"), "worker") != 0;
    case SL_M_LIST:
    case SL_M_HISTORY:
    case SL_M_SHOW:
    case SL_M_WAIT:
    case SL_M_WATCH:
    case SL_M_UNWATCH:
    case SL_M_LOGS:
    case SL_M_WORKERS:
    case SL_M_ABOUT:
    case SL_M_PING:
    case SL_M_PONG:
    case SL_M_BYE:
        return true;
    default:
        return s == NULL; /* rehello */
    }
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
    /* The id is libzmq's, but on some transports a peer may choose it: no session for that. */
    if (s && strcmp(s->user, from->user) != 0) {
        coord_drop_session(c, s);
        s = NULL;
    }
    if (s)
        side = s->worker ? SL_FROM_WORKER : SL_FROM_CLIENT;
    rc = sl_wire_decode(bytes, n, side, &m, re, name, &why);
    if (rc == SL_EFAIL) { /* memory: no fault of the sender's */
        *e = why;
    } else if (rc < 0) {
        rc = strcmp(name, "hello") == 0 ? coord_refuse_hello(c, from, re, &why, e)
                                        : coord_refuse(c, from->id, re, name, &why, e);
    } else if (coord_refuses_changes(c) && s && !s->worker && !only_reads(s, &m)) {
        rc = coord_refuse_change(c, from->id, re, m.id, e);
        sl_msg_free(&m);
    } else if (c->committing ? !needs_no_queue(s, &m) : c->failed.code && !only_reads(s, &m)) {
        rc = coord_defer(c, s, from, &m, re, e);
    } else {
        rc = coord_dispatch(c, from, &m, re, e);
        sl_msg_free(&m);
    }
    return coord_broke(c, rc, e);
}

/* ---- time */

static int expire_worker(struct sl_coord *c, struct worker *w, struct sl_error *e)
{
    for (uint32_t i = 0; i < w->n_held;) {
        struct job *j = w->held[i].job;
        uint32_t task = w->held[i].task;
        const struct task *t = coord_task(j, task);
        uint64_t since = t->granted_ms > w->progress_ms ? t->granted_ms : w->progress_ms;

        if (c->now.run_ms < since + c->o.lease_ms) {
            i++;
            continue;
        }
        c->stats.expired++;
        SL_TRY(coord_event(c, "lease_lost", j, task, w->name, e,
                           "no progress for %u ms; the task goes back", c->o.lease_ms));
        if (w->peer)
            SL_TRY(coord_send_revoke(c, w, j->id, &(uint64_t){task}, 1, "no progress: the lease has expired", e));
        SL_TRY(coord_lose(c, w, j, task, LOST_LEASE, e));
    }
    return 0;
}

/* Its process is gone, and with it whatever it was at: nobody has to wait for its leases. */
static int end_dead(struct sl_coord *c, struct worker *w, struct sl_error *e)
{
    struct session *s = w->peer ? coord_session(c, w->peer) : NULL;

    if (!w->process || !c->o.no_process || !c->o.no_process(c->o.user, w->process))
        return 0;
    if (s)
        SL_TRY(coord_event(c, "worker_silent", NULL, -1, w->name, e, "its process %llu is gone; %u leases go back",
                           (unsigned long long)w->process, w->n_held));
    w->process = 0;
    if (s)
        coord_drop_session(c, s);
    while (w->n_held > 0) {
        struct held h = w->held[0];

        c->stats.expired++;
        SL_TRY(coord_event(c, "lease_lost", h.job, h.task, w->name, e, "the worker's process is gone; the task goes back"));
        SL_TRY(coord_lose(c, w, h.job, h.task, LOST_PROCESS, e));
    }
    return 0;
}

static int tick_session(struct sl_coord *c, struct session *s, bool *gone, struct sl_error *e)
{
    uint64_t beat = c->o.heartbeat_ms, now = c->now.run_ms;

    *gone = s->lost || now >= s->seen_ms + SILENT_BEATS * beat;
    if (!*gone && now >= s->sent_ms + beat)
        return coord_send_simple(c, s->peer, SL_M_PING, NULL, "n", 0, e);
    if (*gone && s->worker) {
        s->worker->silent = true;
        if (s->lost)
            return coord_event(c, "worker_silent", NULL, -1, s->worker->name, e, "its connection is gone; %u leases run on",
                               s->worker->n_held);
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
    for (uint32_t i = 0; rc == 0 && !c->failed.code && i < c->n_workers; i++) {
        rc = end_dead(c, c->workers[i], e);
        if (rc == 0)
            rc = expire_worker(c, c->workers[i], e);
    }
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
    return coord_broke(c, rc, e);
}

void sl_coord_woke(struct sl_coord *c, struct sl_now now)
{
    for (uint32_t i = 0; i < c->n_workers; i++)
        c->workers[i]->progress_ms = now.run_ms;
    for (uint32_t i = 0; i < c->n_sessions; i++)
        c->sessions[i]->seen_ms = now.run_ms;
}

void sl_coord_gone(struct sl_coord *c, uint64_t peer)
{
    struct session *s = coord_session(c, peer);

    if (!s)
        return;
    s->lost = true;
    if (s->worker)
        s->worker->want = 0;
    else
        coord_drop_session(c, s);
}

void sl_coord_say_bye(struct sl_coord *c, const char *text)
{
    struct sl_error e;

    for (uint32_t i = 0; i < c->n_sessions; i++) {
        struct sl_msg m;

        if (sl_msg_new(SL_M_BYE, NULL, &m, &e) < 0)
            return;
        sl_put_text(m.tree, "text", text);
        if (coord_send(c, c->sessions[i]->peer, &m, &e) < 0)
            return;
    }
    if (coord_release(c, c->tx, &e) < 0)
        coord_drop_waiting(c);
}

/* ---- opening */

int sl_coord_open(struct sl_queue *q, const struct sl_coord_opts *o, struct sl_now now,
                  struct sl_coord **out, struct sl_error *e)
{
    struct sl_coord *c = calloc(1, sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return sl_no_memory(e);
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
        rc = coord_fail_impossible(c, e);
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
    coord_turns_free(c);
    coord_drop_waiting(c);
    coord_drop_deferred(c);
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

int coord_refuse_hello(struct sl_coord *c, const struct sl_peer *from, const char *re, const struct sl_error *why,
                       struct sl_error *e)
{
    c->refused_hellos++;
    snprintf(c->refused_hello, sizeof c->refused_hello, "%s: %s", from->user, why->text);
    return coord_refuse(c, from->id, re, "hello", why, e);
}

uint64_t sl_coord_refused_hellos(const struct sl_coord *c, const char **last)
{
    *last = c->refused_hello;
    return c->refused_hellos;
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
