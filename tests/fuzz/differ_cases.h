/* One case of each kind of kernels_differ: an input made from a seed, worked on by the scalar
 * backend and by each other one (or by ggml), and the comparison. A case returns 1 after it has
 * printed the difference and the command that makes it again, else 0. Header only. */
#ifndef SLUICE_TESTS_FUZZ_DIFFER_CASES_H
#define SLUICE_TESTS_FUZZ_DIFFER_CASES_H

#include "hostile_numbers.h"
#include "kernels/backend.h"

#include <stdio.h>

#define SUPER 20 /* superblocks in a case: more than the widest group of lanes */
#define N (SUPER * 256)
#define GUARD 64
#define PLANT_EVERY 16
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum work { QUANTIZE, WEIGHTED, LOAD, SOURCE, STRAIGHT, DEQUANTIZE };

struct subject {
    char name[40];
    enum work work;
    int type;        /* a ggml type, or a dtype for LOAD and SOURCE */
    double seconds;  /* spent */
    uint64_t cases, weights;
    void (*ggml_dequantize)(const void *, float *, int64_t);
};

struct fuzz {
    struct subject subject[128];
    size_t n_subjects;
    enum sl_backend only;      /* AUTO: all */
    const char *program, *ggml_path;
    size_t (*ggml_quantize)(int, const float *, void *, int64_t, int64_t, int64_t, const float *);
    void (*ggml_init)(int);
    char plant_subject[40], plant_backend[16];
    long plant_bit;            /* -1: none */
    uint64_t sum;              /* of scalar C's results, see --sums */
    /* the case */
    uint64_t seed;
    char what[200];            /* how its input was made */
    float x[N], w[N], scales[N];
    uint8_t raw[N * 8 + GUARD];
    uint8_t want[N * 8 + GUARD], got[N * 8 + GUARD];
};

/* Returns 1, after the line that makes the case again. */
static int differ(const struct fuzz *f, const struct subject *s, const char *backend, const char *why)
{
    char plant[120] = "";

    if (f->plant_bit >= 0)
        snprintf(plant, sizeof plant, " --plant %s:%s:%ld", f->plant_subject, f->plant_backend, f->plant_bit);
    fprintf(stdout, "DIFFERENCE: %s, %s: %s\n  input: %s\n  again: %s --case %#llx --subject %s%s%s%s%s%s\n", s->name,
            backend, why, f->what, f->program, (unsigned long long)f->seed, s->name,
            strcmp(backend, "ggml") ? " --backend " : " --ggml ", strcmp(backend, "ggml") ? backend : f->ggml_path,
            s->work == DEQUANTIZE && strcmp(backend, "ggml") ? " --ggml " : "",
            s->work == DEQUANTIZE && strcmp(backend, "ggml") ? f->ggml_path : "", plant);
    fflush(stdout);
    return 1;
}

static int differ_bytes(const struct fuzz *f, const struct subject *s, const char *backend, size_t unit, size_t bytes)
{
    char why[300];
    size_t i = 0, n;

    while (f->want[i] == f->got[i])
        i++;
    n = (size_t)snprintf(why, sizeof why, "byte %zu of block %zu of %zu is %02x, not %02x;", i % unit, i / unit,
                         bytes / unit, f->got[i], f->want[i]);
    for (size_t k = i / unit * unit, end = k + (unit < 24 ? unit : 24); k < end && n < sizeof why - 4; k++)
        n += (size_t)snprintf(why + n, sizeof why - n, " %02x", f->got[k]);
    return differ(f, s, backend, why);
}

static void plant(const struct fuzz *f, const struct subject *s, enum sl_backend b, size_t bytes, uint8_t *out)
{
    if (f->plant_bit >= 0 && f->seed % PLANT_EVERY == 0 && !strcmp(s->name, f->plant_subject) &&
        !strcmp(sl_backend_name(b), f->plant_backend))
        out[(size_t)f->plant_bit / 8 % bytes] ^= (uint8_t)(1 << f->plant_bit % 8);
}

