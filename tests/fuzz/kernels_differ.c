/* Every backend against the scalar one, on inputs from seeds, for as long as
 * wanted. Stops at the first difference with a line that makes it again.
 *
 *   kernels_differ [--seconds N] [--seed N] [--jobs N] [--subject NAME] [--backend NAME]
 *                  [--ggml LIBGGML-BASE.SO] [--counts]
 *   kernels_differ --case SEED --subject NAME [--backend NAME]      one case again
 *   kernels_differ --sums N [--seed N]   N cases of each subject; a line with the checksum of scalar
 *                                        C's results for each: the same on every processor
 *   --plant SUBJECT:BACKEND:BIT   flips that bit of the backend's output in one case of 16
 *
 * A subject is "q4_k", "q4_k.weighted", "load.f8_e4m3" (a run under one scale), "source.f8_e4m3"
 * (a matrix with block scales), "straight.f8_e4m3" (such a matrix, or one without, to q8_0, f16,
 * bf16 and f32 with no values in between) or "dequantize.q4_k"; the last is held against ggml's, as are the
 * scalar backend's bytes where nothing overflows, when a libggml-base.so is given. Exit 1: a difference. */
#include "differ_cases.h"
#include "tests/unit/written_types.h"

#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int types[] = {WRITTEN_TYPES}, read_types[] = {WRITTEN_TYPES, SL_TYPE_NVFP4};
static const enum sl_dtype dtypes[] = {SL_DTYPE_F8_E4M3, SL_DTYPE_F8_E5M2, SL_DTYPE_F16, SL_DTYPE_BF16, SL_DTYPE_F32,
                                       SL_DTYPE_F64};

