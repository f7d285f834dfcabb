/* The life of the daemon: queue, coordinator, sockets, signals, in one loop of
 * one thread. Every turn takes the messages that are there, commits once, and
 * only then lets the answers go. */
#ifndef SLUICE_DAEMON_SERVE_H
#define SLUICE_DAEMON_SERVE_H

#include "daemon/coordinator.h"
#include "daemon/metrics.h"
#include "daemon/router.h"
#include "proto/log_line.h"

struct sl_serve_opts {
    const char *state_dir;               /* made when it is not there, mode 0700 */
    const char *const *roots;
    unsigned n_roots;
    struct sl_router_opts router;
    struct sl_coord_opts coord;          /* times and limits; the rest is set here */
    const char *metrics_address;         /* NULL: none */
    bool metrics_remote;
    const struct sl_log *log;
};

/* Effect: serves until SIGTERM or SIGINT (both stay blocked), then says bye and
 * returns 0. Errors: those of the parts while starting; SL_EUSAGE for a state
 * folder on a network filesystem. Once it serves, a queue that cannot be
 * written (disk full) is logged and tried again each second, while nothing is
 * acknowledged. */
int sl_serve(const struct sl_serve_opts *o, struct sl_error *e) SL_MUST_USE;

#endif
