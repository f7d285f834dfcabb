#include "worker/dealer.h"

#include "proto/clock.h"
#include "proto/endpoint.h"
#include "proto/open_files.h"
#include "proto/wire.h"
#include "worker/lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define RECONNECT_MS 1000
#define SLOW_MS 2000
#define LOOK_MS 20 /* between looks at a name server's answer */
#define RECONNECT_MAX_MS 2000 /* a lease is shorter than the pauses that would come of more */

struct sl_dealer {
    void *context, *socket;
    void *monitor;                      /* hears of refusals on the socket; NULL: none */
    unsigned monitors;                  /* so far: libzmq gives a name free later than the socket that had it */
    bool own_context, curve;
    bool heard;                         /* there somebody answered */
    bool up;                            /* and on this socket */
    bool refused;                       /* here: it let this peer not in */
    char *endpoint;
    char *host;                         /* of tcp, where it is a name: libzmq would ask for it in its own thread, and end
                                         * no sooner than a name server answers */
    struct sl_lookup *lookup;           /* without a socket, or while its connection is cut */
    char address[SL_ADDRESS_CHARS];     /* to which the socket leads */
    enum sl_lookup_state last;          /* what the one before gave */
    bool unasked;                       /* there was no thread or memory to ask */
    uint64_t again_ms;                  /* when the next one is due; sl_boot_ms */
    uint64_t keep_ms;                   /* until then its address is not given up: as long as it was asked for */
    unsigned turn;                      /* which of its addresses */
    bool patient, said_slow;
    void (*slow)(void *user, const char *host);
    void *user;
    struct sl_key key;                  /* own */
    char server_key[SL_KEY_CHARS + 1];
};

static int zmq_failed(struct sl_error *e, const char *what, const char *endpoint)
{
    return sl_fail(e, SL_EFAIL, "%s: %s: %s", endpoint, what, zmq_strerror(zmq_errno()));
}

static int set_int(void *socket, int option, int v)
{
    return zmq_setsockopt(socket, option, &v, sizeof v);
}

/* Bounds and keys; before connecting. */
static int set_options(struct sl_dealer *d, bool six, struct sl_error *e)
{
    static const struct {
        int option, value;
    } ints[] = {
        {ZMQ_SNDHWM, SL_WIRE_HWM}, {ZMQ_RCVHWM, SL_WIRE_HWM}, {ZMQ_LINGER, SL_WIRE_LINGER_MS},
        {ZMQ_HANDSHAKE_IVL, SL_WIRE_HANDSHAKE_MS}, {ZMQ_HEARTBEAT_IVL, 0}, {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, SL_WIRE_TCP_IDLE_S}, {ZMQ_TCP_KEEPALIVE_INTVL, SL_WIRE_TCP_PROBE_S},
        {ZMQ_TCP_KEEPALIVE_CNT, 3}, {ZMQ_TCP_MAXRT, 1000 * SL_WIRE_TCP_IDLE_S},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS}, {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS}, {ZMQ_IMMEDIATE, 1},
    };
    int64_t most = SL_WIRE_MAX;
    bool bad = zmq_setsockopt(d->socket, ZMQ_MAXMSGSIZE, &most, sizeof most) != 0;

    for (unsigned i = 0; i < sizeof ints / sizeof ints[0]; i++)
        bad |= set_int(d->socket, ints[i].option, ints[i].value) != 0;
    bad |= set_int(d->socket, ZMQ_IPV6, six) != 0;
    if (d->curve)
        bad |= zmq_setsockopt(d->socket, ZMQ_CURVE_SERVERKEY, d->server_key, SL_KEY_CHARS) != 0 ||
               zmq_setsockopt(d->socket, ZMQ_CURVE_PUBLICKEY, d->key.public_key, SL_KEY_CHARS) != 0 ||
               zmq_setsockopt(d->socket, ZMQ_CURVE_SECRETKEY, d->key.secret_key, SL_KEY_CHARS) != 0;
    return bad ? zmq_failed(e, "the socket cannot be set up", d->endpoint) : 0;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* libzmq tells of a refusal here alone, and tries again. Without a monitor it is silence. */
