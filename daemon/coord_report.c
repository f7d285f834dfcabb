/* Records for clients, and those who watch or wait. */
#include "daemon/coord_priv.h"

#include <stdio.h>
#include <string.h>

static void put_time(cJSON *into, const char *field, uint64_t ms)
{
    if (ms)
        sl_put_uint(into, field, ms);
}

/* What adds up over workers and months; of more than the field holds, its limit. */
static void put_sum(cJSON *into, const char *field, uint64_t sum)
{
    sl_put_uint(into, field, sum < SL_WIRE_UINT_MAX ? sum : SL_WIRE_UINT_MAX);
}

void coord_put_row(cJSON *into, const struct sl_job_row *r, const cJSON *spec, bool files)
{
    sl_put_uint(into, "id", r->id);
    sl_put_str(into, "state", sl_job_state_name(r->state));
    sl_put_uint(into, "priority", r->priority);
    if (r->group)
        sl_put_uint(into, "group", r->group);
    if (r->n_after)
        sl_put_uints(into, "after", r->after, r->n_after);
    if (r->n_labels)
        sl_put_strs(into, "labels", r->labels, r->n_labels);
    sl_put_str(into, "user", r->user);
    sl_put_str(into, "source", sl_get_str(spec, "source"));
    sl_put_str(into, "output", sl_get_str(spec, "output"));
    sl_put_str(into, "prefix", sl_get_str(spec, "prefix"));
    sl_put_str(into, "recipe", sl_get_str(spec, "recipe"));
    sl_put_uint(into, "submitted", r->submitted_ms);
    put_time(into, "started", r->started_ms);
    put_time(into, "ended", r->ended_ms);
    sl_put_uint(into, "tasks", r->n_tasks);
    sl_put_uint(into, "done", r->n_done);
    sl_put_uint(into, "quarantined", r->n_quarantined);
    sl_put_uint(into, "src_bytes", r->src_bytes);
    sl_put_uint(into, "file_bytes", r->file_bytes);
    if (sl_job_ended(r->state))
        sl_put_uint(into, "code", (uint64_t)r->code);
    if (r->error[0])
        sl_put_text(into, "error", r->error);
    if (files && r->files[0])
        sl_put(into, "files", cJSON_Parse(r->files));
}

static uint64_t next_try(const struct job *j, uint64_t now)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t i = 0; i < j->n_tasks + SPECIAL_TASKS; i++) {
        const struct task *t = i < j->n_tasks ? &j->tasks[i] : &j->special[i - j->n_tasks];

        if (t->state == SL_TASK_READY && t->not_before_ms > now && t->not_before_ms < first)
            first = t->not_before_ms;
    }
    return first == UINT64_MAX ? 0 : first - now;
}

/* buf = why the job is not running, "" when it is or has ended. */
static void put_reason(const struct sl_coord *c, const struct job *j, char *buf, size_t cap)
{
    uint32_t connected = 0, draining = 0, lacking = 0, weak = 0, idle = 0;
    uint64_t wait, before;

    *buf = 0;
    if (sl_job_ended(j->state))
        return;
    for (uint32_t i = 0; i < c->n_workers; i++) {
        connected += c->workers[i]->peer != 0;
        draining += c->workers[i]->peer != 0 && c->workers[i]->draining;
        lacking += c->workers[i]->peer != 0 && ((c->workers[i]->draining && j->n_leased == 0) || coord_lacks(c, c->workers[i], j));
        weak += c->workers[i]->peer != 0 && coord_lacks_what(c, c->workers[i], j, LACKS_MEMORY);
        idle += c->workers[i]->peer != 0 && !c->workers[i]->draining && c->workers[i]->n_held == 0 &&
                !coord_lacks(c, c->workers[i], j);
    }
    if (j->state == SL_JOB_HELD) {
        snprintf(buf, cap, "%s", j->error[0] ? j->error : "held by a user"); /* an older release kept nobody */
        return;
    }
    for (uint32_t i = 0; i < j->n_after; i++)
        if (j->dep[i] != DEP_MET) {
            snprintf(buf, cap, j->dep[i] == DEP_PENDING ? "waits for job %llu"
                                                        : "waits for job %llu, which did not succeed",
                     (unsigned long long)j->after[i]);
            return;
        }
    if (c->failed.code) /* workers cannot say hello either */
        snprintf(buf, cap, "the daemon's queue failed: %.980s", c->failed.text);
    else if (connected == 0)
        snprintf(buf, cap, "no worker is connected");
    else if (j->n_tasks == 0 && (before = coord_cleared_by(c, j)) != 0)
        snprintf(buf, cap, "waits until the files of job %llu are removed", (unsigned long long)before);
    else if ((before = coord_turn_behind(c, j)) != 0)
        snprintf(buf, cap, "waits for its turn behind job %llu", (unsigned long long)before);
    else if (connected == draining)
        snprintf(buf, cap, "all workers are draining");
    else if (j->state == SL_JOB_STITCHING && j->manual_stitch)
        snprintf(buf, cap, "waits for 'sluice stitch %llu'", (unsigned long long)j->id);
    else if (connected == lacking)
        snprintf(buf, cap, "waits for a worker that has %s: one that had left",
                 weak == 0 ? "its folder and files" : weak < lacking ? "its folder and files, and memory for it"
                                                                     : "memory for it (--mem)");
    else if (j->n_leased == 0 && coord_waits_for_cpu(c, j))
        snprintf(buf, cap, "GPUs failed at what is left of it: waits for a worker without one");
    else if (coord_runnable(c, j))
        snprintf(buf, cap, "%s", j->n_leased ? "" : idle ? "waits until a worker asks for work"
                                                         : "workers are busy with other jobs");
    else if (j->n_leased == 0 && (wait = next_try(j, c->now.run_ms)) > 0)
        snprintf(buf, cap, "a task failed; tried again in %llu s", (unsigned long long)(wait + 999) / 1000);
    else if (j->state == SL_JOB_RUNNING && j->group && j->n_ready && j->n_leased == 0)
        snprintf(buf, cap, "waits for the plans of its sweep");
}

