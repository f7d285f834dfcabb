/* A client's connection to the daemon: hello and welcome, requests and their
 * answers, heartbeats, and coming back after the daemon was away. One thread. */
#ifndef SLUICE_CLIENT_DAEMON_LINK_H
#define SLUICE_CLIENT_DAEMON_LINK_H

#include "proto/config_file.h"
#include "proto/wire.h"

#define DAEMON_LINK_TIMEOUT_MS 10000

struct daemon_link;

/* Effect: connects and says hello; returns when the daemon has said welcome.
 * Endpoint and keys are the configuration's. timeout_ms: how long to wait for
 * the daemon, here and in daemon_link_ask; 0: DAEMON_LINK_TIMEOUT_MS, and at
 * once when an ipc endpoint has nobody behind it. Errors: SL_EUNREACHABLE with
 * the endpoint, why, and how to start the daemon; SL_EUSAGE (endpoint, keys). */
int daemon_link_open(const struct sl_config *c, uint32_t timeout_ms, struct daemon_link **out,
                     struct sl_error *e) SL_MUST_USE;
/* Effect: the same for a daemon that is a thread of this process (inproc://NAME);
 * context: of its sockets (sl_router_context_new). endpoint must outlive the link. */
int daemon_link_open_inproc(void *context, const char *endpoint, uint32_t timeout_ms,
                            struct daemon_link **out, struct sl_error *e) SL_MUST_USE;
/* Effect: says bye. NULL is allowed. */
void daemon_link_close(struct daemon_link *l);

/* Effect: sends a request and waits for its answer, which must be of kind
 * `expected`; says it again whenever the connection was lost meanwhile. *answer
 * (may be NULL) is the caller's (sl_msg_free). The request is freed in every
 * case. Errors: what the daemon says in `error`, SL_EUNREACHABLE,
 * SL_EINTERRUPTED after a signal. */
int daemon_link_ask(struct daemon_link *l, struct sl_msg *request, enum sl_message_id expected,
                    struct sl_msg *answer, struct sl_error *e) SL_MUST_USE;

/* Effect: sends a message whose answers daemon_link_next brings, with `id` as
 * its mark; when there is no connection it is dropped (DAEMON_LINK_BACK says when
 * to say it again). The message is freed. */
int daemon_link_send(struct daemon_link *l, struct sl_msg *m, const char *id, struct sl_error *e)
    SL_MUST_USE;

enum daemon_link_event {
    DAEMON_LINK_NOTHING = 0, /* time-out or a signal */
    DAEMON_LINK_MESSAGE,     /* *m is the caller's */
    DAEMON_LINK_LOST,        /* the daemon is away; the link tries again without end */
    DAEMON_LINK_BACK         /* it is there again: say again what was asked for (watch, wait) */
};
/* Effect: waits at most timeout_ms for something. Returns an event. Errors:
 * SL_EUNREACHABLE never; SL_EUSAGE when the daemon refuses the hello. */
int daemon_link_next(struct daemon_link *l, int timeout_ms, struct sl_msg *m, struct sl_error *e)
    SL_MUST_USE;

/* The address that it is connected to. */
const char *daemon_link_endpoint(const struct daemon_link *l);
/* What the daemon allows: "submitter", "admin", "worker". */
const char *daemon_link_role(const struct daemon_link *l);

#endif
