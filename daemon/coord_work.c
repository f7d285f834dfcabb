/* What workers say of their tasks. */
#include "daemon/coord_priv.h"

#include "proto/tensor_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int answer(struct sl_coord *c, const struct worker *w, const cJSON *t, const char *nack,
                  int code, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(nack ? SL_M_NACK : SL_M_ACK, NULL, &m, e));
    sl_put_uint(m.tree, "job", sl_get_uint(t, "job", 0));
    sl_put_uint(m.tree, "task", sl_get_uint(t, "task", 0));
    sl_put_uint(m.tree, "epoch", sl_get_uint(t, "epoch", 0));
    if (nack) {
        sl_put_uint(m.tree, "code", (uint64_t)-code);
        sl_put_text(m.tree, "text", nack);
    }
    return coord_send(c, w->peer, &m, e);
}

uint64_t coord_backoff_ms(uint32_t times)
{
    uint64_t wait = times < 7 ? 1000ull << (times ? times - 1 : 0) : BACKOFF_MAX_MS;

    return wait < BACKOFF_MAX_MS ? wait : BACKOFF_MAX_MS;
}

static void backoff(struct sl_coord *c, struct task *t, const struct worker *w)
{
    t->not_before_ms = c->now.run_ms + coord_backoff_ms(t->attempts);
    t->avoid = sl_xxh64(w->name, strlen(w->name));
    coord_turns_changed(c);
}

/* That it cannot work: of a worker of another release, one of the daemon's may know better. */
static bool says_never(int code)
{
    return code == -SL_EUSAGE || code == -SL_EUNSUPPORTED;
}

/* The job tells who cancelled it, and now that this left files. */
static int give_up_discard(struct sl_coord *c, struct job *j, const char *text, struct sl_error *e)
{
    char why[1024];
    int n = snprintf(why, sizeof why, "%.*s; its unfinished files are still there: %.700s", (int)strcspn(j->error, ";"), j->error,
                     text);

    if (!strstr(text, "cancel --discard"))
        snprintf(why + n, sizeof why - (size_t)n, " ('sluice cancel --discard %llu' tries again)", (unsigned long long)j->id);
    return coord_set_error(c, j, why, e);
}

int coord_task_failed(struct sl_coord *c, const struct worker *w, struct job *j, uint32_t task, int code,
                      enum counted counts, const char *text, struct sl_error *e)
{
    struct task *t = coord_task(j, task);
    bool final = says_never(code) ? !coord_other_release(c, w)
                                  : code == -SL_EEXISTS || (code == -SL_EVERIFY && task == SL_TASK_VERIFY);
    const struct sl_task_failure f = {
        .worker = w->name, .code = code, .text = text, .counts = counts != NO_ATTEMPT,
        .untouched = task == SL_TASK_PREPARE && !j->begun,
        .max_attempts = final || counts >= LAST_ATTEMPT ? 1 : j->attempts, .max_workers = c->o.quarantine_workers,
        .now_ms = c->now.wall_ms};
    enum sl_task_state state = SL_TASK_READY;

    c->stats.failures++;
    SL_TRY(sl_queue_fail(c->q, j->id, task, t->epoch, &f, &state, &t->attempts, e));
    coord_move(j, task, state);
    if (counts != NO_ATTEMPT)
        backoff(c, t, w);
    t->avoid_others = says_never(code) && counts != NO_ATTEMPT;
    if (t->avoid_others) /* by its name it may be upgraded, or another's that begins beside it */
        t->avoid = 0;
    SL_TRY(coord_event(c, state == SL_TASK_READY ? "task_failed" : "quarantined", j, task, w->name, e,
                       "%s", text));
    if (task == SL_TASK_DISCARD && state == SL_TASK_QUARANTINED)
        return give_up_discard(c, j, text, e);
    if (sl_job_ended(j->state) || j->state == SL_JOB_HELD || state == SL_TASK_READY)
        return 0;
    j->code = code;
    if (task >= SL_TASKS_MAX || final || counts == ENDS_JOB) {
        char why[1024];

        if (final || coord_advises(text))
            snprintf(why, sizeof why, "%s", text);
        else
            snprintf(why, sizeof why, "%.800s ('sluice retry %llu' goes on from there)", text,
                     (unsigned long long)j->id);
        SL_TRY(coord_revoke_all(c, j, "the job has failed", e));
        return coord_set_state(c, j, SL_JOB_FAILED, code, why, e);
    }
    return coord_advance(c, j, e);
}

