#include "worker/worker_state.h"

#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELD_MAX 1024u
#define JOBS_MAX 256u
#define AHEAD 3u
#define WANT_MAX 64u
#define WELCOME_MS 5000u      /* for an answer to hello */
#define REPEAT_MS 10000u      /* for an answer to a result */
#define BACKOFF_MAX_MS 32000u

enum link { LINK_NONE, LINK_HELLO, LINK_OPEN };

/* A lease, from its grant until its answer is acknowledged. */
struct held {
    uint64_t job, epoch;
    uint32_t task;
    struct sl_msg answer;     /* tree NULL: still being done */
    uint64_t sent_ms;         /* the answer, last; 0: not on this connection */
};

/* What grants said of a job. */
struct known {
    uint64_t job, used_ms;
    cJSON *spec;
};

struct message {
    uint8_t *bytes;
    size_t n;
    struct message *next;
};

struct sl_worker {
    struct sl_worker_opts o;
    char instance[33], name[65], host[65], device[65];
    enum link link;
    uint64_t hello_ms;        /* when it is to be said, or was */
    unsigned tries;           /* hellos without a welcome */
    uint64_t heard_ms, said_ms, progress_ms, pull_ms;
    uint32_t heartbeat_ms;
    unsigned asked;           /* what the daemon still may grant, by the last pull */
    struct held held[HELD_MAX];
    unsigned n_held;
    struct known known[JOBS_MAX];
    unsigned n_known;
    struct message *out, **out_end;
    bool draining, said_bye;
    struct sl_error refused;
    /* Speed: how many tasks were finished of late. */
    uint64_t window_ms;
    unsigned window_done, window_before;
    uint64_t rate_ms, rate_bytes, rate;
    uint64_t pings;
};

