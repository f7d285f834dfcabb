#include "daemon/serve.h"

#include "daemon/event_log.h"
#include "proto/clock.h"
#include "proto/notify.h"
#include "proto/plan.h"
#include "proto/random_hex.h"
#include "proto/roots.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MESSAGES_A_TURN 512   /* of one commit */
#define PAUSE_MS 1000         /* after a queue that cannot even be read */
#define REFUSED_EVERY_MS 5000 /* lines about refused connections */

struct serve {
    const struct sl_serve_opts *o;
    struct sl_queue *queue;
    struct sl_coord *coord;
    struct sl_router *router;
    struct sl_roots *roots;
    struct sl_metrics *metrics;
    struct sl_notify notify;
    struct sl_metrics_figures figures;
    char id[33];
    int signals, committed, events; /* events: either of the two */
    uint64_t heard_ms;       /* CLOCK_BOOTTIME: when messages were last looked for */
    uint64_t tick_ms, paused_ms, refused_ms, refused, refused_hellos;
    uint64_t under_way;      /* commit that was, at the end of the last turn */
};

static struct sl_now now(void)
{
    return (struct sl_now){sl_run_ms(), sl_wall_ms()};
}

/* ---- hooks of the coordinator */

static int check_path(void *user, const char *path, bool output, struct sl_error *e)
{
    const struct serve *s = user;
    int fd = sl_roots_open_path(s->roots, path, output ? O_PATH | O_DIRECTORY : O_PATH, e);

    if (fd == SL_ESOURCE && output)
        return sl_fail(e, SL_EUSAGE, "%s: no such folder; create it first", path);
    SL_TRY(fd);
    close(fd);
    return 0;
}

/* "/models/out", "/models/./out" and a link to it: jobs there would meet. */
static bool same_folder(void *user, const char *a, const char *b)
{
    const struct serve *s = user;
    struct sl_error ignored;
    int x = sl_roots_open_path(s->roots, a, O_PATH, &ignored), y = sl_roots_open_path(s->roots, b, O_PATH, &ignored);
    struct stat st, other;
    bool same = x >= 0 && y >= 0 && fstat(x, &st) == 0 && fstat(y, &other) == 0 && st.st_dev == other.st_dev &&
                st.st_ino == other.st_ino;

    if (x >= 0)
        close(x);
    if (y >= 0)
        close(y);
    return same;
}

