/* What clients ask. */
#include "daemon/coord_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int coord_refuse_ask(struct ask *a, struct sl_error *e)
{
    return coord_refuse(a->c, a->s->peer, a->re, sl_message(a->m->id)->name, &a->why, e);
}

static int done(struct ask *a, struct sl_error *e)
{
    return coord_send_simple(a->c, a->s->peer, SL_M_DONE, a->re, NULL, 0, e);
}

uint32_t coord_strings(const cJSON *array, const char **out, uint32_t max)
{
    const cJSON *x;
    uint32_t n = 0;

    cJSON_ArrayForEach(x, array)
        if (n < max)
            out[n++] = x->valuestring;
    return n;
}

/* ---- lists */

struct listing {
    struct ask *a;
    struct sl_error *e;
    cJSON *jobs;
    uint32_t n, limit;
    size_t room;
    bool more;
};

/* From memory, which knows more, while the job has not ended. A row that is damaged is the client's to hear of. */
static int put_job(struct ask *a, cJSON *into, const struct sl_job_row *r, struct sl_error *e)
{
    const struct job *j = coord_job(a->c, r->id);
    cJSON *spec;
    int rc;

    if (j && !sl_job_ended(j->state)) {
        coord_put_job(a->c, into, j, true);
        return 0;
    }
    rc = coord_read_spec(a->c, r, &spec, e);
    if (rc == SL_EUSAGE)
        sl_fail(&a->why, SL_EFAIL, "%s", e->text);
    SL_TRY(rc);
    sl_put_uint(into, "leased", 0);
    sl_put_uint(into, "done_bytes", r->done_bytes);
    coord_put_row(into, r, spec, true);
    cJSON_Delete(spec);
    return 0;
}

/* What is known of a job that cannot be read: that it was, and how it is taken out. */
static void put_damaged(cJSON *into, const struct sl_job_row *r, const char *why)
{
    const struct sl_job_row known = {.id = r->id, .state = r->state, .user = "?", .code = -SL_EFAIL, .error = why, .files = ""};

    coord_put_row(into, &known, NULL, false);
    sl_put_str(into, "source", "/");
    sl_put_str(into, "output", "/");
    sl_put_str(into, "prefix", "?");
    sl_put_str(into, "recipe", "?");
    sl_put_uint(into, "leased", 0);
    sl_put_uint(into, "done_bytes", 0);
}

/* A job that has ended; one that is damaged does not keep the others from being shown. */
static int list_ended(struct listing *l, const struct sl_job_row *r)
{
    cJSON *job = cJSON_CreateObject();
    struct sl_error why = {0};
    int rc = job ? put_job(l->a, job, r, l->e) : sl_no_memory(l->e);

    if (rc == 0) {
        rc = sl_record_check("job", job, &why);
        if (rc < 0)
            *l->e = why;
        if (rc == SL_EUSAGE)
            rc = coord_damaged(l->a->c, r->id, r->state, why.text, l->e);
    }
    if (rc == SL_EUSAGE) {
        memset(&l->a->why, 0, sizeof l->a->why);
        cJSON_Delete(job);
        job = cJSON_CreateObject();
        if (job)
            put_damaged(job, r, l->e->text);
        rc = 0;
    }
    if (rc < 0)
        cJSON_Delete(job);
    else if (!cJSON_AddItemToArray(l->jobs, job))
        rc = sl_no_memory(l->e);
    return rc;
}

static int on_list_row(void *user, const struct sl_job_row *r)
{
    struct listing *l = user;

    if (l->n == l->limit) {
        l->more = true;
        return 1;
    }
    SL_TRY(sl_job_ended(r->state) ? list_ended(l, r) : put_job(l->a, sl_add_object(l->jobs), r, l->e));
    l->room += coord_room_of(cJSON_GetArrayItem(l->jobs, (int)l->n));
    if (l->n && l->room > COORD_LISTED_BYTES) { /* the client asks again for the rest */
        cJSON_DeleteItemFromArray(l->jobs, (int)l->n);
        l->more = true;
        return 1;
    }
    l->n++;
    return 0;
}

