/* The coordinator at 671B scale: all tasks of DeepSeek-R1, 64 workers, every
 * exchange committed by itself (the worst case: a busy daemon commits many at
 * once). A commit is one fdatasync, whose own time on the same disk is measured
 * as well. Fails when the coordinator costs more than 5 % of a core at 64 x
 * 250 MB/s, or when a grant takes, at the 99th percentile, 2 ms or more beyond one
 * and a half times what the disk takes.
 * usage: coordinator_growth [FOLDER [TASKS]]    default: build, 2578
 * With TASKS: another number of tasks, and one line for tests/bench/growth.pl at the end. */
#include "daemon/coordinator.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 64
#define R1_TASKS 2578
#define SHARDS 163
#define TASK_BYTES UINT64_C(267101136) /* of source: DeepSeek-R1's 688.6 GB in its 2578 tasks */
#define RATE (WORKERS * UINT64_C(250000000)) /* bytes a second, all workers */
#define BEAT_S 5

struct lease {
    unsigned task;
    uint64_t epoch;
};
struct sim {
    struct lease held[256];
    unsigned n;
};

static struct sl_coord *coord;
static struct sim sims[WORKERS + 1];
static struct sl_error e;
static uint64_t clock_ms = 1000;
static unsigned tasks = R1_TASKS;

