/* What a worker says. */
#include "worker/worker_priv.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sl_worker_log(struct sl_worker *w, enum sl_log_level level, const char *event, uint64_t job,
                int64_t task, const char *fmt, ...)
{
    char text[1200];
    va_list ap;

    if (!w->o.log)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sl_log_write(w->o.log, level, &(struct sl_log_fields){event, job, task, w->name, text});
}

/* ---- sending */

#define UNSENT_MS 1000u /* until a hello that could not be made is made again */

/* A message that cannot be made (memory, a field over its limit) is not sent; what
 * matters is repeated. */
static int send_message(struct sl_worker *w, const struct sl_msg *m, uint64_t now_ms)
{
    struct message *out = calloc(1, sizeof *out);
    struct sl_error e;
    int rc = out ? sl_wire_encode(m, &out->bytes, &out->n, &e) : sl_no_memory(&e);

    if (rc < 0) {
        sl_worker_log(w, SL_LOG_ERROR, "message-unsent", 0, -1, "%s", e.text);
        free(out);
        return rc;
    }
    *w->out_end = out;
    w->out_end = &out->next;
    w->said_ms = now_ms;
    return 0;
}

/* The worker ends when memory was out, since the daemon waits for this one. */
static void must_send(struct sl_worker *w, const struct sl_msg *m, uint64_t now_ms)
{
    if (send_message(w, m, now_ms) == SL_EFAIL)
        sl_no_memory(&w->refused);
}

static cJSON *begin_message(enum sl_message_id id, struct sl_msg *m)
{
    struct sl_error e;

    return sl_msg_new(id, NULL, m, &e) == 0 ? m->tree : NULL;
}

static int send_and_free(struct sl_worker *w, struct sl_msg *m, uint64_t now_ms)
{
    int rc = send_message(w, m, now_ms);

    sl_msg_free(m);
    return rc;
}

static void put_ref(cJSON *o, uint64_t job, uint32_t task, uint64_t epoch)
{
    sl_put_uint(o, "job", job);
    sl_put_uint(o, "task", task);
    sl_put_uint(o, "epoch", epoch);
}

void sl_worker_send_hello(struct sl_worker *w, uint64_t now_ms)
{
    struct sl_msg m;
    cJSON *t = begin_message(SL_M_HELLO, &m), *held;

    sl_put_str(t, "role", "worker");
    sl_put_str(t, "version", SLUICE_VERSION);
    sl_put_str(t, "instance", w->instance);
    sl_put_text(t, "name", w->name);
    sl_put_text(t, "host", w->host);
    sl_put_uint(t, "pid", w->o.pid);
    sl_put_str(t, "bytes", SL_BYTES_VERSION);
    sl_put_text(t, "device", w->device);
    sl_put_uint(t, "threads", w->o.threads);
    sl_put_uint(t, "mem", w->o.mem_bytes);
    held = sl_put_array(t, "held");
    for (unsigned i = 0; i < w->n_held; i++)
        put_ref(sl_add_object(held), w->held[i].job, w->held[i].task, w->held[i].epoch);
    w->link = LINK_HELLO;
    w->hello_ms = now_ms;
    w->tries++;
    if (send_and_free(w, &m, now_ms) < 0) {
        w->link = LINK_NONE;
        w->hello_ms += UNSENT_MS;
    }
}

void sl_worker_send_pull(struct sl_worker *w, unsigned want, uint64_t now_ms)
{
    struct sl_msg m;

    sl_put_uint(begin_message(SL_M_PULL, &m), "want", want);
    w->asked = send_and_free(w, &m, now_ms) < 0 ? 0 : want;
    w->pull_ms = now_ms;
}

void sl_worker_send_bye(struct sl_worker *w, const char *text, uint64_t now_ms)
{
    struct sl_msg m;

    sl_put_text(begin_message(SL_M_BYE, &m), "text", text);
    send_and_free(w, &m, now_ms);
}

int sl_worker_make_last_words(struct sl_worker *w, struct sl_error *e)
{
    struct sl_msg m;
    int rc;

    SL_TRY(sl_msg_new(SL_M_BYE, NULL, &m, e));
    sl_put_str(m.tree, "text", "failed");
    rc = sl_wire_encode(&m, &w->last_words, &w->n_last_words, e);
    sl_msg_free(&m);
    return rc;
}

void sl_worker_send_giveback(struct sl_worker *w, uint64_t job, uint32_t task, uint64_t epoch,
                             uint64_t now_ms)
{
    struct sl_msg m;

    put_ref(begin_message(SL_M_GIVEBACK, &m), job, task, epoch);
    must_send(w, &m, now_ms);
    sl_msg_free(&m);
}

void sl_worker_send_n(struct sl_worker *w, enum sl_message_id id, uint64_t n, uint64_t now_ms)
{
    struct sl_msg m;

    sl_put_uint(begin_message(id, &m), "n", n);
    send_and_free(w, &m, now_ms);
}