static int on_list(struct ask *a, struct sl_error *e)
{
    const cJSON *t = a->m->tree;
    const char *labels[SL_LABELS_MAX], *names[16];
    struct sl_job_filter f = {.states = a->m->id == SL_M_HISTORY ? SL_JOBS_ENDED : ~SL_JOBS_ENDED,
                              .before = sl_get_uint(t, "before", 0), .labels = labels, .newest_first = true};
    struct listing l = {.a = a, .e = e, .limit = (uint32_t)sl_get_uint(t, "limit", 200)};
    uint32_t n = coord_strings(sl_get(t, "states"), names, 16);
    struct sl_msg m;
    int rc;

    l.limit = l.limit > SL_JOBS_MAX || l.limit == 0 ? SL_JOBS_MAX : l.limit;
    f.n_labels = coord_strings(sl_get(t, "labels"), labels, SL_LABELS_MAX);
    if (n)
        f.states = 0;
    for (uint32_t i = 0; i < n; i++) {
        int s = sl_job_state_by_name(names[i]);

        if (s < 0) {
            sl_fail(&a->why, SL_EUSAGE, "'%s' is no state of a job", names[i]);
            return coord_refuse_ask(a, e);
        }
        f.states |= 1u << s;
    }
    SL_TRY(sl_msg_new(SL_M_JOBS, a->re, &m, e));
    l.jobs = sl_put_array(m.tree, "jobs");
    rc = sl_queue_each_job(a->c->q, &f, on_list_row, &l, e);
    sl_put_bool(m.tree, "more", l.more);
    if (rc < 0) {
        sl_msg_free(&m);
        return a->why.code ? coord_refuse_ask(a, e) : rc;
    }
    return coord_send(a->c, a->s->peer, &m, e);
}

/* ---- one job */

struct showing {
    struct ask *a;
    struct sl_error *e;
    cJSON *tree, *into;
    bool found;
    enum sl_job_state state;
    char *map;
    uint32_t n;
};

static int on_show_row(void *user, const struct sl_job_row *r)
{
    struct showing *s = user;

    s->found = true;
    s->state = r->state;
    s->n = r->n_tasks;
    if (!s->into)
        return 0;
    if (s->tree) {
        sl_put(s->tree, "spec", cJSON_Parse(r->spec));
        if (r->fingerprint[0])
            sl_put_str(s->tree, "fingerprint", r->fingerprint);
    }
    return put_job(s->a, s->into, r, s->e);
}

static int on_show_task(void *user, const struct sl_task_row *r)
{
    struct showing *s = user;

    if (r->task < s->n)
        s->map[r->task] = ".ldq"[r->state & 3];
    return 0;
}

static int on_show_failure(void *user, const struct sl_failure_row *r)
{
    cJSON *o = sl_add_object(user);

    sl_put_uint(o, "task", r->task);
    sl_put_uint(o, "epoch", r->epoch);
    sl_put_str(o, "worker", r->worker);
    sl_put_uint(o, "code", (uint64_t)r->code);
    sl_put_text(o, "text", r->text);
    sl_put_uint(o, "time", r->time_ms);
    return 0;
}

static int fill_show(struct ask *a, struct showing *s, uint64_t id, struct sl_error *e)
{
    const struct sl_job_filter f = sl_job_only(id);
    int rc;

    SL_TRY(sl_queue_each_job(a->c->q, &f, on_show_row, s, e));
    if (!s->found)
        return 0;
    s->map = calloc(1, (size_t)s->n + 1);
    if (!s->map)
        return sl_no_memory(e);
    memset(s->map, '.', s->n);
    rc = sl_queue_each_task(a->c->q, id, on_show_task, s, e);
    if (rc == 0)
        sl_put_str(s->tree, "map", s->map);
    free(s->map);
    SL_TRY(rc);
    return sl_queue_each_failure(a->c->q, id, 200, on_show_failure, sl_put_array(s->tree, "failures"), e);
}

static int on_show(struct ask *a, struct sl_error *e)
{
    uint64_t id = sl_get_uint(a->m->tree, "job", 0);
    struct showing s = {.a = a, .e = e};
    struct sl_msg m;
    int rc;

    SL_TRY(sl_msg_new(SL_M_JOB, a->re, &m, e));
    s.tree = m.tree;
    sl_put(m.tree, "job", cJSON_CreateObject());
    s.into = sl_get(m.tree, "job");
    rc = fill_show(a, &s, id, e);
    if (rc == 0 && s.found)
        return coord_send(a->c, a->s->peer, &m, e);
    sl_msg_free(&m);
    if (rc == 0)
        sl_fail(&a->why, SL_ENOJOB, "no job %llu", (unsigned long long)id);
    return a->why.code ? coord_refuse_ask(a, e) : rc;
}

/* ---- waiting, watching */

/* One for each job: a connection cannot take more memory by asking again. */
static int note_wait(struct session *s, uint64_t job, const char *re, struct sl_error *e)
{
    uint32_t i = 0;

    while (i < s->n_waits && s->waits[i].job != job)
        i++;
    if (i == s->n_waits)
        SL_TRY(coord_grow(&s->waits, s->n_waits, &s->cap_waits, sizeof *s->waits, e));
    s->n_waits += i == s->n_waits;
    s->waits[i].job = job;
    snprintf(s->waits[i].re, sizeof s->waits[i].re, "%s", re);
    return 0;
}

