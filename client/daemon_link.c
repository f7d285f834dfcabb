#include "client/daemon_link.h"

#include "client/interrupt.h"
#include "client/progress.h"
#include "proto/clock.h"
#include "proto/config_options.h"
#include "proto/random_hex.h"
#include "proto/utf8.h"
#include "worker/dealer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define HELLO_EVERY_MS 500      /* until it is answered */
#define RECONNECT_EVERY_MS 3000 /* while there is no answer at all */
#define ASK_EVERY_MS 1000       /* is it still the daemon that has the request? */
#define HEARTBEAT_MS 5000       /* until the daemon says another */
#define SILENCE 4               /* heartbeats after which the other side is lost */

struct daemon_link {
    struct sl_dealer *dealer;
    const char *endpoint;             /* the configuration's */
    char instance[33], name[65], host[65];
    char role[17];
    bool plain;                       /* tcp without keys */
    bool open;                        /* welcome has come */
    bool ever;                        /* and had come before */
    uint32_t heartbeat_ms, timeout_ms;
    uint64_t last_in, last_out, last_hello, last_connect; /* sl_boot_ms */
    uint64_t next_id;
    char told[1024];                  /* why the request under way has no answer yet; "": the daemon did not say */
};

static const char *advice(const struct daemon_link *l, int error)
{
    struct stat st;

    if (error == EACCES)
        return stat(l->endpoint + 6, &st) == 0
                   ? "this user may not use it: its operator adds 'submitter uid NUMBER NAME' to the file "
                     "that daemon.allow names ('id -u' tells the number)"
                   : "this user may not use it: its operator opens the socket's folder (chmod 711) and adds "
                     "'submitter uid NUMBER NAME' to the file that daemon.allow names ('id -u' tells the number)";
    if (strncmp(l->endpoint, "ipc:", 4) == 0)
        return "start it with 'systemctl start sluiced' or 'sluiced --root FOLDER', or name another with --connect ENDPOINT";
    return l->plain
               ? "is it running there, with --plain-tcp too? --connect ENDPOINT names another"
               : "is it running there, and the key of --server-key the daemon's of today? --connect ENDPOINT names another";
}

static int unreachable(const struct daemon_link *l, const char *why, int error, struct sl_error *e)
{
    return sl_fail(e, SL_EUNREACHABLE, "no daemon at %s: %s; %s", l->endpoint, why,
                   advice(l, error));
}

/* Whether somebody listens on an ipc endpoint; a transport connects in the
 * background and would not tell. Others: 0. Returns 0 or connect's errno. */
