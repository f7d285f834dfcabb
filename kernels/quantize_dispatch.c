/* Chooses a backend, and holds what it wrote against the type's range. */
#include "kernels/backend.h"
#include "kernels/blocks.h"

#include <string.h>
#if defined(__x86_64__)

/* clang 14 has no name for F16C; every processor with AVX2 has it. (No CPUID
 * here: in a virtual machine each leaves to the hypervisor, which takes longer
 * than loading a chunk. The builtin asks once, before main.) */
static bool has_f16c(void)
{
#if defined(__clang__)
    return true;
#else
    return __builtin_cpu_supports("f16c");
#endif
}
#endif

static const struct sl_backend_ops *best_ops(void)
{
#if defined(__x86_64__)
    if (sl_backend_usable(SL_BACKEND_AVX512))
        return &sl_ops_avx512;
    if (sl_backend_usable(SL_BACKEND_AVX2))
        return &sl_ops_avx2;
#endif
    return &sl_ops_portable;
}

const struct sl_backend_ops *sl_backend_ops(enum sl_backend b)
{
    if (!sl_backend_usable(b))
        return NULL;
    switch (b) {
    case SL_BACKEND_AUTO:
        return best_ops();
    case SL_BACKEND_SCALAR:
        return &sl_ops_scalar;
    case SL_BACKEND_PORTABLE:
        return &sl_ops_portable;
#if defined(__x86_64__)
    case SL_BACKEND_AVX2:
        return &sl_ops_avx2;
    case SL_BACKEND_AVX512:
        return &sl_ops_avx512;
#endif
    default:
        return NULL;
    }
}

const char *sl_backend_name(enum sl_backend b)
{
    static const char *const names[] = {"auto", "scalar", "portable", "avx2", "avx512"};

    return b >= SL_BACKEND_AUTO && b <= SL_BACKEND_AVX512 ? names[b] : NULL;
}

int sl_backend_usable(enum sl_backend b)
{
    switch (b) {
    case SL_BACKEND_AUTO:
    case SL_BACKEND_SCALAR:
    case SL_BACKEND_PORTABLE:
        return 1;
#if defined(__x86_64__)
    case SL_BACKEND_AVX2:
        return __builtin_cpu_supports("avx2") && has_f16c();
    case SL_BACKEND_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && has_f16c();
#endif
    default:
        return 0;
    }
}

/* Where the f16 scales lie in a block; -1: no second one. */
static bool scale_places(int type, int *first, int *second)
{
    static const struct { bool has; int16_t at[2]; } places[SL_TYPE_LIMIT] = {
        [SL_TYPE_F16] = {true, {0, -1}},
        [SL_TYPE_Q4_0] = {true, {0, -1}},
        [SL_TYPE_Q4_1] = {true, {0, 2}},
        [SL_TYPE_Q5_0] = {true, {0, -1}},
        [SL_TYPE_Q5_1] = {true, {0, 2}},
        [SL_TYPE_Q8_0] = {true, {0, -1}},
        [SL_TYPE_IQ4_NL] = {true, {0, -1}},
        [SL_TYPE_Q1_0] = {true, {0, -1}},
        [SL_TYPE_Q2_0] = {true, {0, -1}},
        [SL_TYPE_TQ1_0] = {true, {offsetof(struct blk_tq1_0, d), -1}},
        [SL_TYPE_TQ2_0] = {true, {offsetof(struct blk_tq2_0, d), -1}},
        [SL_TYPE_IQ4_XS] = {true, {0, -1}},
        [SL_TYPE_IQ1_S] = {true, {0, -1}},
        [SL_TYPE_IQ2_XXS] = {true, {0, -1}},
        [SL_TYPE_IQ2_XS] = {true, {0, -1}},
        [SL_TYPE_IQ2_S] = {true, {0, -1}},
        [SL_TYPE_IQ3_XXS] = {true, {0, -1}},
        [SL_TYPE_IQ3_S] = {true, {0, -1}},
        [SL_TYPE_Q2_K] = {true, {offsetof(struct blk_q2_k, d), offsetof(struct blk_q2_k, dmin)}},
        [SL_TYPE_Q3_K] = {true, {offsetof(struct blk_q3_k, d), -1}},
        [SL_TYPE_Q4_K] = {true, {0, 2}},
        [SL_TYPE_Q5_K] = {true, {0, 2}},
        [SL_TYPE_Q6_K] = {true, {offsetof(struct blk_q6_k, d), -1}},
    };

    *first = places[type].at[0];
    *second = places[type].at[1];
    return places[type].has;
}