static void watch_refusals(struct sl_dealer *d)
{
    char at[32];

    snprintf(at, sizeof at, "inproc://refused-%u", d->monitors++);
    if (zmq_socket_monitor(d->socket, at, ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0)
        return;
    d->monitor = zmq_socket(d->context, ZMQ_PAIR);
    if (d->monitor && (set_int(d->monitor, ZMQ_LINGER, 0) != 0 || zmq_connect(d->monitor, at) != 0)) {
        zmq_close(d->monitor);
        d->monitor = NULL;
    }
}

/* at: the endpoint, with digits in place of a name. */
static int connect_socket(struct sl_dealer *d, const char *at, struct sl_error *e)
{
    if (!d->context) {
        SL_TRY(sl_zmq_room(e));
        d->context = zmq_ctx_new();
        if (!d->context)
            return zmq_failed(e, "no context", d->endpoint);
    }
    d->socket = zmq_socket(d->context, ZMQ_DEALER);
    if (!d->socket)
        return zmq_failed(e, "no socket", d->endpoint);
    d->up = d->refused = false;
    if (d->own_context)
        watch_refusals(d);
    SL_TRY(set_options(d, begins(at, "tcp://["), e));
    if (zmq_connect(d->socket, at) == 0)
        return 0;
    if (zmq_errno() == EINVAL || zmq_errno() == ENAMETOOLONG || zmq_errno() == EPROTONOSUPPORT)
        return sl_fail(e, SL_EUSAGE, "%s: no possible endpoint: %s; expected ipc:///PATH or tcp://HOST:PORT",
                       d->endpoint, zmq_strerror(zmq_errno()));
    return zmq_failed(e, "cannot connect", d->endpoint);
}

/* The host of a tcp endpoint, where it is a name. */
static int take_name(struct sl_dealer *d, struct sl_error *e)
{
    const char *colon = strrchr(d->endpoint, ':');
    struct in_addr four;

    if (!begins(d->endpoint, "tcp://") || d->endpoint[6] == '[')
        return 0;
    d->host = strndup(d->endpoint + 6, (size_t)(colon - d->endpoint - 6));
    if (!d->host)
        return sl_no_memory(e);
    if (inet_pton(AF_INET, d->host, &four) == 1) {
        free(d->host);
        d->host = NULL;
    }
    return 0;
}

static void close_socket(struct sl_dealer *d)
{
    if (d->socket)
        zmq_close(d->socket);
    if (d->monitor)
        zmq_close(d->monitor);
    d->socket = d->monitor = NULL;
}

static void drop_socket(struct sl_dealer *d)
{
    if (!d->socket)
        return;
    set_int(d->socket, ZMQ_LINGER, 0);
    close_socket(d);
}

/* The connection that there was is gone. A queue that is full looks alike. */
static bool is_cut(const struct sl_dealer *d)
{
    int events = 0;
    size_t n = sizeof events;

    return d->up && zmq_getsockopt(d->socket, ZMQ_EVENTS, &events, &n) == 0 && !(events & ZMQ_POLLOUT);
}

const char *sl_dealer_nowhere(const struct sl_dealer *d)
{
    if (!d->host || d->socket || d->last == SL_LOOKUP_FOUND)
        return NULL;
    if (d->unasked)
        return "its address cannot be asked for: this user or service may have no more threads or memory";
    return d->last == SL_LOOKUP_NONE ? "no host of this name is known; is it right?"
                                     : "no name server tells its address; is there a network, and what does "
                                       "/etc/resolv.conf say?";
}

/* A name's next step on the way to a socket; of one whose connection is cut, to another address, which it may have by now:
 * libzmq itself comes back to the one that it knows. */
static int look(struct sl_dealer *d, struct sl_error *e)
{
    char address[SL_ADDRESS_CHARS], at[SL_ADDRESS_CHARS + 24];
    enum sl_lookup_state now, has = SL_LOOKUP_NONE;

    if (!d->lookup && sl_boot_ms() < d->again_ms)
        return 0;
    d->unasked = !d->lookup && sl_lookup_begin(d->host, &d->lookup, e) < 0;
    if (d->unasked) {
        d->again_ms = sl_boot_ms() + RECONNECT_MS;
        return d->patient || d->heard ? 0 : e->code;
    }
    now = sl_lookup_answer(d->lookup, d->turn, address);
    if (now == SL_LOOKUP_PENDING && sl_lookup_ms(d->lookup) >= SLOW_MS && d->slow && !d->said_slow) {
        d->said_slow = true;
        d->slow(d->user, d->host);
    }
    if (d->socket && now == SL_LOOKUP_FOUND)
        has = sl_lookup_has(d->lookup, d->address);
    if (now == SL_LOOKUP_PENDING || has == SL_LOOKUP_PENDING)
        return 0;
    d->keep_ms = sl_boot_ms() + sl_lookup_ms(d->lookup);
    sl_lookup_leave(d->lookup);
    d->lookup = NULL;
    d->again_ms = sl_boot_ms() + RECONNECT_MS;
    d->last = now;
    if (now != SL_LOOKUP_FOUND)
        return d->patient || d->heard ? 0 : sl_fail(e, SL_EUNREACHABLE, "%s: %s", d->endpoint, sl_dealer_nowhere(d));
    if (has != SL_LOOKUP_NONE) /* an answer that did not come tells of no move */
        return 0;
    drop_socket(d);
    memcpy(d->address, address, sizeof address);
    snprintf(at, sizeof at, strchr(address, ':') ? "tcp://[%s]%s" : "tcp://%s%s", address, strrchr(d->endpoint, ':'));
    return connect_socket(d, at, e);
}

/* tcp is encrypted, but for a loopback that somebody asked for in so many words. */
static int take_keys(struct sl_dealer *d, const struct sl_dealer_opts *o, struct sl_error *e)
{
    struct sl_key server;

    if (!begins(o->endpoint, "tcp://")) {
        if (o->key_path || o->server_key_path)
            return sl_fail(e, SL_EUSAGE, "%s: keys are for tcp endpoints", o->endpoint);
        return 0;
    }
    SL_TRY(sl_endpoint_check_tcp(o->endpoint, false, e));
    if (!o->key_path && !o->server_key_path) {
        if (o->plain_tcp && sl_endpoint_loopback(o->endpoint))
            return 0;
        return sl_fail(e, SL_EUSAGE, o->plain_tcp
                       ? "%s: tcp without keys is for the loopback address alone"
                       : "%s: tcp needs --key FILE and --server-key FILE ('sluice keys' makes them)",
                       o->endpoint);
    }
    if (!o->key_path || !o->server_key_path)
        return sl_fail(e, SL_EUSAGE, "%s: both --key FILE (own) and --server-key FILE (the daemon's public one) are needed",
                       o->endpoint);
    if (!zmq_has("curve"))
        return sl_fail(e, SL_EUNSUPPORTED, "libzmq was built without CURVE: tcp cannot be encrypted");
    SL_TRY(sl_key_load(o->key_path, true, &d->key, e));
    SL_TRY(sl_key_load(o->server_key_path, false, &server, e));
    memcpy(d->server_key, server.public_key, sizeof d->server_key);
    d->curve = true;
    return 0;
}

static int check_endpoint(const char *endpoint, struct sl_error *e)
{
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    if (ZMQ_MAKE_VERSION(major, minor, patch) < ZMQ_MAKE_VERSION(4, 3, 3))
        return sl_fail(e, SL_EUNSUPPORTED, "libzmq %d.%d.%d is too old; 4.3.3 or later is needed",
                       major, minor, patch);
    if (begins(endpoint, "ipc:///") || begins(endpoint, "tcp://") || begins(endpoint, "inproc://"))
        return 0;
    return sl_fail(e, SL_EUSAGE, "%s: no possible endpoint; expected ipc:///PATH or tcp://HOST:PORT",
                   endpoint);
}

int sl_dealer_open(const struct sl_dealer_opts *o, struct sl_dealer **out, struct sl_error *e)
{
    struct sl_dealer *d;
    int rc;

    *out = NULL;
    SL_TRY(check_endpoint(o->endpoint, e));
    d = calloc(1, sizeof *d);
    if (!d || !(d->endpoint = strdup(o->endpoint))) {
        free(d);
        return sl_no_memory(e);
    }
    d->context = o->context;
    d->own_context = o->context == NULL;
    d->patient = o->patient;
    d->slow = o->slow;
    d->user = o->user;
    rc = take_keys(d, o, e);
    if (rc == 0)
        rc = take_name(d, e);
    if (rc == 0)
        rc = d->host ? look(d, e) : connect_socket(d, d->endpoint, e);
    if (rc < 0)
        sl_dealer_close(d);
    else
        *out = d;
    return rc;
}

void sl_dealer_close(struct sl_dealer *d)
{
    if (!d)
        return;
    sl_lookup_leave(d->lookup);
    close_socket(d);
    if (d->own_context && d->context)
        zmq_ctx_term(d->context);
    explicit_bzero(&d->key, sizeof d->key);
    free(d->endpoint);
    free(d->host);
    free(d);
}

int sl_dealer_reconnect(struct sl_dealer *d, struct sl_error *e)
{
    if (d->socket && !d->up && sl_boot_ms() < d->keep_ms)
        return 0;
    if (d->socket) {
        drop_socket(d);
        sl_lookup_leave(d->lookup); /* of a cut that is long past, perhaps */
        d->lookup = NULL;
        d->again_ms = 0;
        d->turn += !d->up;
    }
    return d->host ? look(d, e) : connect_socket(d, d->endpoint, e);
}

int sl_dealer_send(struct sl_dealer *d, const uint8_t *bytes, size_t n, struct sl_error *e)
{
    if (d->host && !d->socket)
        SL_TRY(look(d, e));
    if (d->socket && zmq_send(d->socket, bytes, n, ZMQ_DONTWAIT) >= 0)
        return 1;
    if (!d->socket || zmq_errno() == EAGAIN || zmq_errno() == EINTR || zmq_errno() == EHOSTUNREACH)
        return 0;
    return zmq_failed(e, "cannot send", d->endpoint);
}

/* A message of the protocol is one frame; what has more is read to its end and dropped. */
int sl_dealer_receive(struct sl_dealer *d, uint8_t **bytes, size_t *n, struct sl_error *e)
{
    zmq_msg_t m;
    int got, parts = 0;

    *bytes = NULL;
    if (!d->socket)
        return 0;
    do {
        zmq_msg_init(&m);
        got = zmq_msg_recv(&m, d->socket, ZMQ_DONTWAIT);
        if (got < 0) {
            zmq_msg_close(&m);
            free(*bytes);
            *bytes = NULL;
            return zmq_errno() == EAGAIN || zmq_errno() == EINTR ? 0
                   : zmq_failed(e, "cannot receive", d->endpoint);
        }
        if (parts++ == 0) {
            *n = zmq_msg_size(&m);
            *bytes = malloc(*n ? *n : 1);
            if (*bytes)
                memcpy(*bytes, zmq_msg_data(&m), *n);
        }
        got = zmq_msg_more(&m);
        zmq_msg_close(&m);
    } while (got);
    if (!*bytes)
        return sl_no_memory(e);
    d->heard = d->up = true;
    d->refused = false;
    if (parts > 1)
        *n = 0; /* no JSON: refused like anything else that cannot be read */
    return 1;
}

bool sl_dealer_refused(struct sl_dealer *d)
{
    char event[8]; /* of one kind */

    while (d->monitor && zmq_recv(d->monitor, event, sizeof event, ZMQ_DONTWAIT) >= 0)
        d->refused = true;
    return d->refused;
}

int sl_dealer_wait(struct sl_dealer *d, int fd, int timeout_ms, struct sl_error *e)
{
    zmq_pollitem_t items[2] = {{.socket = d->socket, .events = ZMQ_POLLIN},
                               {.fd = fd, .events = ZMQ_POLLIN}};
    int rc;

    if (d->host && (!d->socket || is_cut(d))) {
        SL_TRY(look(d, e));
        items[0].socket = d->socket;
        timeout_ms = d->socket || (timeout_ms >= 0 && timeout_ms < LOOK_MS) ? timeout_ms : LOOK_MS;
    }
    rc = d->socket ? zmq_poll(items, fd >= 0 ? 2 : 1, timeout_ms)
                   : zmq_poll(items + 1, fd >= 0 ? 1 : 0, timeout_ms);
    if (rc < 0)
        return zmq_errno() == EINTR ? 0 : zmq_failed(e, "cannot wait", d->endpoint);
    return (d->socket && items[0].revents ? 1 : 0) | (fd >= 0 && items[1].revents ? 2 : 0);
}

int sl_key_make(struct sl_key *k, struct sl_error *e)
{
    memset(k, 0, sizeof *k);
    if (zmq_curve_keypair(k->public_key, k->secret_key) != 0)
        return sl_fail(e, SL_EUNSUPPORTED, "libzmq was built without CURVE: it makes no keys");
    return 0;
}

int sl_dealer_library(char text[32])
{
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    snprintf(text, 32, "%d.%d.%d", major, minor, patch);
    return ZMQ_MAKE_VERSION(major, minor, patch) >= ZMQ_MAKE_VERSION(4, 3, 3) && zmq_has("curve");
}