/* Of what it holds: what it told last, if it has that still; else what it got first. */
static const struct held *in_hand(const struct worker *w)
{
    for (uint32_t i = 0; i < w->n_held; i++)
        if (w->held[i].job->id == w->cur_job && w->held[i].task == w->cur_task)
            return &w->held[i];
    return w->held;
}

void coord_put_job(struct sl_coord *c, cJSON *into, const struct job *j, bool files)
{
    struct sl_job_row r = {
        .id = j->id, .group = j->group, .state = j->state, .priority = j->priority,
        .user = j->user, .submitted_ms = j->submitted_ms,
        .started_ms = j->started_ms, .ended_ms = j->ended_ms, .code = j->code,
        .error = j->state == SL_JOB_HELD ? "" : j->error, /* its reason */
        .files = j->files, .n_tasks = j->n_tasks, .n_done = j->n_done,
        .n_quarantined = j->n_quarantined, .src_bytes = j->src_bytes, .file_bytes = j->file_bytes,
        .n_after = j->n_after, .n_labels = j->n_labels};
    uint64_t bytes = j->done_bytes, rate = 0;
    uint32_t leased = 0;
    char reason[1024];

    memcpy(r.after, j->after, sizeof r.after);
    memcpy(r.labels, j->labels, sizeof r.labels);
    coord_put_row(into, &r, j->spec, files);
    for (uint32_t i = 0; i < c->n_workers; i++) {
        const struct worker *w = c->workers[i];
        bool here = false;

        for (uint32_t k = 0; k < w->n_held; k++) {
            if (w->held[k].job != j)
                continue;
            here = true;
            leased++;
            if (w->held[k].task < SL_TASKS_MAX)
                bytes += coord_task((struct job *)(uintptr_t)j, w->held[k].task)->bytes_done;
        }
        rate += here && in_hand(w)->job == j ? w->rate : 0;
    }
    sl_put_uint(into, "leased", leased);
    sl_put_uint(into, "done_bytes", bytes);
    if (rate)
        put_sum(into, "rate", rate);
    put_reason(c, j, reason, sizeof reason);
    if (reason[0])
        sl_put_text(into, "reason", reason);
}

void coord_put_event(cJSON *into, const struct sl_event *ev)
{
    sl_put_uint(into, "id", ev->id);
    sl_put_uint(into, "time", ev->time_ms);
    if (ev->job)
        sl_put_uint(into, "job", ev->job);
    if (ev->task >= 0)
        sl_put_uint(into, "task", (uint64_t)ev->task);
    if (ev->worker[0])
        sl_put_str(into, "worker", ev->worker);
    sl_put_str(into, "kind", ev->kind);
    sl_put_text(into, "text", ev->text);
}

void coord_gpu_stats(const struct worker *w, struct sl_coord_stats *out)
{
    const cJSON *g;

    cJSON_ArrayForEach(g, w->gpus) {
        struct sl_coord_gpu *to = &out->gpus[out->n_gpus];

        if (out->n_gpus == SL_COORD_GPUS || !sl_get(g, "celsius"))
            continue;
        snprintf(to->worker, sizeof to->worker, "%s", w->name);
        snprintf(to->device, sizeof to->device, "%s", sl_get_str(g, "device"));
        to->celsius = sl_get_uint(g, "celsius", 0);
        to->watts = sl_get_uint(g, "watts", 0);
        to->memory = sl_get_uint(g, "memory", 0);
        to->memory_used = sl_get_uint(g, "memory_used", 0);
        out->n_gpus++;
    }
}

