#include "daemon/router.h"

#include "daemon/accept_spare.h"
#include "proto/endpoint.h"
#include "proto/open_files.h"
#include "proto/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES 7
#define SEND_HWM (4 * SL_ASK_MAX) /* one request has an answer for each of its jobs (wait), and events beside them */

enum kind { LISTEN_IPC, LISTEN_CURVE, LISTEN_PLAIN, LISTEN_INPROC };

struct listener {
    void *socket;
    enum kind kind;
    char *endpoint;      /* as bound */
    char *path, *lock_path;
    int lock_fd;         /* -1: none */
};

struct sl_router {
    void *context, *zap;
    bool own_context;
    struct listener listen[SL_ROUTER_ENDPOINTS];
    unsigned n, turn;
    struct sl_allow_list allow;
    struct sl_key key;
    uint64_t refused;
    char last_refused[160];
};

static int zmq_failed(struct sl_error *e, const char *what, const char *endpoint)
{
    return sl_fail(e, SL_EFAIL, "%s: %s: %s", endpoint, what, zmq_strerror(zmq_errno()));
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* ---- who may come in: ZAP (rfc.zeromq.org/spec/27) */

/* Frames of one request; NUL-terminated copies. Returns how many, 0 for none. */
static int zap_request(void *zap, char frame[ZAP_FRAMES][256], size_t len[ZAP_FRAMES])
{
    int n = 0, more = 1;

    while (more) {
        zmq_msg_t m;
        size_t k;

        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, zap, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&m);
            return 0;
        }
        k = zmq_msg_size(&m);
        if (n < ZAP_FRAMES && k < 256) {
            memcpy(frame[n], zmq_msg_data(&m), k);
            frame[n][k] = 0;
            len[n] = k;
            n++;
        } else {
            n = ZAP_FRAMES + 1;
        }
        more = zmq_msg_more(&m);
        zmq_msg_close(&m);
    }
    return n;
}

/* ":uid:gid:pid" at the end of a local peer's address. */
static bool peer_ids(const char *address, unsigned long *uid, unsigned long *pid)
{
    const char *at = address + strlen(address);
    char *end;

    for (int colons = 0; colons < 3; colons++) {
        while (at > address && at[-1] != ':')
            at--;
        if (at == address)
            return false;
        at--;
    }
    *uid = strtoul(at + 1, &end, 10);
    *pid = strtoul(strrchr(address, ':') + 1, NULL, 10);
    return end != at + 1 && *end == ':';
}

/* The role of a peer; its name in user. SL_ROLE_NONE: refused. */
static enum sl_role judge(const struct sl_router *r, const struct listener *l,
                          char frame[ZAP_FRAMES][256], const size_t len[ZAP_FRAMES], int n, char user[65])
{
    const struct sl_allow_entry *a;
    char key[SL_KEY_CHARS + 1], number[24];
    unsigned long uid, pid;

    if (l->kind == LISTEN_PLAIN && strcmp(frame[5], "NULL") == 0) {
        strcpy(user, "local");
        return SL_ROLE_ADMIN;
    }
    if (l->kind == LISTEN_IPC && strcmp(frame[5], "NULL") == 0 && peer_ids(frame[3], &uid, &pid)) {
        snprintf(number, sizeof number, "%lu", uid);
        snprintf(user, 65, "uid:%lu", uid);
        if (uid == geteuid() || uid == 0)
            return SL_ROLE_ADMIN;
        a = sl_allow_find(&r->allow, true, number);
        return a ? a->role : SL_ROLE_NONE;
    }
    if (l->kind != LISTEN_CURVE || strcmp(frame[5], "CURVE") != 0 || n != 7 || len[6] != 32 ||
        !zmq_z85_encode(key, (const uint8_t *)frame[6], 32))
        return SL_ROLE_NONE;
    a = sl_allow_find(&r->allow, false, key);
    if (!a)
        return SL_ROLE_NONE;
    snprintf(user, 65, "%s", a->name);
    return a->role;
}