static double seconds(clockid_t c)
{
    struct timespec t;

    clock_gettime(c, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int stop(const char *what)
{
    fprintf(stderr, "coordinator_growth: %s: %s\n", what, e.text);
    exit(1);
}

static void say(unsigned peer, const char *text)
{
    const struct sl_peer from = {.id = peer, .role = SL_ROLE_ADMIN, .user = "uid:0"};

    if (sl_coord_receive(coord, &from, (const uint8_t *)text, strlen(text),
                         (struct sl_now){clock_ms, clock_ms}, &e) < 0)
        stop("receive");
}

static void read_grant(unsigned peer, const struct sl_msg *m)
{
    const cJSON *t;

    cJSON_ArrayForEach(t, sl_get(m->tree, "tasks")) {
        if (sims[peer].n == 256)
            stop("too many grants");
        sims[peer].held[sims[peer].n++] =
            (struct lease){(unsigned)sl_get_uint(t, "task", 0), sl_get_uint(t, "epoch", 0)};
    }
}

/* Returns the number of acks among what was sent. */
static unsigned flush(void)
{
    struct sl_outgoing out;
    unsigned acks = 0;

    if (sl_coord_flush(coord, (struct sl_now){clock_ms, clock_ms}, &e) < 0)
        stop("flush");
    while (sl_coord_next(coord, &out)) {
        struct sl_msg m;

        if (sl_wire_decode(out.bytes, out.n, SL_FROM_DAEMON, &m, NULL, NULL, &e) < 0)
            stop("decode");
        if (m.id == SL_M_GRANT)
            read_grant((unsigned)out.peer, &m);
        if (m.id == SL_M_ERROR || m.id == SL_M_NACK)
            stop(sl_get_str(m.tree, "text"));
        acks += m.id == SL_M_ACK;
        sl_msg_free(&m);
        free(out.bytes);
    }
    return acks;
}

static void set_up_job(void)
{
    char *text = malloc(200000 + tasks * 64ul), *s;
    const char *const fields[] = {"src_bytes", "out_bytes", "shard"};

    if (!text)
        stop("memory");
    for (unsigned p = 1; p <= WORKERS; p++) {
        sprintf(text, "{\"v\":1,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"b\",\"instance\":"
                      "\"%032x\",\"name\":\"w%u\",\"host\":\"h\"}", p, p);
        say(p, text);
    }
    sprintf(text, "{\"v\":1,\"m\":\"hello\",\"role\":\"client\",\"version\":\"b\",\"instance\":\"%032x\","
                  "\"name\":\"c\",\"host\":\"h\"}", 999);
    say(WORKERS + 1, text);
    say(WORKERS + 1, "{\"v\":1,\"m\":\"submit\",\"key\":\"k\",\"specs\":[{\"source\":\"/s\",\"output\":\"/o\","
                     "\"prefix\":\"p\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}");
    say(1, "{\"v\":1,\"m\":\"pull\",\"want\":1}");
    flush();
    s = text + sprintf(text, "{\"v\":1,\"m\":\"result\",\"job\":1,\"task\":65536,\"epoch\":1,\"bytes\":0,"
                             "\"plan\":{\"fingerprint\":\"%032x\",\"source\":\"s\",\"recipe\":\"r\","
                             "\"options\":\"o\",\"version\":\"1\",\"file_bytes\":7", 1);
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
    flush();
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

int main(int argc, char **argv)
{
    char dir[200], path[220], text[300];
    const struct sl_coord_opts o = {.version = "b", .daemon_id = "000102030405060708090a0b0c0d0e0f"};
    double *took;
    unsigned done = 0, n = 0, beats = 0;
    double cpu, wall, spent, real_s, share, p99, disk;
    struct rusage ru;
    struct sl_queue *q;

    if (argc > 2)
        tasks = (unsigned)strtoul(argv[2], NULL, 10);
    took = tasks > 0 && tasks <= SL_TASKS_MAX ? malloc(tasks * sizeof *took) : NULL;
    if (!took) {
        fputs("usage: coordinator_growth [FOLDER [TASKS]]\n", stderr);
        return 2;
    }
    real_s = (double)(tasks * TASK_BYTES) / (double)RATE;

    snprintf(dir, sizeof dir, "%.150s/coordinator-growth-XXXXXX", argc > 1 ? argv[1] : "build");
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/queue", dir);
    disk = disk_p99(path);
    if (sl_queue_open(path, &q, &e) < 0 || sl_coord_open(q, &o, (struct sl_now){1000, 1000}, &coord, &e) < 0)
        return stop("open");
    set_up_job();
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    wall = seconds(CLOCK_MONOTONIC);
    for (unsigned p = 1; p <= WORKERS; p++) {
        say(p, "{\"v\":1,\"m\":\"pull\",\"want\":3}");
        flush();
    }
    while (done < tasks) {
        unsigned p = 1 + done % WORKERS;
        struct lease l;
        double t;

        if (sims[p].n == 0) { /* the last tasks are with others */
            for (p = 1; p <= WORKERS && sims[p].n == 0; p++)
                ;
            if (p > WORKERS)
                return stop("no work left");
        }
        l = sims[p].held[0];
        memmove(&sims[p].held[0], &sims[p].held[1], --sims[p].n * sizeof l);
        t = seconds(CLOCK_MONOTONIC);
        snprintf(text, sizeof text, "{\"v\":1,\"m\":\"result\",\"job\":1,\"task\":%u,\"epoch\":%llu,\"bytes\":100,"
                                    "\"checksum\":\"0123456789abcdef\"}", l.task, (unsigned long long)l.epoch);
        say(p, text);
        say(p, "{\"v\":1,\"m\":\"pull\",\"want\":1}");
        if (flush() != 1)
            return stop("no acknowledgement");
        took[n++] = (seconds(CLOCK_MONOTONIC) - t) * 1e3;
        done++;
        /* Each worker's progress, as often as it would be sent. */
        if ((double)done / tasks * real_s / BEAT_S > (double)beats / WORKERS) {
            snprintf(text, sizeof text, "{\"v\":1,\"m\":\"progress\",\"bytes\":%u,\"tasks\":[],\"rate\":250000000,"
                                        "\"tensor\":\"blk.3.ffn_down_exps.weight\"}", done);
            say(1 + beats++ % WORKERS, text);
            flush();
        }
    }
    spent = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = seconds(CLOCK_MONOTONIC) - wall;
    qsort(took, n, sizeof *took, by_value);
    p99 = took[n * 99 / 100];
    share = 100 * spent / real_s;
    printf("%u tasks, %d workers, %u commits on disk: %.2f s, %.0f tasks/s, one after another\n", tasks, WORKERS,
           n, wall, tasks / wall);
    printf("processor time %.3f s (both sides' JSON included): %.2f %% of a core at %.0f GB/s (%.0f s)\n", spent,
           share, (double)RATE / 1e9, real_s);
    printf("result to grant, commit included: median %.3f ms, 99 %% %.3f ms, worst %.3f ms\n", took[n / 2], p99,
           took[n - 1]);
    printf("the disk's own fdatasync: 99 %% %.3f ms; the coordinator's share: %.3f ms\n", disk,
           p99 > disk ? p99 - disk : 0);
    getrusage(RUSAGE_SELF, &ru);
    if (argc > 2)
        printf("growth %u tasks: %.1f us of processor and %.1f us in all a task, grant %.1f us, peak %ld KB\n",
               tasks, spent / tasks * 1e6, wall / tasks * 1e6, took[n / 2] * 1e3, ru.ru_maxrss);
    free(took);
    sl_coord_close(coord);
    sl_queue_close(q);
    sl_queue_remove(path);
    rmdir(dir);
    if (share < 5 && p99 < 1.5 * disk + 2)
        return 0;
    fprintf(stderr, "coordinator_growth: above 5 %% of a core, or 2 ms beyond the disk (by half its own)\n");
    return 1;
}