/* Stitch found bytes that are not what was committed. */
static int take_back(struct sl_coord *c, struct worker *w, struct job *j, const cJSON *bad,
                     const char *text, struct sl_error *e)
{
    const cJSON *b;

    j->stitch_rounds++;
    SL_TRY(coord_return(c, j, SL_TASK_STITCH, e));
    cJSON_ArrayForEach(b, bad) {
        uint64_t number = (uint64_t)b->valuedouble;
        uint32_t task = (uint32_t)number;

        if (number >= j->n_tasks || j->tasks[task].state != SL_TASK_DONE)
            continue;
        SL_TRY(sl_queue_revoke(c->q, j->id, &task, 1, e));
        coord_move(j, task, SL_TASK_READY);
        SL_TRY(coord_event(c, "revoked", j, task, w->name, e, "%s", text));
    }
    return coord_advance(c, j, e);
}

/* Publish missed a finished file: stitch finds out what is to be made again. */
static int stitch_again(struct sl_coord *c, struct worker *w, struct job *j, const char *text, struct sl_error *e)
{
    uint32_t task = SL_TASK_STITCH;

    j->stitch_rounds++;
    SL_TRY(coord_return(c, j, SL_TASK_PUBLISH, e));
    SL_TRY(sl_queue_revoke(c->q, j->id, &task, 1, e));
    coord_move(j, SL_TASK_STITCH, SL_TASK_READY);
    return coord_event(c, "revoked", j, SL_TASK_STITCH, w->name, e, "%s", text);
}

/* ---- results */

static int numbers(const cJSON *a, uint64_t **out, uint32_t *n, struct sl_error *e)
{
    const cJSON *x;
    uint32_t i = 0;

    *n = (uint32_t)cJSON_GetArraySize(a);
    *out = calloc(*n ? *n : 1, sizeof **out);
    if (!*out)
        return sl_no_memory(e);
    cJSON_ArrayForEach(x, a)
        (*out)[i++] = (uint64_t)x->valuedouble;
    return 0;
}

/* Checks what a worker says of a plan; why is for the worker. */
static int check_plan(const struct sl_coord *c, const struct sl_queue_plan *p, uint32_t n_out,
                      uint32_t n_shard, const uint64_t *shard, struct sl_error *why)
{
    uint64_t src = 0;

    if (p->n_tasks == 0 || n_out != p->n_tasks || n_shard != p->n_tasks)
        return sl_fail(why, SL_EUSAGE, "result: plan: src_bytes, out_bytes and shard must be of one length, at least 1");
    if (c->o.bytes_version && strcmp(p->version, c->o.bytes_version) != 0)
        return sl_fail(why, SL_EUNSUPPORTED, "result: plan: bytes of version %s, %s is expected",
                       p->version, c->o.bytes_version);
    for (uint32_t i = 0; i < p->n_tasks; i++) {
        src += p->src_bytes[i];
        if (shard[i] > UINT32_MAX || (i && shard[i] < shard[i - 1]))
            return sl_fail(why, SL_EUSAGE, "result: plan: shard must not fall");
        if (src > SL_WIRE_UINT_MAX)
            return sl_fail(why, SL_EUSAGE, "result: plan: too many bytes");
    }
    return 0;
}

/* Records the plan, on disk and in memory. */
static int take_plan(struct sl_coord *c, struct job *j, const cJSON *plan, struct sl_error *why,
                     struct sl_error *e)
{
    uint64_t *src = NULL, *out = NULL, *shard = NULL;
    uint32_t n_out = 0, n_shard = 0, *sh = NULL;
    struct sl_queue_plan p = {
        .fingerprint = sl_get_str(plan, "fingerprint"), .source = sl_get_str(plan, "source"),
        .recipe = sl_get_str(plan, "recipe"), .options = sl_get_str(plan, "options"),
        .version = sl_get_str(plan, "version"), .file_bytes = sl_get_uint(plan, "file_bytes", 0)};
    int rc = numbers(sl_get(plan, "src_bytes"), &src, &p.n_tasks, e);

