/* Every quantizer on every backend against the golden vectors, byte for byte
 * (tests/golden/README.md). */
#include "kernels/backend.h"
#include "written_types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS 6
#define COLS 1024
#define N (ROWS * COLS)

static const char *const dists[] = {"gauss", "fp8_block", "outlier", "heavy_tail", "constant",
                                    "sparse", "tiny", "huge", "onesided", "ramp"};
static const int types[] = {WRITTEN_TYPES};
#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

struct vectors {
    float x[N], w[N]; /* w: the column weights, repeated for each row */
};

static size_t slurp(const char *dist, const char *name, void *buf, size_t cap)
{
    const char *root = getenv("SLUICE_TESTS");
    char path[512];
    size_t n;
    FILE *f;

    snprintf(path, sizeof path, "%s/golden/%s/%s", root ? root : "tests", dist, name);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s; run from the repository's root or set SLUICE_TESTS", path);
    n = fread(buf, 1, cap, f);
    fclose(f);
    return n;
}

static void load(const char *dist, struct vectors *v)
{
    assert_int_equal(slurp(dist, "x.f32", v->x, sizeof v->x), sizeof v->x);
    assert_int_equal(slurp(dist, "imatrix.f32", v->w, COLS * 4), COLS * 4);
    for (int r = 1; r < ROWS; r++)
        memcpy(v->w + r * COLS, v->w, COLS * 4);
}

/* Of these weights change nothing, and there is one vector for both. */
static bool takes_no_weights(int type)
{
    return type == SL_TYPE_Q1_0 || type == SL_TYPE_Q2_0 || type == SL_TYPE_TQ1_0 || type == SL_TYPE_TQ2_0;
}

/* Returns the number of blocks that differ; says where the first one is. */
static int compare(enum sl_backend b, const char *dist, int type, bool weighted, const struct vectors *v)
{
    static uint8_t want[N * 4], got[N * 4];
    const struct sl_type_info *t = sl_type_info(type);
    size_t bytes = sl_type_bytes(type, N);
    uint64_t bad = UINT64_MAX, at = UINT64_MAX;
    int differ = 0, refused;
    char name[64];

    snprintf(name, sizeof name, "%s%s.bin", t->name, weighted && !takes_no_weights(type) ? ".imatrix" : "");
    assert_int_equal(slurp(dist, name, want, sizeof want), bytes);
    memset(got, 0xaa, sizeof got);
    refused = sl_check_scales(type, want, N, &at); /* mxfp4's NaN in tiny alone */
    assert_int_equal(sl_quantize_on(b, type, v->x, weighted ? v->w : NULL, N, COLS, got, &bad), refused);
    assert_int_equal(bad, at);
    assert_int_equal(got[bytes], 0xaa);
    for (size_t i = 0; i < bytes; i += t->bytes)
        if (memcmp(want + i, got + i, t->bytes) && !differ++)
            print_error("%s: %s/%s: block %zu is the first to differ\n", sl_backend_name(b), dist, name, i / t->bytes);
    return differ;
}

/* Of these there are vectors with an importance matrix only. */
static bool has_plain(int type)
{
    return type != SL_TYPE_IQ1_S && type != SL_TYPE_IQ1_M && type != SL_TYPE_IQ2_XXS && type != SL_TYPE_IQ2_XS;
}

static void all_types(enum sl_backend b)
{
    struct vectors *v = malloc(sizeof *v);
    int differ = 0;

    assert_non_null(v);
    for (int d = 0; d < COUNT(dists); d++) {
        load(dists[d], v);
        for (int i = 0; i < COUNT(types); i++) {
            if (has_plain(types[i]))
                differ += compare(b, dists[d], types[i], false, v);
            if (types[i] != SL_TYPE_F16 && types[i] != SL_TYPE_BF16)
                differ += compare(b, dists[d], types[i], true, v);
        }
    }
    free(v);
    assert_int_equal(differ, 0);
}

static void backend_is_equal(void **state)
{
    enum sl_backend b = *(const enum sl_backend *)*state;

    if (!sl_backend_usable(b)) {
        print_message("this machine cannot run %s\n", sl_backend_name(b));
        skip();
    }
    all_types(b);
}

static void list_is_whole(void **state)
{
    (void)state;
    for (int type = 0; type < SL_TYPE_LIMIT; type++) {
        const struct sl_type_info *t = sl_type_info(type);
        int n = 0;

        for (int i = 0; i < COUNT(types); i++)
            n += types[i] == type;
        assert_int_equal(n, t && t->quantizes && type != SL_TYPE_F32);
    }
}

/* The comparison itself must see one changed byte. */
static void compare_sees_a_change(void **state)
{
    struct vectors *v = malloc(sizeof *v);

    (void)state;
    assert_non_null(v);
    load("gauss", v);
    assert_int_equal(compare(SL_BACKEND_SCALAR, "gauss", SL_TYPE_Q4_K, false, v), 0);
    v->x[300] *= 1.5f;
    assert_int_equal(compare(SL_BACKEND_SCALAR, "gauss", SL_TYPE_Q4_K, false, v), 1);
    free(v);
}

int main(void)
{
    static enum sl_backend b[] = {SL_BACKEND_SCALAR, SL_BACKEND_PORTABLE, SL_BACKEND_AVX2, SL_BACKEND_AVX512};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(backend_is_equal, &b[0]), cmocka_unit_test_prestate(backend_is_equal, &b[1]),
        cmocka_unit_test_prestate(backend_is_equal, &b[2]), cmocka_unit_test_prestate(backend_is_equal, &b[3]),
        cmocka_unit_test(list_is_whole), cmocka_unit_test(compare_sees_a_change),
    };

    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