/* Halves side by side: is there one with all of the bits in special? */
static int check_run(const uint8_t *p, uint64_t n, uint16_t special)
{
    const uint64_t each = 0x0001000100010001, top = each << 15, bits = each * special;
    uint64_t i = 0, fine = top;

    for (; i + 4 <= n; i += 4) {
        uint64_t h;

        memcpy(&h, p + 2 * i, 8);
        fine &= (~h & bits) + (top - each); /* carries into a half's top bit unless none is missing */
    }
    for (; i < n; i++) {
        uint16_t h;

        memcpy(&h, p + 2 * i, 2);
        if ((h & special) == special)
            return 1;
    }
    return (fine & top) != top;
}

static int check_half(const uint8_t *p, uint64_t n, size_t stride, uint16_t special)
{
    if (stride == 2)
        return check_run(p, n, special);
    for (uint64_t i = 0; i < n; i++) {
        uint16_t h;

        memcpy(&h, p + i * stride, 2);
        if ((h & special) == special)
            return 1;
    }
    return 0;
}

/* The top bits of iq1_m's scales are its d: four words, four bits of each, the
 * exponent in the third and the fourth. */
static int check_iq1_m(const uint8_t *out, uint64_t n, uint64_t *bad)
{
    for (uint64_t b = 0; b < n / 256; b++) {
        struct blk_iq1_m k;

        memcpy(&k, out + b * sizeof k, sizeof k);
        if ((k.scales[3] & 0x7000) == 0x7000 && (k.scales[2] & 0xc000) == 0xc000) {
            *bad = b * 256;
            return SL_ESOURCE;
        }
    }
    return 0;
}

/* mxfp4's NaN, which ggml makes of a block whose largest weight is in [2^-126, 2^-125). */
static int check_mxfp4(const uint8_t *out, uint64_t n, uint64_t *bad)
{
    for (uint64_t b = 0; b < n / 32; b++)
        if (out[b * sizeof(struct blk_mxfp4)] == 255) {
            *bad = b * 32;
            return SL_ESOURCE;
        }
    return 0;
}

/* A half whose exponent is all ones is an infinity or a NaN. */
int sl_check_scales(int type, const uint8_t *out, uint64_t n, uint64_t *bad)
{
    const struct sl_type_info *t = sl_type_info(type);
    uint16_t special = type == SL_TYPE_BF16 ? 0x7f80 : 0x7c00;
    int first = 0, second = -1;
    uint64_t blocks = n / t->block;

    if (type == SL_TYPE_IQ1_M)
        return check_iq1_m(out, n, bad);
    if (type == SL_TYPE_MXFP4)
        return check_mxfp4(out, n, bad);
    if (type != SL_TYPE_BF16 && !scale_places(type, &first, &second))
        return 0;
    if (!check_half(out + first, blocks, t->bytes, special) &&
        (second < 0 || !check_half(out + second, blocks, t->bytes, special)))
        return 0;
    for (uint64_t b = 0; b < blocks; b++)
        if (check_half(out + b * t->bytes + first, 1, 0, special) ||
            (second >= 0 && check_half(out + b * t->bytes + second, 1, 0, special))) {
            *bad = b * t->block;
            break;
        }
    return SL_ESOURCE;
}

int sl_needs_weights(int type)
{
    return type == SL_TYPE_IQ1_S || type == SL_TYPE_IQ2_XXS || type == SL_TYPE_IQ2_XS;
}

int sl_quantize_on(enum sl_backend b, int type, const float *x, const float *w, uint64_t n, uint64_t row,
                   void *out, uint64_t *bad)
{
    const struct sl_backend_ops *ops = sl_backend_ops(b);
    const struct sl_type_info *t = sl_type_info(type);
    int rc;

    if (!ops || !t || n % t->block || (w && (row == 0 || n % row || row % t->block)))
        return SL_EUNSUPPORTED;
    rc = ops->quantize(type, x, w, n, row, out);
    return rc < 0 ? rc : rc ? 0 : sl_check_scales(type, out, n, bad);
}
