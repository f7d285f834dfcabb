#include "worker/worker_run.h"

#include "proto/clock.h"
#include "proto/random_hex.h"
#include "proto/wire.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define TICK_MS 100
#define FINISH_MS 20000u    /* for what is under way when a signal comes */
#define ALONE_MS 3000u      /* the same without a daemon */
#define GPUS_MS 2000u

enum { LANE_TASKS, LANE_SPECIAL, LANES };

struct run {
    struct sl_dealer *dealer;
    struct sl_lane *lane[LANES];
    struct sl_worker *worker;
    int wake, signals, poll;
    bool embedded;      /* signals is the caller's eventfd */
    uint32_t finish_ms;
    unsigned n_signals;
    uint64_t signal_ms;
    struct sl_error lost; /* a device that failed, or memory: this process ends, the next begins anew */
    const struct sl_log *log;
    struct sl_notify *notify;
    struct sl_gpu_watch *gpus;
    pthread_mutex_t planning; /* of both lanes */
    uint64_t fed_bytes, fed_finished; /* when the watchdog was last fed */
    struct sl_error *e;
};

static void on_work(void *user, struct sl_work *w)
{
    struct run *r = user;

    sl_lane_push(r->lane[w->task >= SL_TASKS_MAX ? LANE_SPECIAL : LANE_TASKS], w);
}

static void on_drop(void *user, uint64_t job, uint32_t task, uint64_t epoch)
{
    struct run *r = user;

    sl_lane_drop(r->lane[task >= SL_TASKS_MAX ? LANE_SPECIAL : LANE_TASKS], job, task, epoch);
}

static void on_over(void *user, uint64_t job)
{
    struct run *r = user;

    for (unsigned i = 0; i < LANES; i++)
        sl_lane_let_go(r->lane[i], job);
}

/* ---- one turn of the loop */

static int receive_all(struct run *r)
{
    uint8_t *bytes;
    size_t n;
    int rc;

    while ((rc = sl_dealer_receive(r->dealer, &bytes, &n, r->e)) == 1) {
        sl_worker_receive(r->worker, bytes, n, sl_boot_ms());
        free(bytes);
    }
    return rc;
}

static int send_all(struct run *r)
{
    const uint8_t *bytes;
    size_t n;

    while (sl_worker_next(r->worker, &bytes, &n)) {
        int rc = sl_dealer_send(r->dealer, bytes, n, r->e);

        if (rc <= 0)
            return rc;
        sl_worker_sent(r->worker);
    }
    return 0;
}

static void collect(struct run *r)
{
    struct sl_outcome *o;
    uint64_t n;

    while (read(r->wake, &n, sizeof n) > 0)
        ;
    for (unsigned i = 0; i < LANES; i++)
        while ((o = sl_lane_collect(r->lane[i])) != NULL)
            sl_worker_outcome(r->worker, o, sl_boot_ms());
}

/* A signal ends the worker in order, a second one at once. */
static void take_signals(struct run *r)
{
    struct signalfd_siginfo si; /* of an eventfd: eight bytes */

    while (read(r->signals, &si, sizeof si) > 0) {
        if (r->n_signals++ == 0) {
            if (r->notify)
                sl_notify_stopping(r->notify, "finishing what is under way");
            r->signal_ms = sl_boot_ms();
            if (!r->embedded)
                sl_log_say(r->log, SL_LOG_NOTICE, "stopping", "signal %u: %u tasks are held",
                           si.ssi_signo, sl_worker_held(r->worker));
        }
    }
    if (r->n_signals) {
        uint64_t waited = sl_boot_ms() - r->signal_ms;
        bool late = waited > (sl_worker_connected(r->worker) ? r->finish_ms : ALONE_MS);

        for (unsigned i = 0; i < LANES; i++)
            sl_lane_hand_back(r->lane[i]);
        sl_worker_drain(r->worker, late || r->n_signals > 1, sl_boot_ms());
    }
}

static void feed_watchdog(struct run *r, unsigned in_hand, uint64_t bytes, uint64_t finished)
{
    if (!r->notify || (in_hand && bytes == r->fed_bytes && finished == r->fed_finished))
        return;
    r->fed_bytes = bytes;
    r->fed_finished = finished;
    sl_notify_progress(r->notify, sl_boot_ms());
}

/* What a failed device had in hand has gone back; the rest goes as with a signal. So it is
 * when memory was out. */
static void take_loss(struct run *r, const struct sl_error *lost)
{
    if (lost->code == 0 || r->lost.code < 0)
        return;
    r->lost = *lost;
    sl_log_say(r->log, SL_LOG_ERROR, lost->code == SL_EDEVICE ? "device" : "memory", "%s", lost->text);
    if (r->n_signals++ == 0)
        r->signal_ms = sl_boot_ms();
}

/* Why nobody answers, where that is known. */
static const char *known_reason(const struct run *r)
{
    const char *nowhere = sl_dealer_nowhere(r->dealer);

    return !nowhere && sl_dealer_refused(r->dealer) ? "the daemon refuses this worker: it is not in its allow-list" : nowhere;
}

