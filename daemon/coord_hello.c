/* A connection's first message: who it is, and which of the leases that a worker names are still its own. */
#include "daemon/coord_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void copy(char *to, size_t cap, const char *from)
{
    snprintf(to, cap, "%s", from ? from : "");
}

static int may_be(const struct sl_peer *from, bool worker, struct sl_error *why)
{
    bool ok = worker ? from->role == SL_ROLE_WORKER || from->role == SL_ROLE_ADMIN
                     : from->role == SL_ROLE_SUBMITTER || from->role == SL_ROLE_ADMIN;

    return ok ? 0
              : sl_fail(why, SL_EUSAGE, "hello: %s may be a %s here, no %s; the daemon's allow-list "
                                        "says who may do what", from->user,
                        sl_role_name(from->role), worker ? "worker" : "client");
}

static int check_hello(struct sl_coord *c, const struct sl_peer *from, const cJSON *t, bool *worker,
                       struct sl_error *why)
{
    const char *role = sl_get_str(t, "role"), *bytes = sl_get_str(t, "bytes");
    const struct worker *old = coord_worker(c, sl_get_str(t, "instance"));

    *worker = strcmp(role, "worker") == 0;
    if (!*worker && strcmp(role, "client") != 0)
        return sl_fail(why, SL_EUSAGE, "hello: role '%s'; worker or client is expected", role);
    SL_TRY(may_be(from, *worker, why));
    if (*worker && c->o.bytes_version && (!bytes || strcmp(bytes, c->o.bytes_version) != 0))
        return sl_fail(why, SL_EUNSUPPORTED, "hello: this worker writes bytes of version %s, the "
                       "daemon wants version %s; use one release everywhere", bytes ? bytes : "(none)",
                       c->o.bytes_version);
    /* Also one that is known by its leases alone, since the daemon was started. */
    if (*worker && old && strcmp(old->user, from->user) != 0)
        return sl_fail(why, SL_EUSAGE, "hello: this instance belongs to another user");
    return 0;
}

static int find_worker(struct sl_coord *c, const struct sl_peer *from, const cJSON *t,
                       struct worker **out, struct sl_error *e)
{
    struct worker *w = coord_worker(c, sl_get_str(t, "instance"));
    struct session *old;

    if (!w) {
        SL_TRY(coord_grow(&c->workers, c->n_workers, &c->cap_workers, sizeof *c->workers, e));
        w = calloc(1, sizeof *w);
        if (!w)
            return sl_no_memory(e);
        copy(w->instance, sizeof w->instance, sl_get_str(t, "instance"));
        c->workers[c->n_workers++] = w;
    }
    if (w->peer && (old = coord_session(c, w->peer)) != NULL)
        coord_drop_session(c, old);
    copy(w->user, sizeof w->user, from->user);
    copy(w->name, sizeof w->name, sl_get_str(t, "name"));
    copy(w->host, sizeof w->host, sl_get_str(t, "host"));
    copy(w->device, sizeof w->device, sl_get_str(t, "device"));
    copy(w->version, sizeof w->version, sl_get_str(t, "version"));
    w->pid = sl_get_uint(t, "pid", 0);
    w->process = w->pid == from->pid ? from->pid : 0; /* else it is a relay's, or of another container */
    w->mem = sl_get_uint(t, "mem", 0);
    w->threads = sl_get_uint(t, "threads", 0);
    w->peer = from->id;
    w->seen_ms = w->progress_ms = c->now.run_ms;
    w->want = w->n_specs = w->n_lacks = 0;
    w->draining = w->silent = false;
    coord_turns_changed(c);
    *out = w;
    return 0;
}

static bool holds(const struct worker *w, uint64_t job, uint64_t task, uint64_t epoch)
{
    for (uint32_t i = 0; i < w->n_held; i++)
        if (w->held[i].job->id == job && w->held[i].task == task &&
            coord_task(w->held[i].job, w->held[i].task)->epoch == epoch)
            return true;
    return false;
}

/* A lease whose grant left before it was on disk, and which the queue therefore does
 * not know: nobody had the task since, so that it is the worker's as before. Those of an
 * earlier plan are older than this one's prepare. */
static int adopt(struct sl_coord *c, struct worker *w, uint64_t job, uint64_t task, uint64_t epoch,
                 struct sl_error *e)
{
    struct job *j = coord_job(c, job);
    const struct task *t = j && task < SL_TASKS_MAX ? coord_task(j, (uint32_t)task) : NULL;

