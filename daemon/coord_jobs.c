#include "daemon/coord_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct job *coord_job(struct sl_coord *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->n_jobs; i++)
        if (c->jobs[i]->id == id)
            return c->jobs[i];
    return NULL;
}

struct task *coord_task(struct job *j, uint32_t task)
{
    if (task < SL_TASKS_MAX)
        return task < j->n_tasks ? &j->tasks[task] : NULL;
    if (task > SL_TASK_LAST || !j->special[task - SL_TASKS_MAX].exists)
        return NULL;
    return &j->special[task - SL_TASKS_MAX];
}

static void free_tasks(struct job *j)
{
    for (uint32_t i = 0; i < j->n_tasks; i++)
        free(j->tasks[i].tensor);
    free(j->tasks);
}

void coord_free_job(struct job *j)
{
    coord_turns_changed(j->c);
    cJSON_Delete(j->spec);
    for (uint32_t i = 0; i < j->n_labels; i++)
        free(j->labels[i]);
    free(j->user);
    free(j->files);
    free_tasks(j);
    free(j->shards);
    free(j);
}

void coord_forget_jobs(struct sl_coord *c)
{
    for (uint32_t i = 0; i < c->n_jobs; i++)
        coord_free_job(c->jobs[i]);
    c->n_jobs = 0;
}

/* ---- moving tasks */

static void count(struct job *j, const struct task *t, int by)
{
    uint32_t *of[] = {&j->n_ready, &j->n_leased, &j->n_done, &j->n_quarantined};
    struct shard *s = &j->shards[t->shard];

    *of[t->state] += (uint32_t)by;
    if (t->state == SL_TASK_READY)
        s->ready += (uint32_t)by;
    if (t->state == SL_TASK_LEASED)
        s->leased += (uint32_t)by;
    if (t->state == SL_TASK_DONE)
        j->done_bytes += (uint64_t)(int64_t)by * t->src;
}

static void let_go(struct worker *w, const struct job *j, uint32_t task)
{
    for (uint32_t i = 0; i < w->n_held; i++)
        if (w->held[i].job == j && w->held[i].task == task) {
            memmove(&w->held[i], &w->held[i + 1], (w->n_held - i - 1) * sizeof *w->held);
            w->n_held--;
            return;
        }
}

void coord_move(struct job *j, uint32_t task, enum sl_task_state to)
{
    struct task *t = coord_task(j, task);

    if (task < SL_TASKS_MAX)
        count(j, t, -1);
    if (t->holder && to != SL_TASK_LEASED) {
        let_go(t->holder, j, task);
        t->holder = NULL;
        t->bytes_done = 0;
    }
    t->state = (uint8_t)to;
    coord_turns_changed(j->c);
    if (to != SL_TASK_LEASED)
        t->tx = j->c->tx;
    if (task < SL_TASKS_MAX)
        count(j, t, 1);
}

static int hold_task(struct worker *w, struct job *j, uint32_t task, struct sl_error *e)
{
    SL_TRY(coord_grow(&w->held, w->n_held, &w->cap_held, sizeof *w->held, e));
    w->held[w->n_held++] = (struct held){j, task};
    coord_task(j, task)->holder = w;
    return 0;
}

int coord_lease(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, uint64_t epoch,
                struct sl_error *e)
{
    struct task *t = coord_task(j, task);
    struct unwritten *u;

