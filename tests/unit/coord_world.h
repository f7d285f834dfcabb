/* A coordinator with a clock of its own, and peers that speak raw messages. */
#ifndef SLUICE_TESTS_COORD_WORLD_H
#define SLUICE_TESTS_COORD_WORLD_H

#include "daemon/coordinator.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#define INBOX 256
#define PEERS 16
#define C 9 /* the client's connection */

struct world {
    char dir[64], path[80];
    struct sl_queue *q;
    struct sl_coord *c;
    struct sl_now now;
    struct {
        struct sl_msg in[INBOX];
        unsigned n;
    } peer[PEERS];
    enum sl_role role[PEERS];
    const char *user[PEERS];  /* NULL: "u" */
    uint64_t pid[PEERS];      /* 0: the transport tells none */
    bool background;          /* commits are made by a committer */
    bool slow;                /* their ends are not waited for */
    int (*check_path)(void *user, const char *path, bool output, struct sl_error *e); /* NULL: all may be named */
    bool (*no_process)(void *user, uint64_t pid);
    struct sl_error e;
};

static const char *const world_spec =
    "{\"source\":\"/src/%s\",\"output\":\"/out\",\"prefix\":\"%s\",\"recipe\":\"r\","
    "\"recipe_text\":\"default q4_k\\n\"}";

static void world_start(struct world *w)
{
    static const char *const roots[] = {"/"};
    const struct sl_coord_opts o = {.heartbeat_ms = 1000, .lease_ms = 10000, .version = "t",
                                    .bytes_version = "1", .state_dir = "/x", .roots = roots, .n_roots = 1,
                                    .daemon_id = "000102030405060708090a0b0c0d0e0f",
                                    .background = w->background, .wake_fd = -1, .check_path = w->check_path,
                                    .no_process = w->no_process};

    if (sl_queue_open(w->path, &w->q, &w->e) < 0 || sl_coord_open(w->q, &o, w->now, &w->c, &w->e) < 0)
        fail_msg("%s", w->e.text);
}

static void world_stop(struct world *w)
{
    sl_coord_close(w->c);
    sl_queue_close(w->q);
    for (unsigned p = 0; p < PEERS; p++) {
        for (unsigned i = 0; i < w->peer[p].n; i++)
            sl_msg_free(&w->peer[p].in[i]);
        w->peer[p].n = 0;
    }
}

static inline int world_set_up(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    strcpy(w->dir, "/tmp/sluice-coord-XXXXXX");
    if (!mkdtemp(w->dir))
        return -1;
    snprintf(w->path, sizeof w->path, "%s/queue", w->dir);
    w->now = (struct sl_now){1000000, 1700000000000};
    for (unsigned p = 0; p < PEERS; p++)
        w->role[p] = SL_ROLE_ADMIN;
    world_start(w);
    *state = w;
    return 0;
}

static inline int world_tear_down(void **state)
{
    struct world *w = *state;

    world_stop(w);
    sl_queue_remove(w->path);
    rmdir(w->dir);
    free(w);
    return 0;
}

/* Commits, and puts what was sent into the inboxes. */
static inline void deliver(struct world *w)
{
    struct sl_outgoing out;

    if (sl_coord_flush(w->c, w->now, &w->e) < 0 ||
        (sl_coord_committing(w->c) && !w->slow && sl_coord_settle(w->c, w->now, &w->e) < 0))
        fail_msg("%s", w->e.text);
    while (sl_coord_next(w->c, &out)) {
        struct sl_msg m;

        if (sl_wire_decode(out.bytes, out.n, SL_FROM_DAEMON, &m, NULL, NULL, &w->e) < 0)
            fail_msg("%s", w->e.text);
        free(out.bytes);
        assert_true(out.peer < PEERS && w->peer[out.peer].n < INBOX);
        w->peer[out.peer].in[w->peer[out.peer].n++] = m;
    }
}