/* Says who was refused, in the words of the allow-list. */
static void note_refused(struct sl_router *r, char frame[ZAP_FRAMES][256], const size_t len[ZAP_FRAMES], int n)
{
    char key[SL_KEY_CHARS + 1];
    unsigned long uid, pid;

    r->refused++;
    if (n == 7 && len[6] == 32 && strcmp(frame[5], "CURVE") == 0 && zmq_z85_encode(key, (const uint8_t *)frame[6], 32))
        snprintf(r->last_refused, sizeof r->last_refused, "key %s from %.80s", key, frame[3]);
    else if (n == 6 && peer_ids(frame[3], &uid, &pid))
        snprintf(r->last_refused, sizeof r->last_refused, "uid %lu", uid);
    else
        snprintf(r->last_refused, sizeof r->last_refused, "a peer without a key");
}

/* Answers every waiting request. What is not understood is refused. */
static void answer_zap(struct sl_router *r)
{
    char frame[ZAP_FRAMES][256];
    size_t len[ZAP_FRAMES];
    int n;

    while ((n = zap_request(r->zap, frame, len)) > 0) {
        enum sl_role role = SL_ROLE_NONE;
        char user[65] = "", id[96] = "";
        unsigned i = UINT32_MAX;

        if (n >= 6 && n <= ZAP_FRAMES && strcmp(frame[0], "1.0") == 0 &&
            sscanf(frame[2], SL_ZAP_DOMAIN ".%u", &i) == 1 && i < r->n)
            role = judge(r, &r->listen[i], frame, len, n, user);
        if (role != SL_ROLE_NONE)
            snprintf(id, sizeof id, "%d %s", (int)role, user);
        else
            note_refused(r, frame, len, n);
        zmq_send(r->zap, "1.0", 3, ZMQ_SNDMORE);
        zmq_send(r->zap, n > 1 ? frame[1] : "", n > 1 && n <= ZAP_FRAMES ? len[1] : 0, ZMQ_SNDMORE);
        zmq_send(r->zap, role ? "200" : "400", 3, ZMQ_SNDMORE);
        zmq_send(r->zap, role ? "OK" : "refused", role ? 2 : 7, ZMQ_SNDMORE);
        zmq_send(r->zap, id, strlen(id), ZMQ_SNDMORE);
        zmq_send(r->zap, "", 0, 0);
    }
}

/* ---- binding */

static bool set_int(void *socket, int option, int v)
{
    return zmq_setsockopt(socket, option, &v, sizeof v) == 0;
}

static int set_options(struct sl_router *r, struct listener *l, unsigned i, struct sl_error *e)
{
    static const struct {
        int option, value;
    } ints[] = {
        {ZMQ_SNDHWM, SEND_HWM}, {ZMQ_RCVHWM, SL_WIRE_HWM}, {ZMQ_LINGER, SL_WIRE_LINGER_MS},
        {ZMQ_HANDSHAKE_IVL, SL_WIRE_HANDSHAKE_MS}, {ZMQ_ROUTER_MANDATORY, 1},
        {ZMQ_HEARTBEAT_IVL, 0}, {ZMQ_TCP_KEEPALIVE, 1}, {ZMQ_TCP_KEEPALIVE_IDLE, SL_WIRE_TCP_IDLE_S},
        {ZMQ_TCP_KEEPALIVE_INTVL, SL_WIRE_TCP_PROBE_S}, {ZMQ_TCP_KEEPALIVE_CNT, 3},
        {ZMQ_TCP_MAXRT, 1000 * SL_WIRE_TCP_IDLE_S},
    };
    int64_t most = SL_WIRE_MAX;
    char domain[32];
    bool ok = zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE, &most, sizeof most) == 0;

    /* An IPv4 address stays one ("tcp://127.0.0.1:49152"), not a mapped one. */
    ok &= set_int(l->socket, ZMQ_IPV6, strchr(l->endpoint, '[') != NULL || strstr(l->endpoint, "//*") != NULL);
    for (unsigned k = 0; k < sizeof ints / sizeof ints[0]; k++)
        ok &= set_int(l->socket, ints[k].option, ints[k].value);
    snprintf(domain, sizeof domain, SL_ZAP_DOMAIN ".%u", i);
    if (l->kind != LISTEN_INPROC)
        ok &= zmq_setsockopt(l->socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) == 0;
    if (l->kind == LISTEN_CURVE)
        ok &= set_int(l->socket, ZMQ_CURVE_SERVER, 1) &&
              zmq_setsockopt(l->socket, ZMQ_CURVE_SECRETKEY, r->key.secret_key, SL_KEY_CHARS) == 0;
    return ok ? 0 : zmq_failed(e, "the socket cannot be set up", l->endpoint);
}

