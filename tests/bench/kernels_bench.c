/* Speed of the quantizers and loaders on one core, beside ggml's.
 *
 *   kernels_bench [--json] [--backend NAME] [--ggml LIBGGML-BASE.SO] [--rounds N] [--slice SECONDS]
 *                 [--cpu N] [--only types|rows|threads] [TYPE ...]
 *
 * A figure is there only when the bytes were equal to scalar C's for the same input. The
 * contenders take turns (A B C A B C), each for a slice of processor time, pinned to one
 * processor; the best and the median of the rounds are given. Unit: million weights a second. */
#include "kernels/backend.h"
#include "machine_rate.h"

#include <dlfcn.h>
#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROW 7168
#define ROWS 16
#define N (ROW * ROWS) /* a multiple of CHUNK */
#define STREAM (64u << 20) /* bytes that a copy moves: more than the caches hold */
#define PAGE (2u << 20)    /* slabs lie in huge pages too */
#define CHUNK 8192         /* weights from load to quantize, as in the worker */
#define MAX_ROUNDS 64
#define CONTENDERS 5
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ops: vector operations for LANES weights, one IEEE or integer operation each, as the algorithm
 * orders them; nothing that only moves data. wanted: Mweights/s on a Zen 4 core at 3.65 GHz (2
 * operations a cycle, 16 lanes). 0: not counted. */
static const struct counted { int type; float ops, ops_weighted, wanted, wanted_weighted; } counted[] = {
    {SL_TYPE_Q2_K, 328, 782, 250, 105}, {SL_TYPE_Q3_K, 240, 250, 420, 300},
    {SL_TYPE_Q4_K, 422, 756, 200, 110}, {SL_TYPE_Q5_K, 334, 756, 250, 110},
    {SL_TYPE_Q6_K, 228, 228, 380, 360}, {SL_TYPE_IQ4_NL, 352, 352, 150, 150},
    {SL_TYPE_IQ4_XS, 352, 352, 150, 150}, {SL_TYPE_IQ1_S, 0, 1298, 0, 45},
    {SL_TYPE_IQ1_M, 2124, 2124, 27.5f, 27.5f}, {SL_TYPE_IQ2_XXS, 0, 3893, 0, 15},
    {SL_TYPE_IQ2_XS, 0, 5840, 0, 10}, {SL_TYPE_IQ2_S, 3893, 3893, 15, 15},
    {SL_TYPE_IQ3_XXS, 8343, 8343, 7, 7}, {SL_TYPE_IQ3_S, 5840, 5840, 10, 10},
    {SL_TYPE_Q8_0, 12, 0, 0, 0}, {SL_TYPE_Q4_0, 0, 0, 0, 0}, {SL_TYPE_Q4_1, 0, 0, 0, 0},
    {SL_TYPE_Q5_0, 0, 0, 0, 0}, {SL_TYPE_Q5_1, 0, 0, 0, 0}, {SL_TYPE_F16, 0, 0, 0, 0},
    {SL_TYPE_BF16, 0, 0, 0, 0}};

/* Conversions that are little more than moving. */
static const struct move { enum sl_dtype from; int type; } moves[] = {
    {SL_DTYPE_F8_E4M3, SL_TYPE_Q8_0}, {SL_DTYPE_BF16, SL_TYPE_Q8_0}, {SL_DTYPE_F16, SL_TYPE_Q8_0},
    {SL_DTYPE_F32, SL_TYPE_Q8_0},     {SL_DTYPE_F8_E4M3, SL_TYPE_BF16}, {SL_DTYPE_F8_E4M3, SL_TYPE_F16},
    {SL_DTYPE_F8_E4M3, SL_TYPE_F32},  {SL_DTYPE_BF16, SL_TYPE_F16}, {SL_DTYPE_BF16, SL_TYPE_F32},
    {SL_DTYPE_F32, SL_TYPE_BF16},     {SL_DTYPE_F32, SL_TYPE_F16}};

typedef size_t ggml_quantize_fn(int, const float *, void *, int64_t, int64_t, int64_t, const float *);

struct figure { double best, median; };

struct bench {
    float *x, *w;
    uint8_t *want, *got, *source, *copy;
    float *scales;
    double slice;
    int rounds, cpu;
    enum sl_backend only;
    ggml_quantize_fn *ggml;
    struct machine m;
    bool json, first;
    int wrong;
};

