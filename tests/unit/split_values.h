/* Values and weights of a sub-block of iq1_m or iq1_s whose splits are hard to tell apart. Header only. */
#ifndef SLUICE_TESTS_SPLIT_VALUES_H
#define SLUICE_TESTS_SPLIT_VALUES_H

#include "kernels/half.h"

#include <math.h>
#include <stdint.h>

struct split_values {
    int n; /* 16: iq1_m, 32: iq1_s */
    float x[32], w[32];
    uint64_t seed;
};

static inline uint32_t below(struct split_values *s, uint32_t n)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return (uint32_t)(s->seed >> 32) % n;
}

/* 1 to 2, times 2^low to 2^high. */
static inline float positive(struct split_values *s, int low, int high)
{
    int exponent = low + (int)below(s, (uint32_t)(high - low + 1)); /* first, with every compiler */

    return ldexpf(1.f + (float)below(s, 1 << 23) * 0x1p-23f, exponent);
}

static inline float either(struct split_values *s, float a) { return below(s, 2) ? a : -a; }

enum { USUAL, ANY_SIZE, FEW, EQUAL_PRODUCTS, NEAR_EQUAL, LIGHT_ENDS, LIGHT_ZEROS, NEGATIVE, SUBNORMAL, ONE_VALUE, CANCELLING, KINDS };

static inline void one_value(struct split_values *s, int kind, int i)
{
    float *x = &s->x[i], *w = &s->w[i];

    *x = either(s, positive(s, -4, 0));
    *w = positive(s, -4, 0);
    if (kind == ANY_SIZE) {
        *x = either(s, positive(s, -40, 40));
        *w = positive(s, -100, 100);
    } else if (kind == FEW) {
        *x = (float)below(s, 7) - 3.f;
        *w = (float)below(s, 3);
    } else if (kind == EQUAL_PRODUCTS) {
        *x = either(s, positive(s, -20, 20));
        *w = 1.f / fabsf(*x);
    } else if (kind == NEAR_EQUAL) {
        *x = either(s, 1.f + (float)below(s, 3000) * 0x1p-23f);
        *w = 1.f + (float)below(s, 3000) * 0x1p-23f;
    } else if (kind == LIGHT_ENDS) {
        *x = either(s, positive(s, i > 2 ? -30 : 0, i > 2 ? -20 : 0));
        *w = positive(s, i > 2 ? 0 : -20, i > 2 ? 0 : -4);
    } else if (kind == LIGHT_ZEROS) {
        *x = i > 5 ? (float)below(s, 2) * -0x1p-20f : either(s, positive(s, 0, 0));
        *w = positive(s, i > 5 ? 0 : -10, i > 5 ? 2 : -10);
    } else if (kind == NEGATIVE) {
        *w = below(s, 2) ? 0.f : below(s, 4) ? *w : -*w;
    } else if (kind == SUBNORMAL) { /* which a product with a level rounds by up to a half */
        *x = either(s, positive(s, 100, 110));
        *w = sl_float(below(s, 6));
    } else if (kind == ONE_VALUE) { /* all low, all middle and all high are as good */
        *x = i ? s->x[0] : *x;
    } else if (kind == CANCELLING) { /* the sum of w of a split with few at the ends is nothing but roundings */
        int ends = s->n / 16;
        float sum = 0.f;

        *x = (float)(2 * i - s->n + 1);
        for (int j = 1; j < s->n && i == s->n - 1; j++)
            sum += s->w[j] * (j < ends ? 0.765625f : j < s->n - ends ? 0.015625f : 1.265625f);
        if (i == s->n - 1)
            s->w[0] = sum / -0.765625f;
    }
}

#endif