static int path_errno(const struct daemon_link *l)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const char *path = l->endpoint + 6;
    int fd, rc;

    if (strncmp(l->endpoint, "ipc://", 6) != 0)
        return 0;
    if (strlen(path) >= sizeof sa.sun_path)
        return ENAMETOOLONG;
    strcpy(sa.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    rc = connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

static int send_msg(struct daemon_link *l, const struct sl_msg *m, bool *sent, struct sl_error *e)
{
    uint8_t *bytes;
    size_t n;
    int rc;

    SL_TRY(sl_wire_encode(m, &bytes, &n, e));
    rc = sl_dealer_send(l->dealer, bytes, n, e);
    free(bytes);
    SL_TRY(rc);
    *sent = rc == 1;
    if (*sent)
        l->last_out = sl_boot_ms();
    return 0;
}

/* A message without an answer that anybody waits for. */
static int say(struct daemon_link *l, enum sl_message_id id, const char *field, uint64_t v,
               struct sl_error *e)
{
    struct sl_msg m;
    bool sent;
    int rc;

    SL_TRY(sl_msg_new(id, NULL, &m, e));
    if (field)
        sl_put_uint(m.tree, field, v);
    rc = send_msg(l, &m, &sent, e);
    sl_msg_free(&m);
    return rc;
}

static int say_hello(struct daemon_link *l, struct sl_error *e)
{
    struct sl_msg m;
    bool sent;
    int rc;

    l->last_hello = sl_boot_ms();
    SL_TRY(sl_msg_new(SL_M_HELLO, NULL, &m, e));
    sl_put_str(m.tree, "role", "client");
    sl_put_str(m.tree, "version", SLUICE_VERSION);
    sl_put_str(m.tree, "instance", l->instance);
    sl_put_text(m.tree, "name", l->name);
    sl_put_text(m.tree, "host", l->host);
    sl_put_uint(m.tree, "pid", (uint64_t)getpid());
    rc = send_msg(l, &m, &sent, e);
    sl_msg_free(&m);
    if (rc == 0 && !sent)
        l->last_hello = 0; /* no connection yet: again soon */
    return rc;
}

static int reconnect(struct daemon_link *l, struct sl_error *e)
{
    l->last_connect = sl_boot_ms();
    l->last_hello = 0;
    return sl_dealer_reconnect(l->dealer, e);
}

static int refused(const struct daemon_link *l, struct sl_error *e)
{
    bool ipc = strncmp(l->endpoint, "ipc:", 4) == 0;

    return sl_fail(e, SL_EUNREACHABLE, "the daemon at %s refuses this %s: its operator adds %s to the file that daemon.allow "
                   "names, and restarts it", l->endpoint, ipc ? "user" : "key",
                   ipc ? "'submitter uid NUMBER NAME' ('id -u' tells the number)" : "the line that 'sluice keys' printed");
}

/* What time alone asks for: hello again, ping, and the notice that nobody
 * answers. Returns an event or NOTHING. */
static int keep_up(struct daemon_link *l, struct sl_error *e)
{
    uint64_t now = sl_boot_ms();

    if (!l->open) {
        if (sl_dealer_refused(l->dealer))
            return refused(l, e);
        if (now - l->last_connect >= RECONNECT_EVERY_MS)
            SL_TRY(reconnect(l, e));
        if (now - l->last_hello >= HELLO_EVERY_MS)
            SL_TRY(say_hello(l, e));
        return DAEMON_LINK_NOTHING;
    }
    if (now - l->last_in >= (uint64_t)SILENCE * l->heartbeat_ms) {
        l->open = false;
        SL_TRY(reconnect(l, e));
        return DAEMON_LINK_LOST;
    }
    if (now - l->last_out >= l->heartbeat_ms)
        SL_TRY(say(l, SL_M_PING, "n", ++l->next_id, e));
    return DAEMON_LINK_NOTHING;
}

static void copy(char *to, size_t cap, const char *from)
{
    snprintf(to, cap, "%s", from ? from : "");
}

/* One message from the daemon. Returns an event; *kept tells whether m is for
 * the caller. */
static int take(struct daemon_link *l, const struct sl_msg *m, bool *kept, struct sl_error *e)
{
    bool again = l->ever;

    *kept = false;
    switch (m->id) {
    case SL_M_WELCOME:
        if (l->open)
            return DAEMON_LINK_NOTHING;
        copy(l->role, sizeof l->role, sl_get_str(m->tree, "role"));
        l->heartbeat_ms = (uint32_t)sl_get_uint(m->tree, "heartbeat_ms", HEARTBEAT_MS);
        if (l->heartbeat_ms < 50)
            l->heartbeat_ms = 50;
        l->open = l->ever = true;
        return again ? DAEMON_LINK_BACK : DAEMON_LINK_NOTHING;
    case SL_M_REHELLO:
        l->open = false;
        SL_TRY(say_hello(l, e));
        return DAEMON_LINK_NOTHING;
    case SL_M_PING:
        SL_TRY(say(l, SL_M_PONG, "n", sl_get_uint(m->tree, "n", 0), e));
        return DAEMON_LINK_NOTHING;
    case SL_M_PONG:
        return DAEMON_LINK_NOTHING;
    case SL_M_BYE:
        l->open = false;
        SL_TRY(reconnect(l, e));
        return DAEMON_LINK_LOST;
    case SL_M_ERROR:
        if (!l->open && sl_get_str(m->tree, "message")
            && strcmp(sl_get_str(m->tree, "message"), "hello") == 0) {
            sl_msg_fail(m, e);
            return sl_fail_context(e, "the daemon at %s says", l->endpoint);
        }
        break;
    default:
        break;
    }
    *kept = true;
    return DAEMON_LINK_MESSAGE;
}

/* How long nothing has to be done. */
static int pause_ms(const struct daemon_link *l, int timeout_ms)
{
    int most = l->open ? (int)(l->heartbeat_ms / 4 + 1) : l->last_hello ? 50 : 5;

    return timeout_ms < most ? timeout_ms : most;
}

int daemon_link_next(struct daemon_link *l, int timeout_ms, struct sl_msg *m, struct sl_error *e)
{
    uint64_t end = now_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);

    for (;;) {
        uint64_t now;
        uint8_t *bytes;
        size_t n;
        bool kept;
        int rc = keep_up(l, e);

        if (rc != DAEMON_LINK_NOTHING)
            return rc;
        rc = sl_dealer_receive(l->dealer, &bytes, &n, e);
        SL_TRY(rc);
        if (rc == 1) {
            struct sl_error bad;

            l->last_in = sl_boot_ms();
            rc = sl_wire_decode(bytes, n, SL_FROM_DAEMON, m, NULL, NULL, &bad);
            free(bytes);
            if (rc < 0)
                return sl_fail(e, SL_EFAIL, "the daemon at %s sent what cannot be read: %s",
                               l->endpoint, bad.text);
            rc = take(l, m, &kept, e);
            if (!kept)
                sl_msg_free(m);
            if (rc != DAEMON_LINK_NOTHING)
                return rc;
            if (l->open && timeout_ms < 0)
                return DAEMON_LINK_NOTHING;
            continue;
        }
        now = now_ms();
        if (interrupt_asked() || (timeout_ms >= 0 && now >= end))
            return DAEMON_LINK_NOTHING;
        SL_TRY(sl_dealer_wait(l->dealer, -1,
                              pause_ms(l, timeout_ms < 0 ? 100 : (int)(end - now)), e));
        if (timeout_ms < 0)
            return DAEMON_LINK_NOTHING;
    }
}

