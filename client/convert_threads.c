#include "client/convert_threads.h"

#include "client/daemon_link.h"
#include "client/interrupt.h"
#include "daemon/serve.h"
#include "proto/open_files.h"
#include "worker/worker_run.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define ENDPOINT "inproc://convert"
/* The same in every process, so that the leases of one that was killed go back
 * with the next one's hello. */
#define INSTANCE "00000000000000000000000000000001"
#define TOGETHER_MS 3600000u /* nobody gets lost alone here */
#define STOP_MS 3000u        /* for tasks under way when a stop is asked for */
#define THREADS_BYTES (128u << 20)
#define TICK_MS 100
#define AHEAD 3              /* tasks, so that the engine never waits for the queue */
#define HELLO_MS 30000u

struct side {
    pthread_t thread;
    bool started;
    int stop_fd;             /* -1: none */
    _Atomic bool ended;
    int rc;
    struct sl_error e;       /* valid once it has ended */
};

struct threads {
    const struct convert_threads *t;
    struct side coordinator, worker;
    void *context;           /* of all sockets: it outlives the threads */
    _Atomic bool bound;
    struct daemon_link *link;
    bool over;               /* the job has ended, or a task has failed */
};

/* ---- the two threads */

static void on_ready(void *user)
{
    struct threads *r = user;

    atomic_store(&r->bound, true);
}

static void *coordinator_main(void *user)
{
    struct threads *r = user;
    const struct sl_serve_embed embed = {.queue = r->t->queue, .stop_fd = r->coordinator.stop_fd,
                                         .ready = on_ready, .user = r};
    const char *endpoint = ENDPOINT;
    const struct sl_serve_opts o = {
        .router = {.endpoints = &endpoint, .n_endpoints = 1, .context = r->context},
        .coord = {.heartbeat_ms = TOGETHER_MS, .lease_ms = TOGETHER_MS, .attempts = 1},
        .embed = &embed};

    r->coordinator.rc = sl_serve(&o, &r->coordinator.e);
    atomic_store(&r->coordinator.ended, true);
    return NULL;
}

static void *worker_main(void *user)
{
    struct threads *r = user;
    const struct sl_worker_run_opts o = {
        .dealer = {.endpoint = ENDPOINT, .context = r->context},
        .cache = r->t->worker,
        .worker = {.instance = INSTANCE, .name = "convert", .host = "localhost",
                   .device = r->t->worker.devices ? r->t->worker.devices->label : "cpu",
                   .pid = (uint64_t)getpid(), .threads = r->t->worker.threads,
                   .mem_bytes = r->t->worker.mem_bytes, .ahead = AHEAD},
        .stop_fd = r->worker.stop_fd, .finish_ms = STOP_MS};

    r->worker.rc = sl_worker_run(&o, &r->worker.e);
    atomic_store(&r->worker.ended, true);
    return NULL;
}

/* Signals are this thread's: the new one has them blocked. */
static int start(struct threads *r, struct side *s, void *(*run)(void *), struct sl_error *e)
{
    sigset_t all, old;
    int err;

    s->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->stop_fd < 0)
        return sl_fail(e, SL_EFAIL, "cannot watch for events: %s", strerror(errno));
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&s->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    s->started = err == 0;
    return err ? sl_fail_thread(e, err) : 0;
}

static void pause_ms(long ms)
{
    const struct timespec t = {.tv_nsec = ms * 1000000};

    nanosleep(&t, NULL);
}

static void ask_to_stop(struct side *s)
{
    const uint64_t one = 1;

    if (s->started && !atomic_load(&s->ended) && write(s->stop_fd, &one, sizeof one) < 0)
        pause_ms(1); /* it has been asked already */
}

static void end_side(struct side *s)
{
    ask_to_stop(s);
    if (s->started)
        pthread_join(s->thread, NULL);
    if (s->stop_fd >= 0)
        close(s->stop_fd);
    s->started = false;
    s->stop_fd = -1;
}

/* ---- this thread */

/* libzmq ends the process when it cannot start its threads. */
static int start_all(struct threads *r, struct sl_error *e)
{
    SL_TRY(sl_address_room(THREADS_BYTES, e));
    SL_TRY(sl_router_context_new(&r->context, e));
    SL_TRY(start(r, &r->coordinator, coordinator_main, e));
    while (!atomic_load(&r->bound)) {
        if (atomic_load(&r->coordinator.ended))
            return sl_fail(e, r->coordinator.rc, "%s", r->coordinator.e.text);
        pause_ms(1);
    }
    SL_TRY(start(r, &r->worker, worker_main, e));
    return daemon_link_open_inproc(r->context, ENDPOINT, HELLO_MS, &r->link, e);
}