static void say(struct sl_worker *w, enum sl_log_level level, const char *event, uint64_t job,
                int64_t task, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

static void say(struct sl_worker *w, enum sl_log_level level, const char *event, uint64_t job,
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

int sl_worker_new(const struct sl_worker_opts *o, uint64_t now_ms, struct sl_worker **out,
                  struct sl_error *e)
{
    struct sl_worker *w = calloc(1, sizeof *w);

    *out = w;
    if (!w)
        return sl_fail(e, SL_EFAIL, "out of memory");
    w->o = *o;
    snprintf(w->instance, sizeof w->instance, "%s", o->instance);
    snprintf(w->name, sizeof w->name, "%s", o->name);
    snprintf(w->host, sizeof w->host, "%s", o->host);
    snprintf(w->device, sizeof w->device, "%s", o->device);
    w->out_end = &w->out;
    w->heartbeat_ms = 5000;
    w->hello_ms = w->window_ms = w->rate_ms = now_ms;
    return 0;
}

static void drop_messages(struct sl_worker *w)
{
    for (struct message *m = w->out, *next; m; m = next) {
        next = m->next;
        free(m->bytes);
        free(m);
    }
    w->out = NULL;
    w->out_end = &w->out;
}

void sl_worker_free(struct sl_worker *w)
{
    if (!w)
        return;
    drop_messages(w);
    for (unsigned i = 0; i < w->n_held; i++)
        sl_msg_free(&w->held[i].answer);
    for (unsigned i = 0; i < w->n_known; i++)
        cJSON_Delete(w->known[i].spec);
    free(w);
}

/* ---- sending */

/* A message that cannot be made (memory, a field over its limit) is not sent; what
 * matters is repeated. */
static void send_message(struct sl_worker *w, const struct sl_msg *m, uint64_t now_ms)
{
    struct message *out = calloc(1, sizeof *out);
    struct sl_error e;

    if (!out || sl_wire_encode(m, &out->bytes, &out->n, &e) < 0) {
        say(w, SL_LOG_ERROR, "message-unsent", 0, -1, "message cannot be sent: %s", out ? e.text : "out of memory");
        free(out);
        return;
    }
    *w->out_end = out;
    w->out_end = &out->next;
    w->said_ms = now_ms;
}

static cJSON *begin_message(enum sl_message_id id, struct sl_msg *m)
{
    struct sl_error e;

    return sl_msg_new(id, NULL, m, &e) == 0 ? m->tree : NULL;
}

static void send_and_free(struct sl_worker *w, struct sl_msg *m, uint64_t now_ms)
{
    send_message(w, m, now_ms);
    sl_msg_free(m);
}

static void put_ref(cJSON *o, uint64_t job, uint32_t task, uint64_t epoch)
{
    sl_put_uint(o, "job", job);
    sl_put_uint(o, "task", task);
    sl_put_uint(o, "epoch", epoch);
}

static void send_hello(struct sl_worker *w, uint64_t now_ms)
{
    struct sl_msg m;
    cJSON *t = begin_message(SL_M_HELLO, &m), *held;

    sl_put_str(t, "role", "worker");
    sl_put_str(t, "version", SLUICE_VERSION);
    sl_put_str(t, "instance", w->instance);
    sl_put_str(t, "name", w->name);
    sl_put_str(t, "host", w->host);
    sl_put_uint(t, "pid", w->o.pid);
    sl_put_str(t, "bytes", SL_BYTES_VERSION);
    sl_put_str(t, "device", w->device);
    sl_put_uint(t, "threads", w->o.threads);
    sl_put_uint(t, "mem", w->o.mem_bytes);
    held = sl_put_array(t, "held");
    for (unsigned i = 0; i < w->n_held; i++)
        put_ref(sl_add_object(held), w->held[i].job, w->held[i].task, w->held[i].epoch);
    send_and_free(w, &m, now_ms);
    w->link = LINK_HELLO;
    w->hello_ms = now_ms;
    w->tries++;
}

static void send_pull(struct sl_worker *w, unsigned want, uint64_t now_ms)
{
    struct sl_msg m;

    sl_put_uint(begin_message(SL_M_PULL, &m), "want", want);
    send_and_free(w, &m, now_ms);
    w->asked = want;
    w->pull_ms = now_ms;
}

static void send_bye(struct sl_worker *w, const char *text, uint64_t now_ms)
{
    struct sl_msg m;

    sl_put_str(begin_message(SL_M_BYE, &m), "text", text);
    send_and_free(w, &m, now_ms);
}

int sl_worker_next(struct sl_worker *w, uint8_t **bytes, size_t *n)
{
    struct message *m = w->out;

    if (!m)
        return 0;
    *bytes = m->bytes;
    *n = m->n;
    w->out = m->next;
    if (!w->out)
        w->out_end = &w->out;
    free(m);
    return 1;
}

void sl_worker_unsent(struct sl_worker *w, uint8_t *bytes, size_t n)
{
    struct message *m = calloc(1, sizeof *m);

    if (!m) {
        free(bytes);
        return;
    }
    *m = (struct message){bytes, n, w->out};
    if (!w->out)
        w->out_end = &m->next;
    w->out = m;
}

/* ---- what is held */

static struct held *find(struct sl_worker *w, uint64_t job, uint32_t task, uint64_t epoch)
{
    for (unsigned i = 0; i < w->n_held; i++)
        if (w->held[i].job == job && w->held[i].task == task && w->held[i].epoch == epoch)
            return &w->held[i];
    return NULL;
}

static void forget(struct sl_worker *w, struct held *h)
{
    if (!h->answer.tree)
        w->o.drop(w->o.user, h->job, h->task, h->epoch);
    sl_msg_free(&h->answer);
    memmove(h, h + 1, (size_t)(&w->held[w->n_held] - (h + 1)) * sizeof *h);
    w->n_held--;
}

static void forget_ref(struct sl_worker *w, const cJSON *ref)
{
    struct held *h = find(w, sl_get_uint(ref, "job", 0), (uint32_t)sl_get_uint(ref, "task", 0),
                          sl_get_uint(ref, "epoch", 0));

    if (h)
        forget(w, h);
}

static unsigned unfinished(const struct sl_worker *w)
{
    unsigned n = 0;

    for (unsigned i = 0; i < w->n_held; i++)
        n += w->held[i].answer.tree == NULL;
    return n;
}

/* A few tasks are held ahead; more where they last less than a heartbeat's
 * fraction, so that short ones do not wait for the daemon. */
static unsigned target(const struct sl_worker *w)
{
    unsigned ahead = w->o.ahead ? w->o.ahead : AHEAD, each_second;

    each_second = w->window_before > w->window_done ? w->window_before : w->window_done;
    ahead = each_second * 2 > ahead ? each_second * 2 : ahead;
    return ahead + 1 < WANT_MAX ? ahead + 1 : WANT_MAX;
}

/* ---- answers */

static void send_answer(struct sl_worker *w, struct held *h, uint64_t now_ms)
{
    send_message(w, &h->answer, now_ms);
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
            sl_put(t, "files", o->files);
        o->plan = o->files = NULL;
    } else if (o->kind == SL_OUTCOME_FAIL) {
        sl_put_uint(t, "code", o->error.code < 0 ? (uint64_t)-o->error.code : 1);
        sl_put_str(t, "text", o->error.text);
        if (o->n_bad)
            sl_put_uints(t, "bad", o->bad, o->n_bad);
    }
}

void sl_worker_outcome(struct sl_worker *w, struct sl_outcome *o, uint64_t now_ms)
{
    struct held *h = find(w, o->job, o->task, o->epoch);

    if (h && !h->answer.tree) {
        fill_answer(begin_message(answer_kind(o), &h->answer), o);
        if (o->kind == SL_OUTCOME_FAIL)
            say(w, SL_LOG_ERROR, "task-failed", o->job, o->task, "failed: %s", o->error.text);
        else
            say(w, SL_LOG_DEBUG, o->kind == SL_OUTCOME_RESULT ? "task-done" : "task-handed-back",
                o->job, o->task, "%llu bytes", (unsigned long long)o->bytes);
        w->window_done++;
        if (!h->answer.tree) /* out of memory: the lease ends by itself */
            forget(w, h);
        else if (w->link == LINK_OPEN)
            send_answer(w, h, now_ms);
    }
    sl_outcome_free(o);
}

/* ---- grants */

static struct known *find_known(struct sl_worker *w, uint64_t job)
{
    for (unsigned i = 0; i < w->n_known; i++)
        if (w->known[i].job == job)
            return &w->known[i];
    return NULL;
}

/* Keeps a job's specification; the one unused for longest makes room. */
static struct known *remember(struct sl_worker *w, uint64_t job, const cJSON *spec)
{
    struct known *k = find_known(w, job);
    cJSON *copy = cJSON_Duplicate(spec, 1);

    if (!copy)
        return NULL;
    if (!k && w->n_known < JOBS_MAX)
        k = &w->known[w->n_known++];
    if (!k) {
        k = w->known;
        for (unsigned i = 1; i < JOBS_MAX; i++)
            if (w->known[i].used_ms < k->used_ms)
                k = &w->known[i];
    }
    cJSON_Delete(k->spec);
    *k = (struct known){.job = job, .spec = copy};
    return k;
}

static struct sl_work *new_work(const cJSON *grant, const struct known *k, const cJSON *lease)
{
    const char *fingerprint = sl_get_str(grant, "fingerprint"), *sums = sl_get_str(grant, "sums");
    struct sl_work *work = calloc(1, sizeof *work);

    if (!work)
        return NULL;
    work->job = k->job;
    work->task = (uint32_t)sl_get_uint(lease, "task", 0);
    work->epoch = sl_get_uint(lease, "epoch", 0);
    snprintf(work->fingerprint, sizeof work->fingerprint, "%s", fingerprint ? fingerprint : "");
    work->spec = cJSON_Duplicate(k->spec, 1);
    if (work->task == SL_TASK_STITCH && sums)
        work->sums = strdup(sums);
    if (!work->spec || (work->task == SL_TASK_STITCH && sums && !work->sums)) {
        sl_work_free(work);
        return NULL;
    }
    return work;
}

/* What cannot be taken is given back at once. */
static void refuse_lease(struct sl_worker *w, uint64_t job, const cJSON *lease, uint64_t now_ms)
{
    struct sl_msg m;

    put_ref(begin_message(SL_M_GIVEBACK, &m), job, (uint32_t)sl_get_uint(lease, "task", 0),
            sl_get_uint(lease, "epoch", 0));
    send_and_free(w, &m, now_ms);
}

static void on_grant(struct sl_worker *w, const cJSON *m, uint64_t now_ms)
{
    uint64_t job = sl_get_uint(m, "job", 0);
    const cJSON *spec = sl_get(m, "spec"), *lease;
    struct known *k = spec ? remember(w, job, spec) : find_known(w, job);

    if (k)
        k->used_ms = now_ms;
    cJSON_ArrayForEach(lease, sl_get(m, "tasks")) {
        uint32_t task = (uint32_t)sl_get_uint(lease, "task", 0);
        uint64_t epoch = sl_get_uint(lease, "epoch", 0);
        struct sl_work *work;

        w->asked -= w->asked > 0;
        if (find(w, job, task, epoch))
            continue;
        work = k && !w->draining && w->n_held < HELD_MAX ? new_work(m, k, lease) : NULL;
        if (!work) {
            refuse_lease(w, job, lease, now_ms);
            continue;
        }
        w->held[w->n_held++] = (struct held){.job = job, .task = task, .epoch = epoch};
        say(w, SL_LOG_DEBUG, "task-granted", job, task, "epoch %llu", (unsigned long long)epoch);
        w->o.work(w->o.user, work);
    }
    if (!k) {
        /* The daemon takes the specification for known: a new hello makes it say it again. */
        say(w, SL_LOG_WARNING, "grant-refused", job, -1, "grant without a specification");
        send_hello(w, now_ms);
    }
}

/* ---- the other messages */

static void on_welcome(struct sl_worker *w, const cJSON *m, uint64_t now_ms)
{
    const cJSON *ref;

    w->link = LINK_OPEN;
    w->tries = 0;
    w->heartbeat_ms = (uint32_t)sl_get_uint(m, "heartbeat_ms", 5000);
    if (w->heartbeat_ms < 10)
        w->heartbeat_ms = 10;
    w->refused.code = 0;
    cJSON_ArrayForEach(ref, sl_get(m, "dropped"))
        forget_ref(w, ref);
    say(w, SL_LOG_NOTICE, "connected", 0, -1, "connected to sluiced %s; %u tasks held",
        sl_get_str(m, "version"), w->n_held);
    for (unsigned i = 0; i < w->n_held; i++) {
        w->held[i].sent_ms = 0;
        if (w->held[i].answer.tree)
            send_answer(w, &w->held[i], now_ms);
    }
    w->asked = 0;
    w->progress_ms = now_ms - w->heartbeat_ms;
    w->pull_ms = 0;
    if (w->draining)
        send_pull(w, 0, now_ms);
}

static void on_answered(struct sl_worker *w, const cJSON *m, bool nack)
{
    struct held *h = find(w, sl_get_uint(m, "job", 0), (uint32_t)sl_get_uint(m, "task", 0),
                          sl_get_uint(m, "epoch", 0));

    if (!h)
        return;
    if (nack)
        say(w, SL_LOG_WARNING, "result-refused", h->job, h->task, "refused: %s", sl_get_str(m, "text"));
    forget(w, h);
}

static void on_revoke(struct sl_worker *w, const cJSON *m)
{
    uint64_t job = sl_get_uint(m, "job", 0), task;
    const cJSON *item;

    say(w, SL_LOG_INFO, "tasks-revoked", job, -1, "%d tasks revoked: %s", cJSON_GetArraySize(sl_get(m, "tasks")),
        sl_get_str(m, "text"));
    cJSON_ArrayForEach(item, sl_get(m, "tasks")) {
        if (!sl_json_uint(item, SL_TASK_LAST, &task))
            continue;
        for (unsigned i = w->n_held; i-- > 0;)
            if (w->held[i].job == job && w->held[i].task == task)
                forget(w, &w->held[i]);
    }
}

/* A refused hello can be answered by no other one, but a daemon can change. */
static void on_error(struct sl_worker *w, const cJSON *m)
{
    const char *text = sl_get_str(m, "text"), *of = sl_get_str(m, "message");

    say(w, SL_LOG_ERROR, "message-refused", 0, -1, "the daemon refused %s: %s", of ? of : "a message", text);
    if (w->link == LINK_HELLO && (!of || strcmp(of, "hello") == 0))
        sl_fail(&w->refused, -(int)sl_get_uint(m, "code", 1), "the daemon refused this worker: %s", text);
}

static void on_ping(struct sl_worker *w, const cJSON *m, uint64_t now_ms)
{
    struct sl_msg pong;

    sl_put_uint(begin_message(SL_M_PONG, &pong), "n", sl_get_uint(m, "n", 0));
    send_and_free(w, &pong, now_ms);
}

static void lose(struct sl_worker *w, const char *why, uint64_t now_ms)
{
    uint64_t wait = 1000ull << (w->tries < 6 ? w->tries : 5);

    say(w, SL_LOG_WARNING, "connection-lost", 0, -1, "%s; trying again", why);
    drop_messages(w);
    w->link = LINK_NONE;
    w->asked = 0;
    w->hello_ms = now_ms + (wait > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : wait);
}

static void handle(struct sl_worker *w, const struct sl_msg *m, uint64_t now_ms)
{
    switch (m->id) {
    case SL_M_WELCOME:
        on_welcome(w, m->tree, now_ms);
        break;
    case SL_M_REHELLO:
        if (w->link == LINK_OPEN) {
            say(w, SL_LOG_INFO, "rehello", 0, -1, "the daemon does not know this connection: saying hello again");
            send_hello(w, now_ms);
        }
        break;
    case SL_M_PING:
        on_ping(w, m->tree, now_ms);
        break;
    case SL_M_GRANT:
        if (w->link == LINK_OPEN)
            on_grant(w, m->tree, now_ms);
        break;
    case SL_M_ACK:
    case SL_M_NACK:
        on_answered(w, m->tree, m->id == SL_M_NACK);
        break;
    case SL_M_REVOKE:
        on_revoke(w, m->tree);
        break;
    case SL_M_DRAIN:
        say(w, SL_LOG_NOTICE, "drain", 0, -1, "drain: no more tasks are taken");
        sl_worker_drain(w, false, now_ms);
        break;
    case SL_M_BYE:
        lose(w, "the daemon stops", now_ms);
        break;
    case SL_M_ERROR:
        on_error(w, m->tree);
        break;
    default:
        break;
    }
}

void sl_worker_receive(struct sl_worker *w, const uint8_t *bytes, size_t n, uint64_t now_ms)
{
    struct sl_msg m;
    struct sl_error e;
    char re[65], name[33];

    if (sl_wire_decode(bytes, n, SL_FROM_DAEMON, &m, re, name, &e) < 0) {
        say(w, SL_LOG_ERROR, "message-unread", 0, -1, "message from the daemon: %s", e.text);
        return;
    }
    w->heard_ms = now_ms;
    handle(w, &m, now_ms);
    sl_msg_free(&m);
}

/* ---- time */

static void send_progress(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    struct sl_msg m;
    cJSON *t = begin_message(SL_M_PROGRESS, &m), *tasks;
    uint64_t ms = now_ms - w->rate_ms;

    if (ms >= 1000) {
        w->rate = (p->bytes - w->rate_bytes) * 1000 / ms;
        w->rate_ms = now_ms;
        w->rate_bytes = p->bytes;
    }
    sl_put_uint(t, "bytes", p->bytes);
    tasks = sl_put_array(t, "tasks");
    for (unsigned i = 0; i < p->n_tasks; i++) {
        cJSON *o = sl_add_object(tasks);

        put_ref(o, p->tasks[i].job, p->tasks[i].task, p->tasks[i].epoch);
        sl_put_uint(o, "bytes", p->tasks[i].bytes);
    }
    sl_put_uint(t, "rate", w->rate);
    if (p->tensor && *p->tensor)
        sl_put_str(t, "tensor", p->tensor);
    send_and_free(w, &m, now_ms);
    w->progress_ms = now_ms;
}

static void keep_talking(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    unsigned busy = unfinished(w), want;

    for (unsigned i = 0; i < w->n_held; i++)
        if (w->held[i].answer.tree && now_ms - w->held[i].sent_ms > REPEAT_MS)
            send_answer(w, &w->held[i], now_ms);
    want = w->draining || busy >= target(w) ? 0 : target(w) - busy;
    if (want > WANT_MAX)
        want = WANT_MAX;
    /* Said once more now and then, since a message can be lost with its connection. */
    if (want > w->asked || (want && now_ms - w->pull_ms > REPEAT_MS))
        send_pull(w, want, now_ms);
    if (w->n_held && now_ms - w->progress_ms >= w->heartbeat_ms)
        send_progress(w, p, now_ms);
    if (now_ms - w->said_ms >= w->heartbeat_ms) {
        struct sl_msg m;

        sl_put_uint(begin_message(SL_M_PING, &m), "n", ++w->pings);
        send_and_free(w, &m, now_ms);
    }
}

int sl_worker_tick(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    if (now_ms - w->window_ms >= 1000) {
        w->window_before = w->window_done;
        w->window_done = 0;
        w->window_ms = now_ms;
    }
    if (w->said_bye)
        return 0;
    if (w->draining && w->n_held == 0) {
        if (w->link == LINK_OPEN)
            send_bye(w, "drained", now_ms);
        w->said_bye = true;
        return 0;
    }
    if (w->link == LINK_NONE && now_ms >= w->hello_ms) {
        send_hello(w, now_ms);
        w->heard_ms = now_ms;
    } else if (w->link == LINK_HELLO && now_ms - w->hello_ms > WELCOME_MS) {
        if (w->tries == 1)
            lose(w, "the daemon does not answer", now_ms);
        else
            lose(w, w->refused.code ? w->refused.text : "the daemon still does not answer", now_ms);
        return 1;
    } else if (w->link == LINK_OPEN) {
        if (now_ms - w->heard_ms > 4ull * w->heartbeat_ms) {
            lose(w, "the daemon is silent", now_ms);
            return 1;
        }
        keep_talking(w, p, now_ms);
    }
    return 0;
}

/* ---- the end */

void sl_worker_drain(struct sl_worker *w, bool bye, uint64_t now_ms)
{
    if (!w->draining && w->link == LINK_OPEN)
        send_pull(w, 0, now_ms);
    w->draining = true;
    if (bye && !w->said_bye) {
        if (w->link == LINK_OPEN)
            send_bye(w, "stopped", now_ms);
        w->said_bye = true;
    }
}

bool sl_worker_draining(const struct sl_worker *w)
{
    return w->draining;
}

bool sl_worker_done(const struct sl_worker *w)
{
    return w->said_bye && (!w->out || w->link != LINK_OPEN);
}

bool sl_worker_connected(const struct sl_worker *w)
{
    return w->link == LINK_OPEN;
}

int sl_worker_refused(const struct sl_worker *w, struct sl_error *e)
{
    *e = w->refused;
    return w->refused.code;
}

unsigned sl_worker_held(const struct sl_worker *w)
{
    return w->n_held;
}