static bool guard_broken(const uint8_t *end)
{
    for (int i = 0; i < GUARD; i++)
        if (end[i] != 0x5a)
            return true;
    return false;
}

/* FNV-1a. */
static void sum_bytes(struct fuzz *f, const void *p, size_t n)
{
    for (const uint8_t *b = p; n--; b++)
        f->sum = (f->sum ^ *b) * 0x100000001b3;
}

/* A NaN's sign and payload mean nothing: processors differ there. */
static void sum_floats(struct fuzz *f, const uint8_t *p, size_t n)
{
    for (float v; n--; p += 4) {
        memcpy(&v, p, 4);
        sum_bytes(f, isnan(v) ? (const uint8_t *)"NaN" : p, 4);
    }
}

/* Holds the scalar backend's bytes against ggml's. Releases of ggml differ among themselves in
 * iq1_m (tests/golden/README.md). */
static int against_ggml(struct fuzz *f, const struct subject *s, int n, int row, size_t bytes)
{
    const struct sl_type_info *t = sl_type_info(s->type);

    if (s->type == SL_TYPE_IQ1_M)
        return 0;
    memset(f->got, 0x5a, bytes + GUARD);
    f->ggml_quantize(s->type, f->x, f->got, 0, n / row, row, s->work == WEIGHTED ? f->w : NULL);
    return memcmp(f->want, f->got, bytes) ? differ_bytes(f, s, "ggml", t->bytes, bytes) : 0;
}

static int case_quantize(struct fuzz *f, struct subject *s, uint64_t *r)
{
    const struct sl_type_info *t = sl_type_info(s->type);
    int super = next_random(r) % 4 ? 16 : 1 + (int)(next_random(r) % SUPER), n = super * 256, parts, row;
    static const enum kind limits[] = {KINDS_ORDINARY, KINDS_IN_RANGE, KINDS, KINDS};
    enum kind kinds = limits[next_random(r) % COUNT(limits)];
    bool columns = next_random(r) % 2 == 0, weighted = s->work == WEIGHTED;
    size_t bytes = sl_type_bytes(s->type, (uint64_t)n);
    uint64_t bad_want = UINT64_MAX, bad_got;
    enum kind kind;
    int want;

    do
        parts = 1 + (int)(next_random(r) % (unsigned)super);
    while (super % parts);
    row = n / parts;
    hostile_values(f->x, n, kinds, r, &kind);
    if (weighted)
        hostile_weights(f->w, n, row, kinds, columns, r);
    snprintf(f->what, sizeof f->what, "%d weights in rows of %d, first of kind '%s'", n, row, kind_names[kind]);
    s->weights += (uint64_t)n;
    memset(f->want, 0x5a, bytes + GUARD);
    want = sl_quantize_on(SL_BACKEND_SCALAR, s->type, f->x, weighted ? f->w : NULL, (uint64_t)n, (uint64_t)row, f->want,
                          &bad_want);
    if (guard_broken(f->want + bytes))
        return differ(f, s, "scalar", "written past the end");
    sum_bytes(f, &bad_want, sizeof bad_want);
    for (size_t i = 0; i < bytes; i += t->bytes)
        if (!want || !sl_check_scales(s->type, f->want + i, t->block, &bad_got))
            sum_bytes(f, f->want + i, t->bytes);
    for (enum sl_backend b = SL_BACKEND_PORTABLE; b <= SL_BACKEND_AVX512; b++) {
        int got;

        if (!sl_backend_usable(b) || (f->only && f->only != b))
            continue;
        bad_got = UINT64_MAX;
        memset(f->got, 0x5a, bytes + GUARD);
        got = sl_quantize_on(b, s->type, f->x, weighted ? f->w : NULL, (uint64_t)n, (uint64_t)row, f->got, &bad_got);
        plant(f, s, b, bytes, f->got);
        if (got != want || bad_got != bad_want)
            return differ(f, s, sl_backend_name(b), "another code, or another place of what is refused");
        if (guard_broken(f->got + bytes))
            return differ(f, s, sl_backend_name(b), "written past the end");
        /* What a scale that is not finite stands in, nobody reads. */
        for (size_t i = 0; want && i < bytes; i += t->bytes)
            if (sl_check_scales(s->type, f->want + i, t->block, &bad_got))
                memcpy(f->got + i, f->want + i, t->bytes);
        if (memcmp(f->want, f->got, bytes))
            return differ_bytes(f, s, sl_backend_name(b), t->bytes, bytes);
    }
    if (f->ggml_quantize && (kinds != KINDS || s->type == SL_TYPE_MXFP4) && !want && (!weighted || columns))
        return against_ggml(f, s, n, row, bytes);
    return 0;
}

