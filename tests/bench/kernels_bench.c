/* Speed of the quantizers and loaders on one core, beside ggml's.
 *
 *   kernels_bench [--json] [--backend NAME] [--ggml LIBGGML-BASE.SO] [--rounds N] [--slice SECONDS]
 *                 [--cpu N] [--only types|rows|threads] [TYPE ...]
 *
 * A figure is there only when the bytes were equal to scalar C's for the same input. The
 * contenders take turns (A B C A B C), each for a slice of processor time, pinned to one
 * processor; the best and the median of the rounds are given. Unit: million weights a second. */
#include "bench_moves.h"
#include "tests/unit/written_types.h"

#include <dlfcn.h>
#include <getopt.h>
#include <sys/mman.h>
#include <unistd.h>

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
    {SL_TYPE_BF16, 0, 0, 0, 0}, {SL_TYPE_MXFP4, 0, 0, 0, 0}, {SL_TYPE_Q1_0, 0, 0, 0, 0}, {SL_TYPE_Q2_0, 0, 0, 0, 0},
    {SL_TYPE_TQ1_0, 0, 0, 0, 0}, {SL_TYPE_TQ2_0, 0, 0, 0, 0}};

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
            bool same = weighted && (t == SL_TYPE_Q8_0 || t == SL_TYPE_F16 || t == SL_TYPE_BF16 || of_few_levels(t));

            if (asked(sl_type_info(t)->name, names, count) && !same && (weighted || !sl_needs_weights(t)))
                bench_type(b, &counted[i], weighted);
        }
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
    for (int i = optind; i < argc; i++) {
        size_t k = 0;

        while (k < COUNT(counted) && strcmp(sl_type_info(counted[k].type)->name, argv[i]))
            k++;
        if (k == COUNT(counted))
            return fprintf(stderr, "kernels_bench: no type '%s'\n", argv[i]), 2;
    }
    if (b.rounds < 1 || b.rounds > MAX_ROUNDS || (ggml && open_ggml(&b, ggml)))
        return 2;
    if (!b.x || !b.w || !b.want || !b.got || !b.source || !b.copy || !b.scales)
        return 1;
    bench_weights(b.x, b.w, N, ROW);
    for (unsigned i = 0; i < 2 * STREAM / 128; i++)
        b.scales[i] = 1e-4f * (float)(1 + i % 7);
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
