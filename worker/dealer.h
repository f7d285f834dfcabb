/* A peer's end of the transport (workers and clients): one ZeroMQ DEALER socket,
 * owned by one thread. It connects in the background and reconnects with
 * back-off; that the other side is there is known from `welcome` and answers,
 * never from a send that succeeded. */
#ifndef SLUICE_WORKER_DEALER_H
#define SLUICE_WORKER_DEALER_H

#include "proto/error.h"
#include "proto/keyring.h"

#include <stdint.h>

struct sl_dealer_opts {
    const char *endpoint;        /* ipc://, tcp://, inproc:// */
    const char *key_path;        /* own key file (tcp with CURVE); NULL: plain */
    const char *server_key_path; /* the daemon's public key file */
    bool plain_tcp;              /* tcp without keys, loopback only */
    void *context;               /* of sl_router_context_new for inproc; NULL: own */
    bool patient;                /* a name without an address is no error, nor that it cannot be asked for: it is, again */
    void (*slow)(void *user, const char *host); /* a name server has not answered for 2 s; once, by the owner's thread; or NULL */
    void *user;
};

struct sl_dealer;

/* Effect: begins to connect. Errors: SL_EUSAGE (endpoint or keys not right),
 * SL_EUNSUPPORTED (libzmq older than 4.3.3), SL_EFAIL. */
int sl_dealer_open(const struct sl_dealer_opts *o, struct sl_dealer **out, struct sl_error *e)
    SL_MUST_USE;
/* Effect: gives unsent messages SL_WIRE_LINGER_MS. */
void sl_dealer_close(struct sl_dealer *d);

/* Effect: drops the connection and what is queued, and connects anew: a name's address is asked for again, and where
 * nobody was heard on the last connection another one is taken, but not before that had as long as it was asked for. */
int sl_dealer_reconnect(struct sl_dealer *d, struct sl_error *e) SL_MUST_USE;

/* Returns 1 when handed over, 0 when there is no connection or its queue is
 * full. Never blocks. */
int sl_dealer_send(struct sl_dealer *d, const uint8_t *bytes, size_t n, struct sl_error *e)
    SL_MUST_USE;

/* Returns 1 with a message (*bytes the caller's: free), 0 when there is none.
 * Never blocks. */
int sl_dealer_receive(struct sl_dealer *d, uint8_t **bytes, size_t *n, struct sl_error *e)
    SL_MUST_USE;

/* Effect: waits for a message, or for fd (-1: none; an eventfd of other threads)
 * to be readable, at most timeout_ms; where a connection to a name is cut, looks whether it has another address by now, and
 * connects there. Returns bits: 1 a message may be there,
 * 2 fd is readable; 0 on time-out or a signal. Errors: SL_EUNREACHABLE, when the endpoint's name has no address
 * (unless patient or somebody was heard there), SL_EUSAGE, SL_EFAIL. */
int sl_dealer_wait(struct sl_dealer *d, int fd, int timeout_ms, struct sl_error *e) SL_MUST_USE;

/* Returns why there is no address to connect to, or NULL, too where there was one before. */
const char *sl_dealer_nowhere(const struct sl_dealer *d);

/* Returns whether the other side has refused this key or user on the connection under way. Not with a context of another's. */
bool sl_dealer_refused(struct sl_dealer *d);

/* Effect: a new CURVE key pair. Errors: SL_EUNSUPPORTED (libzmq without CURVE). */
int sl_key_make(struct sl_key *k, struct sl_error *e) SL_MUST_USE;

/* Effect: writes the version of the libzmq in use to text ("4.3.4"). Returns whether
 * it is new enough for sl_dealer_open and has CURVE. */
int sl_dealer_library(char text[32]);

#endif
