#include "client/convert_store.h"

#include "daemon/queue.h"
#include "proto/clock.h"
#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define WORKER "convert"

struct convert_store {
    struct sl_queue *q;
    uint64_t job; /* 0: none yet */
};

static int take_job(void *user, const struct sl_job_row *row)
{
    *(uint64_t *)user = row->id;
    return 0;
}

int convert_store_open(const char *path, struct convert_store **out, struct sl_error *e)
{
    const struct sl_job_filter first = {.limit = 1};
    struct convert_store *s = calloc(1, sizeof *s);
    int rc = s ? sl_queue_open(path, &s->q, e) : sl_no_memory(e);

    *out = NULL;
    if (rc == 0)
        rc = sl_queue_each_job(s->q, &first, take_job, &s->job, e);
    if (rc < 0) {
        convert_store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void convert_store_close(struct convert_store *s)
{
    if (!s)
        return;
    sl_queue_close(s->q);
    free(s);
}

void convert_store_remove(const char *path)
{
    sl_queue_remove(path);
}

struct done {
    bool stitch, publish, all; /* all: the plan's tasks */
};

static int note_done(void *user, const struct sl_task_row *row)
{
    struct done *d = user;

    if (row->task < SL_TASKS_MAX)
        d->all &= row->state == SL_TASK_DONE;
    d->stitch |= row->task == SL_TASK_STITCH && row->state == SL_TASK_DONE;
    d->publish |= row->task == SL_TASK_PUBLISH && row->state == SL_TASK_DONE;
    return 0;
}

static int what_is_done(struct convert_store *s, struct done *d, struct sl_error *e)
{
    *d = (struct done){.all = true};
    return sl_queue_each_task(s->q, s->job, note_done, d, e);
}

int convert_store_state(struct convert_store *s, struct sl_error *e)
{
    struct done d;

    if (s->job == 0)
        return CONVERT_NEW;
    SL_TRY(what_is_done(s, &d, e));
    return d.publish ? CONVERT_PUBLISHED : d.stitch ? CONVERT_PUBLISHING : CONVERT_CONVERTING;
}

struct leases {
    struct convert_store *s;
    struct sl_error *e;
};

static int give_back(void *user, const struct sl_task_row *row)
{
    struct leases *l = user;

    if (row->state == SL_TASK_LEASED)
        SL_TRY(sl_queue_return(l->s->q, l->s->job, row->task, row->epoch, l->e));
    return 0;
}

int convert_store_go_on(struct convert_store *s, struct sl_error *e)
{
    struct leases all = {s, e};
    struct done d;

    SL_TRY(what_is_done(s, &d, e));
    SL_TRY(sl_queue_each_task(s->q, s->job, give_back, &all, e));
    SL_TRY(sl_queue_retry(s->q, s->job, e));
    if (d.stitch)
        SL_TRY(sl_queue_add_task(s->q, s->job, SL_TASK_PUBLISH, e));
    SL_TRY(sl_queue_set_state(s->q, s->job, d.all ? SL_JOB_STITCHING : SL_JOB_RUNNING, 0, NULL,
                              sl_wall_ms(), e));
    return sl_queue_commit(s->q, e);
}

int convert_store_interrupted(struct convert_store *s, struct sl_error *e)
{
    SL_TRY(sl_queue_set_state(s->q, s->job, SL_JOB_INTERRUPTED, 0, NULL, sl_wall_ms(), e));
    return sl_queue_commit(s->q, e);
}

struct sl_queue *convert_store_queue(struct convert_store *s)
{
    return s->q;
}

uint64_t convert_store_job(const struct convert_store *s)
{
    return s->job;
}

/* Leases and finishes the prepare task in one go: its work has been done here. */
static int finish_prepare(struct convert_store *s, struct sl_error *e)
{
    const struct sl_new_lease l = {.job = s->job, .task = SL_TASK_PREPARE, .epoch = sl_queue_take_epoch(s->q),
                                   .worker = WORKER, .owner = WORKER};
    int rc;

    SL_TRY(rc = sl_queue_lease(s->q, &l, e));
    if (rc == 1)
        SL_TRY(rc = sl_queue_finish(s->q, s->job, l.task, l.epoch, 0, e));
    return rc == 1 ? 0 : sl_fail(e, SL_EFAIL, "its prepare task is not waiting to be done");
}

static int record(struct convert_store *s, const struct sl_queue_plan *p, const char *spec,
                  struct sl_error *e)
{
    const struct sl_new_job job = {.user = "", .spec = spec, .state = SL_JOB_QUEUED, .attempts = 1};

    SL_TRY(sl_queue_submit(s->q, &job, sl_wall_ms(), &s->job, e));
    SL_TRY(sl_queue_set_plan(s->q, s->job, p, e));
    SL_TRY(finish_prepare(s, e));
    SL_TRY(sl_queue_set_state(s->q, s->job, SL_JOB_RUNNING, 0, NULL, sl_wall_ms(), e));
    return sl_queue_commit(s->q, e);
}

struct held {
    const struct sl_queue_plan *p;
    bool other, prepared, undone, stitched;
};

/* What record() wrote, and nothing for which it would wait for ever. Its files may have another size in a release whose number
 * has another length: those that differ are made anew. */
static int look_at_job(void *user, const struct sl_job_row *row)
{
    struct held *h = user;
    uint64_t src = 0;

    for (uint32_t t = 0; t < h->p->n_tasks; t++)
        src += h->p->src_bytes[t];
    h->other |= strcmp(row->fingerprint, h->p->fingerprint) != 0 || row->src_bytes != src || *row->user || row->group ||
                row->manual_stitch || row->verify || row->n_after;
    return 0;
}

static int look_at_task(void *user, const struct sl_task_row *row)
{
    struct held *h = user;
    uint32_t t = row->task;

    if (t < SL_TASKS_MAX) {
        h->other |= t >= h->p->n_tasks || row->src_bytes != h->p->src_bytes[t] || row->out_bytes != h->p->out_bytes[t];
        h->undone |= row->state != SL_TASK_DONE;
    } else {
        h->other |= t > SL_TASK_PUBLISH;
        h->prepared |= t == SL_TASK_PREPARE && row->state == SL_TASK_DONE;
        h->stitched |= t == SL_TASK_STITCH && row->state == SL_TASK_DONE;
    }
    return 0;
}

static int hold_against(struct convert_store *s, const struct sl_queue_plan *p, struct sl_error *e)
{
    const struct sl_job_filter ours = {.id = s->job, .limit = 1};
    struct held h = {.p = p};
    struct sl_error why = {0};
    int rc = sl_queue_same_plan(s->q, s->job, p, &why);

    if (rc == SL_EEXISTS)
        return sl_fail(e, rc, "%.800s; repeat the first command to finish it, or --force to start anew",
                       why.text);
    if (rc == 0 && (rc = sl_queue_each_job(s->q, &ours, look_at_job, &h, &why)) == 0)
        rc = sl_queue_each_task(s->q, s->job, look_at_task, &h, &why);
    if (rc == 0 && (h.other || !h.prepared || (h.undone && h.stitched)))
        return sl_fail(e, SL_EEXISTS, "%s: damaged, or not what convert wrote there; --force starts anew", sl_queue_path(s->q));
    return rc < 0 ? sl_fail(e, rc, "%s", why.text) : 0;
}

int convert_store_begin(struct convert_store *s, const struct sl_plan *p, const char *source,
                        const char *spec, struct sl_error *e)
{
    const char *recipe = "";
    char source_id[256], recipe_id[256];
    uint64_t *src = calloc((size_t)p->n_tasks + 1, sizeof *src);
    uint64_t *out = calloc((size_t)p->n_tasks + 1, sizeof *out);
    uint32_t *shard = calloc((size_t)p->n_tasks + 1, sizeof *shard);
    const struct sl_queue_plan qp = {p->fingerprint, source_id, recipe_id, p->options, p->parts.version,
                                     p->file_bytes, p->n_tasks, src, out, shard};
    int rc = src && out && shard ? 0 : sl_no_memory(e);

    if (rc == 0 && p->n_tasks > SL_TASKS_MAX)
        rc = sl_fail(e, SL_EUSAGE, "%u tasks, but a job has at most %u; give a larger --task-size",
                     p->n_tasks, SL_TASKS_MAX);
    sl_kvs_get_str(&p->segments[0].kvs, SL_KEY_RECIPE, &recipe);
    sl_plan_label(source_id, source, p->parts.source);
    sl_plan_label(recipe_id, recipe, p->parts.recipe);
    for (uint32_t t = 0; rc == 0 && t < p->n_tasks; t++) {
        src[t] = p->tasks[t].src_bytes;
        out[t] = p->tasks[t].out_bytes;
    }
    if (rc == 0 && s->job == 0)
        rc = record(s, &qp, spec, e);
    if (rc == 0)
        rc = hold_against(s, &qp, e);
    free(src);
    free(out);
    free(shard);
    return rc;
}

static int take_begun(void *user, const struct sl_job_row *row)
{
    struct convert_begun *b = user;
    cJSON *spec = cJSON_Parse(row->spec);
    const char *recipe = sl_get_str(spec, "recipe"), *text = sl_get_str(spec, "recipe_text");

    if (recipe && text) {
        b->recipe = strdup(recipe);
        b->recipe_text = strdup(text);
        b->fingerprint = strdup(row->fingerprint);
    }
    cJSON_Delete(spec);
    return 0;
}

int convert_store_begun(struct convert_store *s, struct convert_begun *b, struct sl_error *e)
{
    const struct sl_job_filter ours = {.id = s->job, .limit = 1};
    int state;

    *b = (struct convert_begun){NULL, NULL, NULL};
    SL_TRY(state = convert_store_state(s, e));
    return state == CONVERT_NEW || state == CONVERT_PUBLISHED ? 0 : sl_queue_each_job(s->q, &ours, take_begun, b, e);
}

void convert_begun_free(struct convert_begun *b)
{
    free(b->recipe);
    free(b->recipe_text);
    free(b->fingerprint);
}

struct each {
    void (*fn)(void *user, uint32_t task, uint64_t checksum);
    void *user;
};

static int pass_done(void *user, const struct sl_task_row *row)
{
    struct each *each = user;

    if (row->task < SL_TASKS_MAX && row->state == SL_TASK_DONE)
        each->fn(each->user, row->task, row->checksum);
    return 0;
}

int convert_store_each(struct convert_store *s,
                       void (*fn)(void *user, uint32_t task, uint64_t checksum), void *user,
                       struct sl_error *e)
{
    struct each each = {fn, user};

    return sl_queue_each_task(s->q, s->job, pass_done, &each, e);
}

int convert_store_revoke(struct convert_store *s, const uint32_t *tasks, uint32_t n,
                         struct sl_error *e)
{
    SL_TRY(sl_queue_revoke(s->q, s->job, tasks, n, e));
    return sl_queue_commit(s->q, e);
}