void sl_worker_send_progress(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    struct sl_msg m;
    cJSON *t = begin_message(SL_M_PROGRESS, &m), *tasks;
    uint64_t ms = now_ms - w->rate_ms;

    if (ms >= 1000) {
        w->rate = (p->bytes - w->rate_bytes) * 1000 / ms;
        w->rate_ms = now_ms;
        w->rate_bytes = p->bytes;
    }
    sl_put_uint(t, "bytes", p->bytes % (SL_WIRE_UINT_MAX + 1));
    tasks = sl_put_array(t, "tasks");
    for (unsigned i = 0; i < p->n_tasks; i++) {
        cJSON *o = sl_add_object(tasks);

        put_ref(o, p->tasks[i].job, p->tasks[i].task, p->tasks[i].epoch);
        sl_put_uint(o, "bytes", p->tasks[i].bytes);
    }
    sl_put_uint(t, "rate", w->rate);
    snprintf(w->tensor, sizeof w->tensor, "%s", p->tensor ? p->tensor : "");
    if (w->tensor[0])
        sl_put_text(t, "tensor", w->tensor);
    if (p->stages) {
        cJSON *o = cJSON_CreateObject();

        sl_put(t, "stages", o);
        for (unsigned i = 0; i < SL_STAGES; i++)
            sl_put_uint(o, sl_stage_name[i], p->stages[i]);
    }
    send_and_free(w, &m, now_ms);
    w->progress_ms = now_ms;
}

void sl_worker_send_gpus(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    struct sl_msg m;
    cJSON *gpus = sl_put_array(begin_message(SL_M_GPUS, &m), "gpus");

    for (unsigned i = 0; i < p->n_gpus; i++) {
        const struct sl_gpu_health *g = &p->gpus[i];
        cJSON *o = sl_add_object(gpus);

        sl_put_str(o, "device", g->device);
        sl_put_str(o, "name", g->name);
        if (g->told) {
            sl_put_uint(o, "celsius", g->celsius);
            sl_put_uint(o, "watts", g->watts);
        }
        sl_put_uint(o, "memory", g->memory);
        if (g->told)
            sl_put_uint(o, "memory_used", g->memory_used);
    }
    send_and_free(w, &m, now_ms);
    w->gpus_ms = now_ms;
}

int sl_worker_next(const struct sl_worker *w, const uint8_t **bytes, size_t *n)
{
    if (!w->out)
        return 0;
    *bytes = w->out->bytes;
    *n = w->out->n;
    return 1;
}

void sl_worker_sent(struct sl_worker *w)
{
    struct message *m = w->out;

    w->out = m->next;
    if (!w->out)
        w->out_end = &w->out;
    free(m->bytes);
    free(m);
}

void sl_worker_drop_messages(struct sl_worker *w)
{
    while (w->out)
        sl_worker_sent(w);
}

/* ---- what is held, and what came of it */

struct held *sl_worker_find(struct sl_worker *w, uint64_t job, uint32_t task, uint64_t epoch)
{
    for (unsigned i = 0; i < w->n_held; i++)
        if (w->held[i].job == job && w->held[i].task == task && w->held[i].epoch == epoch)
            return &w->held[i];
    return NULL;
}

void sl_worker_forget(struct sl_worker *w, struct held *h)
{
    if (!h->answer.tree)
        w->o.drop(w->o.user, h->job, h->task, h->epoch);
    sl_msg_free(&h->answer);
    memmove(h, h + 1, (size_t)(&w->held[w->n_held] - (h + 1)) * sizeof *h);
    w->n_held--;
}

void sl_worker_send_answer(struct sl_worker *w, struct held *h, uint64_t now_ms)
{
    must_send(w, &h->answer, now_ms);
    h->sent_ms = now_ms;
}

static enum sl_message_id answer_kind(const struct sl_outcome *o)
{
    return o->kind == SL_OUTCOME_RESULT ? SL_M_RESULT
           : o->kind == SL_OUTCOME_FAIL ? SL_M_FAIL : SL_M_GIVEBACK;
}

static void fill_answer(cJSON *t, struct sl_outcome *o)
{
    put_ref(t, o->job, o->task, o->epoch);
    if (o->kind == SL_OUTCOME_RESULT) {
        sl_put_uint(t, "bytes", o->bytes);
        if (o->has_checksum)
            sl_put_hex64(t, "checksum", o->checksum);
        if (o->plan)
            sl_put(t, "plan", o->plan);
        if (o->files)
            sl_put_texts(t, "files", o->files);
        o->plan = NULL;
    } else if (o->kind == SL_OUTCOME_FAIL) {
        sl_put_uint(t, "code", o->error.code < 0 ? (uint64_t)-o->error.code : 1);
        sl_put_text(t, "text", o->error.text);
        if (o->n_bad)
            sl_put_uints(t, "bad", o->bad, o->n_bad);
    }
}

void sl_worker_outcome(struct sl_worker *w, struct sl_outcome *o, uint64_t now_ms)
{
    struct held *h = sl_worker_find(w, o->job, o->task, o->epoch);

    if (h && !h->answer.tree) {
        fill_answer(begin_message(answer_kind(o), &h->answer), o);
        if (o->kind == SL_OUTCOME_FAIL)
            sl_worker_log(w, SL_LOG_ERROR, "task-failed", o->job, o->task, "failed: %s", o->error.text);
        else
            sl_worker_log(w, SL_LOG_DEBUG, o->kind == SL_OUTCOME_RESULT ? "task-done" : "task-handed-back",
                o->job, o->task, "%llu bytes", (unsigned long long)o->bytes);
        w->window_done++;
        if (w->link == LINK_OPEN || !h->answer.tree)
            sl_worker_send_answer(w, h, now_ms);
    }
    sl_outcome_free(o);
}