static int ask_for_news(struct threads *r, struct sl_error *e)
{
    const uint64_t job = r->t->job;
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_WATCH, NULL, &m, e));
    sl_put_uints(m.tree, "jobs", &job, 1);
    sl_put_uint(m.tree, "every_ms", TOGETHER_MS);
    SL_TRY(daemon_link_send(r->link, &m, "watch", e));
    SL_TRY(sl_msg_new(SL_M_WAIT, NULL, &m, e));
    sl_put_uints(m.tree, "jobs", &job, 1);
    return daemon_link_send(r->link, &m, "wait", e);
}

static void take_event(struct threads *r, const cJSON *ev)
{
    const char *kind = sl_get_str(ev, "kind");

    if (kind && strcmp(kind, "quarantined") == 0)
        r->over = true;
    if (kind && strcmp(kind, "revoked") == 0)
        r->t->again(r->t->user, sl_get_str(ev, "text"));
}

static int take_news(struct threads *r, struct sl_error *e)
{
    struct sl_msg m;
    int rc = daemon_link_next(r->link, TICK_MS, &m, e);

    if (rc == DAEMON_LINK_BACK) /* all of them slept for hours: it is another connection */
        return ask_for_news(r, e);
    if (rc != DAEMON_LINK_MESSAGE)
        return rc < 0 ? rc : 0;
    rc = 0;
    if (m.id == SL_M_EVENT)
        take_event(r, sl_get(m.tree, "event"));
    else if (m.id == SL_M_ENDED)
        r->over = true;
    else if (m.id == SL_M_ERROR)
        rc = sl_msg_fail(&m, e);
    sl_msg_free(&m);
    return rc;
}

static int follow(struct threads *r, struct sl_error *e)
{
    SL_TRY(ask_for_news(r, e));
    while (!r->over && !interrupt_asked() && !atomic_load(&r->coordinator.ended) &&
           !atomic_load(&r->worker.ended)) {
        SL_TRY(take_news(r, e));
        r->t->tick(r->t->user);
    }
    /* The worker first: what it has finished is still committed. */
    ask_to_stop(&r->worker);
    while (!atomic_load(&r->worker.ended) && !atomic_load(&r->coordinator.ended)) {
        r->t->tick(r->t->user);
        pause_ms(r->over ? 2 : TICK_MS / 5);
    }
    return 0;
}

/* ---- what came of it */

struct verdict {
    bool succeeded, failed;
    int code;
    struct sl_error e;
};

static int on_row(void *user, const struct sl_job_row *row)
{
    struct verdict *v = user;

    v->succeeded = row->state == SL_JOB_SUCCEEDED;
    return 0;
}

static int on_failure(void *user, const struct sl_failure_row *row)
{
    struct verdict *v = user;

    v->failed = true;
    sl_fail(&v->e, row->code > 0 ? -row->code : SL_EFAIL, "%s", row->text);
    return 0;
}

static int judge(struct threads *r, struct sl_error *e)
{
    const struct sl_job_filter f = {.id = r->t->job};
    struct verdict v = {0};

    if (r->coordinator.rc < 0)
        return sl_fail(e, r->coordinator.rc, "%s", r->coordinator.e.text);
    SL_TRY(sl_queue_each_job(r->t->queue, &f, on_row, &v, e));
    if (v.succeeded)
        return 0;
    if (r->over)
        SL_TRY(sl_queue_each_failure(r->t->queue, r->t->job, 1, on_failure, &v, e));
    if (v.failed)
        return sl_fail(e, v.e.code, "%s", v.e.text);
    if (r->worker.rc < 0)
        return sl_fail(e, r->worker.rc, "%s", r->worker.e.text);
    if (interrupt_asked())
        return sl_fail(e, SL_EINTERRUPTED,
                       "stopped at a safe point; the same command goes on from there");
    return sl_fail(e, SL_EFAIL, "the conversion ended before its files were there; the same command goes on from there");
}

int convert_threads_run(const struct convert_threads *t, struct sl_error *e)
{
    struct threads r = {.t = t, .coordinator.stop_fd = -1, .worker.stop_fd = -1};
    int rc = start_all(&r, e);

    if (rc == 0)
        rc = follow(&r, e);
    daemon_link_close(r.link);
    end_side(&r.worker);
    end_side(&r.coordinator);
    sl_router_context_free(r.context);
    /* A coordinator that fails takes the sockets with it: its own error says why. */
    return rc < 0 && rc != SL_EINTERRUPTED && r.coordinator.rc >= 0 ? rc : judge(&r, e);
}