    if (c->committing) {
        SL_TRY(coord_grow(&c->unwritten, c->n_unwritten, &c->cap_unwritten, sizeof *c->unwritten, e));
        u = &c->unwritten[c->n_unwritten++];
        *u = (struct unwritten){.job = j->id, .epoch = epoch, .task = task};
        snprintf(u->worker, sizeof u->worker, "%s", w->instance);
        snprintf(u->owner, sizeof u->owner, "%s", w->user);
    } else {
        const struct sl_new_lease l = {j->id, epoch, task, w->instance, w->user};
        int rc = sl_queue_lease(c->q, &l, e);

        SL_TRY(rc);
        if (rc == 0)
            return sl_fail(e, SL_EFAIL, "queue: task %u of job %llu is not ready on disk", task,
                           (unsigned long long)j->id);
    }
    if (task == SL_TASK_PREPARE) {
        j->begun_before = j->begun;
        j->begun = true;
    }
    coord_move(j, task, SL_TASK_LEASED);
    SL_TRY(hold_task(w, j, task, e));
    t->epoch = epoch;
    t->granted_ms = c->now.run_ms;
    t->bytes_done = 0;
    return 0;
}

int coord_return(struct sl_coord *c, struct job *j, uint32_t task, struct sl_error *e)
{
    int rc = sl_queue_return(c->q, j->id, task, coord_task(j, task)->epoch, e);

    if (rc >= 0)
        coord_move(j, task, SL_TASK_READY);
    return rc < 0 ? rc : 0;
}

/* ---- reading the queue */

struct loading {
    struct sl_coord *c;
    struct sl_error *e;
    struct job *j;
    bool discards;   /* cancelled jobs, only those whose files are still to be removed */
};

/* The task's holder, known by instance; one that has not said hello since the
 * daemon started gets its time to do so. */
static int adopt_holder(struct loading *l, const char *instance, const char *owner, uint32_t task)
{
    struct sl_coord *c = l->c;
    struct worker *w = coord_worker(c, instance);

    if (!w) {
        SL_TRY(coord_grow(&c->workers, c->n_workers, &c->cap_workers, sizeof *c->workers, l->e));
        w = calloc(1, sizeof *w);
        if (!w)
            return sl_no_memory(l->e);
        snprintf(w->instance, sizeof w->instance, "%s", instance);
        snprintf(w->name, sizeof w->name, "(not back yet)");
        snprintf(w->user, sizeof w->user, "%s", owner);
        w->silent = true;
        w->seen_ms = c->now.run_ms;
        c->workers[c->n_workers++] = w;
    }
    coord_task(l->j, task)->granted_ms = c->now.run_ms;
    return hold_task(w, l->j, task, l->e);
}

static int damaged_task(const struct loading *l, uint32_t task, const char *what)
{
    char why[96];

    snprintf(why, sizeof why, "its task %u %s", task, what);
    return coord_damaged(l->c, l->j->id, l->j->state, why, l->e);
}

static int on_task(void *user, const struct sl_task_row *r)
{
    struct loading *l = user;
    struct job *j = l->j;
    struct task *t;

    if (r->task < SL_TASKS_MAX ? r->task >= j->n_tasks : r->task > SL_TASK_LAST)
        return damaged_task(l, r->task, "is beyond its plan");
    if (r->state > SL_TASK_QUARANTINED)
        return damaged_task(l, r->task, "is in no state that there is");
    if (r->epoch > sl_queue_last_epoch(l->c->q))
        return damaged_task(l, r->task, "has an epoch that was never taken");
    if (r->task >= SL_TASKS_MAX)
        j->special[r->task - SL_TASKS_MAX].exists = true;
    t = coord_task(j, r->task);
    t->state = (uint8_t)r->state;
    t->shard = r->shard;
    t->attempts = r->attempts;
    t->epoch = r->epoch;
    t->src = r->src_bytes;
    t->out = r->out_bytes;
    t->checksum = r->checksum;
    t->exists = true;
    if (r->task == SL_TASK_PREPARE)
        j->begun = j->begun_before = r->epoch != 0;
    return r->state == SL_TASK_LEASED ? adopt_holder(l, r->worker, r->owner, r->task) : 0;
}

