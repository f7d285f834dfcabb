/* The coordinator at 671B scale: all tasks of DeepSeek-R1 and 64 simulated workers,
 * each of which finishes a task, says so and pulls the next at its own times, SPEED
 * times as fast as 64 x 250 MB/s would. Every result is committed and synced before
 * its ack leaves. Fails when the coordinator costs more than 5 % of a core at the
 * workers' true speed, or when a grant takes 2 ms or more at the 99th percentile:
 * from the time at which its pull was due, whatever the coordinator did then; only
 * when it slept does the time begin with its waking, since a machine busy with other
 * programs wakes late. That lateness is printed as well.
 * usage: coordinator_bench [FOLDER [TASKS]]    default: build, 2578
 * With TASKS: another number of tasks as fast as they go, no verdict, and one line for
 * tests/bench/growth.pl at the end. */
#include "daemon/coordinator.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 64
#define R1_TASKS 2578
#define SHARDS 163
#define TASK_BYTES UINT64_C(267101136) /* of source: DeepSeek-R1's 688.6 GB in its 2578 tasks */
#define RATE (WORKERS * UINT64_C(250000000)) /* bytes a second, all workers */
#define BEAT_S 5
#define SPEED 4

struct lease {
    unsigned task;
    uint64_t epoch;
};
struct sim {
    struct lease held[256];
    unsigned n;
    double due, asked, beat;  /* next result; pull without a grant yet, 0: none; next progress */
};

static struct sl_coord *coord;
static struct sim sims[WORKERS + 1];
static struct sl_error e;
static double *grant_ms, *ack_ms, *late_ms, *sent; /* room for two of each task */
static unsigned tasks = R1_TASKS, speed = SPEED;
static unsigned n_grants, n_acks, n_late;