/* What a connection that does not come about is called. */
static int no_welcome(const struct daemon_link *l, struct sl_error *e)
{
    char why[128];
    int error = path_errno(l);
    bool ipc = strncmp(l->endpoint, "ipc:", 4) == 0;

    if (interrupt_asked())
        return sl_fail(e, SL_EINTERRUPTED, "interrupted");
    if (sl_dealer_nowhere(l->dealer))
        return sl_fail(e, SL_EUNREACHABLE, "%s: %s", l->endpoint, sl_dealer_nowhere(l->dealer));
    if (l->told[0])
        return sl_fail(e, SL_EUNREACHABLE, "the daemon at %s gave no answer in %.1f s: %s", l->endpoint, l->timeout_ms / 1000.0, l->told);
    if (ipc ? error == 0 : l->ever)
        return sl_fail(e, SL_EUNREACHABLE, "the daemon at %s %s, but gave no answer in %.1f s; its log says why "
                       "('journalctl -u sluiced')", l->endpoint, ipc ? "runs" : "answered before", l->timeout_ms / 1000.0);
    snprintf(why, sizeof why, "no answer in %.1f s%s%s", l->timeout_ms / 1000.0, error ? ": " : "",
             error ? strerror(error) : "");
    return unreachable(l, why, error, e);
}

static int wait_welcome(struct daemon_link *l, struct sl_error *e)
{
    uint64_t end = now_ms() + l->timeout_ms;

    while (!l->open) {
        struct sl_msg m;
        int rc;

        if (now_ms() >= end || interrupt_asked())
            return no_welcome(l, e);
        rc = daemon_link_next(l, -1, &m, e);
        SL_TRY(rc);
        if (rc == DAEMON_LINK_MESSAGE)
            sl_msg_free(&m);
    }
    return 0;
}

static void on_slow_lookup(void *user, const char *host)
{
    char shown[256]; /* as long as a name is */

    (void)user;
    snprintf(shown, sizeof shown, "%s", host);
    sl_utf8_disarm(shown);
    fprintf(stderr, "sluice: waiting for a name server to tell the address of %s\n", shown);
}

static int begin(struct daemon_link *l, const struct sl_dealer_opts *o, bool patient,
                 struct sl_error *e)
{
    const char *user = getenv("USER");
    int error;

    l->endpoint = o->endpoint;
    l->plain = o->plain_tcp;
    l->heartbeat_ms = HEARTBEAT_MS;
    SL_TRY(sl_random_hex(l->instance, e));
    copy(l->name, sizeof l->name, user && *user ? user : "sluice");
    if (gethostname(l->host, sizeof l->host - 1) != 0)
        copy(l->host, sizeof l->host, "localhost");
    SL_TRY(sl_dealer_open(o, &l->dealer, e));
    l->last_connect = sl_boot_ms();
    if (!patient && (error = path_errno(l)) != 0)
        return unreachable(l, strerror(error), error, e);
    return wait_welcome(l, e);
}

static int open_link(const struct sl_dealer_opts *o, uint32_t timeout_ms, struct daemon_link **out,
                     struct sl_error *e)
{
    struct daemon_link *l = calloc(1, sizeof *l);
    int rc;

    *out = NULL;
    if (!l)
        return sl_no_memory(e);
    l->timeout_ms = timeout_ms ? timeout_ms : DAEMON_LINK_TIMEOUT_MS;
    rc = begin(l, o, timeout_ms != 0, e);
    if (rc < 0)
        daemon_link_close(l);
    else
        *out = l;
    return rc;
}

int daemon_link_open(const struct sl_config *c, uint32_t timeout_ms, struct daemon_link **out,
                     struct sl_error *e)
{
    struct sl_dealer_opts o = {
        .endpoint = sl_config_text(c, SL_CONFIG_ENDPOINT),
        .key_path = sl_config_text_or_null(c, SL_CONFIG_KEY),
        .server_key_path = sl_config_text_or_null(c, SL_CONFIG_SERVER_KEY),
        .plain_tcp = sl_config_number(c, SL_CONFIG_PLAIN_TCP) != 0,
        .patient = timeout_ms != 0, .slow = on_slow_lookup,
    };

