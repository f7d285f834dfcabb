/* Inputs that kernels go wrong on, from a seed: random bits as floats, and the
 * structures that searches meet rarely. Header only; for tests. */
#ifndef SLUICE_TESTS_FUZZ_HOSTILE_NUMBERS_H
#define SLUICE_TESTS_FUZZ_HOSTILE_NUMBERS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* splitmix64: every seed is good, neighbouring seeds are unrelated. */
static inline uint64_t next_random(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static inline float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, 4);
    return f;
}

/* A finite float of random bits whose exponent lies in [low, low + range). */
static inline float in_range(uint64_t r, uint32_t low, uint32_t range)
{
    return float_of(((uint32_t)r & 0x807fffff) | (low + (uint32_t)(r >> 32) % range) << 23);
}

enum kind {
    /* ordinary: what a checkpoint may hold */
    GAUSS, USUAL, FP8, COARSE, OUTLIER, RAMP, LEVELS, ONE_SIGN, KINDS_ORDINARY,
    /* at the edges, but nothing that is computed from them is infinite */
    SUBNORMAL = KINDS_ORDINARY, SPARSE, AT_EPSILON, TIES, CONSTANT, ALTERNATING, ZERO_SUBBLOCKS,
    SIGNED_ZEROS, F16_UNDERFLOW, KINDS_IN_RANGE,
    /* hostile */
    ANY_BITS = KINDS_IN_RANGE, WIDE, F16_OVERFLOW, SQUARES_OVERFLOW, KINDS
};

static const char *const kind_names[KINDS] = {
    "gauss", "usual", "fp8", "coarse", "outlier", "ramp", "levels", "one sign", "subnormal", "sparse", "at epsilon",
    "ties", "constant", "alternating", "zero sub-blocks", "signed zeros", "f16 underflow", "any bits", "wide",
    "f16 overflow", "squares overflow"};

/* Largest magnitudes below which the searches see zeros. */
static const float epsilons[] = {1e-15f, 1e-12f, 1e-8f, 1e-7f};

/* Value i of a run. base: a number that the run has in common. */
static inline float number(enum kind kind, float base, int i, uint64_t *s)
{
    uint64_t r = next_random(s), p = r >> 40;
    uint32_t sign = (uint32_t)r & 0x80000000, at;
    float f;

    switch (kind) {
    case GAUSS: /* a sum of twelve uniform numbers, less its mean */
        f = -6;
        for (int k = 0; k < 6; k++, r = next_random(s))
            f += (float)(r & 0xffff) * 0x1p-16f + (float)(r >> 16 & 0xffff) * 0x1p-16f;
        return 0.02f * f;
    case USUAL: return in_range(r, 105, 20);
    case FP8: return (float)(8 + (p & 7)) * ldexpf(r & 256 ? base : -base, (int)(p >> 3) % 15 - 20);
    case COARSE: return float_of(((uint32_t)r & 0x807f0000) | (uint32_t)(120 + p % 3) << 23);
    case OUTLIER: return in_range(r, 110, 4) * (p % 97 == 0 ? 80.f : 1.f);
    case RAMP: return base * (float)(i % 256 - 100);
    case LEVELS: return base * 0.5f * (float)((int)(p % 65) - 32);
    case ONE_SIGN: return -fabsf(in_range(r, 120, 6));
    case SUBNORMAL: return float_of((uint32_t)r & 0x80ffffff);
    case SPARSE: return p % 4 ? float_of(sign) : in_range(r, 125, 1);
    case AT_EPSILON: /* one value of 16 about the threshold, the others below */
        memcpy(&at, &base, 4);
        f = p % 16 ? (float)(p >> 4 & 255) * 0x1p-9f : 0.75f + (float)(p >> 4 & 7) * 0.125f;
        return (sign ? -f : f) * epsilons[at & 3];
    case TIES: return float_of(sign | (p % 8 ? (uint32_t)(p % 4) << 20 | 0x3f000000 : 0));
    case WIDE: return in_range(r, 115, 26);
    case CONSTANT: return base;
    case ALTERNATING: return i & 1 ? -base : base;
    case ZERO_SUBBLOCKS: return i / 16 % 3 ? in_range(r, 118, 6) : 0.f;
    case SIGNED_ZEROS: return float_of(sign);
    case F16_UNDERFLOW: return in_range(r, 127 - 26, 6);
    case F16_OVERFLOW: return in_range(r, 127 + 14, 8);
    case SQUARES_OVERFLOW: return in_range(r, 127 + 58, 12);
    case ANY_BITS:
    default:
        f = float_of((uint32_t)r);
        return isfinite(f) ? f : 1.f;
    }
}

/* Effect: out[0..n) = values of the kinds below `kinds`; *kind: the first run's. Runs of 16 or 32 may each be of a
 * kind of their own, and a superblock may repeat the one before it but for one bit. */
static inline void hostile_values(float *out, int n, enum kind kinds, uint64_t *s, enum kind *kind)
{
    int run = next_random(s) % 2 ? 16 : 32;
    bool mixed = next_random(s) % 4 == 0, repeats = next_random(s) % 8 == 0;
    enum kind k = *kind = (enum kind)(next_random(s) % (unsigned)kinds);
    float base = in_range(next_random(s), 115, 12);

    for (int i = 0; i < n; i++) {
        if (i && i % run == 0 && mixed)
            k = (enum kind)(next_random(s) % (unsigned)kinds);
        if (i && i % run == 0 && next_random(s) % 4 == 0)
            base = in_range(next_random(s), 115, 12);
        out[i] = number(k, base, i, s);
    }
    for (int i = 256; repeats && i + 256 <= n; i += 512) {
        uint32_t u, at = (uint32_t)i + (uint32_t)(next_random(s) % 256);

        memcpy(out + i, out + i - 256, 256 * sizeof *out);
        memcpy(&u, out + at, 4);
        u ^= 1u << next_random(s) % (kinds == KINDS ? 31 : 23);
        if (isfinite(float_of(u)))
            out[at] = float_of(u);
    }
}

/* Importance weights: finite, >= 0; zeros among them unless kinds is KINDS_ORDINARY. columns: each
 * row has the first row's. */
static inline void hostile_weights(float *out, int n, int row, enum kind kinds, bool columns, uint64_t *s)
{
    bool ordinary = kinds == KINDS_ORDINARY;
    enum kind kind;
    uint64_t zeros = next_random(s) % 4;

    hostile_values(out, n, kinds == KINDS ? KINDS : KINDS_ORDINARY, s, &kind);
    for (int i = 0; i < n; i++) {
        out[i] = fabsf(out[i]);
        if (ordinary ? out[i] < 0x1p-20f : zeros == 0 && next_random(s) % 3 == 0)
            out[i] = ordinary ? 0x1p-20f : 0;
    }
    if (!ordinary && zeros == 1 && n >= 256)
        memset(out + 256 * (next_random(s) % (unsigned)(n / 256)), 0, 256 * sizeof *out);
    for (int i = row; columns && i < n; i++)
        out[i] = out[i - row];
}

#endif
