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
    const struct sl_log *log;            /* NULL: nothing is logged */
    const struct sl_serve_embed *embed;  /* NULL: a process of its own */
};

/* What is otherwise where the coordinator is a thread of another program
 * (`sluice convert`): a queue that is open already, nobody's paths checked but
 * by the system, and an end when the program says so. */
struct sl_serve_embed {
    struct sl_queue *queue;              /* this thread's until sl_serve returns */
    int stop_fd;                         /* an eventfd: readable when to stop */
    void (*ready)(void *user);           /* the sockets are bound */
    void (*event)(void *user, const struct sl_event *ev); /* may be NULL */
    void *user;
};

/* Effect: serves until SIGTERM or SIGINT (both stay blocked), then says bye and
 * returns 0; embedded, no signal is touched. Errors: those of the parts while
 * starting; SL_EUSAGE for a state folder on a network filesystem. Once it serves,
 * a queue that cannot be written (disk full) is logged and tried again each
 * second, while nothing is acknowledged; embedded, that is an error. */
int sl_serve(const struct sl_serve_opts *o, struct sl_error *e) SL_MUST_USE;

#endif
