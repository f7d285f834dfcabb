/* Where moving is most of the work: q8_0 in groups of LANES blocks, and E4M3
 * codes to values. The same bytes as text_backend.h's plain forms, which do
 * what is left over. */
#ifndef SLUICE_KERNELS_TEXT_STREAM_H
#define SLUICE_KERNELS_TEXT_STREAM_H

#include "kernels/blocks.h"

#include <math.h>

/* round_away for |a| < 2^22 or what is no number: less than a half is added, so that the largest
 * value below a half stays below 1; what was a half or more is carried over by rounding. */
V_FN vi round_away_small(vf a)
{
    vf half = v_set(0x1.fffffep-2f);

    return v_trunc(v_add(a, v_sel(v_lt(a, v_set(0.f)), v_neg(half), half)));
}

/* Writes whole groups of LANES blocks; returns how many weights that were. |x * inv| is at most
 * 127 and its rounding, or not finite (a subnormal scale). */
static uint64_t q8_0_groups(const float *x, uint64_t n, uint8_t *out)
{
    const uint64_t group = 32 * LANES, bytes = sizeof(struct blk_q8_0);
    uint64_t done = 0;

    if (LANES == 1)
        return 0;
    for (; done + group <= n; done += group, x += group, out += LANES * bytes) {
        float t[LANES * LANES], inv[LANES];
        int32_t half[LANES];
        vf r[LANES], d;

        for (int b = 0; b < LANES; b++) {
            vf m = v_abs(v_load(x + 32 * b));

            for (int i = LANES; i < 32; i += LANES) {
                vf a = v_abs(v_load(x + 32 * b + i));

                m = v_sel(v_lt(a, m), m, a);
            }
            v_store(t + b * LANES, m);
        }
        v_gather(r, t, LANES, LANES, LANES);
        for (int k = LANES / 2; k; k /= 2) /* a tree: a maximum has no order */
            for (int i = 0; i < k; i++)
                r[i] = v_sel(v_lt(r[i], r[i + k]), r[i + k], r[i]);
        d = v_div(r[0], v_set(127.f));
        v_storei(half, v_f16(d));
        v_store(inv, v_sel(v_ne(d, v_set(0.f)), v_div(v_set(1.f), d), v_set(0.f)));
        for (int b = 0; b < LANES; b++) {
            uint8_t *at = out + (uint64_t)b * bytes;

            memcpy(at, &half[b], 2); /* little-endian, as every machine that this is built for */
            for (int i = 0; i < 32; i += LANES)
                v_store_i8((int8_t *)at + 2 + i, round_away_small(v_mul(v_load(x + 32 * b + i), v_set(inv[b]))));
        }
    }
    return done;
}

#ifdef V_LOAD_E4M3
#define AHEAD 4096 /* bytes; measured: 1024 to 8192 are alike, none is a fifth slower */

/* Effect: out[i] = element i times scale, where every code is a number and no product can leave
 * F32's range; returns how many elements that were. The vocabulary gives a code's value / 256, which
 * F16 holds; 256 * scale is exact, so the one rounding is the same. */
static uint64_t load_e4m3(const uint8_t *b, uint64_t n, float scale, float *out)
{
    vf s = v_set(scale * 256);
    uint8_t none = 0;
    uint64_t i;

    if (!isfinite(scale * 448))
        return 0;
    for (i = 0; i < n; i += 64)
        __builtin_prefetch(b + i + AHEAD); /* the source is in memory, not in cache; past its end is no harm */
    for (i = 0; i < n; i++)
        none |= (uint8_t)((b[i] & 0x7f) == 0x7f);
    if (none)
        return 0;
    for (i = 0; i + LANES <= n; i += LANES)
        v_store(out + i, v_mul(V_LOAD_E4M3(b + i), s));
    return i;
}
#endif

#endif
