/* kernels_bench's second and third table: conversions that are little more than moving, beside a
 * memcpy, and two cores beside one. Header only. */
#ifndef SLUICE_TESTS_BENCH_BENCH_MOVES_H
#define SLUICE_TESTS_BENCH_BENCH_MOVES_H

#include "bench_common.h"

#include <pthread.h>
#include <stdatomic.h>

/* Conversions that are little more than moving. */
static const struct move { enum sl_dtype from; int type; } moves[] = {
    {SL_DTYPE_F8_E4M3, SL_TYPE_Q8_0}, {SL_DTYPE_BF16, SL_TYPE_Q8_0}, {SL_DTYPE_F16, SL_TYPE_Q8_0},
    {SL_DTYPE_F32, SL_TYPE_Q8_0},     {SL_DTYPE_F8_E4M3, SL_TYPE_BF16}, {SL_DTYPE_F8_E4M3, SL_TYPE_F16},
    {SL_DTYPE_F8_E4M3, SL_TYPE_F32},  {SL_DTYPE_BF16, SL_TYPE_F16}, {SL_DTYPE_BF16, SL_TYPE_F32},
    {SL_DTYPE_F32, SL_TYPE_BF16},     {SL_DTYPE_F32, SL_TYPE_F16}};

/* ---- what is little more than moving, as it comes from the disk */

/* Elements [first, first + n): loaded and quantized as the worker does it. */
static int convert(const struct bench *b, struct move m, uint64_t first, uint64_t n, uint8_t *out)
{
    float x[CHUNK];
    uint64_t bad, width = sl_dtype_info((int)m.from)->bytes;

    for (uint64_t at = first; at < first + n; at += CHUNK) {
        /* A matrix of CHUNK columns whose blocks are a row high: a scale for each 128 weights. */
        struct sl_source s = {m.from, b->source + at * width, at, CHUNK, b->scales + at / 128, at / CHUNK, CHUNK / 128, 1, 128, NULL, NULL};

        if (m.from != SL_DTYPE_F8_E4M3)
            s.scale = NULL;
        if (!sl_quantize_source(SL_BACKEND_AUTO, m.type, &s, 0, CHUNK, out)) {
            SL_TRY(sl_load_f32(&s, 0, CHUNK, x, &bad));
            SL_TRY(sl_quantize_on(SL_BACKEND_AUTO, m.type, x, NULL, CHUNK, CHUNK, out, &bad));
        }
        out += sl_type_bytes(m.type, CHUNK);
    }
    return 0;
}

static int right_bytes(const struct bench *b, struct move m)
{
    float x[CHUNK];
    uint64_t bad, width = sl_dtype_info((int)m.from)->bytes;

    for (uint64_t at = 0; at < 16 * CHUNK; at += CHUNK) {
        for (uint64_t i = at; i < at + CHUNK; i += 128)
            if (sl_ops_scalar.load(m.from, b->source + i * width, 128, m.from == SL_DTYPE_F8_E4M3 ? b->scales[i / 128] : 1, x + i - at))
                return 0;
        if (convert(b, m, at, CHUNK, b->got) || sl_quantize_on(SL_BACKEND_SCALAR, m.type, x, NULL, CHUNK, CHUNK, b->want, &bad) ||
            memcmp(b->want, b->got, sl_type_bytes(m.type, CHUNK)))
            return 0;
    }
    return 1;
}

/* The copy moves as many bytes as the conversion reads and writes. */
static void bench_move(struct bench *b, struct move m)
{
    const char *from = sl_dtype_info((int)m.from)->name, *name = sl_type_info(m.type)->name;
    double v[2][MAX_ROUNDS], moved = sl_dtype_info((int)m.from)->bytes + (double)sl_type_bytes(m.type, CHUNK) / CHUNK;
    uint64_t n = (uint64_t)(2 * STREAM / moved) / CHUNK * CHUNK, half = (uint64_t)((double)n * moved / 2);
    int rounds = 3 * b->rounds < MAX_ROUNDS ? 3 * b->rounds : MAX_ROUNDS; /* short ones: neighbours use the memory too */
    struct figure f[2];

    if (fill_source(b, m.from) || !right_bytes(b, m)) {
        fprintf(stderr, "kernels_bench: %s to %s: NOT THE REFERENCE'S BYTES\n", from, name);
        b->wrong++;
        return;
    }
    for (int r = 0; r < rounds; r++) {
        double t = thread_seconds();

        if (convert(b, m, 0, n, b->copy))
            b->wrong++;
        v[0][r] = (double)n / (thread_seconds() - t) / 1e6;
        t = thread_seconds();
        memcpy(b->copy, b->source, half);
        v[1][r] = (double)n / (thread_seconds() - t) / 1e6;
    }
    f[0] = sum_up(v[0], rounds);
    f[1] = sum_up(v[1], rounds);
    comma(b);
    json(b, "{\"from\": \"%s\", \"type\": \"%s\", \"bytes\": %.3f, \"converted\": {\"best\": %.1f, \"median\": %.1f}, "
            "\"copied\": {\"best\": %.1f, \"median\": %.1f}}",
         from, name, moved, f[0].best, f[0].median, f[1].best, f[1].median);
    people(b, "%-8s to %-10s %11.1f %11.1f %17.0f %%\n", from, name, f[0].best, f[1].best, 100 * f[0].best / f[1].best);
}