/* Shards from the tasks' numbers, and all counters. */
static int index_tasks(struct job *j, struct sl_error *e)
{
    uint32_t n = 0, last = UINT32_MAX;

    free(j->shards);
    j->shards = calloc(j->n_tasks ? j->n_tasks : 1, sizeof *j->shards);
    if (!j->shards)
        return sl_no_memory(e);
    j->n_ready = j->n_leased = j->n_done = j->n_quarantined = 0;
    j->done_bytes = 0;
    for (uint32_t i = 0; i < j->n_tasks; i++) {
        if (j->tasks[i].shard != last || i == 0)
            j->shards[n++].first = i;
        last = j->tasks[i].shard;
        j->shards[n - 1].n++;
        j->tasks[i].shard = n - 1;
        count(j, &j->tasks[i], 1);
    }
    j->n_shards = n;
    return 0;
}

int coord_set_tasks(struct job *j, const struct sl_queue_plan *p, struct sl_error *e)
{
    struct task *tasks = calloc(p->n_tasks ? p->n_tasks : 1, sizeof *tasks);

    if (!tasks)
        return sl_no_memory(e);
    free_tasks(j);
    j->tx = j->c->tx;
    coord_turns_changed(j->c);
    j->tasks = tasks;
    j->n_tasks = p->n_tasks;
    j->file_bytes = p->file_bytes;
    j->src_bytes = 0;
    snprintf(j->fingerprint, sizeof j->fingerprint, "%s", p->fingerprint);
    for (uint32_t i = 0; i < p->n_tasks; i++) {
        tasks[i] = (struct task){.exists = true, .shard = p->shard[i], .src = p->src_bytes[i],
                                 .out = p->out_bytes[i]};
        j->src_bytes += p->src_bytes[i];
    }
    return index_tasks(j, e);
}

int coord_damaged(const struct sl_coord *c, uint64_t job, enum sl_job_state state, const char *why, struct sl_error *e)
{
    char advice[80] = "restore a copy of it, or move it away and begin anew";

    if (sl_job_ended(state))
        snprintf(advice, sizeof advice, "'sluice forget %llu' takes it out", (unsigned long long)job);
    return sl_fail(e, SL_EUSAGE, "%.200s: job %llu cannot be read, it is damaged: %.600s; %s", sl_queue_path(c->q),
                   (unsigned long long)job, why, advice);
}

int coord_read_spec(const struct sl_coord *c, const struct sl_job_row *r, cJSON **spec, struct sl_error *e)
{
    struct sl_error why;
    cJSON *files = NULL;
    int rc;

    *spec = NULL;
    rc = sl_json_parse("specification", r->spec, strlen(r->spec), NULL, spec, &why);
    if (rc == 0)
        rc = sl_record_check("spec", *spec, &why);
    if (rc == 0 && r->files[0])
        rc = sl_json_parse("files", r->files, strlen(r->files), NULL, &files, &why);
    cJSON_Delete(files);
    if (rc == 0)
        return 0;
    cJSON_Delete(*spec);
    *spec = NULL;
    return rc == SL_EFAIL ? sl_fail(e, SL_EFAIL, "%s", why.text) : coord_damaged(c, r->id, r->state, why.text, e);
}

static int copy_row(struct job *j, const struct sl_job_row *r, struct sl_error *e)
{
    char why[64];

    j->id = r->id;
    j->group = r->group;
    j->state = r->state;
    j->priority = r->priority;
    j->attempts = r->attempts;
    j->manual_stitch = r->manual_stitch;
    j->verify = r->verify;
    j->submitted_ms = r->submitted_ms;
    j->started_ms = r->started_ms;
    j->ended_ms = r->ended_ms;
    j->code = r->code;
    snprintf(why, sizeof why, "%u tasks are more than there can be", r->n_tasks);
    if (r->n_tasks > SL_TASKS_MAX)
        return coord_damaged(j->c, r->id, r->state, why, e);
    j->src_bytes = r->src_bytes;
    j->file_bytes = r->file_bytes;
    j->n_after = r->n_after;
    memcpy(j->after, r->after, sizeof j->after);
    snprintf(j->error, sizeof j->error, "%s", r->error);
    snprintf(j->fingerprint, sizeof j->fingerprint, "%s", r->fingerprint);
    j->user = strdup(r->user);
    j->files = strdup(r->files);
    j->tasks = calloc(r->n_tasks ? r->n_tasks : 1, sizeof *j->tasks);
    j->n_tasks = j->tasks ? r->n_tasks : 0;
    for (j->n_labels = 0; j->n_labels < r->n_labels; j->n_labels++)
        if (!(j->labels[j->n_labels] = strdup(r->labels[j->n_labels])))
            break;
    if (!j->user || !j->files || !j->tasks || j->n_labels != r->n_labels)
        return sl_no_memory(e);
    SL_TRY(coord_read_spec(j->c, r, &j->spec, e));
    j->output_hash = coord_output_hash(j->spec);
    return 0;
}