    if (rc == 0)
        rc = numbers(sl_get(plan, "out_bytes"), &out, &n_out, e);
    if (rc == 0)
        rc = numbers(sl_get(plan, "shard"), &shard, &n_shard, e);
    p.src_bytes = src;
    p.out_bytes = out;
    why->code = 0;
    if (rc == 0 && check_plan(c, &p, n_out, n_shard, shard, why) == 0) {
        sh = calloc(p.n_tasks, sizeof *sh);
        if (!sh)
            rc = sl_no_memory(e);
        for (uint32_t i = 0; rc == 0 && i < p.n_tasks; i++)
            sh[i] = (uint32_t)shard[i];
        p.shard = sh;
        if (rc == 0)
            rc = sl_queue_set_plan(c->q, j->id, &p, e);
        if (rc == 0)
            rc = coord_set_tasks(j, &p, e);
    }
    free(src);
    free(out);
    free(shard);
    free(sh);
    return rc;
}

/* What the result of a task must be; 0, or a negative code in why. */
static int check_result(uint32_t task, const struct task *t, const cJSON *m,
                        struct sl_error *why)
{
    if (task < SL_TASKS_MAX && !sl_get_str(m, "checksum"))
        return sl_fail(why, SL_EUSAGE, "result: field 'checksum' is missing");
    if (task < SL_TASKS_MAX && sl_get_uint(m, "bytes", 0) != t->out)
        return sl_fail(why, SL_EVERIFY, "result: %llu bytes written, the plan says %llu",
                       (unsigned long long)sl_get_uint(m, "bytes", 0), (unsigned long long)t->out);
    if (task == SL_TASK_PREPARE && !sl_get(m, "plan"))
        return sl_fail(why, SL_EUSAGE, "result: field 'plan' is missing");
    return 0;
}

static int finish(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task,
                  const cJSON *m, struct sl_error *e)
{
    const struct task *t = coord_task(j, task);
    uint64_t sum = sl_get_hex64(m, "checksum");

    SL_TRY(sl_queue_finish(c->q, j->id, task, t->epoch, sum, e));
    coord_task(j, task)->checksum = sum;
    coord_move(j, task, SL_TASK_DONE);
    c->stats.results++;
    if (task < SL_TASKS_MAX) {
        w->done++;
        w->done_bytes += t->src;
        c->stats.done_bytes += t->src;
    }
    if (task == SL_TASK_PUBLISH && sl_get(m, "files")) {
        char *files = cJSON_PrintUnformatted(sl_get(m, "files"));

        if (!files)
            return sl_no_memory(e);
        free(j->files);
        j->files = strdup(files);
        cJSON_free(files);
        if (!j->files)
            return sl_no_memory(e);
        SL_TRY(sl_queue_set_files(c->q, j->id, j->files, e));
    }
    if (task == SL_TASK_PREPARE)
        SL_TRY(coord_event(c, "planned", j, task, w->name, e, "%u tasks, %llu bytes of source, %llu of "
                           "output", j->n_tasks, (unsigned long long)j->src_bytes,
                           (unsigned long long)j->file_bytes));
    return coord_advance(c, j, e);
}

static int on_result(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task,
                     const cJSON *m, struct sl_error *e)
{
    struct sl_error why = {0};
    bool another = false;

    if (check_result(task, coord_task(j, task), m, &why) == 0 && task == SL_TASK_PREPARE)
        SL_TRY(take_plan(c, j, sl_get(m, "plan"), &why, e));
    if (why.code < 0) {
        SL_TRY(coord_task_failed(c, w, j, task, why.code == SL_EVERIFY ? -SL_EVERIFY : -SL_EFAIL, ATTEMPT, why.text, e));
        return answer(c, w, m, why.text, why.code, e);
    }
    /* An empty folder may have the name of one that is mounted at another worker's. */
    if (task == SL_TASK_DISCARD && sl_get_uint(m, "bytes", 0) == 0)
        SL_TRY(coord_note_lack(c, w, j, LACKS_FILES, &another, e));
    if (another) {
        SL_TRY(coord_return(c, j, task, e));
        return answer(c, w, m, NULL, 0, e);
    }
    SL_TRY(finish(c, w, j, task, m, e));
    return answer(c, w, m, NULL, 0, e);
}