static bool is_special(enum sl_dtype t, const uint8_t *p)
{
    switch (t) {
    case SL_DTYPE_F8_E4M3: return (p[0] & 0x7f) == 0x7f;
    case SL_DTYPE_F8_E5M2: return (p[0] & 0x7c) == 0x7c;
    case SL_DTYPE_F16: return (p[1] & 0x7c) == 0x7c;
    case SL_DTYPE_BF16: return (p[1] & 0x7f) == 0x7f && p[0] & 0x80;
    case SL_DTYPE_F32: return (p[3] & 0x7f) == 0x7f && p[2] & 0x80;
    case SL_DTYPE_I4: case SL_DTYPE_F4: case SL_DTYPE_INT8: case SL_DTYPE_UINT8: return false;
    default: return (p[7] & 0x7f) >= 0x47; /* beyond F32 too */
    }
}

/* Random bytes; clean: without codes that are no numbers, nor doubles beyond F32. */
static void random_source(uint8_t *p, enum sl_dtype t, int n, bool clean, uint64_t *r)
{
    size_t size = sl_dtype_info((int)t)->bytes;

    for (int i = 0; i < n; i++, p += size)
        do {
            uint64_t v = next_random(r);

            if (t == SL_DTYPE_F64 && v % 2)
                v = (v & 0x800fffffffffffff) | (uint64_t)(1023 - 150 + (v >> 8) % 280) << 52;
            memcpy(p, &v, size);
        } while (clean && is_special(t, p));
}

static float random_scale(uint64_t *r, const char **how)
{
    static const char *const names[] = {"1", "usual", "usual", "usual", "subnormal", "huge", "any bits", "negative"};
    uint64_t k = next_random(r) % 8;
    float s = in_range(next_random(r), 100, 24);

    *how = names[k];
    switch (k) {
    case 0: return 1.f;
    case 4: return number(SUBNORMAL, 0, 0, r);
    case 5: return fabsf(in_range(next_random(r), 230, 24));
    case 6: return number(ANY_BITS, 0, 0, r);
    case 7: return -fabsf(s);
    default: return fabsf(s);
    }
}

/* Equal bits, or both no number (whose sign and payload mean nothing: such a run is refused). */
static bool same_floats(const uint8_t *a, const uint8_t *b, size_t n, size_t *at)
{
    if (!memcmp(a, b, n * 4))
        return true;
    for (*at = 0; *at < n; ++*at) {
        float x, y;

        memcpy(&x, a + *at * 4, 4);
        memcpy(&y, b + *at * 4, 4);
        if (memcmp(&x, &y, 4) && !(isnan(x) && isnan(y)))
            return false;
    }
    return true;
}

static int differ_value(const struct fuzz *f, const struct subject *s, const char *backend, size_t at)
{
    char why[100];
    uint32_t a, b;

    memcpy(&a, f->want + at * 4, 4);
    memcpy(&b, f->got + at * 4, 4);
    snprintf(why, sizeof why, "value %zu is %08x (%g), not %08x (%g)", at, b, (double)float_of(b), a, (double)float_of(a));
    return differ(f, s, backend, why);
}