static bool no_process(void *user, uint64_t pid)
{
    (void)user;
    return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

static void on_event(void *user, const struct sl_event *ev)
{
    struct serve *s = user;

    sl_event_count(&s->figures.events, ev);
    sl_event_log(s->o->log, ev);
    if (s->o->embed && s->o->embed->event)
        s->o->embed->event(s->o->embed->user, ev);
}

/* ---- starting */

static int make_folders(const char *dir)
{
    char path[4096];

    if ((size_t)snprintf(path, sizeof path, "%s", dir) >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (char *s = path + 1; (s = strchr(s, '/')); *s++ = '/') {
        *s = '\0';
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return -1;
    }
    return mkdir(path, 0700) != 0 && errno != EEXIST ? -1 : 0;
}

/* SQLite's locks and its log need a filesystem of this machine. */
static int check_state(const char *dir, struct sl_error *e)
{
    static const unsigned long network[] = {
        0x6969, 0xff534d42, 0xfe534d42, 0x0bd00bd0, 0x47504653, 0x19830326, 0x00c36400, 0x517b, 0x564c,
    }; /* NFS, CIFS, SMB2, Lustre, GPFS, BeeGFS, Ceph, SMB, NCP */
    struct statfs fs;
    struct stat st;

    if (make_folders(dir) != 0)
        return sl_fail(e, SL_EUSAGE, "%s: the state folder cannot be made: %s; --state DIR takes another", dir,
                       strerror(errno));
    if (stat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || statfs(dir, &fs) != 0)
        return sl_fail(e, SL_EUSAGE, "%s: no folder for the state", dir);
    if (access(dir, W_OK | X_OK) != 0)
        return sl_fail(e, SL_EUSAGE, "%s: the state folder cannot be written to: %s; --state DIR takes another", dir,
                       strerror(errno));
    if (st.st_uid != geteuid() || (st.st_mode & 022))
        return sl_fail(e, SL_EUSAGE, "%s: the state folder must be this user's and closed to others' writing (chmod 700)",
                       dir);
    for (unsigned i = 0; i < sizeof network / sizeof network[0]; i++)
        if (((unsigned long)fs.f_type & 0xffffffff) == network[i])
            return sl_fail(e, SL_EUSAGE, "%s: a network filesystem cannot hold the state; choose a folder on a disk of this machine",
                           dir);
    return 0;
}

static int take_signals(struct serve *s, struct sl_error *e)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 ||
        (s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return sl_fail(e, SL_EFAIL, "signals: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file past the limit is an error like a full disk */
    return 0;
}

static int watch(const struct serve *s, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(s->events, EPOLL_CTL_ADD, fd, &ev);
}

static int take_events(struct serve *s, struct sl_error *e)
{
    s->committed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->events = epoll_create1(EPOLL_CLOEXEC);
    if (s->committed < 0 || s->events < 0 || watch(s, s->signals) || watch(s, s->committed))
        return sl_fail(e, SL_EFAIL, "cannot watch for events: %s", strerror(errno));
    return 0;
}

/* What a daemon has of its own: signals, its queue, the roots. */
static int open_own(struct serve *s, struct sl_error *e)
{
    const struct sl_serve_opts *o = s->o;
    char path[4200];

    SL_TRY(sl_notify_open(&s->notify, e));
    SL_TRY(take_signals(s, e));
    SL_TRY(check_state(o->state_dir, e));
    SL_TRY(sl_roots_open(o->roots, o->n_roots, &s->roots, e));
    if ((size_t)snprintf(path, sizeof path, "%s/queue", o->state_dir) >= sizeof path)
        return sl_fail(e, SL_EUSAGE, "%s: too long a path", o->state_dir);
    sl_notify_extend(&s->notify, now().run_ms, 60000);
    return sl_queue_open(path, &s->queue, e);
}

static int open_all(struct serve *s, struct sl_error *e)
{
    const struct sl_serve_opts *o = s->o;
    struct sl_coord_opts co = o->coord;

    if (o->embed) {
        s->queue = o->embed->queue;
        s->signals = o->embed->stop_fd;
    } else {
        SL_TRY(open_own(s, e));
        co.check_path = check_path;
        co.same_folder = same_folder;
        co.no_process = no_process;
    }
    SL_TRY(take_events(s, e));
    SL_TRY(sl_random_hex(s->id, e));
    co.version = SLUICE_VERSION;
    co.bytes_version = SL_BYTES_VERSION;
    co.daemon_id = s->id;
    co.state_dir = o->state_dir;
    co.roots = o->roots;
    co.n_roots = o->n_roots;
    co.on_event = on_event;
    co.user = s;
    co.background = !o->embed;
    co.wake_fd = s->committed;
    SL_TRY(sl_coord_open(s->queue, &co, now(), &s->coord, e));
    SL_TRY(sl_router_open(&o->router, &s->router, e));
    if (o->embed) {
        o->embed->ready(o->embed->user);
        return 0;
    }
    if (o->metrics_address) {
        const struct sl_metrics_opts mo = {.address = o->metrics_address, .remote = o->metrics_remote,
                                           .version = SLUICE_VERSION, .bytes_version = SL_BYTES_VERSION,
                                           .state_dir = o->state_dir};

        SL_TRY(sl_metrics_open(&mo, &s->metrics, e));
        sl_log_say(o->log, SL_LOG_NOTICE, "metrics", "http://%s/metrics", sl_metrics_address(s->metrics));
    }
    for (unsigned i = 0; sl_router_endpoint(s->router, i); i++)
        sl_log_say(o->log, SL_LOG_NOTICE, "listening", "%s", sl_router_endpoint(s->router, i));
    return sl_notify_ready(&s->notify, "serving", e);
}

/* ---- one turn */

static int send_all(struct serve *s, struct sl_error *e)
{
    struct sl_outgoing out;
    int rc = 0;

    while (sl_coord_next(s->coord, &out)) {
        int sent = rc < 0 ? 0 : sl_router_send(s->router, out.peer, out.bytes, out.n, e);

        free(out.bytes);
        if (sent == 0)
            sl_coord_gone(s->coord, out.peer);
        rc = rc < 0 ? rc : sent < 0 ? sent : 0;
    }
    return rc;
}

/* The queue failed: nothing of this turn happened. */
static void tell_failed(struct serve *s, const struct sl_error *why)
{
    if (!sl_coord_readable(s->coord))
        s->paused_ms = now().run_ms + PAUSE_MS;
    sl_log_say(s->o->log, SL_LOG_ERROR, "queue_failed", "%s; nothing is acknowledged until it works again",
               why->text);
}

static int take_messages(struct serve *s, struct sl_error *why, struct sl_error *e)
{
    struct sl_received m;
    int rc, failed = 0;

    for (unsigned n = 0; n < MESSAGES_A_TURN && failed == 0 && !sl_coord_full(s->coord); n++) {
        struct sl_peer from;

        SL_TRY(rc = sl_router_receive(s->router, &m, e));
        if (rc == 0)
            break;
        from = (struct sl_peer){.id = m.peer, .role = m.role, .pid = m.pid};
        memcpy(from.user, m.user, sizeof from.user);
        failed = sl_coord_receive(s->coord, &from, m.bytes, m.n, now(), why);
        free(m.bytes);
    }
    return failed < 0;
}

static void publish(struct serve *s, bool ready)
{
    if (!s->metrics)
        return;
    sl_coord_stats(s->coord, &s->figures.coord);
    s->figures.refused_connections = sl_router_refused(s->router);
    s->figures.ready = ready;
    sl_metrics_publish(s->metrics, &s->figures);
}

static void wait_for_commit(const struct serve *s)
{
    struct pollfd p = {.fd = s->events, .events = POLLIN};

    (void)poll(&p, 1, 250);
}

/* A stranger tries again and again: one line now and then. */
static void tell_refused(struct serve *s, uint64_t now_ms)
{
    const char *hello;
    uint64_t n = sl_router_refused(s->router), hellos = sl_coord_refused_hellos(s->coord, &hello);

    if ((n == s->refused && hellos == s->refused_hellos) || (s->refused_ms && now_ms < s->refused_ms + REFUSED_EVERY_MS))
        return;
    if (n != s->refused)
        sl_log_say(s->o->log, SL_LOG_WARNING, "refused", "%s is not in the allow-list (%llu connections refused so far)",
                   sl_router_last_refused(s->router), (unsigned long long)n);
    if (hellos != s->refused_hellos)
        sl_log_say(s->o->log, SL_LOG_WARNING, "refused", "%s (%llu hellos refused so far)", hello, (unsigned long long)hellos);
    s->refused = n;
    s->refused_hellos = hellos;
    s->refused_ms = now_ms;
}

/* This process was stopped, its machine slept, or a disk held it up: who spoke meanwhile is heard first. */
static void notice_gap(struct serve *s)
{
    uint64_t lease = s->o->coord.lease_ms ? s->o->coord.lease_ms : 60000, ms = sl_boot_ms(), gap = ms - s->heard_ms;

    if (s->heard_ms && gap > lease / 4) {
        sl_log_say(s->o->log, SL_LOG_WARNING, "deaf", "nobody was heard for %llu ms: every lease begins anew",
                   (unsigned long long)gap);
        sl_coord_woke(s->coord, now());
    }
    s->heard_ms = ms;
}

/* A commit that never ends is none, nor are commits that fail; but no restart makes room. */
static void tell_progress(struct serve *s, uint64_t now_ms)
{
    int failing = sl_coord_failing(s->coord);

    s->figures.loop_turns += failing == 0;
    if (failing ? failing == SL_ENOSPACE
                : !sl_coord_committing(s->coord) || sl_coord_committing(s->coord) != s->under_way)
        sl_notify_progress(&s->notify, now_ms);
    s->under_way = sl_coord_committing(s->coord);
}

static int turn(struct serve *s, struct sl_error *e)
{
    uint32_t beat = s->o->coord.heartbeat_ms ? s->o->coord.heartbeat_ms : 5000;
    struct sl_error why = {0}, later;
    struct sl_now t = now();
    uint64_t ended;
    int failed;

    if (t.run_ms < s->paused_ms) {
        const struct timespec ms50 = {.tv_nsec = 50000000};

        nanosleep(&ms50, NULL);
        return 0;
    }
    if (sl_coord_full(s->coord)) { /* no more is taken: the commit's end is the next event */
        wait_for_commit(s);
    } else {
        SL_TRY(sl_router_wait(s->router, s->events, (int)(beat / 4 < 250 ? beat / 4 + 1 : 250), e));
        notice_gap(s);
    }
    while (read(s->committed, &ended, sizeof ended) > 0)
        ;
    SL_TRY(failed = take_messages(s, &why, e));
    t = now();
    tell_refused(s, t.run_ms);
    if (!failed && t.run_ms >= s->tick_ms) {
        s->tick_ms = t.run_ms + (beat / 8 < 200 ? beat / 8 : 200);
        failed = sl_coord_tick(s->coord, t, &why) < 0;
    }
    if (sl_coord_flush(s->coord, now(), &later) < 0 && !failed) {
        why = later;
        failed = 1;
    }
    SL_TRY(send_all(s, e));
    if (failed && s->o->embed)
        return sl_fail(e, why.code, "%s", why.text);
    if (failed) {
        tell_failed(s, &why);
        publish(s, false);
        return 0;
    }
    tell_progress(s, t.run_ms);
    publish(s, sl_coord_failing(s->coord) == 0);
    return 0;
}

static bool stop_asked(const struct serve *s)
{
    struct signalfd_siginfo info; /* of an eventfd: eight bytes */

    return read(s->signals, &info, sizeof info) > 0;
}

static void close_all(struct serve *s)
{
    sl_metrics_close(s->metrics);
    sl_router_close(s->router);
    sl_coord_close(s->coord);
    sl_roots_close(s->roots);
    sl_notify_close(&s->notify);
    if (s->events >= 0)
        close(s->events);
    if (s->committed >= 0)
        close(s->committed);
    if (s->o->embed)
        return;
    sl_queue_close(s->queue);
    if (s->signals >= 0)
        close(s->signals);
}

int sl_serve(const struct sl_serve_opts *o, struct sl_error *e)
{
    struct serve s = {.o = o, .signals = -1, .committed = -1, .events = -1, .notify = {.fd = -1}};
    struct sl_error later;
    int rc = open_all(&s, e);

    while (rc == 0 && !stop_asked(&s))
        rc = turn(&s, e);
    if (s.router) {
        sl_notify_stopping(&s.notify, "stopping");
        publish(&s, false);
        if (sl_coord_settle(s.coord, now(), &later) == 0)
            sl_coord_say_bye(s.coord, "the daemon stops");
        if (send_all(&s, &later) < 0)
            sl_log_say(o->log, SL_LOG_WARNING, "stopping", "%s", later.text);
    }
    close_all(&s);
    return rc;
}