static double now(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int run_case(struct fuzz *f, struct subject *s, uint64_t seed)
{
    static int (*const run[])(struct fuzz *, struct subject *, uint64_t *) = {case_quantize, case_quantize, case_load,
                                                                              case_source, case_straight, case_dequantize};
    uint64_t r = seed;
    double start = now(CLOCK_THREAD_CPUTIME_ID);
    int rc;

    f->seed = seed;
    rc = run[s->work](f, s, &r);
    s->seconds += now(CLOCK_THREAD_CPUTIME_ID) - start;
    s->cases++;
    return rc;
}

static void add(struct fuzz *f, enum work work, int type, const char *prefix, const char *name, const char *suffix)
{
    struct subject *s = &f->subject[f->n_subjects++];

    *s = (struct subject){.work = work, .type = type};
    snprintf(s->name, sizeof s->name, "%s%s%s", prefix, name, suffix);
    for (char *c = s->name; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
}

static int open_ggml(struct fuzz *f)
{
    void *lib = dlopen(f->ggml_path, RTLD_NOW | RTLD_LOCAL);

    if (!lib) {
        fprintf(stderr, "kernels_differ: %s\n", dlerror());
        return 2;
    }
    *(void **)&f->ggml_quantize = dlsym(lib, "ggml_quantize_chunk");
    *(void **)&f->ggml_init = dlsym(lib, "ggml_quantize_init");
    for (size_t i = 0; i < COUNT(read_types); i++) {
        char symbol[60];
        void *p;
        const char *name = sl_type_info(read_types[i])->name;
        size_t n = (size_t)snprintf(symbol, sizeof symbol, "dequantize_row_%s", name);

        if (symbol[n - 2] == '_' && symbol[n - 1] == 'k')
            symbol[n - 1] = 'K';
        if ((p = dlsym(lib, symbol)) == NULL)
            continue;
        add(f, DEQUANTIZE, read_types[i], "dequantize.", name, "");
        *(void **)&f->subject[f->n_subjects - 1].ggml_dequantize = p;
    }
    if (!f->ggml_quantize)
        fprintf(stderr, "kernels_differ: %s has no ggml_quantize_chunk\n", f->ggml_path);
    return f->ggml_quantize ? 0 : 2;
}

/* The subject that has had least time; loading and dequantizing want a quarter of the others'. */
static struct subject *next_subject(struct fuzz *f)
{
    struct subject *best = NULL;
    double least = INFINITY;

    for (size_t i = 0; i < f->n_subjects; i++) {
        struct subject *s = &f->subject[i];
        double t = s->seconds * (s->work <= WEIGHTED ? 1 : 4);

        if (t < least)
            least = t, best = s;
    }
    return best;
}

static int run_for(struct fuzz *f, double seconds, uint64_t seed, bool counts)
{
    double start = now(CLOCK_MONOTONIC), t = 0;
    uint64_t r = seed, cases = 0, weights = 0;

    while (t < seconds) {
        if (run_case(f, next_subject(f), next_random(&r)))
            return 1;
        t = now(CLOCK_MONOTONIC) - start;
    }
    for (size_t i = 0; i < f->n_subjects; i++) {
        const struct subject *s = &f->subject[i];

        cases += s->cases;
        weights += s->weights;
        if (counts)
            printf("%-22s %8llu cases %11llu values\n", s->name, (unsigned long long)s->cases, (unsigned long long)s->weights);
    }
    printf("kernels_differ: seed %#llx: %llu cases, %llu values, %zu subjects%s, %.0f s: no difference\n",
           (unsigned long long)seed, (unsigned long long)cases, (unsigned long long)weights, f->n_subjects,
           f->ggml_quantize ? ", ggml too" : "", t);
    fflush(stdout);
    return 0;
}

static int run_sums(struct fuzz *f, long cases, uint64_t seed)
{
    for (size_t i = 0; i < f->n_subjects; i++) {
        uint64_t r = seed;

        f->sum = 0xcbf29ce484222325;
        for (long k = 0; k < cases; k++)
            if (run_case(f, &f->subject[i], next_random(&r)))
                return 1;
        printf("%-22s %016llx\n", f->subject[i].name, (unsigned long long)f->sum);
    }
    return 0;
}

/* One process a job, each with a seed of its own. */
static int run_jobs(struct fuzz *f, int jobs, double seconds, uint64_t seed, bool counts)
{
    int worst = 0, status;

    for (int i = 1; i < jobs; i++)
        if (fork() == 0)
            _exit(run_for(f, seconds, seed + (uint64_t)i, false));
    worst = run_for(f, seconds, seed, counts);
    while (jobs > 1 && wait(&status) > 0)
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            worst = 1;
    return worst;
}

static int run_one(struct fuzz *f, uint64_t seed)
{
    int rc = run_case(f, &f->subject[0], seed);

    printf("%s case %#llx (%s): %s\n", f->subject[0].name, (unsigned long long)seed, f->what,
           rc ? "differs" : "no difference");
    return rc;
}

/* Leaves one subject. */
static int choose(struct fuzz *f, const char *name)
{
    for (size_t i = 0; i < f->n_subjects; i++)
        if (!strcmp(f->subject[i].name, name)) {
            f->subject[0] = f->subject[i];
            f->n_subjects = 1;
            return 0;
        }
    fprintf(stderr, "kernels_differ: no subject '%s' (dequantize.* need --ggml)\n", name);
    return 2;
}

static enum sl_backend backend_named(const char *name)
{
    enum sl_backend b = SL_BACKEND_AVX512;

    while (b > SL_BACKEND_AUTO && strcmp(name, sl_backend_name(b)))
        b--;
    return b;
}

static void add_subjects(struct fuzz *f)
{
    for (size_t i = 0; i < COUNT(types); i++) {
        const char *name = sl_type_info(types[i])->name;

        if (!sl_needs_weights(types[i]))
            add(f, QUANTIZE, types[i], "", name, "");
        if (types[i] != SL_TYPE_F16 && types[i] != SL_TYPE_BF16 && types[i] != SL_TYPE_Q8_0)
            add(f, WEIGHTED, types[i], "", name, ".weighted");
    }
    for (size_t i = 0; i < COUNT(dtypes); i++) {
        add(f, LOAD, (int)dtypes[i], "load.", sl_dtype_info((int)dtypes[i])->name, "");
        add(f, SOURCE, (int)dtypes[i], "source.", sl_dtype_info((int)dtypes[i])->name, "");
        add(f, STRAIGHT, (int)dtypes[i], "straight.", sl_dtype_info((int)dtypes[i])->name, "");
    }
    add(f, SOURCE, SL_DTYPE_I4, "source.", sl_dtype_info(SL_DTYPE_I4)->name, "");
    add(f, SOURCE, SL_DTYPE_INT8, "source.", sl_dtype_info(SL_DTYPE_INT8)->name, "");
    add(f, SOURCE, SL_DTYPE_UINT8, "source.", sl_dtype_info(SL_DTYPE_UINT8)->name, "");
    add(f, SOURCE, SL_DTYPE_F4, "source.", sl_dtype_info(SL_DTYPE_F4)->name, "");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", 1, NULL, 's'}, {"seed", 1, NULL, 'S'}, {"jobs", 1, NULL, 'j'},  {"ggml", 1, NULL, 'g'},
        {"case", 1, NULL, 'c'},    {"subject", 1, NULL, 'n'}, {"backend", 1, NULL, 'b'}, {"plant", 1, NULL, 'p'},
        {"counts", 0, NULL, 'C'},  {"sums", 1, NULL, 'm'}, {NULL, 0, NULL, 0}};
    struct fuzz *f = calloc(1, sizeof *f);
    uint64_t seed = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid(), again = 0;
    const char *subject = NULL;
    long sums = 0;
    double seconds = 60;
    int c, jobs = 1;
    bool counts = false, one = false, usage = !f;

    if (f)
        f->plant_bit = -1, f->program = argv[0];
    while (!usage && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 's': seconds = atof(optarg); break;
        case 'S': seed = strtoull(optarg, NULL, 0); break;
        case 'j': jobs = atoi(optarg); break;
        case 'g': f->ggml_path = optarg; break;
        case 'c': again = strtoull(optarg, NULL, 0), one = true; break;
        case 'n': subject = optarg; break;
        case 'b': f->only = backend_named(optarg); break;
        case 'C': counts = true; break;
        case 'm': sums = atol(optarg); break;
        case 'p': usage = sscanf(optarg, "%39[^:]:%15[^:]:%ld", f->plant_subject, f->plant_backend, &f->plant_bit) != 3; break;
        default: usage = true;
        }
    if (usage || optind != argc || (one && !subject)) {
        fprintf(stderr, "usage: kernels_differ [--seconds N] [--seed N] [--jobs N] [--subject NAME] [--case SEED] "
                        "[--backend NAME] [--ggml LIB] [--counts] [--sums N] [--plant SUBJECT:BACKEND:BIT]\n");
        return 2;
    }
    add_subjects(f);
    for (size_t i = 0; sums > 0 && i < COUNT(read_types); i++)
        add(f, DEQUANTIZE, read_types[i], "dequantize.", sl_type_info(read_types[i])->name, "");
    if (f->ggml_path && open_ggml(f))
        return 2;
    if (subject && choose(f, subject))
        return 2;
    for (size_t i = 0; f->ggml_init && i < f->n_subjects; i++) /* its grids take seconds: not a case's time */
        if (f->subject[i].work <= WEIGHTED)
            f->ggml_init(f->subject[i].type);
    c = one ? run_one(f, again) : sums > 0 ? run_sums(f, sums, seed) : run_jobs(f, jobs, seconds, seed, counts);
    free(f);
    return c;
}