static inline void say_quietly(struct world *w, unsigned p, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline void say_quietly(struct world *w, unsigned p, const char *fmt, ...)
{
    struct sl_peer from = {.id = p, .role = w->role[p], .pid = w->pid[p]};
    char text[60000];
    va_list ap;

    snprintf(from.user, sizeof from.user, "%s", w->user[p] ? w->user[p] : "u");
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (sl_coord_receive(w->c, &from, (const uint8_t *)text, strlen(text), w->now, &w->e) < 0)
        fail_msg("%s", w->e.text);
}
#define say(w, p, ...) (say_quietly(w, p, __VA_ARGS__), deliver(w))

/* The next message of this kind to a peer; others before it are passed over, but grants
 * stay: they may overtake answers. NULL: none. */
static inline cJSON *heard(struct world *w, unsigned p, enum sl_message_id id)
{
    static struct sl_msg kept;
    struct sl_msg *in = w->peer[p].in;
    unsigned n = 0, i = 0;
    bool found = false;

    for (; i < w->peer[p].n && !found; i++) {
        if (in[i].id == id) {
            sl_msg_free(&kept);
            kept = in[i];
            found = true;
        } else if (in[i].id == SL_M_GRANT) {
            in[n++] = in[i];
        } else {
            sl_msg_free(&in[i]);
        }
    }
    memmove(&in[n], &in[i], (w->peer[p].n - i) * sizeof *in);
    w->peer[p].n -= i - n;
    return found ? kept.tree : NULL;
}

static inline cJSON *expect(struct world *w, unsigned p, enum sl_message_id id)
{
    cJSON *t = heard(w, p, id);

    if (!t)
        fail_msg("peer %u did not get '%s'", p, sl_message(id)->name);
    return t;
}

static inline void hello(struct world *w, unsigned p, const char *role, const char *held)
{
    say(w, p, "{\"v\":3,\"m\":\"hello\",\"role\":\"%s\",\"version\":\"t\",\"instance\":"
        "\"000000000000000000000000000000%02u\",\"name\":\"n%u\",\"host\":\"h\",\"bytes\":\"1\"%s%s}",
        role, p % 10, p % 10, held ? ",\"held\":" : "", held ? held : "");
}

static inline void worker(struct world *w, unsigned p)
{
    hello(w, p, "worker", NULL);
    expect(w, p, SL_M_WELCOME);
}

static inline void client(struct world *w, unsigned p)
{
    hello(w, p, "client", NULL);
    expect(w, p, SL_M_WELCOME);
}

/* Time passes; everybody keeps talking. */
static inline void later(struct world *w, uint64_t ms, const unsigned *alive, unsigned n)
{
    for (uint64_t t = 0; t < ms; t += 500) {
        w->now.run_ms += 500;
        w->now.wall_ms += 500;
        for (unsigned i = 0; i < n; i++)
            say_quietly(w, alive[i], "{\"v\":3,\"m\":\"pong\",\"n\":0}");
        if (sl_coord_tick(w->c, w->now, &w->e) < 0)
            fail_msg("%s", w->e.text);
        deliver(w);
    }
}

static inline uint64_t submit(struct world *w, unsigned p, const char *key, const char *more)
{
    char spec[400];
    cJSON *t;

    snprintf(spec, sizeof spec, world_spec, "m", key);
    say(w, p, "{\"v\":3,\"m\":\"submit\",\"id\":\"s\",\"key\":\"%s\",\"specs\":[%s]%s}", key, spec, more);
    t = expect(w, p, SL_M_SUBMITTED);
    return (uint64_t)cJSON_GetArrayItem(sl_get(t, "jobs"), 0)->valuedouble;
}

/* A verb for one job, which is done. */
static inline void changes(struct world *w, unsigned p, const char *verb, uint64_t id)
{
    say(w, p, "{\"v\":3,\"m\":\"%s\",\"jobs\":[%llu]}", verb, (unsigned long long)id);
    expect(w, p, SL_M_DONE);
}

struct got {
    uint64_t job, task, epoch;
};

/* All tasks granted to a peer since the last look. */
static inline unsigned granted(struct world *w, unsigned p, struct got *g, unsigned max)
{
    unsigned n = 0;
    cJSON *m, *t;

    while ((m = heard(w, p, SL_M_GRANT)) != NULL)
        cJSON_ArrayForEach(t, sl_get(m, "tasks"))
            if (n < max)
                g[n++] = (struct got){sl_get_uint(m, "job", 0), sl_get_uint(t, "task", 99999),
                                      sl_get_uint(t, "epoch", 0)};
    return n;
}

static inline void pull(struct world *w, unsigned p, unsigned want)
{
    say(w, p, "{\"v\":3,\"m\":\"pull\",\"want\":%u}", want);
}

/* Asks for so many tasks, and is granted n at once. */
static inline void takes(struct world *w, unsigned p, unsigned want, struct got *g, unsigned n)
{
    struct got all[SL_HELD_MAX];

    pull(w, p, want);
    assert_int_equal(granted(w, p, all, SL_HELD_MAX), n);
    memcpy(g, all, n * sizeof *g);
}

/* A plan of n tasks, `per` in each shard, 1000 + task bytes each. */
static inline void prepared(struct world *w, unsigned p, struct got g, unsigned n, unsigned per)
{
    char *text = malloc(50000), *s = text;

    s += sprintf(s, "{\"v\":3,\"m\":\"result\",\"job\":%llu,\"task\":65536,\"epoch\":%llu,\"bytes\":0,\"plan\":"
                    "{\"fingerprint\":\"000102030405060708090a0b0c0d0e0f\",\"source\":\"s\",\"recipe\":\"r\","
                    "\"options\":\"o\",\"version\":\"1\",\"file_bytes\":7",
                 (unsigned long long)g.job, (unsigned long long)g.epoch);
    for (int k = 0; k < 3; k++) {
        s += sprintf(s, ",\"%s\":[", (const char *[]){"src_bytes", "out_bytes", "shard"}[k]);
        for (unsigned i = 0; i < n; i++)
            s += sprintf(s, "%s%u", i ? "," : "", k == 0 ? 1000 + i : k == 1 ? 100 : i / per);
        s += sprintf(s, "]");
    }
    sprintf(s, "}}");
    say(w, p, "%s", text);
    free(text);
    expect(w, p, SL_M_ACK);
}

static inline void result(struct world *w, unsigned p, struct got g)
{
    if (g.task < SL_TASKS_MAX)
        say(w, p, "{\"v\":3,\"m\":\"result\",\"job\":%llu,\"task\":%llu,\"epoch\":%llu,\"bytes\":100,"
            "\"checksum\":\"00000000000000%02x\"}", (unsigned long long)g.job, (unsigned long long)g.task,
            (unsigned long long)g.epoch, (unsigned)g.task & 255);
    else
        say(w, p, "{\"v\":3,\"m\":\"result\",\"job\":%llu,\"task\":%llu,\"epoch\":%llu,\"bytes\":0%s}",
            (unsigned long long)g.job, (unsigned long long)g.task, (unsigned long long)g.epoch,
            g.task == SL_TASK_PUBLISH ? ",\"files\":[\"/out/a.gguf\"]" : "");
}

static inline void failed(struct world *w, unsigned p, struct got g, int code, const char *more)
{
    say(w, p, "{\"v\":3,\"m\":\"fail\",\"job\":%llu,\"task\":%llu,\"epoch\":%llu,\"code\":%d,"
        "\"text\":\"no luck\"%s}", (unsigned long long)g.job, (unsigned long long)g.task,
        (unsigned long long)g.epoch, code, more);
    expect(w, p, SL_M_ACK);
}

/* Submits by client p, prepares at worker v. */
static inline uint64_t ready_job(struct world *w, unsigned p, unsigned v, const char *key, unsigned n,
                                 unsigned per)
{
    uint64_t id = submit(w, p, key, "");
    struct got g = {0};

    takes(w, v, 1, &g, 1);
    assert_true(g.job == id && g.task == SL_TASK_PREPARE);
    prepared(w, v, g, n, per);
    return id;
}

static inline const char *state_of(struct world *w, unsigned p, uint64_t id)
{
    static char state[400];
    cJSON *t;

    say(w, p, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    t = sl_get(expect(w, p, SL_M_JOB), "job");
    snprintf(state, sizeof state, "%s%s%.300s", sl_get_str(t, "state"), sl_get_str(t, "reason") ? ": " : "",
             sl_get_str(t, "reason") ? sl_get_str(t, "reason") : "");
    return state;
}

/* Worker v does whatever there is to do; plans get 6 tasks. */
static inline void run_all(struct world *w, unsigned v)
{
    struct got g[64];
    unsigned n;

    for (unsigned round = 0; round < 100; round++) {
        pull(w, v, 4);
        n = granted(w, v, g, 64);
        if (n == 0)
            return;
        for (unsigned i = 0; i < n; i++)
            if (g[i].task == SL_TASK_PREPARE) {
                prepared(w, v, g[i], 6, 3);
            } else {
                result(w, v, g[i]);
                expect(w, v, SL_M_ACK);
            }
    }
}

/* Whether the disk takes anything. */
static inline void room_for_files(bool room)
{
    struct rlimit now;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &now);
    now.rlim_cur = room ? now.rlim_max : 1;
    setrlimit(RLIMIT_FSIZE, &now);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, world_set_up, world_tear_down)

#endif