/* Takes out what was loaded of a job. */
static void unload(struct sl_coord *c, struct job *j)
{
    for (uint32_t i = 0; i < c->n_workers; i++)
        for (uint32_t k = c->workers[i]->n_held; k-- > 0;)
            if (c->workers[i]->held[k].job == j)
                let_go(c->workers[i], j, c->workers[i]->held[k].task);
    coord_free_job(j);
}

/* A job that has ended and is damaged keeps nobody: it stays in the history, and its files where they are. */
static int pass_over(struct loading *l, uint32_t at)
{
    struct job *j = l->c->jobs[at];
    char why[1024];
    int rc;

    snprintf(why, sizeof why, "%s", l->e->text);
    rc = coord_event(l->c, "state", j, -1, NULL, l->e, "%s: %.900s", sl_job_state_name(j->state), why);
    unload(l->c, j);
    l->c->jobs[at] = l->c->jobs[l->c->n_jobs];
    return rc;
}

static int on_job(void *user, const struct sl_job_row *r)
{
    struct loading *l = user;
    struct sl_coord *c = l->c;
    int rc;

    if (l->discards && !r->discard)
        return 0;
    SL_TRY(coord_grow(&c->jobs, c->n_jobs, &c->cap_jobs, sizeof *c->jobs, l->e));
    SL_TRY(coord_turns_room(c, l->e));
    l->j = calloc(1, sizeof *l->j);
    if (!l->j)
        return sl_no_memory(l->e);
    l->j->c = c;
    c->jobs[c->n_jobs++] = l->j;
    rc = copy_row(l->j, r, l->e);
    if (rc != SL_EUSAGE || !l->discards)
        return rc;
    return pass_over(l, --c->n_jobs);
}

static uint8_t dep_of(enum sl_job_state s)
{
    return s == SL_JOB_SUCCEEDED ? DEP_MET : sl_job_ended(s) ? DEP_FAILED : DEP_PENDING;
}

static int on_dep(void *user, const struct sl_job_row *r)
{
    *(uint8_t *)user = dep_of(r->state);
    return 0;
}

static int resolve_deps(struct sl_coord *c, struct job *j, struct sl_error *e)
{
    for (uint32_t i = 0; i < j->n_after; i++) {
        const struct sl_job_filter f = sl_job_only(j->after[i]);

        j->dep[i] = DEP_FAILED; /* forgotten */
        SL_TRY(sl_queue_each_job(c->q, &f, on_dep, &j->dep[i], e));
    }
    return 0;
}

/* Its tasks, which are those of its plan and those that every job has. */
static int load_tasks(struct loading *l)
{
    struct job *j = l->j;

    SL_TRY(sl_queue_each_task(l->c->q, j->id, on_task, l, l->e));
    for (uint32_t n = j->n_tasks, t = n ? 0 : SL_TASK_PREPARE; t <= SL_TASK_PUBLISH; t = t + 1 == n ? SL_TASK_PREPARE : t + 1)
        if (!coord_task(j, t) || !coord_task(j, t)->exists)
            return damaged_task(l, t, "is missing");
    SL_TRY(index_tasks(j, l->e));
    return resolve_deps(l->c, j, l->e);
}

