#include "worker/worker_priv.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WANT_MAX 64u
#define WELCOME_MS 5000u      /* for an answer to hello */
#define REPEAT_MS 10000u      /* for an answer to a result */

int sl_worker_new(const struct sl_worker_opts *o, uint64_t now_ms, struct sl_worker **out,
                  struct sl_error *e)
{
    struct sl_worker *w = calloc(1, sizeof *w);

    *out = w;
    if (!w)
        return sl_no_memory(e);
    w->o = *o;
    snprintf(w->instance, sizeof w->instance, "%s", o->instance);
    snprintf(w->name, sizeof w->name, "%s", o->name);
    snprintf(w->host, sizeof w->host, "%s", o->host);
    snprintf(w->device, sizeof w->device, "%s", o->device);
    w->out_end = &w->out;
    w->heartbeat_ms = 5000;
    w->hello_ms = w->window_ms = w->rate_ms = w->busy_ms = now_ms;
    return sl_worker_make_last_words(w, e);
}

void sl_worker_free(struct sl_worker *w)
{
    if (!w)
        return;
    sl_worker_drop_messages(w);
    for (unsigned i = 0; i < w->n_held; i++)
        sl_msg_free(&w->held[i].answer);
    for (unsigned i = 0; i < w->n_known; i++)
        cJSON_Delete(w->known[i].spec);
    free(w->last_words);
    free(w);
}

/* ---- what is held */

static void forget_ref(struct sl_worker *w, const cJSON *ref)
{
    struct held *h = sl_worker_find(w, sl_get_uint(ref, "job", 0), (uint32_t)sl_get_uint(ref, "task", 0),
                          sl_get_uint(ref, "epoch", 0));

    if (h)
        sl_worker_forget(w, h);
}

static unsigned unfinished(const struct sl_worker *w)
{
    unsigned n = 0;

    for (unsigned i = 0; i < w->n_held; i++)
        n += w->held[i].answer.tree == NULL;
    return n;
}

/* A few tasks are held ahead, and where they are short as many as two seconds of late did,
 * so that none waits for the daemon. */
static unsigned target(const struct sl_worker *w)
{
    unsigned each_second = w->window_before > w->window_done ? w->window_before : w->window_done;
    unsigned ahead = each_second * 2 > w->o.ahead ? each_second * 2 : w->o.ahead;

    return ahead + 1 < WANT_MAX ? ahead + 1 : WANT_MAX;
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
    work->group = sl_get_uint(grant, "group", 0);
    work->with = (uint32_t)sl_get_uint(grant, "with", 0);
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
        if (sl_worker_find(w, job, task, epoch))
            continue;
        work = k && !w->draining && w->n_held < SL_HELD_MAX ? new_work(m, k, lease) : NULL;
        if (!work) {
            /* What cannot be taken is given back at once. */
            sl_worker_send_giveback(w, job, task, epoch, now_ms);
            continue;
        }
        work->granted_ms = now_ms;
        work->lease_ms = sl_get_uint(m, "lease_ms", 0);
        w->held[w->n_held++] = (struct held){.job = job, .task = task, .epoch = epoch};
        sl_worker_log(w, SL_LOG_DEBUG, "task-granted", job, task, "epoch %llu", (unsigned long long)epoch);
        w->o.work(w->o.user, work);
    }
    if (!k) {
        /* The daemon takes the specification for known: a new hello makes it say it again. */
        sl_worker_log(w, SL_LOG_WARNING, "grant-refused", job, -1, "grant without a specification");
        sl_worker_send_hello(w, now_ms);
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
    w->lease_ms = sl_get_uint(m, "lease_ms", 0);
    w->refused.code = 0;
    cJSON_ArrayForEach(ref, sl_get(m, "dropped"))
        forget_ref(w, ref);
    sl_worker_log(w, SL_LOG_NOTICE, "connected", 0, -1, "connected to sluiced %s; %u tasks held",
        sl_get_str(m, "version"), w->n_held);
    for (unsigned i = 0; i < w->n_held; i++) {
        w->held[i].sent_ms = 0;
        if (w->held[i].answer.tree)
            sl_worker_send_answer(w, &w->held[i], now_ms);
    }
    w->asked = 0;
    w->progress_ms = w->gpus_ms = now_ms - w->heartbeat_ms;
    w->pull_ms = 0;
    if (w->draining)
        sl_worker_send_pull(w, 0, now_ms);
}