    if (!t || j->state != SL_JOB_RUNNING || j->special[0].state != SL_TASK_DONE ||
        t->state != SL_TASK_READY || epoch <= t->epoch || epoch <= j->special[0].epoch || epoch > c->adoptable)
        return 0;
    SL_TRY(coord_lease(c, w, j, (uint32_t)task, epoch, e));
    return 1;
}

/* Leases that the worker does not know of go back; those that are not its own
 * any more are named in `dropped`. */
static int settle_held(struct sl_coord *c, struct worker *w, const cJSON *said, cJSON *welcome,
                       struct sl_error *e)
{
    const cJSON *h;
    cJSON *dropped = NULL;

    for (uint32_t i = w->n_held; i-- > 0;) {
        const struct held *own = &w->held[i];
        uint64_t epoch = coord_task(own->job, own->task)->epoch;
        bool known = false;

        cJSON_ArrayForEach(h, said) {
            known |= sl_get_uint(h, "job", 0) == own->job->id &&
                     sl_get_uint(h, "task", SL_TASK_LAST + 1) == own->task &&
                     sl_get_uint(h, "epoch", 0) == epoch;
        }
        if (!known)
            SL_TRY(coord_return(c, own->job, own->task, e));
    }
    cJSON_ArrayForEach(h, said) {
        uint64_t job = sl_get_uint(h, "job", 0), task = sl_get_uint(h, "task", 0),
                 epoch = sl_get_uint(h, "epoch", 0);
        cJSON *d;

        int rc = holds(w, job, task, epoch) ? 1 : adopt(c, w, job, task, epoch, e);

        SL_TRY(rc);
        if (rc == 1)
            continue;
        coord_outlived(coord_job(c, job), (uint32_t)task);
        if (!dropped)
            dropped = sl_put_array(welcome, "dropped");
        d = sl_add_object(dropped);
        sl_put_uint(d, "job", job);
        sl_put_uint(d, "task", task);
        sl_put_uint(d, "epoch", epoch);
    }
    return 0;
}

int coord_on_hello(struct sl_coord *c, const struct sl_peer *from, const struct sl_msg *m,
                   const char *re, struct sl_error *e)
{
    struct session *s = coord_session(c, from->id);
    struct worker *w = NULL;
    struct sl_error why;
    struct sl_msg welcome;
    bool is_worker, joined;
    int rc;

    if (check_hello(c, from, m->tree, &is_worker, &why) < 0)
        return coord_refuse_hello(c, from, re, &why, e);
    if (s)
        coord_drop_session(c, s);
    SL_TRY(coord_grow(&c->sessions, c->n_sessions, &c->cap_sessions, sizeof *c->sessions, e));
    s = calloc(1, sizeof *s);
    if (!s)
        return sl_no_memory(e);
    if (is_worker && find_worker(c, from, m->tree, &w, e) < 0) {
        free(s);
        return SL_EFAIL;
    }
    s->peer = from->id;
    s->role = is_worker ? SL_ROLE_WORKER : from->role;
    s->worker = w;
    s->seen_ms = s->sent_ms = c->now.run_ms;
    copy(s->user, sizeof s->user, from->user);
    c->sessions[c->n_sessions++] = s;
    SL_TRY(sl_msg_new(SL_M_WELCOME, re, &welcome, e));
    sl_put_str(welcome.tree, "daemon", c->o.daemon_id);
    sl_put_str(welcome.tree, "version", c->o.version);
    sl_put_str(welcome.tree, "role", sl_role_name(s->role));
    sl_put_uint(welcome.tree, "heartbeat_ms", c->o.heartbeat_ms);
    sl_put_uint(welcome.tree, "lease_ms", c->o.lease_ms);
    rc = w ? settle_held(c, w, sl_get(m->tree, "held"), welcome.tree, e) : 0;
    if (rc < 0) {
        sl_msg_free(&welcome);
        return rc;
    }
    joined = w && !w->known;
    if (joined)
        w->known = true;
    SL_TRY(coord_send(c, from->id, &welcome, e));
    c->changes++;
    return joined ? coord_event(c, "worker_joined", NULL, -1, w->name, e, "%s on %s, %s%s%s", w->device, w->host, from->user,
                                coord_other_release(c, w) ? ", of another release: " : "", coord_other_release(c, w) ? w->version : "")
                  : 0;
}
