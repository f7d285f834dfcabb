/* The life of a worker: the socket, the signals and the two lanes, in one loop. */
#ifndef SLUICE_WORKER_WORKER_RUN_H
#define SLUICE_WORKER_WORKER_RUN_H

#include "proto/notify.h"
#include "worker/dealer.h"
#include "worker/worker_state.h"

struct sl_worker_run_opts {
    struct sl_dealer_opts dealer;
    struct sl_job_cache_opts cache;
    struct sl_worker_opts worker;   /* its hooks are set here, its instance where it has none */
    int stop_fd;                    /* an eventfd: readable when to stop, and signals are
                                     * somebody else's; 0: SIGTERM and SIGINT */
    struct sl_notify *notify;       /* of a service; NULL: nobody is told */
    uint32_t finish_ms;             /* for what is under way then; 0: 20 s */
};

/* Effect: works until a drain has ended or SIGTERM or SIGINT comes: then what has
 * not begun is handed back, what is under way is finished (for some seconds) and
 * acknowledged, `bye` is said. A second signal ends it at once. Both signals stay
 * blocked. With stop_fd it is a thread of another program, and ends that way. The
 * watchdog is fed while nothing is in hand, or what is goes on: a worker whose disk or
 * device hangs is to be restarted. Returns 0. Errors: those of sl_dealer_open and
 * the lanes; the daemon's code when it refuses this worker; SL_EDEVICE once a GPU has
 * failed and its tasks have gone back: the program that is started next finds it well or
 * says why not. */
int sl_worker_run(const struct sl_worker_run_opts *o, struct sl_error *e) SL_MUST_USE;

#endif