    if (strncmp(o.endpoint, "tcp://", 6) != 0)
        o.key_path = o.server_key_path = NULL;
    if (o.key_path)
        SL_TRY(sl_config_there(c, SL_CONFIG_KEY, e));
    if (o.server_key_path)
        SL_TRY(sl_config_there(c, SL_CONFIG_SERVER_KEY, e));
    return open_link(&o, timeout_ms, out, e);
}

int daemon_link_open_inproc(void *context, const char *endpoint, uint32_t timeout_ms,
                            struct daemon_link **out, struct sl_error *e)
{
    const struct sl_dealer_opts o = {.endpoint = endpoint, .context = context};

    return open_link(&o, timeout_ms, out, e);
}

void daemon_link_close(struct daemon_link *l)
{
    bool before = json_lost();
    struct sl_error e;

    if (!l)
        return;
    /* Nobody waits for this one; without it the daemon notices all the same. */
    if (l->open && say(l, SL_M_BYE, NULL, 0, &e) < 0)
        l->open = false;
    json_forgive(before);
    sl_dealer_close(l->dealer);
    free(l);
}

/* Whether m answers the request with this id: 1 in *answer, 0 when it is
 * something else (then it is freed). */
static int is_answer(struct daemon_link *l, struct sl_msg *m, const char *id, enum sl_message_id expected,
                     struct sl_error *e)
{
    const char *re = sl_get_str(m->tree, "re");
    int rc = 0;

    if (re && strcmp(re, id) == 0) {
        if (m->id == expected)
            return 1;
        rc = m->id == SL_M_ERROR ? sl_msg_fail(m, e)
             : sl_fail(e, SL_EFAIL, "the daemon answers with %s, not %s", sl_message(m->id)->name,
                       sl_message(expected)->name);
    } else if (!re && m->id == SL_M_ERROR) {
        copy(l->told, sizeof l->told, sl_get_str(m->tree, "text"));
    }
    sl_msg_free(m);
    return rc;
}

/* A request until its answer, said again whenever the daemon is back. */
static int exchange(struct daemon_link *l, const struct sl_msg *request, const char *id,
                    enum sl_message_id expected, struct sl_msg *m, struct sl_error *e)
{
    uint64_t end = now_ms() + l->timeout_ms;
    bool sent = false;

    l->told[0] = '\0';
    for (;;) {
        uint64_t now = now_ms();
        int rc;

        if (interrupt_asked())
            return sl_fail(e, SL_EINTERRUPTED, "interrupted");
        if (now >= end)
            return no_welcome(l, e);
        if (l->open && !sent)
            SL_TRY(send_msg(l, request, &sent, e));
        rc = daemon_link_next(l, sent ? (int)(end - now < ASK_EVERY_MS ? end - now : ASK_EVERY_MS) : 20,
                              m, e);
        SL_TRY(rc);
        if (!l->open || rc == DAEMON_LINK_LOST || rc == DAEMON_LINK_BACK) {
            sent = false;
            l->told[0] = '\0';
        } else if (rc == DAEMON_LINK_NOTHING && sent) {
            SL_TRY(say(l, SL_M_PING, "n", ++l->next_id, e)); /* a new daemon answers rehello */
        }
        if (rc != DAEMON_LINK_MESSAGE)
            continue;
        rc = is_answer(l, m, id, expected, e);
        if (rc != 0)
            return rc;
    }
}

int daemon_link_ask(struct daemon_link *l, struct sl_msg *request, enum sl_message_id expected,
                    struct sl_msg *answer, struct sl_error *e)
{
    struct sl_msg m;
    char id[32];
    int rc;

    snprintf(id, sizeof id, "%llu", (unsigned long long)++l->next_id);
    sl_put_str(request->tree, "id", id);
    rc = exchange(l, request, id, expected, &m, e);
    sl_msg_free(request);
    if (rc < 0)
        return rc;
    if (answer)
        *answer = m;
    else
        sl_msg_free(&m);
    return 0;
}

int daemon_link_send(struct daemon_link *l, struct sl_msg *m, const char *id, struct sl_error *e)
{
    bool sent;
    int rc = 0;

    sl_put_str(m->tree, "id", id);
    if (l->open)
        rc = send_msg(l, m, &sent, e);
    sl_msg_free(m);
    return rc;
}

const char *daemon_link_endpoint(const struct daemon_link *l)
{
    return l->endpoint;
}

const char *daemon_link_role(const struct daemon_link *l)
{
    return l->role;
}