static int case_load(struct fuzz *f, struct subject *s, uint64_t *r)
{
    int n = next_random(r) % 2 ? 128 : 1 + (int)(next_random(r) % 600), offset = (int)(next_random(r) % 64);
    bool clean = next_random(r) % 4 != 0, want;
    const char *how;
    float scale = random_scale(r, &how);
    size_t at;

    random_source(f->raw + offset, (enum sl_dtype)s->type, n, clean, r);
    snprintf(f->what, sizeof f->what, "%d elements at offset %d, scale %g (%s)%s", n, offset, (double)scale, how,
             clean ? ", all numbers" : "");
    s->weights += (uint64_t)n;
    want = sl_ops_scalar.load(s->type, f->raw + offset, (uint64_t)n, scale, (float *)(void *)f->want);
    sum_bytes(f, &want, sizeof want);
    sum_floats(f, f->want, (size_t)n);
    for (enum sl_backend b = SL_BACKEND_PORTABLE; b <= SL_BACKEND_AVX512; b++) {
        const struct sl_backend_ops *ops = sl_backend_ops(b);
        bool got;

        if (!ops || (f->only && f->only != b))
            continue;
        memset(f->got, 0x5a, (size_t)n * 4 + GUARD);
        got = ops->load(s->type, f->raw + offset, (uint64_t)n, scale, (float *)(void *)f->got);
        plant(f, s, b, (size_t)n * 4, f->got);
        if (got != want)
            return differ(f, s, sl_backend_name(b), want ? "not refused" : "refused");
        if (guard_broken(f->got + (size_t)n * 4))
            return differ(f, s, sl_backend_name(b), "written past the end");
        if (!same_floats(f->want, f->got, (size_t)n, &at))
            return differ_value(f, s, sl_backend_name(b), at);
    }
    return 0;
}