static double seconds(clockid_t c)
{
    struct timespec t;

    clock_gettime(c, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int stop(const char *what)
{
    fprintf(stderr, "coordinator_bench: %s: %s\n", what, e.text);
    exit(1);
}

static struct sl_now at(void)
{
    uint64_t ms = (uint64_t)(seconds(CLOCK_MONOTONIC) * 1e3);

    return (struct sl_now){ms, ms};
}

static void say(unsigned peer, const char *text)
{
    const struct sl_peer from = {.id = peer, .role = SL_ROLE_ADMIN, .user = "uid:0"};

    if (sl_coord_receive(coord, &from, (const uint8_t *)text, strlen(text),
                         at(), &e) < 0)
        stop("receive");
}

static void read_grant(unsigned peer, const struct sl_msg *m)
{
    double now = seconds(CLOCK_MONOTONIC);
    const cJSON *t;

    if (sims[peer].asked > 0 && sl_get_uint(sl_get(m->tree, "tasks")->child, "task", tasks) < tasks)
        grant_ms[n_grants++] = (now - sims[peer].asked) * 1e3;
    sims[peer].asked = 0;
    cJSON_ArrayForEach(t, sl_get(m->tree, "tasks")) {
        if (sims[peer].n == 256)
            stop("too many grants");
        sims[peer].held[sims[peer].n++] =
            (struct lease){(unsigned)sl_get_uint(t, "task", 0), sl_get_uint(t, "epoch", 0)};
    }
}

static void read_ack(const struct sl_msg *m)
{
    unsigned task = (unsigned)sl_get_uint(m->tree, "task", tasks);

    if (task < tasks)
        ack_ms[n_acks++] = (seconds(CLOCK_MONOTONIC) - sent[task]) * 1e3;
}

static void flush(bool settle)
{
    struct sl_outgoing out;

    if (settle && sl_coord_settle(coord, at(), &e) < 0)
        stop("settle");
    if (sl_coord_flush(coord, at(), &e) < 0)
        stop("flush");
    while (sl_coord_next(coord, &out)) {
        struct sl_msg m;

        if (sl_wire_decode(out.bytes, out.n, SL_FROM_DAEMON, &m, NULL, NULL, &e) < 0)
            stop("decode");
        if (m.id == SL_M_GRANT)
            read_grant((unsigned)out.peer, &m);
        if (m.id == SL_M_ERROR || m.id == SL_M_NACK)
            stop(sl_get_str(m.tree, "text"));
        if (m.id == SL_M_ACK)
            read_ack(&m);
        sl_msg_free(&m);
        free(out.bytes);
    }
}

static void set_up_job(void)
{
    char *text = malloc(100000 + 64 * (size_t)tasks), *s;
    const char *const fields[] = {"src_bytes", "out_bytes", "shard"};

    for (unsigned p = 1; p <= WORKERS; p++) {
        sprintf(text, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"b\",\"instance\":"
                      "\"%032x\",\"name\":\"w%u\",\"host\":\"h\"}", p, p);
        say(p, text);
    }
    sprintf(text, "{\"v\":3,\"m\":\"hello\",\"role\":\"client\",\"version\":\"b\",\"instance\":\"%032x\","
                  "\"name\":\"c\",\"host\":\"h\"}", 999);
    say(WORKERS + 1, text);
    say(WORKERS + 1, "{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[{\"source\":\"/s\",\"output\":\"/o\","
                     "\"prefix\":\"p\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}");
    say(1, "{\"v\":3,\"m\":\"pull\",\"want\":1}");
    flush(true);
    s = text + sprintf(text, "{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":65536,\"epoch\":%llu,\"bytes\":0,"
                             "\"plan\":{\"fingerprint\":\"%032x\",\"source\":\"s\",\"recipe\":\"r\","
                             "\"options\":\"o\",\"version\":\"1\",\"file_bytes\":7",
                       (unsigned long long)sims[1].held[0].epoch, 1);
    for (unsigned k = 0; k < 3; k++) {
        s += sprintf(s, ",\"%s\":[", fields[k]);
        for (unsigned i = 0; i < tasks; i++)
            s += sprintf(s, "%s%llu", i ? "," : "", k == 0 ? (unsigned long long)TASK_BYTES
                                                    : k == 1 ? 100ull : i * (unsigned long long)SHARDS / tasks);
        s += sprintf(s, "]");
    }
    sprintf(s, "}}");
    sims[1].n = 0;
    say(1, text);
    flush(true);
    free(text);
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* 99th percentile, in ms, of a sync of 16 KiB over a file of 4 MB, as WAL commits are. */
static double disk_p99(const char *path)
{
    static double took[500];
    char block[16384] = {1};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    for (int i = 0; i < 256; i++)
        if (fd < 0 || pwrite(fd, block, sizeof block, i * (off_t)sizeof block) < 0)
            stop("disk");
    fsync(fd);
    for (int i = 0; i < 500; i++) {
        double t;

        if (pwrite(fd, block, sizeof block, i % 256 * (off_t)sizeof block) < 0)
            stop("disk");
        t = seconds(CLOCK_MONOTONIC);
        fdatasync(fd);
        took[i] = (seconds(CLOCK_MONOTONIC) - t) * 1e3;
    }
    close(fd);
    unlink(path);
    qsort(took, 500, sizeof *took, by_value);
    return took[495];
}

/* A worker's next task is done: it says so and asks for another. */
static void one_result(unsigned p, double due, double slept, double woken, double period)
{
    struct sim *w = &sims[p];
    struct lease l = w->held[0];
    char text[300];

    w->n--;
    memmove(&w->held[0], &w->held[1], w->n * sizeof l);
    snprintf(text, sizeof text, "{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":%u,\"epoch\":%llu,\"bytes\":100,"
                                "\"checksum\":\"0123456789abcdef\"}", l.task, (unsigned long long)l.epoch);
    late_ms[n_late++] = slept <= due ? (woken - due) * 1e3 : 0;
    w->due = due + period * (0.5 + drand48());
    if (slept <= due)
        due = woken;
    sent[l.task] = due;
    say(p, text);
    say(p, "{\"v\":3,\"m\":\"pull\",\"want\":1}");
    w->asked = due;
}

static void one_beat(unsigned p, double due)
{
    char text[300];

    snprintf(text, sizeof text, "{\"v\":3,\"m\":\"progress\",\"bytes\":%u,\"tasks\":[],\"rate\":250000000,"
                                "\"tensor\":\"blk.3.ffn_down_exps.weight\"}", n_acks);
    say(p, text);
    sims[p].beat = due + (double)BEAT_S / speed;
}

/* All workers at their own times, until every result is acknowledged. */
static void run(int wake)
{
    double period = (double)TASK_BYTES / ((double)RATE / WORKERS) / speed;
    double start = seconds(CLOCK_MONOTONIC), ticked = start;

    for (unsigned p = 1; p <= WORKERS; p++) {
        sims[p].due = start + period * drand48();
        sims[p].beat = start + BEAT_S * drand48() / speed;
    }
    while (n_acks < tasks) {
        struct pollfd f = {.fd = wake, .events = POLLIN};
        double now = seconds(CLOCK_MONOTONIC), next = ticked + 0.2, slept;
        struct timespec wait = {0};
        uint64_t ended;

        for (unsigned p = 1; p <= WORKERS; p++) {
            double first = sims[p].n && sims[p].due < sims[p].beat ? sims[p].due : sims[p].beat;

            next = first < next ? first : next;
        }
        slept = seconds(CLOCK_MONOTONIC);
        wait.tv_nsec = next > now ? (long)((next - now) * 1e9) : 0;
        if (ppoll(&f, 1, &wait, NULL) > 0 && read(wake, &ended, sizeof ended) < 0)
            stop("wake");
        now = seconds(CLOCK_MONOTONIC);
        if (!(f.revents || now >= next))
            continue;
        for (unsigned p = 1; p <= WORKERS; p++) {
            if (sims[p].n && sims[p].due <= now)
                one_result(p, sims[p].due, slept, now, period);
            if (sims[p].beat <= now)
                one_beat(p, sims[p].beat);
        }
        if (now >= ticked + 0.2) {
            if (sl_coord_tick(coord, at(), &e) < 0)
                stop("tick");
            ticked = now;
        }
        flush(false);
        if (now > start + 300)
            stop("not done in 300 s");
    }
}

int main(int argc, char **argv)
{
    char dir[200], path[220];
    struct sl_coord_opts o = {.version = "b", .daemon_id = "000102030405060708090a0b0c0d0e0f",
                              .background = true, .wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    double wall, spent, real_s, share, p99, disk;
    struct sl_coord_stats st;
    struct sl_queue *q;
    struct rusage ru;

    if (argc > 2) {
        tasks = (unsigned)strtoul(argv[2], NULL, 10);
        speed = 100;
    }
    if (tasks < WORKERS || tasks > SL_TASKS_MAX) {
        fputs("usage: coordinator_bench [FOLDER [TASKS]]\n", stderr);
        return 2;
    }
    grant_ms = calloc(2 * (size_t)tasks, sizeof *grant_ms);
    ack_ms = calloc(2 * (size_t)tasks, sizeof *ack_ms);
    late_ms = calloc(2 * (size_t)tasks, sizeof *late_ms);
    sent = calloc(tasks, sizeof *sent);
    if (!grant_ms || !ack_ms || !late_ms || !sent)
        return stop("memory");
    real_s = (double)(tasks * TASK_BYTES) / (double)RATE;
    srand48(1);
    snprintf(dir, sizeof dir, "%.150s/coordinator-bench-XXXXXX", argc > 1 ? argv[1] : "build");
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/queue", dir);
    disk = disk_p99(path);
    if (sl_queue_open(path, &q, &e) < 0 || sl_coord_open(q, &o, at(), &coord, &e) < 0)
        return stop("open");
    set_up_job();
    for (unsigned p = 1; p <= WORKERS; p++)
        say(p, "{\"v\":3,\"m\":\"pull\",\"want\":4}");
    flush(true);
    n_grants = n_acks = 0;
    wall = seconds(CLOCK_MONOTONIC);
    spent = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run(o.wake_fd);
    spent = seconds(CLOCK_PROCESS_CPUTIME_ID) - spent;
    wall = seconds(CLOCK_MONOTONIC) - wall;
    sl_coord_stats(coord, &st);
    qsort(grant_ms, n_grants, sizeof *grant_ms, by_value);
    qsort(ack_ms, n_acks, sizeof *ack_ms, by_value);
    p99 = grant_ms[n_grants * 99 / 100];
    share = 100 * spent / real_s;
    printf("%u tasks, %d workers, %u times as fast as %.0f GB/s: %.1f s, %llu commits on disk\n", tasks, WORKERS,
           speed, (double)RATE / 1e9, wall, (unsigned long long)st.commits);
    printf("processor time %.3f s (the workers' JSON included): %.2f %% of a core at their "
           "true speed (%.0f s)\n", spent, share, real_s);
    printf("pull to grant (%u): median %.3f ms, 99 %% %.3f ms, worst %.3f ms\n", n_grants, grant_ms[n_grants / 2],
           p99, grant_ms[n_grants - 1]);
    qsort(late_ms, n_late, sizeof *late_ms, by_value);
    printf("beside that the machine woke the coordinator late: median %.3f ms, 99 %% %.3f ms\n",
           late_ms[n_late / 2], late_ms[n_late * 99 / 100]);
    printf("result to ack, synced: median %.3f ms, 99 %% %.3f ms; the disk's own fdatasync: 99 %% %.3f ms\n",
           ack_ms[n_acks / 2], ack_ms[n_acks * 99 / 100], disk);
    getrusage(RUSAGE_SELF, &ru);
    if (argc > 2)
        printf("growth %u tasks: %.1f us of processor and %.1f us in all a task, grant %.1f us, peak %ld KB\n",
               tasks, spent / tasks * 1e6, wall / tasks * 1e6, grant_ms[n_grants / 2] * 1e3, ru.ru_maxrss);
    sl_coord_close(coord);
    sl_queue_close(q);
    sl_queue_remove(path);
    rmdir(dir);
    free(grant_ms);
    free(ack_ms);
    free(late_ms);
    free(sent);
    if (argc > 2)
        return 0;
    if (share < 5 && p99 < 2)
        return 0;
    fprintf(stderr, "coordinator_bench: above 5 %% of a core, or a grant above 2 ms\n");
    return 1;
}