int coord_load_jobs(struct sl_coord *c, uint64_t id, struct sl_error *e)
{
    const struct sl_job_filter f = {.id = id, .states = id ? 0 : ~SL_JOBS_ENDED};
    const struct sl_job_filter cancelled = {.states = 1u << SL_JOB_CANCELLED};
    struct loading l = {c, e, NULL, false};
    uint32_t first = c->n_jobs;
    int rc = sl_queue_each_job(c->q, &f, on_job, &l, e);

    l.discards = true;
    if (rc == 0 && !id)
        rc = sl_queue_each_job(c->q, &cancelled, on_job, &l, e);
    for (uint32_t i = first; rc == 0 && i < c->n_jobs; i++) {
        l.j = c->jobs[i];
        l.j->pass = c->vtime;
        rc = load_tasks(&l);
        if (rc == SL_EUSAGE && !id && sl_job_ended(l.j->state)) {
            c->n_jobs--;
            rc = pass_over(&l, i--);
        }
    }
    while (rc < 0 && c->n_jobs > first)
        unload(c, c->jobs[--c->n_jobs]);
    return rc == SL_EUSAGE && !id ? (e->code = SL_EFAIL) : rc;
}

/* ---- states */

/* Jobs that wait for j learn how it ended, or that it goes on. */
static void tell_dependents(struct sl_coord *c, const struct job *j)
{
    for (uint32_t i = 0; i < c->n_jobs; i++)
        for (uint32_t k = 0; k < c->jobs[i]->n_after; k++)
            if (c->jobs[i]->after[k] == j->id)
                c->jobs[i]->dep[k] = dep_of(j->state);
}

int coord_set_state(struct sl_coord *c, struct job *j, enum sl_job_state s, int code,
                    const char *error, struct sl_error *e)
{
    bool same = j->state == s;

    SL_TRY(sl_queue_set_state(c->q, j->id, s, code, error, c->now.wall_ms, e));
    if (s != SL_JOB_VERIFYING && !(s == SL_JOB_SUCCEEDED && j->state == SL_JOB_VERIFYING && j->ended_ms))
        j->ended_ms = sl_job_ended(s) ? c->now.wall_ms : 0;
    j->state = s;
    coord_turns_changed(c);
    j->tx = c->tx;
    j->code = code;
    snprintf(j->error, sizeof j->error, "%s", error ? error : "");
    if (s == SL_JOB_RUNNING && !j->started_ms)
        j->started_ms = c->now.wall_ms;
    c->changes++;
    tell_dependents(c, j);
    if (!same)
        SL_TRY(coord_event(c, "state", j, -1, NULL, e, "%s%s%s", sl_job_state_name(s),
                           error && *error ? ": " : "", error ? error : ""));
    if (!same && s != SL_JOB_QUEUED && s != SL_JOB_RUNNING)
        SL_TRY(coord_tell_over(c, j, e));
    return sl_job_ended(s) ? coord_tell_waiters(c, j, e) : 0;
}

int coord_set_error(struct sl_coord *c, struct job *j, const char *error, struct sl_error *e)
{
    SL_TRY(sl_queue_set_state(c->q, j->id, j->state, j->code, error, j->ended_ms, e));
    snprintf(j->error, sizeof j->error, "%s", error);
    j->tx = c->tx;
    c->changes++;
    return 0;
}

int coord_revoke_from(struct sl_coord *c, struct worker *w, struct job *j, const char *why, struct sl_error *e)
{
    uint64_t tasks[SL_HELD_MAX];
    uint32_t n = 0;

    for (uint32_t k = w->n_held; k-- > 0;) {
        if (w->held[k].job != j)
            continue;
        if (n < SL_HELD_MAX)
            tasks[n++] = w->held[k].task;
        SL_TRY(coord_return(c, j, w->held[k].task, e));
    }
    return n > 0 && w->peer ? coord_send_revoke(c, w, j->id, tasks, n, why, e) : 0;
}

