/* Speed of the quantizers and loaders, on one core.
 *
 *   kernels_bench [-t seconds per figure] [-b backend] [type ...]
 *
 * Each figure is printed only after the backend's bytes were equal to the
 * scalar reference's for the same input. Unit: million weights a second. */
#include "kernels/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROW 7168
#define N (ROW * 16)

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct run {
    float *x, *w;
    uint8_t *fp8, *want, *got;
    double seconds;
};

/* Gaussian weights (sigma 0.02), importance 0.1..10. */
static void fill(struct run *r)
{
    uint64_t s = 88172645463325252;

    for (int i = 0; i < N; i++) {
        double u[2];

        for (int k = 0; k < 2; k++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            u[k] = ((double)(s >> 11) + 0.5) * 0x1p-53;
        }
        r->x[i] = (float)(0.02 * sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
        r->w[i] = i < ROW ? (float)pow(10, 2 * u[0] - 1) : r->w[i - ROW];
        r->fp8[i] = (uint8_t)(s % 0x7f | (s >> 20 & 0x80));
    }
}

/* Returns Mweights/s, 0 for a type that needs weights and has none, or -1 when
 * the bytes are not the reference's. */
static double time_type(enum sl_backend b, int type, const float *w, struct run *r)
{
    size_t bytes = sl_type_bytes(type, N);
    uint64_t bad, done = 0;
    double start, t;

    if (!w && sl_needs_weights(type))
        return 0;
    if (sl_quantize_on(SL_BACKEND_SCALAR, type, r->x, w, N, ROW, r->want, &bad) ||
        sl_quantize_on(b, type, r->x, w, N, ROW, r->got, &bad) || memcmp(r->want, r->got, bytes))
        return -1;
    start = now();
    do {
        if (sl_quantize_on(b, type, r->x, w, N, ROW, r->got, &bad))
            return -1;
        done += N;
        t = now() - start;
    } while (t < r->seconds);
    return (double)done / t / 1e6;
}

static double time_load(const struct sl_backend_ops *ops, struct run *r)
{
    uint64_t done = 0;
    double start = now(), t;
    float *out = (float *)(void *)r->got;

    if (sl_ops_scalar.load(SL_DTYPE_F8_E4M3, r->fp8, N, 0.5f, (float *)(void *)r->want) ||
        ops->load(SL_DTYPE_F8_E4M3, r->fp8, N, 0.5f, out) || memcmp(r->want, r->got, N * 4))
        return -1;
    do {
        for (int i = 0; i < N; i += 128)
            if (ops->load(SL_DTYPE_F8_E4M3, r->fp8 + i, 128, 0.5f, out + i))
                return -1;
        done += N;
        t = now() - start;
    } while (t < r->seconds);
    return (double)done / t / 1e6;
}

static int wanted(const char *name, char **names, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return 1;
    return count == 0;
}

static int bench_backend(enum sl_backend b, struct run *r, char **names, int count)
{
    static const int types[] = {SL_TYPE_Q2_K, SL_TYPE_Q3_K, SL_TYPE_Q4_K, SL_TYPE_Q5_K, SL_TYPE_Q6_K, SL_TYPE_IQ4_NL,
                                SL_TYPE_IQ4_XS, SL_TYPE_Q8_0, SL_TYPE_Q4_0, SL_TYPE_Q4_1, SL_TYPE_Q5_0,
                                SL_TYPE_Q5_1, SL_TYPE_F16, SL_TYPE_BF16, SL_TYPE_IQ1_S, SL_TYPE_IQ1_M,
                                SL_TYPE_IQ2_XXS, SL_TYPE_IQ2_XS, SL_TYPE_IQ2_S, SL_TYPE_IQ3_XXS, SL_TYPE_IQ3_S};
    int wrong = 0;

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *name = sl_type_info(types[i])->name;
        double plain, weighted;

        if (!wanted(name, names, count))
            continue;
        plain = time_type(b, types[i], NULL, r);
        weighted = time_type(b, types[i], r->w, r);
        wrong += plain < 0 || weighted < 0;
        printf("%-9s %-8s %9.1f %9.1f%s\n", sl_backend_name(b), name, plain, weighted,
               plain < 0 || weighted < 0 ? "  NOT THE REFERENCE'S BYTES" : "");
    }
    if (wanted("load", names, count)) {
        double v = time_load(sl_backend_ops(b), r);

        wrong += v < 0;
        printf("%-9s %-8s %9.1f %9s\n", sl_backend_name(b), "e4m3", v, "-");
    }
    return wrong;
}

int main(int argc, char **argv)
{
    struct run r = {malloc(N * 4), malloc(N * 4), malloc(N), malloc(N * 4), malloc(N * 4), 0.2};
    const char *only = NULL;
    int c, wrong = 0;

    while ((c = getopt(argc, argv, "t:b:")) != -1) {
        if (c == 't')
            r.seconds = atof(optarg);
        else if (c == 'b')
            only = optarg;
        else
            return 2;
    }
    if (!r.x || !r.w || !r.fp8 || !r.want || !r.got)
        return 1;
    fill(&r);
    printf("%-9s %-8s %9s %9s  Mweights/s, one core\n", "backend", "type", "plain", "weighted");
    for (int b = SL_BACKEND_SCALAR; b <= SL_BACKEND_AVX512; b++)
        if (sl_backend_usable((enum sl_backend)b) && (!only || !strcmp(only, sl_backend_name((enum sl_backend)b))))
            wrong += bench_backend((enum sl_backend)b, &r, argv + optind, argc - optind);
    return wrong != 0;
}