static int tick(struct run *r)
{
    struct sl_lane_state s, special;
    struct sl_worker_progress p;
    struct sl_lane_task tasks[2 * SL_LANE_TASKS];
    struct sl_gpu_health gpus[SL_DEVICES_MAX];

    sl_lane_state(r->lane[LANE_TASKS], &s);
    sl_lane_state(r->lane[LANE_SPECIAL], &special);
    take_loss(r, &s.lost);
    take_loss(r, &special.lost);
    memcpy(tasks, s.tasks, s.n_tasks * sizeof *tasks);
    memcpy(tasks + s.n_tasks, special.tasks, special.n_tasks * sizeof *tasks);
    p = (struct sl_worker_progress){s.bytes + special.bytes, tasks, s.n_tasks + special.n_tasks,
                                    s.tensor, s.stages, gpus, sl_gpu_watch_read(r->gpus, gpus), known_reason(r)};
    feed_watchdog(r, s.unfinished + special.unfinished, p.bytes, s.finished + special.finished);
    if (sl_worker_tick(r->worker, &p, sl_boot_ms()) == 1)
        return sl_dealer_reconnect(r->dealer, r->e);
    return 0;
}

static int loop(struct run *r)
{
    uint64_t waited;

    if (r->notify)
        SL_TRY(sl_notify_ready(r->notify, "running", r->e));
    SL_TRY(tick(r)); /* hello */
    while (!sl_worker_done(r->worker)) {
        SL_TRY(send_all(r));
        if (sl_worker_done(r->worker))
            break;
        SL_TRY(sl_dealer_wait(r->dealer, r->poll, TICK_MS, r->e));
        SL_TRY(receive_all(r));
        take_signals(r);
        collect(r);
        SL_TRY(tick(r));
        SL_TRY(sl_worker_refused(r->worker, r->e));
        /* `bye` could not be sent: nobody is there to hear it. */
        waited = r->n_signals ? sl_boot_ms() - r->signal_ms : 0;
        if (waited > (sl_worker_held(r->worker) ? r->finish_ms : 0) + ALONE_MS)
            break;
    }
    return send_all(r);
}

/* The leases of a worker that fails are not waited for. */
static void say_last_words(struct run *r)
{
    const uint8_t *bytes;
    struct sl_error ignored;
    size_t n = sl_worker_last_words(r->worker, &bytes);

    if (n)
        (void)!sl_dealer_send(r->dealer, bytes, n, &ignored);
}

/* ---- start and end */

static int watch(struct run *r, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

    return epoll_ctl(r->poll, EPOLL_CTL_ADD, fd, &ev);
}

/* Signals are blocked before any thread starts, so that only the loop sees them. SIGHUP, of a terminal that
 * closes, is one of them, but not under nohup. */
static int take_signal_fd(void)
{
    struct sigaction hangup;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file past the limit is an error like a full disk */
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static int open_events(struct run *r)
{
    if (!r->embedded)
        r->signals = take_signal_fd();
    r->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->poll = epoll_create1(EPOLL_CLOEXEC);
    if (r->signals < 0 || r->wake < 0 || r->poll < 0 || watch(r, r->signals) || watch(r, r->wake))
        return sl_fail(r->e, SL_EFAIL, "cannot watch for events: %s", strerror(errno));
    return 0;
}

static int start(struct run *r, const struct sl_worker_run_opts *o)
{
    struct sl_worker_opts wo = o->worker;
    struct sl_job_cache_opts co = o->cache;
    char instance[33];

    SL_TRY(sl_random_hex(instance, r->e));
    if (!wo.instance)
        wo.instance = instance;
    wo.work = on_work;
    wo.drop = on_drop;
    wo.over = on_over;
    wo.user = r;
    co.planning = &r->planning;
    SL_TRY(open_events(r));
    if (o->cache.devices)
        SL_TRY(sl_gpu_watch_open(o->cache.devices, GPUS_MS, &r->gpus, r->e));
    SL_TRY(sl_dealer_open(&o->dealer, &r->dealer, r->e));
    SL_TRY(sl_worker_new(&wo, sl_boot_ms(), &r->worker, r->e));
    for (unsigned i = 0; i < LANES; i++)
        SL_TRY(sl_lane_open(&co, r->wake, &r->lane[i], r->e));
    return 0;
}

int sl_worker_run(const struct sl_worker_run_opts *o, struct sl_error *e)
{
    struct run r = {.wake = -1, .signals = o->stop_fd ? o->stop_fd : -1, .poll = -1,
                    .embedded = o->stop_fd != 0, .finish_ms = o->finish_ms ? o->finish_ms : FINISH_MS,
                    .log = o->worker.log, .notify = o->notify, .planning = PTHREAD_MUTEX_INITIALIZER, .e = e};
    int rc = start(&r, o);

    if (rc == 0) {
        rc = loop(&r);
        if (rc < 0)
            say_last_words(&r);
    }
    if (r.notify && r.n_signals == 0)
        sl_notify_stopping(r.notify, "ending");
    if (rc == 0 && r.lost.code < 0)
        rc = sl_fail(e, r.lost.code, "%s", r.lost.text);
    /* The socket first: its leases go back while the engines still close. */
    sl_dealer_close(r.dealer);
    for (unsigned i = 0; i < LANES; i++)
        sl_lane_close(r.lane[i]);
    sl_gpu_watch_close(r.gpus);
    sl_worker_free(r.worker);
    if (r.poll >= 0)
        close(r.poll);
    if (!r.embedded && r.signals >= 0)
        close(r.signals);
    if (r.wake >= 0)
        close(r.wake);
    return rc;
}