static int on_fail(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task,
                   const cJSON *t, struct sl_error *e)
{
    const cJSON *bad = sl_get(t, "bad");
    int code = (int)sl_get_uint(t, "code", 1);
    const char *text = sl_get_str(t, "text");
    bool lacks = code == -SL_ELACKS || code == -SL_ENOSOURCE, another = false;
    bool weak = code == -SL_EUSAGE && task < SL_TASKS_MAX; /* the job was prepared: too little memory, here */
    char told[1024];

    snprintf(told, sizeof told, "%.800s (worker %s is of release %s, the daemon of %s: use one everywhere)", text, w->name,
             w->version, c->o.version);
    text = says_never(code) && coord_other_release(c, w) ? told : text;
    if (lacks || weak)
        SL_TRY(coord_note_lack(c, w, j, weak ? LACKS_MEMORY : LACKS_PLACE, &another, e));
    if (lacks) /* as what it is told and kept */
        code = code == -SL_ENOSOURCE ? -SL_ESOURCE : -SL_EFAIL;
    if (lacks && task == SL_TASK_PREPARE)
        j->begun = j->begun_before;
    if (lacks && task == SL_TASK_DISCARD && !another && (!j->begun || coord_saw_none(c, j))) /* there is no file of it */
        SL_TRY(finish(c, w, j, task, t, e));
    else if (task == SL_TASK_STITCH && code == -SL_EVERIFY && cJSON_GetArraySize(bad) > 0 &&
             j->state == SL_JOB_STITCHING && j->stitch_rounds < STITCH_ROUNDS)
        SL_TRY(take_back(c, w, j, bad, text, e));
    else if (task == SL_TASK_PUBLISH && code == -SL_EVERIFY && j->state == SL_JOB_STITCHING &&
             j->stitch_rounds < STITCH_ROUNDS)
        SL_TRY(stitch_again(c, w, j, text, e));
    else
        SL_TRY(coord_task_failed(c, w, j, task, code ? code : 1, another ? NO_ATTEMPT : ATTEMPT, text, e));
    if (another)
        SL_TRY(coord_revoke_from(c, w, j, weak ? "this worker may take too little memory for the job"
                                               : "this worker lacks the job's folder or files", e));
    return answer(c, w, t, NULL, 0, e);
}

/* result, fail and giveback: only with the current lease. */
static int on_task_message(struct sl_coord *c, struct worker *w, const struct sl_msg *m,
                           struct sl_error *e)
{
    uint64_t id = sl_get_uint(m->tree, "job", 0);
    uint32_t task = (uint32_t)sl_get_uint(m->tree, "task", 0);
    struct job *j = coord_job(c, id);
    struct task *t = j ? coord_task(j, task) : NULL;

    if (m->id == SL_M_RESULT || (m->id == SL_M_FAIL && sl_get_uint(m->tree, "code", 1) != -SL_EDEVICE))
        coord_outlived(j, task);
    if (!t || t->state != SL_TASK_LEASED || t->holder != w ||
        t->epoch != sl_get_uint(m->tree, "epoch", 0)) {
        /* The acknowledgement of a result that was committed may have been lost. */
        if (t && m->id == SL_M_RESULT && t->state == SL_TASK_DONE &&
            t->epoch == sl_get_uint(m->tree, "epoch", 0) &&
            t->checksum == sl_get_hex64(m->tree, "checksum"))
            return answer(c, w, m->tree, NULL, 0, e);
        c->stats.stale++;
        return answer(c, w, m->tree, "the lease is not yours any more; nothing was changed", SL_EFAIL, e);
    }
    c->changes++;
    if (m->id == SL_M_RESULT)
        return on_result(c, w, j, task, m->tree, e);
    if (m->id == SL_M_FAIL && sl_get_uint(m->tree, "code", 1) != -SL_EDEVICE)
        return on_fail(c, w, j, task, m->tree, e);
    if (m->id == SL_M_FAIL)
        SL_TRY(coord_lose_gpu(c, w, j, task, sl_get_str(m->tree, "text"), e));
    else
        SL_TRY(coord_return(c, j, task, e));
    return answer(c, w, m->tree, NULL, 0, e);
}