int coord_revoke_all(struct sl_coord *c, struct job *j, const char *why, struct sl_error *e)
{
    for (uint32_t i = 0; i < c->n_workers; i++)
        SL_TRY(coord_revoke_from(c, c->workers[i], j, why, e));
    return 0;
}

static bool done(struct job *j, uint32_t task)
{
    const struct task *t = coord_task(j, task);

    return t && t->state == SL_TASK_DONE;
}

bool coord_advises(const char *text)
{
    return strstr(text, "'sluice retry ") != NULL;
}

struct failed {
    const struct job *j;
    int code;
    char text[1024];
};

/* Why the job failed, from the last failure of a task, and what to do. */
static int on_last_failure(void *user, const struct sl_failure_row *r)
{
    struct failed *f = user;

    int n = snprintf(f->text, sizeof f->text, "%.700s (%u of %u tasks failed, 'sluice show %llu' lists why",
                     r->text, f->j->n_quarantined, f->j->n_tasks, (unsigned long long)f->j->id);

    f->code = r->code;
    if (coord_advises(r->text))
        snprintf(f->text + n, sizeof f->text - (size_t)n, ")");
    else
        snprintf(f->text + n, sizeof f->text - (size_t)n, "; the rest is kept: 'sluice retry %llu' does what is "
                 "missing)", (unsigned long long)f->j->id);
    return 0;
}

int coord_advance(struct sl_coord *c, struct job *j, struct sl_error *e)
{
    const struct task *verify = coord_task(j, SL_TASK_VERIFY);
    enum sl_job_state s = SL_JOB_RUNNING;

    if (sl_job_ended(j->state) || j->state == SL_JOB_HELD)
        return 0;
    if (!done(j, SL_TASK_PREPARE) && j->started_ms == 0)
        s = SL_JOB_QUEUED;
    else if (done(j, SL_TASK_PUBLISH) && verify && verify->state != SL_TASK_DONE)
        s = SL_JOB_VERIFYING;
    else if (done(j, SL_TASK_PUBLISH))
        s = SL_JOB_SUCCEEDED;
    else if (done(j, SL_TASK_PREPARE) && j->n_done == j->n_tasks)
        s = SL_JOB_STITCHING;
    else if (j->n_quarantined > 0 && j->n_ready + j->n_leased == 0) {
        struct failed f = {j, -SL_EFAIL, ""};

        SL_TRY(sl_queue_each_failure(c->q, j->id, 1, on_last_failure, &f, e));
        return coord_set_state(c, j, SL_JOB_FAILED, f.code, f.text, e);
    }
    return s == j->state ? 0 : coord_set_state(c, j, s, s == SL_JOB_SUCCEEDED ? 0 : j->code, NULL, e);
}

bool coord_discards(struct job *j)
{
    const struct task *discard = coord_task(j, SL_TASK_DISCARD);

    return sl_job_ended(j->state) && discard &&
           (discard->state == SL_TASK_READY || discard->state == SL_TASK_LEASED);
}

void coord_sweep_ended(struct sl_coord *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_jobs; i++) {
        struct job *j = c->jobs[i];

        if (sl_job_ended(j->state) && !coord_discards(j))
            coord_free_job(j);
        else
            c->jobs[n++] = j;
    }
    c->n_jobs = n;
}

int coord_hold(struct sl_coord *c, struct job *j, const char *user, struct sl_error *e)
{
    time_t at = (time_t)(c->now.wall_ms / 1000);
    char when[32] = "", why[128];
    struct tm tm;

    if (gmtime_r(&at, &tm))
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &tm);
    snprintf(why, sizeof why, "held by %s since %s", user, when);
    return coord_set_state(c, j, SL_JOB_HELD, 0, why, e);
}
