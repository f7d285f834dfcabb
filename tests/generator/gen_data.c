/* What tensors hold: quantiles of the normal distribution, drawn at random, as each kind of element. */
#include "generator.h"

#include <math.h>
#include <string.h>

#define TABLE 4096
static float gauss[TABLE]; /* quantiles of the normal distribution */
static uint8_t gauss_e4m3[TABLE];

static uint64_t next(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static float uniform(uint64_t *s) /* [0, 1) */
{
    return (float)(next(s) >> 40) * 0x1p-24f;
}

static uint8_t to_e4m3(float x)
{
    float a = fabsf(x), step;
    int e;
    if (a > 448)
        a = 448;
    if (a < 0x1p-6f)
        return (uint8_t)(lrintf(a * 512) | (x < 0 ? 128 : 0)); /* 8 is the first normal number */
    frexpf(a, &e); /* a = m * 2^e, m in [1/2, 1) */
    step = ldexpf(1, e - 4);
    a = rintf(a / step) * step;
    frexpf(a, &e);
    return (uint8_t)((e + 6) << 3 | ((int)ldexpf(a, 4 - e) & 7) | (x < 0 ? 128 : 0));
}

void fill_tables(void)
{
    for (int i = 0; i < TABLE; i++) {
        double p = (i + 0.5) / TABLE, lo = -6, hi = 6;
        for (int k = 0; k < 50; k++) {
            double mid = (lo + hi) / 2;
            if (0.5 * erfc(-mid / sqrt(2)) < p)
                lo = mid;
            else
                hi = mid;
        }
        gauss[i] = (float)lo;
        gauss_e4m3[i] = to_e4m3((float)lo * 96);
    }
}

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static int level_of(float x) /* of a 4-bit integer */
{
    int v = (int)lrintf(x * 2.5f); /* a level is sigma / 2.5 */
    return v < -8 ? 0 : v > 7 ? 15 : v + 8;
}

static void draw_fp8(uint64_t n, uint8_t *b, uint64_t *s)
{
    for (uint64_t i = 0; i < n;) {
        uint64_t r = next(s);
        for (int k = 0; k < 5 && i < n; k++, r >>= 12)
            b[i++] = gauss_e4m3[r & (TABLE - 1)];
    }
}

/* Scales, norms and weights that are not quantized. */
static void draw_numbers(const struct tensor *t, uint64_t n, void *buf, uint64_t *s)
{
    float sigma = 1 / sqrtf((float)t->fan);
    uint8_t *b = buf;
    uint16_t *h = buf;
    float *f = buf;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t r = next(s);
        float g = gauss[r & (TABLE - 1)] * (0.9f + 0.2f * (float)(r >> 40) * 0x1p-24f), x;
        switch (t->fill) {
        case NORM: x = 1 + 0.1f * g; break;
        case SMALL: x = 0.02f * g; break;
        case SCALES: x = sigma / t->level * (0.6f + 0.8f * uniform(s)); break;
        default: x = sigma * g; break;
        }
        if (t->kind == SCALE_E8M0 || t->kind == SCALE_U8)
            b[i] = (uint8_t)(127 + (int)rintf(log2f(x)));
        else if (t->kind == BF16)
            h[i] = to_bf16(x);
        else
            f[i] = x;
    }
}

void draw(const struct tensor *t, uint64_t n, void *buf, uint64_t *s)
{
    uint8_t *b = buf;
    switch (t->kind) {
    case FP8:
        draw_fp8(n, b, s);
        break;
    case INT8:
        for (uint64_t i = 0; i < n; i++)
            b[i] = (uint8_t)(int)fmaxf(-128, fminf(127, rintf(gauss[next(s) & (TABLE - 1)] * 36)));
        break;
    case PACKED:
        for (uint64_t i = 0; i < 4 * n; i++) {
            uint64_t r = next(s);
            b[i] = (uint8_t)(level_of(gauss[r & (TABLE - 1)]) | level_of(gauss[r >> 32 & (TABLE - 1)]) << 4);
        }
        break;
    case FP4:
    case FP4_U8:
        for (uint64_t i = 0; i < n; i++)
            b[i] = (uint8_t)next(s);
        break;
    case SHAPE:
        for (uint64_t i = 0; i < n; i++)
            memcpy(b + 4 * i, &(uint32_t){ (uint32_t)t->sizes[i] }, 4);
        break;
    default:
        draw_numbers(t, n, buf, s);
    }
}