static void on_answered(struct sl_worker *w, const cJSON *m, bool nack)
{
    struct held *h = sl_worker_find(w, sl_get_uint(m, "job", 0), (uint32_t)sl_get_uint(m, "task", 0),
                          sl_get_uint(m, "epoch", 0));

    if (!h)
        return;
    if (nack)
        sl_worker_log(w, SL_LOG_WARNING, "result-refused", h->job, h->task, "refused: %s", sl_get_str(m, "text"));
    sl_worker_forget(w, h);
}

static void on_revoke(struct sl_worker *w, const cJSON *m)
{
    const cJSON *tasks = sl_get(m, "tasks"), *item;
    uint64_t job = sl_get_uint(m, "job", 0), task;
    bool at_it = false;

    if (tasks->child)
        sl_worker_log(w, SL_LOG_INFO, "tasks-revoked", job, -1, "%d tasks revoked: %s", cJSON_GetArraySize(tasks),
            sl_get_str(m, "text"));
    cJSON_ArrayForEach(item, tasks) {
        if (!sl_json_uint(item, SL_TASK_LAST, &task))
            continue;
        for (unsigned i = w->n_held; i-- > 0;)
            if (w->held[i].job == job && w->held[i].task == task)
                sl_worker_forget(w, &w->held[i]);
    }
    for (unsigned i = 0; i < w->n_held; i++)
        at_it |= w->held[i].job == job && !w->held[i].answer.tree;
    if (!at_it)
        w->o.over(w->o.user, job);
}

/* A worker that holds tasks comes back within a lease, however long the daemon was away: it
 * waits for an answer half of one, a quarter while it reaches nobody, and as long before it
 * tries again. */
static uint64_t at_most(const struct sl_worker *w, uint64_t ms, unsigned part)
{
    uint64_t most = w->lease_ms / part;

    return w->n_held && most && most < ms ? most : ms;
}

/* A refused hello can be answered by no other one, but a daemon can change. */
static void on_error(struct sl_worker *w, const cJSON *m)
{
    const char *text = sl_get_str(m, "text"), *of = sl_get_str(m, "message");

    sl_worker_log(w, SL_LOG_ERROR, "message-refused", 0, -1, "the daemon refused %s: %s", of ? of : "a message", text);
    if (w->link == LINK_HELLO && (!of || strcmp(of, "hello") == 0))
        sl_fail(&w->refused, -(int)sl_get_uint(m, "code", 1), "the daemon refused this worker: %s", text);
}

static void lose(struct sl_worker *w, const char *why, uint64_t now_ms)
{
    uint64_t wait = 1000ull << (w->tries < 5 ? w->tries : 5);

    sl_worker_log(w, SL_LOG_WARNING, "connection-lost", 0, -1, "%s; trying again", why);
    sl_worker_drop_messages(w);
    w->link = LINK_NONE;
    w->asked = 0;
    w->anew = true;
    w->hello_ms = now_ms + at_most(w, wait, 4);
}

static void handle(struct sl_worker *w, const struct sl_msg *m, uint64_t now_ms)
{
    switch (m->id) {
    case SL_M_WELCOME:
        on_welcome(w, m->tree, now_ms);
        break;
    case SL_M_REHELLO:
        if (w->link == LINK_OPEN) {
            sl_worker_log(w, SL_LOG_INFO, "rehello", 0, -1, "the daemon does not know this connection: saying hello again");
            sl_worker_send_hello(w, now_ms);
        }
        break;
    case SL_M_PING:
        sl_worker_send_n(w, SL_M_PONG, sl_get_uint(m->tree, "n", 0), now_ms);
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
        sl_worker_log(w, SL_LOG_NOTICE, "drain", 0, -1, "drain: no more tasks are taken");
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
        sl_worker_log(w, SL_LOG_ERROR, "message-unread", 0, -1, "message from the daemon: %s", e.text);
        if (e.code == SL_EFAIL) /* memory: it may be a grant, which nobody repeats */
            w->refused = e;
        return;
    }
    w->heard_ms = now_ms;
    handle(w, &m, now_ms);
    sl_msg_free(&m);
}

