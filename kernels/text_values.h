/* What is no search: q8_0, and a source element's value. */
#ifndef SLUICE_KERNELS_TEXT_VALUES_H
#define SLUICE_KERNELS_TEXT_VALUES_H

#include "kernels/text_block32.h"

/* Rounds half away from zero, then keeps the low byte. a - trunc(a) is exact. */
V_FN vi round_away(vf a)
{
    vi t = v_trunc(a);
    vf rest = v_sub(a, v_tofloat(t)), half = v_set(0.5f);
    vm up = v_not(v_lt(rest, half)), down = v_not(v_lt(v_neg(half), rest));
    vi r = v_iadd(t, v_isub(v_seli(up, v_seti(1), v_seti(0)), v_seli(down, v_seti(1), v_seti(0))));

    return v_seli(v_ine(t, v_seti(INT32_MIN)), r, t);
}

V_FN void q8_0_block(const float *x, uint8_t *out)
{
    vf amax = v_set(0.f);
    float d, inv;
    uint16_t h;

    for (int i = 0; i < 32; i += LANES) {
        vf a = v_abs(v_load(x + i));

        amax = v_sel(v_lt(a, amax), amax, a);
    }
    d = v_hmax(amax) / 127;
    inv = d != 0 ? 1 / d : 0;
    h = sl_f16_from_f32(d);
    memcpy(out, &h, 2);
    for (int i = 0; i < 32; i += LANES)
        v_store_i8((int8_t *)out + 2 + i, round_away(v_mul(v_load(x + i), v_set(inv))));
}

/* A small float format by its magnitude bits: codes below `least` are
 * subnormal, in units of `unit`; for the others `exp` is added once the mantissa
 * is in place; from `special` on a code is no number. No branches, so that
 * compilers turn the loops into vectors. */
V_FN float widen(uint32_t mag, uint32_t sign, int shift, uint32_t least, float unit, uint32_t special, uint32_t exp)
{
    uint32_t small = sl_bits((float)(int32_t)mag * unit), normal = (mag << shift) + exp;
    uint32_t is_small = -(uint32_t)(mag < least), is_special = -(uint32_t)(mag >= special);

    return sl_float(((small & is_small) | (normal & ~is_small) | sign) | (is_special & 0x7fc00000));
}

V_FN float from_e4m3(uint32_t e) { return widen(e & 0x7f, (e & 0x80) << 24, 20, 8, 0x1p-9f, 0x7f, 0x3c000000); }
V_FN float from_e5m2(uint32_t e) { return widen(e & 0x7f, (e & 0x80) << 24, 21, 4, 0x1p-16f, 0x7c, 0x38000000); }
V_FN float from_e2m1(uint32_t e) { return widen(e & 7, (e & 8) << 28, 22, 2, 0.5f, 8, 0x3f000000) + 0.f; } /* -0 is 0 */
V_FN float from_half(uint32_t e) { return widen(e & 0x7fff, (e & 0x8000) << 16, 13, 0x400, 0x1p-24f, 0x7c00, 0x38000000); }

#endif
