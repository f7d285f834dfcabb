/* What the parts of kernels_bench share: the run's state, its input, its output. Header only. */
#ifndef SLUICE_TESTS_BENCH_BENCH_COMMON_H
#define SLUICE_TESTS_BENCH_BENCH_COMMON_H

#include "bench_weights.h"
#include "kernels/backend.h"
#include "machine_rate.h"

#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>

#define ROW 7168
#define ROWS 16
#define N (ROW * ROWS) /* a multiple of CHUNK */
#define STREAM (64u << 20) /* bytes that a copy moves: more than the caches hold */
#define PAGE (2u << 20)    /* slabs lie in huge pages too */
#define CHUNK 8192         /* weights from load to quantize, as in the worker */
#define MAX_ROUNDS 64
#define CONTENDERS 5
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

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

/* Stored elements of this type in b->source; FP8 codes of all magnitudes. */
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
        SL_TRY(sl_quantize_on(SL_BACKEND_AUTO, type, b->x + i / d->bytes % N, NULL, CHUNK, CHUNK, b->source + i, &bad));
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

#endif
