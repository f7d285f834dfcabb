/* /metrics (Prometheus text), /healthz and /readyz over HTTP, on loopback.
 *
 * The HTTP thread never touches the coordinator or the queue: the event loop
 * publishes a copy of its figures at the end of a turn, and the thread answers
 * from the last one. Whoever may connect may read; there is no secret in it, and
 * no job id, tensor name or path. Labels are bounded by the program, but for the names of
 * connected workers with GPUs (SL_COORD_GPUS of them at most). */
#ifndef SLUICE_DAEMON_METRICS_H
#define SLUICE_DAEMON_METRICS_H

#include "daemon/coordinator.h"

/* Counted from the coordinator's events, which are durable when they are seen. */
struct sl_event_tally {
    uint64_t submitted, quarantined, worker_joined, worker_left, worker_silent;
    uint64_t ended[SL_JOB_STATES]; /* succeeded, failed, cancelled */
};
/* Effect: counts one event. For on_event of sl_coord_opts. */
void sl_event_count(struct sl_event_tally *t, const struct sl_event *ev);

struct sl_metrics_figures {
    struct sl_coord_stats coord;
    struct sl_event_tally events;
    uint64_t refused_connections;  /* sl_router_refused */
    uint64_t loop_turns;           /* turns of the event loop whose work succeeded */
    bool ready;                    /* answers peers; false while starting and stopping, and while the queue cannot be written */
};

struct sl_metrics_opts {
    const char *address;        /* "127.0.0.1:9560", "[::1]:9560"; port 0: any */
    bool remote;                /* addresses other than loopback are allowed */
    uint32_t stale_ms;          /* /healthz fails when nothing was published so long; 0: 30000 */
    const char *version, *bytes_version;
    const char *state_dir;      /* for its free space; NULL: not told */
};

struct sl_metrics;

/* Effect: binds, and answers from a thread of its own until sl_metrics_close. Nothing
 * is ready before the first sl_metrics_publish. Strings in opts are copied. Errors:
 * SL_EUSAGE (address), SL_EEXISTS (somebody else listens there), SL_EFAIL. */
int sl_metrics_open(const struct sl_metrics_opts *o, struct sl_metrics **out,
                    struct sl_error *e) SL_MUST_USE;
void sl_metrics_close(struct sl_metrics *m);

/* "127.0.0.1:9560", with the port as bound. */
const char *sl_metrics_address(const struct sl_metrics *m);

/* Effect: these are the figures from now on. Any thread; never waits for a
 * client. m NULL: nothing. */
void sl_metrics_publish(struct sl_metrics *m, const struct sl_metrics_figures *f);

#endif