/* Gaussian weights (sigma 0.02), importance 0.1..10; FP8 codes of all magnitudes. */
static void fill(struct bench *b)
{
    uint64_t s = 88172645463325252;

    for (int i = 0; i < N; i++) {
        double u[2];

        for (int k = 0; k < 2; k++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            u[k] = ((double)(s >> 11) + 0.5) * 0x1p-53;
        }
        b->x[i] = (float)(0.02 * sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
        b->w[i] = i < ROW ? (float)pow(10, 2 * u[0] - 1) : b->w[i - ROW];
    }
    for (unsigned i = 0; i < 2 * STREAM / 128; i++)
        b->scales[i] = 1e-4f * (float)(1 + i % 7);
}

static int fill_source(struct bench *b, enum sl_dtype t)
{
    const struct sl_dtype_info *d = sl_dtype_info((int)t);
    uint64_t s = 88172645463325252, bad;
    int type = t == SL_DTYPE_BF16 ? SL_TYPE_BF16 : t == SL_DTYPE_F16 ? SL_TYPE_F16 : SL_TYPE_F32;

    for (uint64_t i = 0; t == SL_DTYPE_F8_E4M3 && i < 2 * STREAM; i++) { /* all magnitudes */
        s ^= s << 13, s ^= s >> 7, s ^= s << 17;
        b->source[i] = (uint8_t)(s % 0x7f | (s >> 20 & 0x80));
    }
    for (uint64_t i = 0; t != SL_DTYPE_F8_E4M3 && i + CHUNK * d->bytes <= 2 * STREAM; i += CHUNK * d->bytes)
        SL_TRY(sl_quantize(type, b->x + i / d->bytes % N, NULL, CHUNK, CHUNK, b->source + i, &bad));
    return 0;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fprintf(stderr, "kernels_bench: not pinned to processor %d\n", cpu);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static struct figure sum_up(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return (struct figure){v[n - 1], n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2};
}

/* ---- output: a table for people, JSON for machines */

static __attribute__((format(printf, 2, 3))) void json(const struct bench *b, const char *format, ...)
{
    va_list a;

    va_start(a, format);
    if (b->json)
        vprintf(format, a);
    va_end(a);
}

static __attribute__((format(printf, 2, 3))) void people(const struct bench *b, const char *format, ...)
{
    va_list a;

    va_start(a, format);
    if (!b->json)
        vprintf(format, a);
    va_end(a);
    fflush(stdout);
}

static void comma(struct bench *b)
{
    json(b, b->first ? "\n  " : ",\n  ");
    b->first = false;
}

/* ---- each type, each backend, and ggml */

/* One pass over the data by contender c: a backend, or ggml for AUTO. */
static int pass(const struct bench *b, enum sl_backend c, int type, const float *w, uint8_t *out)
{
    uint64_t bad;

    if (c == SL_BACKEND_AUTO)
        return b->ggml(type, b->x, out, 0, ROWS, ROW, w) == sl_type_bytes(type, N) ? 0 : -1;
    return sl_quantize_on(c, type, b->x, w, N, ROW, out, &bad);
}

static double slice(const struct bench *b, enum sl_backend c, int type, const float *w)
{
    uint64_t done = 0;
    double start = thread_seconds(), t;

    do {
        if (pass(b, c, type, w, b->got))
            return 0;
        done += N;
        t = thread_seconds() - start;
    } while (t < b->slice);
    return (double)done / t / 1e6;
}

static uint64_t different_blocks(const struct bench *b, int type)
{
    const struct sl_type_info *t = sl_type_info(type);
    uint64_t n = 0;

    for (size_t i = 0; i < sl_type_bytes(type, N); i += t->bytes)
        n += memcmp(b->want + i, b->got + i, t->bytes) != 0;
    return n;
}

static double floor_of(const struct bench *b, double ops)
{
    return ops > 0 ? b->m.lanes * b->m.per_cycle * b->m.ghz * 1e3 / ops : 0;
}

static void report(struct bench *b, const struct counted *c, bool weighted, const enum sl_backend *who,
                   const struct figure *f, int n, uint64_t ggml_differs)
{
    double best = 0, ggml = 0, least = floor_of(b, (double)(weighted ? c->ops_weighted : c->ops));
    double wanted = (double)(weighted ? c->wanted_weighted : c->wanted);
    const char *name = sl_type_info(c->type)->name;

    comma(b);
    json(b, "{\"type\": \"%s\", \"weighted\": %s", name, weighted ? "true" : "false");
    people(b, "%-8s %-8s", name, weighted ? "weighted" : "plain");
    for (int i = 0; i < n; i++) {
        const char *of = who[i] ? sl_backend_name(who[i]) : "ggml";

        json(b, ", \"%s\": {\"best\": %.1f, \"median\": %.1f}", of, f[i].best, f[i].median);
        if (who[i])
            people(b, " %8.1f", f[i].best);
        if (who[i] && f[i].best > best)
            best = f[i].best;
        if (!who[i])
            ggml = f[i].best;
    }
    json(b, ", \"ours\": %.1f", best);
    people(b, " |");
    if (ggml > 0) {
        json(b, ", \"ratio\": %.2f, \"ggml_blocks_different\": %llu", best / ggml, (unsigned long long)ggml_differs);
        people(b, " %7.1f %6.1fx", ggml, best / ggml);
    } else {
        people(b, " %7s %7s", "-", "-");
    }
    if (least > 0) {
        json(b, ", \"floor\": %.1f, \"share\": %.3f", least, best / least);
        people(b, " | %7.0f %5.0f %%", least, 100 * best / least);
    } else {
        people(b, " | %7s %7s", "-", "-");
    }
    if (wanted > 0) {
        json(b, ", \"wanted\": %.1f", wanted);
        people(b, " %7.0f", wanted);
    }
    if (ggml_differs)
        people(b, "  ggml: %llu blocks of %llu differ", (unsigned long long)ggml_differs,
               (unsigned long long)(N / sl_type_info(c->type)->block));
    json(b, "}");
    people(b, "\n");
}

static void bench_type(struct bench *b, const struct counted *c, bool weighted)
{
    const float *w = weighted ? b->w : NULL;
    double v[CONTENDERS][MAX_ROUNDS];
    enum sl_backend who[CONTENDERS];
    struct figure f[CONTENDERS];
    uint64_t ggml_differs = 0;
    int n = 0;

    if (pass(b, SL_BACKEND_SCALAR, c->type, w, b->want)) {
        b->wrong++;
        return;
    }
    for (enum sl_backend k = SL_BACKEND_SCALAR; k <= SL_BACKEND_AVX512; k++) {
        if (!sl_backend_usable(k) || (b->only && b->only != k))
            continue;
        if (pass(b, k, c->type, w, b->got) || different_blocks(b, c->type)) {
            fprintf(stderr, "kernels_bench: %s%s on %s: NOT THE REFERENCE'S BYTES\n", sl_type_info(c->type)->name,
                    weighted ? ", weighted" : "", sl_backend_name(k));
            b->wrong++;
            return;
        }
        who[n++] = k;
    }
    if (b->ggml) {
        if (pass(b, SL_BACKEND_AUTO, c->type, w, b->got))
            b->wrong++;
        ggml_differs = different_blocks(b, c->type);
        who[n++] = SL_BACKEND_AUTO;
    }
    for (int r = 0; r < b->rounds; r++)
        for (int i = 0; i < n; i++)
            v[i][r] = slice(b, who[i], c->type, w);
    for (int i = 0; i < n; i++)
        f[i] = sum_up(v[i], b->rounds);
    report(b, c, weighted, who, f, n, ggml_differs);
}

static bool asked(const char *name, char **names, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return true;
    return count == 0;
}

static void bench_types(struct bench *b, char **names, int count)
{
    json(b, ",\n \"types\": [");
    people(b, "%-17s", "Mweights/s");
    for (enum sl_backend k = SL_BACKEND_SCALAR; k <= SL_BACKEND_AVX512; k++)
        if (sl_backend_usable(k) && (!b->only || b->only == k))
            people(b, " %8s", sl_backend_name(k));
    people(b, " | %7s %7s | %7s %7s %7s\n", "ggml", "ratio", "floor", "share", "wanted");
    b->first = true;
    for (size_t i = 0; i < COUNT(counted); i++)
        for (int weighted = 0; weighted < 2; weighted++) {
            int t = counted[i].type;
            bool same = weighted && (t == SL_TYPE_Q8_0 || t == SL_TYPE_F16 || t == SL_TYPE_BF16);

            if (asked(sl_type_info(t)->name, names, count) && !same && (weighted || !sl_needs_weights(t)))
                bench_type(b, &counted[i], weighted);
        }
    json(b, "]");
}

/* ---- what is little more than moving, as it comes from the disk */

/* Elements [first, first + n): loaded and quantized as the worker does it. */
static int convert(const struct bench *b, struct move m, uint64_t first, uint64_t n, uint8_t *out)
{
    float x[CHUNK];
    uint64_t bad, width = sl_dtype_info((int)m.from)->bytes;

    for (uint64_t at = first; at < first + n; at += CHUNK) {
        /* A matrix of CHUNK columns whose blocks are a row high: a scale for each 128 weights. */
        struct sl_source s = {m.from, b->source + at * width, at, CHUNK, b->scales + at / 128, at / CHUNK, CHUNK / 128, 1, 128};

        if (m.from != SL_DTYPE_F8_E4M3)
            s.scale = NULL;
        if (!sl_quantize_source(SL_BACKEND_AUTO, m.type, &s, 0, CHUNK, out)) {
            SL_TRY(sl_load_f32(&s, 0, CHUNK, x, &bad));
            SL_TRY(sl_quantize(m.type, x, NULL, CHUNK, CHUNK, out, &bad));
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

/* ---- */

static uint8_t *huge(size_t bytes)
{
    uint8_t *p = aligned_alloc(PAGE, bytes);

    if (p)
        (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static int open_ggml(struct bench *b, const char *path)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (lib)
        *(void **)&b->ggml = dlsym(lib, "ggml_quantize_chunk");
    if (!b->ggml)
        fprintf(stderr, "kernels_bench: %s\n", dlerror());
    return b->ggml ? 0 : 2;
}

static void head(struct bench *b)
{
    char date[40];
    time_t t = time(NULL);
    struct tm tm;

    strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&t, &tm));
    measure_machine(&b->m);
    json(b, "{\"machine\": {\"cpu\": \"%s\", \"processors\": %ld, \"ghz\": %.2f, \"vector_ops_per_cycle\": %.2f, "
            "\"lanes\": %d, \"compiler\": \"%s\", \"date\": \"%s\", \"rounds\": %d, \"weights\": %d}",
         b->m.cpu, sysconf(_SC_NPROCESSORS_ONLN), b->m.ghz, b->m.per_cycle, b->m.lanes, __VERSION__, date, b->rounds, N);
    people(b, "%s, %.2f GHz, %.2f vector operations of %d floats a cycle; %s; best of %d rounds\n", b->m.cpu, b->m.ghz,
           b->m.per_cycle, b->m.lanes, date, b->rounds);
}

static enum sl_backend backend_named(const char *name)
{
    enum sl_backend b = SL_BACKEND_AVX512;

    while (b > SL_BACKEND_AUTO && strcmp(name, sl_backend_name(b)))
        b--;
    return b;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"json", 0, NULL, 'j'},   {"backend", 1, NULL, 'b'}, {"ggml", 1, NULL, 'g'},
                                            {"rounds", 1, NULL, 'r'}, {"slice", 1, NULL, 't'},   {"cpu", 1, NULL, 'c'},
                                            {"only", 1, NULL, 'o'},   {NULL, 0, NULL, 0}};
    struct bench b = {malloc(N * 4), malloc(N * 4), malloc(N * 4), malloc(N * 4), huge(2 * STREAM), huge(2 * STREAM),
                      malloc(2 * STREAM / 128 * 4), .slice = 0.03, .rounds = 7, .cpu = -1};
    const char *only = "", *ggml = NULL;
    cpu_set_t all;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 'j': b.json = true; break;
        case 'b': b.only = backend_named(optarg); break;
        case 'g': ggml = optarg; break;
        case 'r': b.rounds = atoi(optarg); break;
        case 't': b.slice = atof(optarg); break;
        case 'c': b.cpu = atoi(optarg); break;
        case 'o': only = optarg; break;
        default:
            fprintf(stderr, "usage: kernels_bench [--json] [--backend NAME] [--ggml LIB] [--rounds N] [--slice SECONDS] "
                            "[--cpu N] [--only types|rows|threads] [TYPE ...]\n");
            return 2;
        }
    if (b.rounds < 1 || b.rounds > MAX_ROUNDS || (ggml && open_ggml(&b, ggml)))
        return 2;
    if (!b.x || !b.w || !b.want || !b.got || !b.source || !b.copy || !b.scales)
        return 1;
    fill(&b);
    memset(b.copy, 1, 2 * STREAM);
    sched_getaffinity(0, sizeof all, &all);
    pin(b.cpu >= 0 ? b.cpu : sched_getcpu());
    head(&b);
    if (!*only || !strcmp(only, "types"))
        bench_types(&b, argv + optind, argc - optind);
    if (optind == argc && (!*only || !strcmp(only, "rows")))
        bench_rows(&b);
    sched_setaffinity(0, sizeof all, &all);
    if (optind == argc && (!*only || !strcmp(only, "threads")))
        bench_threads(&b);
    json(&b, "}\n");
    return b.wrong != 0;
}