static bool others_allowed(const struct sl_router *r)
{
    for (size_t i = 0; i < r->allow.n; i++)
        if (r->allow.entries[i].is_uid)
            return true;
    return false;
}

/* The socket's folder is this user's alone to write to; one that is made here lets others pass when
 * the allow-list names some. */
static int check_folder(const struct sl_router *r, const char *path, struct sl_error *e)
{
    static const char own[] = "name one of your own with --listen ipc:///PATH ($XDG_RUNTIME_DIR/sluice, where a login has set that)";
    char dir[256];
    const char *slash = strrchr(path, '/');
    struct stat st;

    snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (mkdir(dir, 0700) == 0 ? others_allowed(r) && chmod(dir, 0711) != 0 : errno != EEXIST)
        return sl_fail(e, SL_EUSAGE, "%s: cannot be created: %s; %s", dir, strerror(errno), own);
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return sl_fail(e, SL_EUSAGE, "%s: no folder", dir);
    if (st.st_uid != geteuid())
        return sl_fail(e, SL_EUSAGE, "%s: the socket's folder is another user's; %s", dir, own);
    if (st.st_mode & 022)
        return sl_fail(e, SL_EUSAGE, "%s: the socket's folder must be closed to others' writing (chmod 700)", dir);
    return 0;
}

