/* What this processor can do at most: its clock, and vector operations a cycle
 * in the mixture that the searches are made of. Header only; for benchmarks. */
#ifndef SLUICE_TESTS_BENCH_MACHINE_RATE_H
#define SLUICE_TESTS_BENCH_MACHINE_RATE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct machine {
    char cpu[120];
    double ghz;       /* the clock, by a chain of additions of one cycle each */
    double per_cycle; /* vector operations a cycle; 0: not measured here */
    int lanes;        /* floats in the widest vector */
};

static inline double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__x86_64__)
#define TIMES_4(x) x x x x
#define TIMES_16(x) TIMES_4(TIMES_4(x))

static inline double clock_hz(void)
{
    enum { ROUNDS = 50000 };
    uint64_t a = 1;
    double t = thread_seconds();

    for (int i = 0; i < ROUNDS; i++)
        __asm__ volatile(TIMES_16("add %0, %0\n\t") : "+r"(a));
    return ROUNDS * 16.0 / (thread_seconds() - t);
}

/* Nine additions, seven multiplications and two integer clamps, none waiting for another: a
 * step of the search for a scale and a minimum has them in this proportion. */
#define MIX(r)                                                                                             \
    "vaddps %%" r "14, %%" r "15, %%" r "0\n\tvmulps %%" r "14, %%" r "15, %%" r "1\n\t"                     \
    "vaddps %%" r "14, %%" r "15, %%" r "2\n\tvmulps %%" r "14, %%" r "15, %%" r "3\n\t"                     \
    "vaddps %%" r "14, %%" r "15, %%" r "4\n\tvpmaxsd %%" r "14, %%" r "15, %%" r "5\n\t"                    \
    "vmulps %%" r "14, %%" r "15, %%" r "6\n\tvaddps %%" r "14, %%" r "15, %%" r "7\n\t"                     \
    "vmulps %%" r "14, %%" r "15, %%" r "8\n\tvaddps %%" r "14, %%" r "15, %%" r "9\n\t"                     \
    "vmulps %%" r "14, %%" r "15, %%" r "10\n\tvaddps %%" r "14, %%" r "15, %%" r "11\n\t"                   \
    "vpminsd %%" r "14, %%" r "15, %%" r "12\n\tvaddps %%" r "14, %%" r "15, %%" r "13\n\t"                  \
    "vmulps %%" r "14, %%" r "15, %%" r "0\n\tvaddps %%" r "14, %%" r "15, %%" r "1\n\t"                     \
    "vmulps %%" r "14, %%" r "15, %%" r "2\n\tvaddps %%" r "14, %%" r "15, %%" r "3\n\t"
#define MIX_LENGTH 18

/* ymm names the same registers for clang, which has no zmm in a function for AVX2. */
#define MIX_CLOBBERS                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", \
        "xmm13", "xmm14", "xmm15"

static inline double mix_hz(int lanes)
{
    enum { ROUNDS = 40000 };
    double t = thread_seconds();

    if (lanes == 16)
        for (int i = 0; i < ROUNDS; i++)
            __asm__ volatile(MIX("zmm") ::: MIX_CLOBBERS);
    else
        for (int i = 0; i < ROUNDS; i++)
            __asm__ volatile(MIX("ymm") ::: MIX_CLOBBERS);
    t = thread_seconds() - t;
    __asm__ volatile("vzeroupper" ::: MIX_CLOBBERS);
    return ROUNDS * (double)MIX_LENGTH / t;
}
#endif

static inline void cpu_name(char *out, size_t size)
{
    char line[200], name[80] = "unknown", family[20] = "", model[20] = "";
    FILE *f = fopen("/proc/cpuinfo", "r");

    while (f && fgets(line, sizeof line, f) && line[0] != '\n') {
        const char *v = strchr(line, ':');

        line[strcspn(line, "\n")] = 0;
        if (v && !strncmp(line, "model name", 10))
            snprintf(name, sizeof name, "%s", v + 2);
        else if (v && !strncmp(line, "cpu family", 10))
            snprintf(family, sizeof family, "%s", v + 2);
        else if (v && !strncmp(line, "model\t", 6))
            snprintf(model, sizeof model, "%s", v + 2);
    }
    if (f)
        fclose(f);
    snprintf(out, size, "%s (family %s, model %s)", name, family, model);
}

#define RATE_SAMPLES 15

static inline double middle(double *v)
{
    for (int i = 1; i < RATE_SAMPLES; i++)
        for (int k = i; k > 0 && v[k] < v[k - 1]; k--) {
            double t = v[k];

            v[k] = v[k - 1];
            v[k - 1] = t;
        }
    return v[RATE_SAMPLES / 2];
}

/* Effect: *m = this machine; medians, in some ten milliseconds. */
static inline void measure_machine(struct machine *m)
{
    *m = (struct machine){.lanes = 0};
    cpu_name(m->cpu, sizeof m->cpu);
#if defined(__x86_64__)
    double v[RATE_SAMPLES];

    m->lanes = __builtin_cpu_supports("avx512f") ? 16 : __builtin_cpu_supports("avx2") ? 8 : 0;
    for (int i = 0; i < RATE_SAMPLES; i++)
        v[i] = clock_hz();
    m->ghz = middle(v) / 1e9;
    for (int i = 0; m->lanes && i < RATE_SAMPLES; i++)
        v[i] = mix_hz(m->lanes);
    m->per_cycle = m->lanes ? middle(v) / (m->ghz * 1e9) : 0;
#else
    (void)middle;
#endif
}

#endif