/* One job of several: the others are answered too. */
static int refuse_one(struct ask *a, struct sl_error *e)
{
    int rc = coord_refuse_ask(a, e);

    memset(&a->why, 0, sizeof a->why);
    return rc;
}

static int on_wait(struct ask *a, struct sl_error *e)
{
    const cJSON *x;

    cJSON_ArrayForEach(x, sl_get(a->m->tree, "jobs")) {
        uint64_t id = (uint64_t)x->valuedouble;
        const struct sl_job_filter f = sl_job_only(id);
        struct showing s = {.a = a, .e = e};
        struct sl_msg m;
        int rc;

        SL_TRY(sl_queue_each_job(a->c->q, &f, on_show_row, &s, e));
        if (!s.found) {
            sl_fail(&a->why, SL_ENOJOB, "no job %llu", (unsigned long long)id);
            SL_TRY(refuse_one(a, e));
            continue;
        }
        if (!sl_job_ended(s.state)) {
            SL_TRY(note_wait(a->s, id, a->re, e));
            continue;
        }
        SL_TRY(sl_msg_new(SL_M_ENDED, a->re, &m, e));
        sl_put(m.tree, "job", cJSON_CreateObject());
        s.into = sl_get(m.tree, "job");
        rc = sl_queue_each_job(a->c->q, &f, on_show_row, &s, e);
        if (rc == 0) {
            SL_TRY(coord_send(a->c, a->s->peer, &m, e));
            continue;
        }
        sl_msg_free(&m);
        SL_TRY(a->why.code ? refuse_one(a, e) : rc);
    }
    return 0;
}

/* Events that were: what a session would have been told of, or (NULL) all. */
struct past {
    const struct session *s;
    cJSON *array;
    struct sl_error *e;
};

static int on_past_event(void *user, const struct sl_event *ev)
{
    const struct past *p = user;
    cJSON *o;

    if (p->s && !coord_watches(p->s, ev->job))
        return 0;
    o = sl_add_object(p->array);
    coord_put_event(o, ev);
    return o ? 0 : sl_no_memory(p->e);
}

static int on_watch(struct ask *a, struct sl_error *e)
{
    const cJSON *list = sl_get(a->m->tree, "jobs"), *x;
    uint64_t last = 0, since = sl_get_uint(a->m->tree, "since", SL_WIRE_UINT_MAX);
    struct session *s = a->s;
    struct sl_msg m;
    cJSON *old = cJSON_CreateArray();
    struct past missed = {s, old, e};
    int rc = old ? 0 : sl_no_memory(e);

    free(s->watch_jobs);
    s->watch_jobs = NULL;
    s->n_watch = 0;
    if (list && (s->watch_jobs = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *s->watch_jobs)) == NULL)
        rc = sl_no_memory(e);
    cJSON_ArrayForEach(x, list)
        if (s->watch_jobs)
            s->watch_jobs[s->n_watch++] = (uint64_t)x->valuedouble;
    s->watching = true;
    s->every_ms = sl_get_uint(a->m->tree, "every_ms", 1000);
    s->status_ms = 0;
    a->c->changes++; /* the first status comes at once */
    if (rc == 0)
        rc = sl_queue_last_event(a->c->q, &last, e);
    if (rc == 0 && since < last)
        rc = sl_queue_each_event(a->c->q, s->n_watch == 1 ? s->watch_jobs[0] : 0, since, 1000,
                                 on_past_event, &missed, e);
    if (rc == 0)
        rc = sl_msg_new(SL_M_WATCHING, a->re, &m, e);
    if (rc == 0) {
        sl_put_uint(m.tree, "last", last);
        rc = coord_send(a->c, s->peer, &m, e);
    }
    while (rc == 0 && old && old->child) {
        rc = sl_msg_new(SL_M_EVENT, NULL, &m, e);
        if (rc == 0) {
            sl_put(m.tree, "event", cJSON_DetachItemFromArray(old, 0));
            rc = coord_send(a->c, s->peer, &m, e);
        }
    }
    cJSON_Delete(old);
    return rc;
}