/* The first one told is where counting begins: a worker may have been here before. */
static void count_stages(struct sl_coord *c, struct worker *w, const cJSON *told)
{
    if (!told)
        return;
    for (unsigned i = 0; i < SL_STAGES; i++) {
        uint64_t ms = sl_get_uint(told, sl_stage_name[i], 0);

        if (w->stages_told && ms > w->stages[i])
            c->stats.stages[i] += ms - w->stages[i];
        w->stages[i] = ms;
    }
    w->stages_told = true;
}

static void on_progress(struct sl_coord *c, struct worker *w, const cJSON *m)
{
    uint64_t bytes = sl_get_uint(m, "bytes", 0);
    const char *tensor = sl_get_str(m, "tensor");
    const cJSON *x;
    bool first = true;

    if (bytes > w->bytes) /* only work extends leases */
        w->progress_ms = c->now.run_ms;
    w->bytes = bytes;
    w->rate = sl_get_uint(m, "rate", 0);
    snprintf(w->tensor, sizeof w->tensor, "%s", tensor ? tensor : "");
    count_stages(c, w, sl_get(m, "stages"));
    cJSON_ArrayForEach(x, sl_get(m, "tasks")) {
        uint64_t id = sl_get_uint(x, "job", 0), epoch = sl_get_uint(x, "epoch", 0);
        uint32_t task = (uint32_t)sl_get_uint(x, "task", 0);

        for (uint32_t i = 0; i < w->n_held; i++) {
            struct held *h = &w->held[i];
            struct task *t = coord_task(h->job, h->task);

            if (h->job->id != id || h->task != task || t->epoch != epoch)
                continue;
            t->bytes_done = sl_get_uint(x, "bytes", 0);
            if (task < SL_TASKS_MAX && t->bytes_done > t->src)
                t->bytes_done = t->src;
            if (first) {
                w->cur_job = id;
                w->cur_task = task;
                first = false;
            }
        }
    }
    c->changes++;
}

static int on_bye(struct sl_coord *c, struct session *s, const cJSON *m, struct sl_error *e)
{
    struct worker *w = s->worker;
    const char *text = sl_get_str(m, "text");

    while (w->n_held > 0)
        SL_TRY(coord_return(c, w->held[0].job, w->held[0].task, e));
    coord_drop_session(c, s);
    w->known = false;
    c->changes++;
    return coord_event(c, "worker_left", NULL, -1, w->name, e, "%s", text ? text : "");
}

static int on_gpus(struct sl_coord *c, struct worker *w, const cJSON *m, struct sl_error *e)
{
    cJSON *copied = cJSON_Duplicate(sl_get(m, "gpus"), true);

    if (!copied)
        return sl_no_memory(e);
    cJSON_Delete(w->gpus);
    w->gpus = copied;
    c->changes++;
    return 0;
}

int coord_on_work(struct sl_coord *c, struct session *s, const struct sl_msg *m, struct sl_error *e)
{
    switch (m->id) {
    case SL_M_PULL:
        s->worker->want = s->lost ? 0 : (uint32_t)sl_get_uint(m->tree, "want", 0);
        return 0;
    case SL_M_PROGRESS:
        on_progress(c, s->worker, m->tree);
        return 0;
    case SL_M_GPUS:
        return on_gpus(c, s->worker, m->tree, e);
    case SL_M_BYE:
        return on_bye(c, s, m->tree, e);
    default:
        return on_task_message(c, s->worker, m, e);
    }
}