/* Element i by itself. Returns whether it is not finite. */
static bool load_single(enum sl_dtype t, const uint8_t *p, uint64_t i, float scale, float *out)
{
    static const float fp4[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    int code = i % 2 ? p[i / 2] / 16 : p[i / 2] % 16;

    if (t != SL_DTYPE_I4 && t != SL_DTYPE_F4 && t != SL_DTYPE_INT8 && t != SL_DTYPE_UINT8)
        return sl_ops_scalar.load((int)t, p + i * sl_dtype_info((int)t)->bytes, 1, scale, out);
    *out = (t == SL_DTYPE_UINT8 ? (float)(p[i] - 128) : t == SL_DTYPE_INT8 ? (float)(p[i] - p[i] / 128 * 256) : t == SL_DTYPE_I4 ? (float)(code - 8) : code < 8 ? fp4[code] : 0 - fp4[code - 8]) * scale;
    return !isfinite(*out);
}

/* sl_load_f32 against one element at a time. */
static int case_source(struct fuzz *f, struct subject *s, uint64_t *r)
{
    uint64_t cols = 1 + next_random(r) % 300, rows = 1 + next_random(r) % 12, bad_want = UINT64_MAX, bad_got = UINT64_MAX;
    uint64_t first = next_random(r) % (rows * cols) / sl_dtype_info(s->type)->block * sl_dtype_info(s->type)->block;
    uint64_t n = rows * cols - first, skip, block_rows = 1 + next_random(r) % 6;
    uint64_t block_cols = next_random(r) % 2 ? s->type == SL_DTYPE_F4 ? 32 : 128 : 1 + next_random(r) % 140, scale_cols = (cols + block_cols - 1) / block_cols;
    uint64_t row0 = first / cols / block_rows, size = sl_dtype_info(s->type)->bytes;
    bool clean = next_random(r) % 4 != 0, scaled = next_random(r) % 8 != 0;
    struct sl_source src = {(enum sl_dtype)s->type, f->raw + 1, first, cols, scaled ? f->scales : NULL, row0, scale_cols,
                            block_rows, block_cols, NULL, NULL};
    const char *how;
    int got;
    size_t at;

    if (n > 4000 / size)
        n = 4000 / size;
    skip = next_random(r) % n;
    n -= skip;
    random_source(f->raw + 1, (enum sl_dtype)s->type, (int)(skip + n), clean, r);
    for (uint64_t i = 0; i < ((rows - 1) / block_rows + 1 - row0) * scale_cols; i++)
        f->scales[i] = random_scale(r, &how);
    snprintf(f->what, sizeof f->what, "%llu x %llu, blocks of %llu x %llu, from %llu, %llu skipped",
             (unsigned long long)rows, (unsigned long long)cols, (unsigned long long)block_rows,
             (unsigned long long)block_cols, (unsigned long long)first, (unsigned long long)skip);
    s->weights += n;
    for (uint64_t i = 0; i < n && bad_want == UINT64_MAX; i++) {
        uint64_t index = first + skip + i, row = index / cols, col = index % cols;
        float scale = scaled ? f->scales[(row / block_rows - row0) * scale_cols + col / block_cols] : 1.f;

        if (load_single((enum sl_dtype)s->type, f->raw + 1, skip + i, scale, (float *)(void *)f->want + i)) {
            bad_want = index;
            n = i;
        }
    }
    sum_bytes(f, &bad_want, sizeof bad_want);
    sum_floats(f, f->want, n);
    memset(f->got, 0x5a, n * 4 + GUARD);
    got = sl_load_f32(&src, skip, bad_want == UINT64_MAX ? n : n + 1, (float *)(void *)f->got, &bad_got);
    plant(f, s, SL_BACKEND_AUTO, n ? n * 4 : 1, f->got);
    if ((got == SL_ESOURCE) != (bad_want != UINT64_MAX) || bad_got != bad_want)
        return differ(f, s, "auto", "refused in another place, or not");
    return same_floats(f->want, f->got, n, &at) ? 0 : differ_value(f, s, "auto", at);
}

/* sl_quantize_source against sl_load_f32 and the scalar backend. What it may leave to those two is
 * something refused, a block with two scales, or a scale at the ends of F32's range. */
static int case_straight(struct fuzz *f, struct subject *s, uint64_t *r)
{
    static const int to[] = {SL_TYPE_Q8_0, SL_TYPE_Q8_0, SL_TYPE_F16, SL_TYPE_BF16, SL_TYPE_F32};
    static const uint64_t widths[] = {128, 128, 32, 96, 40, 1000};
    uint64_t size = sl_dtype_info(s->type)->bytes, cols = 32 * (1 + next_random(r) % 40), n = cols * (1 + next_random(r) % 8), skip, bad;
    uint64_t block_cols = widths[next_random(r) % COUNT(widths)], block_rows = 1 + next_random(r) % 3;
    uint64_t scale_cols = (cols + block_cols - 1) / block_cols, scales = ((n / cols - 1) / block_rows + 1) * scale_cols, offset = next_random(r) % 8;
    int type = to[next_random(r) % COUNT(to)], want;
    bool clean = next_random(r) % 8 != 0, scaled = s->type == SL_DTYPE_F8_E4M3 ? next_random(r) % 8 != 0 : next_random(r) % 4 == 0, usual = true;
    struct sl_source src = {(enum sl_dtype)s->type, f->raw + offset, 0, cols, scaled ? f->scales : NULL, 0, scale_cols, block_rows, block_cols, NULL, NULL};
    const char *how;
    size_t bytes, at;

    while (n > N) /* whole rows no longer, if need be */
        n -= 32;
    skip = next_random(r) % 2 ? 0 : next_random(r) % (n / 32) * 32;
    random_source(f->raw + offset, (enum sl_dtype)s->type, (int)n, clean, r);
    for (uint64_t i = 0, largest = 0x7f; s->type == SL_DTYPE_F8_E4M3 && clean && i < n; i++) { /* every largest code */
        uint8_t *p = f->raw + offset + i;

        largest = i % 32 ? largest : next_random(r) % 0x7f;
        *p = (uint8_t)((*p & 0x80) | (*p & 0x7f) % (largest + 1));
    }
    if (size >= 2 && next_random(r) % 2) /* numbers that fit in F16 */
        for (uint64_t i = 0; i < n; i++)
            f->raw[offset + i * size + size - 1] = (uint8_t)((f->raw[offset + i * size + size - 1] & 0x80) | 0x3b);
    for (uint64_t i = 0; i < scales; i++) {
        f->scales[i] = next_random(r) % 16 ? fabsf(in_range(next_random(r), 110, 20)) : random_scale(r, &how);
        usual &= f->scales[i] > 0x1p-80f && f->scales[i] < 0x1p80f;
    }
    n -= skip;
    bytes = sl_type_bytes(type, n);
    snprintf(f->what, sizeof f->what, "to %s, %llu columns, blocks of %llu x %llu%s, %llu weights after %llu%s", sl_type_info(type)->name,
             (unsigned long long)cols, (unsigned long long)block_rows, (unsigned long long)block_cols, scaled ? "" : " (no scales)",
             (unsigned long long)n, (unsigned long long)skip, clean ? ", all numbers" : "");
    s->weights += n;
    want = sl_load_f32(&src, skip, n, f->x, &bad);
    if (!want)
        want = sl_quantize_on(SL_BACKEND_SCALAR, type, f->x, NULL, n, n, f->want, &bad);
    sum_bytes(f, &want, sizeof want);
    if (!want)
        sum_bytes(f, f->want, bytes);
    for (enum sl_backend b = SL_BACKEND_SCALAR; b <= SL_BACKEND_AVX512; b++) {
        bool able = type != SL_TYPE_Q8_0 || (b >= SL_BACKEND_PORTABLE && !scaled) || (b >= SL_BACKEND_AVX2 && s->type == SL_DTYPE_F8_E4M3);
        int got;

        if (!sl_backend_usable(b) || (f->only && f->only != b))
            continue;
        memset(f->got, 0x5a, bytes + GUARD);
        got = sl_quantize_source(b, type, &src, skip, n, f->got);
        if (guard_broken(f->got + bytes))
            return differ(f, s, sl_backend_name(b), "written past the end");
        if (got && want)
            return differ(f, s, sl_backend_name(b), "not refused");
        able &= s->type == SL_DTYPE_F8_E4M3 ? b >= SL_BACKEND_AVX2 : s->type != SL_DTYPE_F8_E5M2 && s->type != SL_DTYPE_F64;
        if (!got && !want && able && (!scaled || (usual && (type != SL_TYPE_Q8_0 || block_cols % 32 == 0))))
            return differ(f, s, sl_backend_name(b), "left to the two steps");
        if (!got)
            continue;
        plant(f, s, b, bytes, f->got);
        if (type == SL_TYPE_F32 && !same_floats(f->want, f->got, n, &at))
            return differ_value(f, s, sl_backend_name(b), at);
        if (type != SL_TYPE_F32 && memcmp(f->want, f->got, bytes))
            return differ_bytes(f, s, sl_backend_name(b), sl_type_info(type)->bytes, bytes);
    }
    return 0;
}

static int case_dequantize(struct fuzz *f, struct subject *s, uint64_t *r)
{
    const struct sl_type_info *t = sl_type_info(s->type);
    int blocks = 1 + (int)(next_random(r) % 8), n = blocks * (int)t->block;
    size_t bytes = (size_t)blocks * t->bytes, at;

    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t v = next_random(r);

        memcpy(f->raw + i, &v, 8);
    }
    for (size_t i = 0; s->type == SL_TYPE_MXFP4 && i < bytes; i += t->bytes)
        f->raw[i] -= f->raw[i] == 255; /* a NaN, with which ggml goes on */
    snprintf(f->what, sizeof f->what, "%d blocks of random bits", blocks);
    s->weights += (uint64_t)n;
    memset(f->got, 0x5a, (size_t)n * 4 + GUARD);
    if (sl_dequantize(s->type, f->raw, (uint64_t)n, (float *)(void *)f->got))
        return differ(f, s, "scalar", "refused");
    sum_floats(f, f->got, (size_t)n);
    if (s->ggml_dequantize)
        s->ggml_dequantize(f->raw, (float *)(void *)f->want, n);
    else
        memcpy(f->want, f->got, (size_t)n * 4);
    plant(f, s, SL_BACKEND_SCALAR, (size_t)n * 4, f->got);
    if (guard_broken(f->got + (size_t)n * 4))
        return differ(f, s, "scalar", "written past the end");
    return same_floats(f->want, f->got, (size_t)n, &at) ? 0 : differ_value(f, s, "scalar", at);
}

#endif