static int on_logs(struct ask *a, struct sl_error *e)
{
    uint64_t limit = sl_get_uint(a->m->tree, "limit", 200), job = sl_get_uint(a->m->tree, "job", 0);
    const struct sl_job_filter only = sl_job_only(job);
    struct showing s = {.a = a, .e = e};
    struct sl_msg m;
    cJSON *events;
    int rc;

    limit = limit ? limit : 1;
    if (job)
        SL_TRY(sl_queue_each_job(a->c->q, &only, on_show_row, &s, e));
    if (job && !s.found) {
        sl_fail(&a->why, SL_ENOJOB, "no job %llu", (unsigned long long)job);
        return coord_refuse_ask(a, e);
    }
    SL_TRY(sl_msg_new(SL_M_LOG, a->re, &m, e));
    events = sl_put_array(m.tree, "events");
    rc = sl_queue_each_event(a->c->q, job, sl_get_uint(a->m->tree, "since", 0), (uint32_t)limit, on_past_event,
                             &(struct past){NULL, events, e}, e);
    if (rc < 0) {
        sl_msg_free(&m);
        return rc;
    }
    sl_put_bool(m.tree, "more", (uint64_t)cJSON_GetArraySize(events) == limit);
    return coord_send(a->c, a->s->peer, &m, e);
}

/* ---- workers, daemon */

static int on_workers(struct ask *a, struct sl_error *e)
{
    struct sl_msg m;
    cJSON *list;

    SL_TRY(sl_msg_new(SL_M_WORKER_LIST, a->re, &m, e));
    list = sl_put_array(m.tree, "workers");
    for (uint32_t i = 0; i < a->c->n_workers && i < SL_WORKERS_MAX; i++)
        coord_put_worker(a->c, sl_add_object(list), a->c->workers[i]);
    return coord_send(a->c, a->s->peer, &m, e);
}

static int on_drain_worker(struct ask *a, struct sl_error *e)
{
    const char *name = sl_get_str(a->m->tree, "worker");
    uint32_t n = 0;

    if (a->s->role != SL_ROLE_ADMIN) {
        sl_fail(&a->why, SL_EUSAGE, "draining workers needs the role admin");
        return coord_refuse_ask(a, e);
    }
    for (uint32_t i = 0; i < a->c->n_workers; i++) {
        struct worker *w = a->c->workers[i];
        struct sl_msg m;

        if (!w->peer || (strcmp(w->name, name) != 0 && strcmp(w->instance, name) != 0))
            continue;
        n++;
        w->draining = true;
        coord_note_left(a->c, w);
        coord_turns_changed(a->c);
        a->c->changes++;
        SL_TRY(sl_msg_new(SL_M_DRAIN, NULL, &m, e));
        sl_put_str(m.tree, "text", "drained by a user");
        SL_TRY(coord_send(a->c, w->peer, &m, e));
    }
    if (n == 0) {
        sl_fail(&a->why, SL_ENOJOB, "no worker '%s' is connected", name);
        return coord_refuse_ask(a, e);
    }
    return done(a, e);
}

static int on_about(struct ask *a, struct sl_error *e)
{
    const struct sl_coord_opts *o = &a->c->o;
    struct sl_coord_stats st;
    struct sl_msg m;
    uint32_t jobs = 0;

    sl_coord_stats(a->c, &st);
    for (int s = 0; s < SL_JOB_STATES; s++)
        jobs += sl_job_ended((enum sl_job_state)s) ? 0 : st.jobs[s];
    SL_TRY(sl_msg_new(SL_M_DAEMON, a->re, &m, e));
    sl_put_str(m.tree, "version", o->version);
    sl_put_uint(m.tree, "pid", (uint64_t)getpid());
    sl_put_uint(m.tree, "uptime_ms", a->c->now.run_ms - a->c->opened.run_ms);
    sl_put_uint(m.tree, "workers", st.workers);
    sl_put_uint(m.tree, "jobs", jobs);
    sl_put_strs(m.tree, "roots", o->roots, o->n_roots);
    sl_put_text(m.tree, "state", o->state_dir ? o->state_dir : "/");
    return coord_send(a->c, a->s->peer, &m, e);
}

int coord_on_client(struct sl_coord *c, struct session *s, const struct sl_msg *m, const char *re,
                    struct sl_error *e)
{
    struct ask a = {.c = c, .s = s, .m = m, .re = re};

    switch (m->id) {
    case SL_M_SUBMIT: return coord_on_submit(&a, e);
    case SL_M_LIST:
    case SL_M_HISTORY: return on_list(&a, e);
    case SL_M_SHOW: return on_show(&a, e);
    case SL_M_WAIT: return on_wait(&a, e);
    case SL_M_WATCH: return on_watch(&a, e);
    case SL_M_UNWATCH:
        s->watching = false;
        return done(&a, e);
    case SL_M_LOGS: return on_logs(&a, e);
    case SL_M_WORKERS: return on_workers(&a, e);
    case SL_M_DRAIN_WORKER: return on_drain_worker(&a, e);
    case SL_M_ABOUT: return on_about(&a, e);
    default: return coord_on_change(&a, e);
    }
}