static bool is_listened_to(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool yes;

    memcpy(to.sun_path, path, strnlen(path, sizeof to.sun_path - 1));
    /* EAGAIN: its backlog is full. */
    yes = fd >= 0 && (connect(fd, (const struct sockaddr *)&to, sizeof to) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return yes;
}

static int lock_path(const struct sl_router *r, struct listener *l, struct sl_error *e)
{
    l->path = strdup(l->endpoint + 6);
    if (!l->path || asprintf(&l->lock_path, "%s.lock", l->path) < 0) {
        l->lock_path = NULL; /* what asprintf leaves when it fails is not said */
        return sl_no_memory(e);
    }
    if (strlen(l->path) > 107 || l->path[0] != '/')
        return sl_fail(e, SL_EUSAGE, "%s: expected ipc:// with an absolute path of at most 107 bytes", l->endpoint);
    SL_TRY(check_folder(r, l->path, e));
    l->lock_fd = open(l->lock_path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (l->lock_fd < 0)
        return sl_fail(e, SL_EFAIL, "%s: %s", l->lock_path, strerror(errno));
    if (flock(l->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return sl_fail(e, SL_EEXISTS, "%s: another sluiced listens there; stop it, or choose another endpoint",
                       l->endpoint);
    /* Somebody may have removed the lock file of a daemon that lives. */
    if (is_listened_to(l->path))
        return sl_fail(e, SL_EEXISTS, "%s: something listens there without holding %s; stop it, or choose another endpoint",
                       l->endpoint, l->lock_path);
    return 0;
}

static int classify(struct sl_router *r, const struct sl_router_opts *o, struct listener *l,
                    struct sl_error *e)
{
    if (begins(l->endpoint, "inproc://")) {
        l->kind = LISTEN_INPROC;
        return 0;
    }
    if (begins(l->endpoint, "ipc://")) {
        l->kind = LISTEN_IPC;
        return lock_path(r, l, e);
    }
    if (!begins(l->endpoint, "tcp://"))
        return sl_fail(e, SL_EUSAGE, "%s: no possible endpoint; expected ipc:///PATH or tcp://ADDRESS:PORT",
                       l->endpoint);
    SL_TRY(sl_endpoint_check_tcp(l->endpoint, true, e));
    if (!o->key_path && o->plain_tcp && sl_endpoint_loopback(l->endpoint)) {
        l->kind = LISTEN_PLAIN;
        return 0;
    }
    if (!o->key_path)
        return sl_fail(e, SL_EUSAGE, o->plain_tcp
                       ? "%s: tcp without keys is for the loopback address alone"
                       : "%s: tcp needs --key FILE and --allow FILE ('sluice keys' makes keys)", l->endpoint);
    if (!o->allow_path)
        return sl_fail(e, SL_EUSAGE, "%s: tcp needs --allow FILE, the list of keys that may connect", l->endpoint);
    if (!zmq_has("curve"))
        return sl_fail(e, SL_EUNSUPPORTED, "libzmq was built without CURVE: tcp cannot be encrypted");
    l->kind = LISTEN_CURVE;
    if (!r->key.secret_key[0])
        SL_TRY(sl_key_load(o->key_path, true, &r->key, e));
    return 0;
}

static int bind_socket(struct sl_router *r, struct listener *l, struct sl_error *e)
{
    mode_t old = umask(077);
    int rc = zmq_bind(l->socket, l->endpoint), why = zmq_errno();
    char bound[256];
    size_t n = sizeof bound;

    umask(old);
    if (rc != 0 && (why == EADDRINUSE || why == EADDRNOTAVAIL))
        return sl_fail(e, why == EADDRINUSE ? SL_EEXISTS : SL_EUSAGE, "%s: %s", l->endpoint, zmq_strerror(why));
    if (rc != 0)
        return sl_fail(e, SL_EUSAGE, "%s: cannot be bound: %s%s", l->endpoint, zmq_strerror(why),
                       why == ENODEV ? "; expected an address in digits (127.0.0.1) or the name of a network interface" : "");
    /* Others are on the allow-list: the folder's mode and ZAP decide, not the socket's mode. */
    if (l->kind == LISTEN_IPC && others_allowed(r) && chmod(l->path, 0666) != 0)
        return sl_fail(e, SL_EFAIL, "%s: %s", l->path, strerror(errno));
    if (zmq_getsockopt(l->socket, ZMQ_LAST_ENDPOINT, bound, &n) == 0) {
        char *copy = strdup(bound);

        if (!copy)
            return sl_no_memory(e);
        free(l->endpoint);
        l->endpoint = copy;
    }
    return 0;
}

static int open_listener(struct sl_router *r, const struct sl_router_opts *o, unsigned i,
                         struct sl_error *e)
{
    struct listener *l = &r->listen[i];

    l->lock_fd = -1;
    r->n = i + 1;
    l->endpoint = strdup(o->endpoints[i]);
    if (!l->endpoint)
        return sl_no_memory(e);
    SL_TRY(classify(r, o, l, e));
    l->socket = zmq_socket(r->context, ZMQ_ROUTER);
    if (!l->socket)
        return zmq_failed(e, "no socket", l->endpoint);
    SL_TRY(set_options(r, l, i, e));
    return bind_socket(r, l, e);
}

static int open_all(struct sl_router *r, const struct sl_router_opts *o, struct sl_error *e)
{
    int major, minor, patch;

    zmq_version(&major, &minor, &patch);
    if (ZMQ_MAKE_VERSION(major, minor, patch) < ZMQ_MAKE_VERSION(4, 3, 3))
        return sl_fail(e, SL_EUNSUPPORTED, "libzmq %d.%d.%d is too old; 4.3.3 or later is needed",
                       major, minor, patch);
    if (o->n_endpoints == 0 || o->n_endpoints > SL_ROUTER_ENDPOINTS)
        return sl_fail(e, SL_EUSAGE, "1 to %d endpoints are expected", SL_ROUTER_ENDPOINTS);
    if (o->allow_path)
        SL_TRY(sl_allow_load(o->allow_path, &r->allow, e));
    r->own_context = o->context == NULL;
    r->context = o->context;
    if (r->own_context) {
        SL_TRY(sl_router_context_new(&r->context, e));
        sl_accept_spare();
    }
    r->zap = zmq_socket(r->context, ZMQ_REP);
    /* Before anything else is bound: without it libzmq lets everybody in. */
    if (!r->zap || !set_int(r->zap, ZMQ_LINGER, 0) || zmq_bind(r->zap, ZAP_ENDPOINT) != 0)
        return zmq_failed(e, "authentication cannot be set up", ZAP_ENDPOINT);
    for (unsigned i = 0; i < o->n_endpoints; i++)
        SL_TRY(open_listener(r, o, i, e));
    return 0;
}

int sl_router_open(const struct sl_router_opts *o, struct sl_router **out, struct sl_error *e)
{
    struct sl_router *r = calloc(1, sizeof *r);
    int rc;

    *out = NULL;
    if (!r)
        return sl_no_memory(e);
    rc = open_all(r, o, e);
    if (rc < 0)
        sl_router_close(r);
    else
        *out = r;
    return rc;
}

void sl_router_close(struct sl_router *r)
{
    if (!r)
        return;
    for (unsigned i = 0; i < r->n; i++) {
        struct listener *l = &r->listen[i];

        if (l->socket)
            zmq_close(l->socket);
        if (l->socket && l->path && l->lock_fd >= 0)
            unlink(l->path);
        if (l->lock_fd >= 0)
            close(l->lock_fd); /* the lock file stays: removing it would race with the next daemon */
        free(l->endpoint);
        free(l->path);
        free(l->lock_path);
    }
    if (r->zap)
        zmq_close(r->zap);
    if (r->own_context)
        sl_router_context_free(r->context);
    else if (r->context)
        zmq_ctx_shutdown(r->context);
    explicit_bzero(&r->key, sizeof r->key);
    sl_allow_free(&r->allow);
    free(r);
}

const char *sl_router_endpoint(const struct sl_router *r, unsigned i)
{
    return i < r->n ? r->listen[i].endpoint : NULL;
}

int sl_router_context_new(void **out, struct sl_error *e)
{
    void *first;

    *out = NULL;
    SL_TRY(sl_zmq_room(e));
    *out = zmq_ctx_new();
    first = *out ? zmq_socket(*out, ZMQ_PAIR) : NULL; /* libzmq's threads start with it */
    if (!first) {
        int err = zmq_errno();

        sl_router_context_free(*out);
        *out = NULL;
        return sl_fail(e, SL_EFAIL, "no context for sockets: %s", zmq_strerror(err));
    }
    zmq_close(first);
    return 0;
}

void sl_router_context_free(void *context)
{
    while (context && zmq_ctx_term(context) != 0 && zmq_errno() == EINTR)
        ;
}

uint64_t sl_router_refused(const struct sl_router *r)
{
    return r->refused;
}

const char *sl_router_last_refused(const struct sl_router *r)
{
    return r->last_refused;
}

/* ---- messages */

int sl_router_wait(struct sl_router *r, int fd, int timeout_ms, struct sl_error *e)
{
    zmq_pollitem_t items[SL_ROUTER_ENDPOINTS + 2] = {{.socket = r->zap, .events = ZMQ_POLLIN}};
    int n = 1, rc;

    for (unsigned i = 0; i < r->n; i++)
        items[n++] = (zmq_pollitem_t){.socket = r->listen[i].socket, .events = ZMQ_POLLIN};
    if (fd >= 0)
        items[n++] = (zmq_pollitem_t){.fd = fd, .events = ZMQ_POLLIN};
    rc = zmq_poll(items, n, timeout_ms);
    if (rc < 0)
        return zmq_errno() == EINTR ? 0 : zmq_failed(e, "cannot wait", "zmq");
    if (items[0].revents)
        answer_zap(r);
    return rc > (items[0].revents != 0);
}

/* Connection ids are libzmq's own: 0 and four bytes. One that a peer chose is refused. */
static bool connection(zmq_msg_t *m, unsigned listener, uint64_t *peer)
{
    const uint8_t *b = zmq_msg_data(m);

    if (zmq_msg_size(m) != 5 || b[0] != 0)
        return false;
    *peer = (uint64_t)(listener + 1) << 32 | (uint32_t)b[1] << 24 | (uint32_t)b[2] << 16 |
            (uint32_t)b[3] << 8 | b[4];
    return true;
}

static void identify(const struct listener *l, zmq_msg_t *body, struct sl_received *m)
{
    const char *id = l->kind == LISTEN_INPROC ? "3 local" : zmq_msg_gets(body, "User-Id");
    const char *address = l->kind == LISTEN_IPC ? zmq_msg_gets(body, "Peer-Address") : NULL;
    unsigned long uid, pid;

    m->role = SL_ROLE_NONE;
    m->pid = address && peer_ids(address, &uid, &pid) ? pid : 0;
    if (id && id[0] >= '1' && id[0] <= '3' && id[1] == ' ') {
        m->role = (enum sl_role)(id[0] - '0');
        snprintf(m->user, sizeof m->user, "%s", id + 2);
    }
}

/* Returns 1 with a message, 0 when there is none, 2 when one was passed over. */
static int receive_from(struct sl_router *r, unsigned i, struct sl_received *out, struct sl_error *e)
{
    struct listener *l = &r->listen[i];
    zmq_msg_t part[2];
    int parts = 0, more = 1, rc = 2;
    bool known = false;

    while (more) {
        zmq_msg_t extra, *m = parts < 2 ? &part[parts] : &extra;

        zmq_msg_init(m);
        if (zmq_msg_recv(m, l->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(m);
            rc = zmq_errno() == EAGAIN || zmq_errno() == EINTR ? 0 : zmq_failed(e, "cannot receive", l->endpoint);
            break;
        }
        more = zmq_msg_more(m);
        if (parts >= 2)
            zmq_msg_close(m);
        parts++;
    }
    if (rc == 2 && parts >= 1)
        known = connection(&part[0], i, &out->peer);
    if (known && parts >= 2) {
        identify(l, &part[1], out);
        out->n = parts == 2 ? zmq_msg_size(&part[1]) : 0; /* several frames: refused as unreadable */
        out->bytes = malloc(out->n ? out->n : 1);
        if (out->bytes && out->n)
            memcpy(out->bytes, zmq_msg_data(&part[1]), out->n);
        rc = !out->bytes ? sl_no_memory(e) : out->role ? 1 : 2;
        if (rc == 2)
            free(out->bytes);
    }
    r->refused += rc == 2;
    for (int k = 0; k < parts && k < 2; k++)
        zmq_msg_close(&part[k]);
    return rc;
}

int sl_router_receive(struct sl_router *r, struct sl_received *m, struct sl_error *e)
{
    for (unsigned k = 0; k < r->n; k++) {
        unsigned i = (r->turn + k) % r->n;
        int rc;

        while ((rc = receive_from(r, i, m, e)) == 2)
            ;
        if (rc != 0) {
            r->turn = i + 1;
            return rc;
        }
    }
    return 0;
}

int sl_router_send(struct sl_router *r, uint64_t peer, const uint8_t *bytes, size_t n,
                   struct sl_error *e)
{
    unsigned i = (unsigned)(peer >> 32) - 1;
    const uint8_t id[5] = {0, (uint8_t)(peer >> 24), (uint8_t)(peer >> 16), (uint8_t)(peer >> 8), (uint8_t)peer};

    if (i >= r->n)
        return 0;
    if (zmq_send(r->listen[i].socket, id, sizeof id, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
        zmq_send(r->listen[i].socket, bytes, n, ZMQ_DONTWAIT) >= 0)
        return 1;
    if (zmq_errno() == EHOSTUNREACH || zmq_errno() == EAGAIN || zmq_errno() == EINTR)
        return 0;
    return zmq_failed(e, "cannot send", r->listen[i].endpoint);
}
