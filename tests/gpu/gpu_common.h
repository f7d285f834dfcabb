/* What gpu_check and gpu_bench share: types, random source bytes, clocks. Both link the
 * kernels alone, so that they build on a machine that has a compiler and CUDA, and
 * nothing else. */
#ifndef SLUICE_TESTS_GPU_COMMON_H
#define SLUICE_TESTS_GPU_COMMON_H

#include "kernels/gpu.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define COMMON_ROW 4096
#define COMMON_THREADS 64

static const int common_types[] = {
    SL_TYPE_Q2_K, SL_TYPE_Q3_K, SL_TYPE_Q4_K, SL_TYPE_Q5_K, SL_TYPE_Q6_K, SL_TYPE_Q8_0, SL_TYPE_Q4_0, SL_TYPE_Q4_1,
    SL_TYPE_Q5_0, SL_TYPE_Q5_1, SL_TYPE_IQ4_NL, SL_TYPE_IQ4_XS, SL_TYPE_IQ1_S, SL_TYPE_IQ1_M, SL_TYPE_IQ2_XXS,
    SL_TYPE_IQ2_XS, SL_TYPE_IQ2_S, SL_TYPE_IQ3_XXS, SL_TYPE_IQ3_S, SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_BF16};
#define COMMON_TYPES (sizeof common_types / sizeof common_types[0])

/* -1: no such type on a GPU, which is said. */
static inline int common_type_named(const char *name)
{
    for (unsigned i = 0; i < COMMON_TYPES; i++)
        if (strcmp(sl_type_info(common_types[i])->name, name) == 0)
            return common_types[i];
    fprintf(stderr, "no type '%s' that GPUs make\n", name);
    return -1;
}

static inline bool common_weighted(int type)
{
    return sl_type_info(type)->block > 1 && type != SL_TYPE_Q8_0;
}

static inline double common_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline uint64_t common_random(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* FP8 codes, no NaN among them; the magnitudes of a normal distribution, roughly. */
static inline void common_fp8(uint8_t *out, uint64_t n, uint64_t seed)
{
    for (uint64_t i = 0; i < n; i += 8) {
        uint64_t r = common_random(&seed);

        for (uint64_t k = 0; k < 8 && i + k < n; k++, r >>= 8)
            out[i + k] = (r & 0x7f) == 0x7f ? 0x31 : (uint8_t)(r & 0x83) | (uint8_t)(0x10 + ((r >> 2 & 31) * 40 / 32) / 4 * 4);
    }
}

/* A value of a normal distribution. */
static inline double common_gauss(uint64_t *s)
{
    double u = ((double)(common_random(s) >> 11) + 1) / 9007199254740993.0, v = (double)(common_random(s) >> 11) / 9007199254740992.0;

    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static inline double common_e4m3(unsigned code)
{
    unsigned e = code >> 3 & 15, m = code & 7;

    return e ? ldexp(8 + m, (int)e - 10) : ldexp(m, -9);
}

static inline uint8_t common_to_e4m3(double x)
{
    unsigned best = 0;

    for (unsigned step = 64; step; step /= 2)
        if (best + step < 0x7f && common_e4m3(best + step) <= fabs(x))
            best += step;
    if (best < 0x7e && fabs(x) - common_e4m3(best) > common_e4m3(best + 1) - fabs(x))
        best++;
    return (uint8_t)(best | (x < 0 ? 0x80 : 0));
}

/* What is counted and timed: n FP8 codes of a normal distribution, the largest of a block of scales near
 * 448, scales, column weights. */
static inline void common_normal(uint8_t *out, uint64_t n, float *scales, uint64_t n_scales, float *w, uint64_t n_w)
{
    uint64_t s = 42;

    for (uint64_t i = 0; i < n; i++)
        out[i] = common_to_e4m3(common_gauss(&s) * 448 / 4.2); /* 4.2: about the largest of 128 x 128 */
    for (uint64_t i = 0; i < n_scales; i++)
        scales[i] = (float)(0.0002 * (1 + 0.1 * common_gauss(&s)));
    for (uint64_t i = 0; i < n_w; i++)
        w[i] = (float)exp(common_gauss(&s));
}

/* What is under way on the device, and for how long it may be: then the program ends with 3. seconds: 0: it ended. */
static char common_under_way[160];

static inline void common_too_long(int signal)
{
    ssize_t said;
    size_t n = 0;

    (void)signal;
    while (common_under_way[n])
        n++;
    said = write(STDERR_FILENO, common_under_way, n);
    (void)said;
    _exit(3);
}

static inline void common_patience(unsigned seconds, const char *what, const char *more)
{
    snprintf(common_under_way, sizeof common_under_way, "FAILED: %s%s: the device does not end it\n", what, more);
    signal(SIGALRM, common_too_long);
    alarm(seconds);
}

/* A job for every thread of the machine: part i of n. */
struct common_part {
    void (*run)(void *user, unsigned part, unsigned parts);
    void *user;
    unsigned part, parts;
};

static inline void *common_part_main(void *arg)
{
    struct common_part *p = arg;

    p->run(p->user, p->part, p->parts);
    return NULL;
}

static inline void common_in_parallel(void (*run)(void *, unsigned, unsigned), void *user)
{
    struct common_part part[COMMON_THREADS];
    pthread_t thread[COMMON_THREADS];
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned parts = n < 1 ? 1 : n > COMMON_THREADS ? COMMON_THREADS : (unsigned)n, started = 0;

    for (; started < parts; started++) {
        part[started] = (struct common_part){run, user, started, parts};
        if (pthread_create(&thread[started], NULL, common_part_main, &part[started]))
            break;
    }
    for (unsigned i = started; i < parts; i++)
        run(user, i, parts);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
}

#endif
