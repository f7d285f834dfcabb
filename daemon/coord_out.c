#include "daemon/coord_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

/* Takes m. What cannot be said (too large) becomes an error that says so; without memory
 * nothing is said, and the caller fails: a grant must not get lost. */
static int send_message(struct sl_coord *c, uint64_t peer, struct sl_msg *m, bool early,
                        struct sl_error *e)
{
    struct session *s = coord_session(c, peer);
    uint8_t *bytes = NULL;
    struct sl_error why;
    size_t n = 0;
    int rc = sl_wire_encode(m, &bytes, &n, &why);

    if (s)
        s->sent_ms = c->now.run_ms;
    if (rc == 0) {
        enum sl_message_id id = m->id;

        sl_msg_free(m);
        return enqueue(c, (struct sl_outgoing){peer, bytes, n}, id, early, e);
    }
    if (rc != SL_EFAIL && m->id != SL_M_ERROR) {
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

int coord_send_error(struct sl_coord *c, uint64_t peer, const char *re, const char *name,
                     const struct sl_error *why, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_ERROR, re, &m, e));
    sl_put_uint(m.tree, "code", (uint64_t)-why->code);
    sl_put_text(m.tree, "text", why->text);
    if (name && *name)
        sl_put_str(m.tree, "message", name);
    return coord_send(c, peer, &m, e);
}

int coord_refuse(struct sl_coord *c, uint64_t peer, const char *re, const char *name,
                 const struct sl_error *why, struct sl_error *e)
{
    c->stats.refused++;
    return coord_send_error(c, peer, re, name, why, e);
}

int coord_send_simple(struct sl_coord *c, uint64_t peer, enum sl_message_id id, const char *re,
                      const char *field, uint64_t v, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(id, re, &m, e));
    if (field)
        sl_put_uint(m.tree, field, v);
    return coord_send(c, peer, &m, e);
}

int coord_send_revoke(struct sl_coord *c, const struct worker *w, uint64_t job, const uint64_t *tasks, size_t n,
                      const char *text, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_REVOKE, NULL, &m, e));
    sl_put_uint(m.tree, "job", job);
    sl_put_uints(m.tree, "tasks", tasks, n);
    sl_put_str(m.tree, "text", text);
    return coord_send(c, w->peer, &m, e);
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

void coord_drop_waiting(struct sl_coord *c)
{
    for (uint32_t i = 0; i < c->n_waiting; i++)
        free(c->waiting[i].m.bytes);
    c->n_waiting = 0;
}

int coord_release(struct sl_coord *c, uint64_t synced, struct sl_error *e)
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

int sl_coord_next(struct sl_coord *c, struct sl_outgoing *out)
{
    if (c->next_out == c->n_out) {
        c->next_out = c->n_out = 0;
        return 0;
    }
    *out = c->out[c->next_out++];
    return 1;
}
