#include "daemon/coord_priv.h"

#include <stdio.h>
#include <string.h>

#define DEFERRED_MAX 1024
#define DEFERRED_ROOM (32u << 20) /* more than any message needs */
#define TRY_MS 1000 /* after a commit that failed */
#define PATIENCE_MS 5000 /* of a client that would change something */

/* ---- what comes during a commit, or while the disk fails */

/* Takes out a hello that the worker of this one has said before: it gave up waiting for an answer. */
static void drop_former_hello(struct sl_coord *c, const struct sl_peer *from, const struct sl_msg *m)
{
    for (uint32_t i = 0; i < c->n_deferred; i++) {
        struct deferred *d = &c->deferred[i];

        if (d->m.id != SL_M_HELLO || strcmp(d->from.user, from->user) != 0 ||
            strcmp(sl_get_str(d->m.tree, "instance"), sl_get_str(m->tree, "instance")) != 0)
            continue;
        sl_msg_free(&d->m);
        c->deferred_room -= d->room;
        memmove(d, d + 1, (--c->n_deferred - i) * sizeof *d);
        return;
    }
}

static bool is_full(const struct sl_coord *c, size_t more)
{
    return c->n_deferred >= DEFERRED_MAX || c->deferred_room + more > DEFERRED_ROOM;
}

/* Says why its answer takes long. */
static int tell_waits(struct sl_coord *c, uint64_t peer, enum sl_message_id id, struct sl_error *e)
{
    struct sl_error why;

    sl_fail(&why, c->failed.code, "the daemon's queue failed: %.900s; what was asked waits for it", c->failed.text);
    return coord_send_error(c, peer, NULL, sl_message(id)->name, &why, e);
}

/* While the disk fails. Returns 1 when m is to be held back; 0: it is not, by who sent it a worker repeats it. */
static int make_room(struct sl_coord *c, const struct session *s, const struct sl_peer *from, const struct sl_msg *m,
                     const char *re, size_t room, struct sl_error *e)
{
    bool full;

    if (m->id == SL_M_HELLO)
        drop_former_hello(c, from, m);
    full = is_full(c, room);
    if (s && !s->worker)
        SL_TRY(full ? coord_refuse_change(c, from->id, re, m->id, e) : tell_waits(c, from->id, m->id, e));
    return !full;
}

int coord_defer(struct sl_coord *c, struct session *s, const struct sl_peer *from, struct sl_msg *m,
                const char *re, struct sl_error *e)
{
    size_t room = coord_room_of(m->tree);
    struct deferred *d;
    int rc = c->committing ? 1 : make_room(c, s, from, m, re, room, e);

    if (rc == 1)
        rc = coord_grow(&c->deferred, c->n_deferred, &c->cap_deferred, sizeof *c->deferred, e) < 0 ? SL_EFAIL : 1;
    if (rc != 1) {
        sl_msg_free(m);
        return rc;
    }
    d = &c->deferred[c->n_deferred++];
    *d = (struct deferred){.from = *from, .m = *m, .room = room};
    c->deferred_room += room;
    snprintf(d->re, sizeof d->re, "%s", re);
    if (s) {
        s->seen_ms = c->now.run_ms;
        s->in_order |= m->id == SL_M_HELLO || m->id == SL_M_BYE;
    }
    return 0;
}

void coord_drop_deferred(struct sl_coord *c)
{
    for (uint32_t i = 0; i < c->n_deferred; i++)
        sl_msg_free(&c->deferred[i].m);
    c->n_deferred = 0;
    c->deferred_room = 0;
}

bool coord_refuses_changes(const struct sl_coord *c)
{
    return !c->committing && c->failed.code && c->now.run_ms >= c->patient_ms;
}

int coord_refuse_change(struct sl_coord *c, uint64_t peer, const char *re, enum sl_message_id id, struct sl_error *e)
{
    struct sl_error why;

    sl_fail(&why, c->failed.code, "the daemon's queue failed: %.900s; nothing was changed", c->failed.text);
    return coord_refuse(c, peer, re, sl_message(id)->name, &why, e);
}

/* What clients sent and was held back; what workers sent goes on waiting. */
static int refuse_deferred(struct sl_coord *c, struct sl_error *e)
{
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < c->n_deferred; i++) {
        struct deferred *d = &c->deferred[i];
        const struct session *s = coord_session(c, d->from.id);

        if (rc < 0 || !s || s->worker) {
            c->deferred[n++] = *d;
            continue;
        }
        rc = coord_refuse_change(c, d->from.id, d->re, d->m.id, e);
        sl_msg_free(&d->m);
        c->deferred_room -= d->room;
    }
    c->n_deferred = n;
    return rc;
}

/* ---- commit */

/* Reads everything again; peers say hello anew, so that held tasks are settled.
 * Grants that left early are not in the queue: their holders will name them. */