static void bench_rows(struct bench *b)
{
    json(b, ",\n \"rows\": [");
    people(b, "\nMemory to memory       converted      copied   share of the copy\n");
    b->first = true;
    for (size_t i = 0; i < COUNT(moves); i++)
        bench_move(b, moves[i]);
    json(b, "]");
}

/* ---- two cores against one */

static double wall(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define COPY (-1) /* a memcpy of as many bytes as there are weights */

/* A thread on its processor. Threads of a turn start together, when both are running: waking, and a
 * slice that another process has, take no part in the time. */
struct core {
    const struct bench *b;
    int cpu, type, rc;
    atomic_int turn, done; /* turn: what it is to do next, -1 to end; done: the last that it did */
    atomic_int *here;      /* threads that are ready for the turn */
    int cores;             /* of this turn */
    uint64_t first, n;
    double start, end;
};

static void *run_core(void *arg)
{
    struct core *c = arg;

    pin(c->cpu);
    for (int seen = 0, turn;;) {
        while ((turn = atomic_load_explicit(&c->turn, memory_order_acquire)) == seen)
            sched_yield();
        if (turn < 0)
            return NULL;
        atomic_fetch_add(c->here, 1);
        while (atomic_load_explicit(c->here, memory_order_acquire) < c->cores)
            ;
        c->start = wall();
        if (c->type == COPY)
            memcpy(c->b->copy + c->first, c->b->source + c->first, c->n);
        else
            c->rc |= convert(c->b, (struct move){SL_DTYPE_F8_E4M3, c->type}, c->first, c->n,
                             c->b->copy + sl_type_bytes(c->type, c->first));
        c->end = wall();
        atomic_store_explicit(&c->done, seen = turn, memory_order_release);
    }
}

/* Seconds from the first start to the last end of n weights shared out among the cores. */
static double on_cores(struct core *c, int cores, int turn, uint64_t n)
{
    double start = 0, end = 0;

    atomic_store(c->here, 0);
    for (int i = 0; i < cores; i++) {
        c[i].cores = cores;
        c[i].first = n / (unsigned)cores * (unsigned)i;
        c[i].n = n / (unsigned)cores;
        atomic_store_explicit(&c[i].turn, turn, memory_order_release);
    }
    for (int i = 0; i < cores; i++) {
        while (atomic_load_explicit(&c[i].done, memory_order_acquire) != turn)
            sched_yield();
        start = i && start < c[i].start ? start : c[i].start;
        end = i && end > c[i].end ? end : c[i].end;
    }
    return end - start;
}

/* Turns of a millisecond or two: core 0, core 1, both. Another process on a core spoils a turn, so the
 * best of many turns counts. */
static void bench_pair(struct bench *b, struct core *c, int type, uint64_t n)
{
    enum { TURNS = 300 };
    const char *name = type == COPY ? "copy" : sl_type_info(type)->name;
    double best[3] = {0};

    c[0].type = c[1].type = type;
    for (int r = 0; r < TURNS; r++)
        for (int k = 0; k < 3; k++) {
            double rate = (double)n / on_cores(c + k % 2, k < 2 ? 1 : 2, 1 + 3 * r + k, n) / 1e6;

            best[k] = rate > best[k] ? rate : best[k];
        }
    b->wrong += c[0].rc || c[1].rc;
    best[0] = best[1] > best[0] ? best[1] : best[0];
    comma(b);
    json(b, "{\"type\": \"%s\", \"one\": %.1f, \"two\": %.1f}", name, best[0], best[2]);
    people(b, "%-20s %10.1f %11.1f %9.2fx\n", name, best[0], best[2], best[2] / best[0]);
}

static void bench_threads(struct bench *b)
{
    static const struct { int type; uint64_t chunks; } jobs[] = { /* some 2 to 4 ms on one core */
        {SL_TYPE_Q4_K, 80}, {SL_TYPE_Q3_K, 200}, {SL_TYPE_Q8_0, 8192}, {COPY, 8192}};
    atomic_int here = 0;
    struct core c[2] = {{.b = b, .here = &here}, {.b = b, .here = &here}};
    pthread_t t[2];
    int cpus = 0, made = 0;
    cpu_set_t set;

    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; i < CPU_SETSIZE && cpus < 2; i++)
        if (CPU_ISSET(i, &set))
            c[cpus++].cpu = i;
    if (cpus < 2) {
        people(b, "\nTwo cores against one: there is one processor\n");
        return;
    }
    if (fill_source(b, SL_DTYPE_F8_E4M3))
        b->wrong++;
    json(b, ",\n \"threads\": [");
    people(b, "\nTwo cores against one  one core   two cores      ratio\n");
    b->first = true;
    while (made < 2 && pthread_create(&t[made], NULL, run_core, &c[made]) == 0)
        made++;
    for (size_t i = 0; i < COUNT(jobs) && made == 2; i++) {
        atomic_store(&c[0].turn, 0);
        bench_pair(b, c, jobs[i].type, jobs[i].chunks * CHUNK);
    }
    for (int i = 0; i < made; i++) {
        atomic_store(&c[i].turn, -1);
        pthread_join(t[i], NULL);
    }
    b->wrong += made != 2;
    json(b, "]");
}

#endif