/* ---- time */

/* Another tensor in hand is told sooner: it is what a worker that dies was at. */
static bool progress_is_due(const struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    bool another = p->tensor && *p->tensor && strcmp(p->tensor, w->tensor) != 0;

    return w->n_held && now_ms - w->progress_ms >= w->heartbeat_ms / (another ? 5 : 1);
}

static const char *no_answer(const struct sl_worker *w, const struct sl_worker_progress *p)
{
    if (p->nowhere)
        return p->nowhere;
    if (w->tries == 1)
        return "the daemon does not answer: it is not running there, this worker is not in its allow-list, or (by tcp) has "
               "another key than the daemon's of today for server_key, or a firewall or a unit's IPAddressAllow= is between";
    return w->refused.code ? w->refused.text : "the daemon still does not answer";
}

static void keep_talking(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    unsigned busy = unfinished(w), want;

    for (unsigned i = 0; i < w->n_held; i++)
        if (w->held[i].answer.tree && now_ms - w->held[i].sent_ms > REPEAT_MS)
            sl_worker_send_answer(w, &w->held[i], now_ms);
    want = w->draining || busy >= target(w) ? 0 : target(w) - busy;
    if (want > WANT_MAX)
        want = WANT_MAX;
    /* Said once more now and then, since a message can be lost with its connection. */
    if (want > w->asked || (want && now_ms - w->pull_ms > REPEAT_MS))
        sl_worker_send_pull(w, want, now_ms);
    if (progress_is_due(w, p, now_ms))
        sl_worker_send_progress(w, p, now_ms);
    if (p->n_gpus && now_ms - w->gpus_ms >= w->heartbeat_ms)
        sl_worker_send_gpus(w, p, now_ms);
    if (now_ms - w->said_ms >= w->heartbeat_ms)
        sl_worker_send_n(w, SL_M_PING, ++w->pings, now_ms);
}

int sl_worker_tick(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms)
{
    if (now_ms - w->window_ms >= 1000) {
        w->window_before = w->window_done;
        w->window_done = 0;
        w->window_ms = now_ms;
    }
    if (w->n_held)
        w->busy_ms = now_ms;
    else if (now_ms - w->busy_ms >= 1000) { /* time without work is none of the next work's; between short tasks is some */
        w->rate = 0;
        w->rate_ms = now_ms;
        w->rate_bytes = p->bytes;
    }
    if (w->said_bye)
        return 0;
    if (w->draining && w->n_held == 0) {
        if (w->link == LINK_OPEN)
            sl_worker_send_bye(w, "drained", now_ms);
        w->said_bye = true;
        return 0;
    }
    if (w->link == LINK_NONE && now_ms >= w->hello_ms) {
        bool anew = w->anew;

        w->anew = false;
        sl_worker_send_hello(w, now_ms);
        w->heard_ms = now_ms;
        return anew;
    }
    if (w->link == LINK_HELLO && now_ms - w->hello_ms > at_most(w, WELCOME_MS, w->out ? 4 : 2)) {
        lose(w, no_answer(w, p), now_ms);
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
        sl_worker_send_pull(w, 0, now_ms);
    w->draining = true;
    if (bye && !w->said_bye) {
        if (w->link == LINK_OPEN)
            sl_worker_send_bye(w, "stopped", now_ms);
        w->said_bye = true;
    }
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

size_t sl_worker_last_words(const struct sl_worker *w, const uint8_t **bytes)
{
    *bytes = w->last_words;
    return w->link == LINK_OPEN && !w->said_bye ? w->n_last_words : 0;
}