static int recover(struct sl_coord *c, struct sl_error *e)
{
    while (c->committing) /* the queue is the thread's until it is through */
        c->committing = sl_committer_end(c->committer, true, e) == 1;
    sl_queue_rollback(c->q);
    coord_drop_waiting(c);
    coord_drop_deferred(c);
    c->n_events = c->n_grants = c->n_unwritten = 0;
    coord_forget_jobs(c);
    for (uint32_t i = 0; i < c->n_workers; i++)
        c->workers[i]->n_held = 0;
    c->synced = c->tx++;
    c->tx_ms = 0;
    c->adoptable = sl_queue_last_epoch(c->q);
    c->try_ms = c->now.run_ms + TRY_MS;
    SL_TRY(coord_load_jobs(c, 0, e));
    while (c->n_sessions > 0) {
        uint64_t peer = c->sessions[0]->peer;

        coord_drop_session(c, c->sessions[0]);
        SL_TRY(coord_send_simple(c, peer, SL_M_REHELLO, NULL, NULL, 0, e));
    }
    c->broken = false;
    return coord_release(c, c->tx, e);
}

/* A commit has succeeded, or there was nothing to commit. */
static int committed(struct sl_coord *c, uint64_t tx, struct sl_error *e)
{
    c->synced = tx;
    c->epochs_synced = sl_queue_epochs_synced(c->q);
    SL_TRY(coord_release(c, tx, e));
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
        rc = coord_dispatch(c, &c->deferred[i].from, &c->deferred[i].m, c->deferred[i].re, e);
    coord_drop_deferred(c);
    if (rc == 0 && c->tick_due)
        rc = sl_coord_tick(c, c->now, e);
    return rc;
}

/* All that was wanted is on the disk. */
static void works_again(struct sl_coord *c)
{
    c->failed.code = 0;
    c->patient_ms = 0;
}

/* Takes the end of the commit under way. */
static int end_commit(struct sl_coord *c, bool wait, struct sl_error *e)
{
    int rc = sl_committer_end(c->committer, wait, e);

    if (rc == 1)
        return 0;
    c->committing = false;
    SL_TRY(rc);
    works_again(c);
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
    works_again(c);
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
    if (!sl_queue_uncommitted(c->q)) {
        works_again(c);
        return committed(c, c->tx++, e); /* what is written from here on is not on disk yet */
    }
    if (!c->tx_ms)
        c->tx_ms = c->now.run_ms;
    if (all || c->n_waiting || c->n_events || c->now.run_ms >= c->tx_ms + SL_COORD_LEASES_MS)
        return begin_commit(c, e);
    return 0;
}

int coord_broke(struct sl_coord *c, int rc, const struct sl_error *e)
{
    if (rc < 0) {
        if (!c->patient_ms)
            c->patient_ms = c->now.run_ms + PATIENCE_MS;
        c->broken = true;
        c->failed = *e;
    }
    return rc;
}

/* While the disk fails: what only reads is answered, and a change refused when that lasts. Whether it can be written to
 * again is seen by a commit on which nothing depends; then what was held back is done. last: no more than is answered. */
static int try_disk(struct sl_coord *c, bool last, struct sl_error *e)
{
    SL_TRY(committed(c, c->tx++, e));
    if (last || c->now.run_ms < c->try_ms)
        return 0;
    c->try_ms = c->now.run_ms + TRY_MS;
    if (sl_queue_try(c->q, e) < 0) {
        struct sl_error later;

        c->failed = *e;
        if (coord_refuses_changes(c))
            SL_TRY(coord_broke(c, refuse_deferred(c, &later), &later));
        return e->code;
    }
    c->failed.code = 0;
    c->changes++; /* jobs have another reason */
    sl_coord_woke(c, c->now);
    return coord_broke(c, catch_up(c, e), e);
}

static int flush_or_recover(struct sl_coord *c, struct sl_now now, bool all, struct sl_error *e)
{
    struct sl_error later;
    int rc = 0;

    c->now = now;
    if (!c->broken && c->failed.code && !c->committing) {
        rc = try_disk(c, all, e);
        if (c->failed.code && !c->broken)
            return rc;
    }
    if (!c->broken)
        rc = coord_broke(c, flush(c, all, e), e);
    if (!c->broken)
        return 0;
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
    while (c->committing || (!c->failed.code && sl_queue_uncommitted(c->q)));
    return 0;
}

int sl_coord_failing(const struct sl_coord *c)
{
    return c->failed.code;
}

bool sl_coord_readable(const struct sl_coord *c)
{
    return !c->broken;
}

uint64_t sl_coord_committing(const struct sl_coord *c)
{
    return c->committing ? c->tx - 1 : 0;
}

bool sl_coord_full(const struct sl_coord *c)
{
    return c->committing && is_full(c, 0);
}