void coord_put_worker(const struct sl_coord *c, cJSON *into, const struct worker *w)
{
    sl_put_str(into, "name", w->name);
    sl_put_str(into, "instance", w->instance);
    sl_put_str(into, "host", w->host);
    if (w->pid)
        sl_put_uint(into, "pid", w->pid);
    if (w->device[0])
        sl_put_str(into, "device", w->device);
    if (w->threads)
        sl_put_uint(into, "threads", w->threads);
    if (w->mem)
        sl_put_uint(into, "mem", w->mem);
    sl_put_str(into, "state", !w->peer || w->silent ? "silent" : w->draining ? "draining"
                              : w->n_held                                    ? "busy"
                                                                             : "idle");
    sl_put_uint(into, "seen", c->now.run_ms - w->seen_ms);
    sl_put_uint(into, "held", w->n_held);
    if (w->n_held) {
        const struct held *h = in_hand(w);

        sl_put_uint(into, "job", h->job->id);
        sl_put_uint(into, "task", h->task);
        if (w->tensor[0] && h->job->id == w->cur_job && h->task == w->cur_task)
            sl_put_str(into, "tensor", w->tensor);
    }
    if (w->n_held && w->rate)
        sl_put_uint(into, "rate", w->rate);
    sl_put_uint(into, "done", w->done);
    put_sum(into, "bytes", w->done_bytes);
    if (w->gpus && w->peer && !w->silent)
        sl_put(into, "gpus", cJSON_Duplicate(w->gpus, true));
}

bool coord_watches(const struct session *s, uint64_t job)
{
    if (!s->watching)
        return false;
    if (!s->watch_jobs)
        return true;
    for (uint32_t i = 0; i < s->n_watch; i++)
        if (s->watch_jobs[i] == job)
            return true;
    return false;
}

int coord_tell_watchers(struct sl_coord *c, const struct sl_event *ev, struct sl_error *e)
{
    c->changes++;
    for (uint32_t i = 0; i < c->n_sessions; i++) {
        struct sl_msg m;

        if (!coord_watches(c->sessions[i], ev->job))
            continue;
        SL_TRY(sl_msg_new(SL_M_EVENT, NULL, &m, e));
        sl_put(m.tree, "event", cJSON_CreateObject());
        coord_put_event(sl_get(m.tree, "event"), ev);
        SL_TRY(coord_send(c, c->sessions[i]->peer, &m, e));
    }
    return 0;
}

/* Each character of a text may be escaped; 40: a name and a number. */
size_t coord_room_of(const cJSON *item)
{
    const cJSON *x;
    size_t n = 40 + (item && cJSON_IsString(item) ? 2 * strlen(item->valuestring) : 0);

    cJSON_ArrayForEach(x, item)
        n += coord_room_of(x);
    return n;
}

static int send_status(struct sl_coord *c, const struct session *s, struct sl_error *e)
{
    struct sl_msg m;
    cJSON *jobs, *workers;
    uint32_t n = 0;
    size_t room = 0;

    SL_TRY(sl_msg_new(SL_M_STATUS, NULL, &m, e));
    jobs = sl_put_array(m.tree, "jobs");
    workers = sl_put_array(m.tree, "workers");
    for (uint32_t i = 0; i < c->n_jobs && n < SL_JOBS_MAX && room < COORD_LISTED_BYTES; i++)
        if (coord_watches(s, c->jobs[i]->id)) {
            cJSON *job = sl_add_object(jobs);

            coord_put_job(c, job, c->jobs[i], false);
            room += coord_room_of(job);
            n++;
        }
    for (uint32_t i = 0; i < c->n_workers && i < SL_WORKERS_MAX; i++)
        coord_put_worker(c, sl_add_object(workers), c->workers[i]);
    return coord_send(c, s->peer, &m, e);
}

int coord_status(struct sl_coord *c, struct sl_error *e)
{
    for (uint32_t i = 0; i < c->n_sessions; i++) {
        struct session *s = c->sessions[i];

        if (!s->watching || s->status_changes == c->changes ||
            c->now.run_ms < s->status_ms + s->every_ms)
            continue;
        s->status_changes = c->changes;
        s->status_ms = c->now.run_ms;
        SL_TRY(send_status(c, s, e));
    }
    return 0;
}

int coord_tell_waiters(struct sl_coord *c, const struct job *j, struct sl_error *e)
{
    for (uint32_t i = 0; i < c->n_sessions; i++) {
        struct session *s = c->sessions[i];

        for (uint32_t k = 0; k < s->n_waits;) {
            struct sl_msg m;

            if (s->waits[k].job != j->id) {
                k++;
                continue;
            }
            SL_TRY(sl_msg_new(SL_M_ENDED, s->waits[k].re, &m, e));
            sl_put(m.tree, "job", cJSON_CreateObject());
            coord_put_job(c, sl_get(m.tree, "job"), j, true);
            s->waits[k] = s->waits[--s->n_waits];
            SL_TRY(coord_send(c, s->peer, &m, e));
        }
    }
    return 0;
}
