/* Between worker_state.c (what comes in, and time) and worker_say.c (what goes out). */
#ifndef SLUICE_WORKER_WORKER_PRIV_H
#define SLUICE_WORKER_WORKER_PRIV_H

#include "proto/wire.h"
#include "worker/worker_state.h"

#define JOBS_MAX 256u

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
    struct cJSON *spec;
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
    uint64_t heard_ms, said_ms, progress_ms, gpus_ms, pull_ms;
    uint32_t heartbeat_ms;
    uint64_t lease_ms;        /* 0: no daemon has said it yet */
    bool anew;                /* the next hello goes over a new connection */
    unsigned asked;           /* what the daemon still may grant, by the last pull */
    struct held held[SL_HELD_MAX];
    unsigned n_held;
    struct known known[JOBS_MAX];
    unsigned n_known;
    struct message *out, **out_end;
    bool draining, said_bye;
    uint8_t *last_words;      /* made while there was memory */
    size_t n_last_words;
    struct sl_error refused;
    /* Speed: how many tasks were finished of late. */
    uint64_t window_ms;
    unsigned window_done, window_before;
    uint64_t rate_ms, rate_bytes, rate, busy_ms;
    char tensor[129];         /* the last that was told */
    uint64_t pings;
};

/* Effect: one line of the log; job 0, task -1: none. */
void sl_worker_log(struct sl_worker *w, enum sl_log_level level, const char *event, uint64_t job,
                   int64_t task, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* Effect: queues a message of the worker's. */
void sl_worker_send_hello(struct sl_worker *w, uint64_t now_ms);
void sl_worker_send_pull(struct sl_worker *w, unsigned want, uint64_t now_ms);
void sl_worker_send_giveback(struct sl_worker *w, uint64_t job, uint32_t task, uint64_t epoch,
                             uint64_t now_ms);
void sl_worker_send_gpus(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms);
void sl_worker_send_progress(struct sl_worker *w, const struct sl_worker_progress *p, uint64_t now_ms);
void sl_worker_send_answer(struct sl_worker *w, struct held *h, uint64_t now_ms);
void sl_worker_send_bye(struct sl_worker *w, const char *text, uint64_t now_ms);
/* Effect: makes the `bye` of sl_worker_last_words. Errors: SL_EFAIL. */
int sl_worker_make_last_words(struct sl_worker *w, struct sl_error *e) SL_MUST_USE;
/* id: SL_M_PING or SL_M_PONG. */
void sl_worker_send_n(struct sl_worker *w, enum sl_message_id id, uint64_t n, uint64_t now_ms);
void sl_worker_drop_messages(struct sl_worker *w);

/* Returns the lease, or NULL. */
struct held *sl_worker_find(struct sl_worker *w, uint64_t job, uint32_t task, uint64_t epoch);
/* Effect: the lease is held no more; opts.drop hears of a task that is not answered. */
void sl_worker_forget(struct sl_worker *w, struct held *h);

#endif
