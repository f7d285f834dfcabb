/* The daemon's end of the transport: ZeroMQ ROUTER sockets and the ZAP handler,
 * owned by one thread. Every message comes with what the transport has proved
 * of its sender.
 *
 *   ipc://PATH         the folder is made private (0700; 0711 when the allow-list
 *                      names users) and a lock file beside the socket is held, so
 *                      that a live daemon's path is never stolen; callers are known
 *                      by uid
 *   tcp://ADDR:PORT    CURVE, only keys of the allow-list; without a key only on
 *                      loopback and when plain_tcp says so
 *   inproc://NAME      threads of this process */
#ifndef SLUICE_DAEMON_ROUTER_H
#define SLUICE_DAEMON_ROUTER_H

#include "proto/keyring.h"

#include <stdint.h>

#define SL_ROUTER_ENDPOINTS 8

struct sl_router_opts {
    const char *const *endpoints;
    unsigned n_endpoints;
    const char *key_path;    /* the daemon's key file; NULL: no tcp but plain */
    const char *allow_path;  /* allow-list; NULL: own user and root on ipc alone */
    bool plain_tcp;
    void *context;           /* of sl_router_context_new, for inproc; NULL: own */
};

struct sl_received {
    uint64_t peer;           /* of the connection */
    enum sl_role role;
    uint64_t pid;            /* of a local peer's process, as this one sees it; 0: not known */
    char user[65];           /* "uid:1000", a name of the allow-list, "local" */
    uint8_t *bytes;          /* the caller's: free */
    size_t n;
};

struct sl_router;

/* Effect: binds all endpoints. Errors: SL_EUNSUPPORTED (libzmq older than
 * 4.3.3), SL_EUSAGE (endpoint, key or list not right, plain tcp beyond
 * loopback), SL_EEXISTS (another daemon holds the path), SL_EFAIL. */
int sl_router_open(const struct sl_router_opts *o, struct sl_router **out, struct sl_error *e)
    SL_MUST_USE;
/* Effect: unlinks ipc sockets, gives unsent messages SL_WIRE_LINGER_MS. Peers in a context
 * that was given fail from here on. */
void sl_router_close(struct sl_router *r);

/* What threads of one process share (sl_dealer_opts.context). It is freed when none of them uses
 * it any more: of a peer that still connects while its context ends libzmq would wait for ever.
 * Errors: SL_EFAIL (memory, open files). */
int sl_router_context_new(void **out, struct sl_error *e) SL_MUST_USE;
/* Effect: waits until its sockets, all closed, are gone. */
void sl_router_context_free(void *context);

/* The endpoint as bound ("tcp://127.0.0.1:49152" for port *). */
const char *sl_router_endpoint(const struct sl_router *r, unsigned i);

/* Effect: waits for a message or for fd (-1: none) to be readable, at most
 * timeout_ms. Answers authentication requests meanwhile. Returns 1 when
 * something may be there, 0 on time-out or a signal. */
int sl_router_wait(struct sl_router *r, int fd, int timeout_ms, struct sl_error *e) SL_MUST_USE;

/* Returns 1 with a message, 0 when there is none. Never blocks. */
int sl_router_receive(struct sl_router *r, struct sl_received *m, struct sl_error *e) SL_MUST_USE;

/* Returns 1 when handed over, 0 when the peer is gone or does not read (its
 * queue is full): treat it as gone. Never blocks. */
int sl_router_send(struct sl_router *r, uint64_t peer, const uint8_t *bytes, size_t n,
                   struct sl_error *e) SL_MUST_USE;

/* Connections that were refused by uid, key or an identity of their own. */
uint64_t sl_router_refused(const struct sl_router *r);
/* Who was refused last: "key K from ADDRESS", "uid N"; "" before the first. The router's own. */
const char *sl_router_last_refused(const struct sl_router *r);

#endif
