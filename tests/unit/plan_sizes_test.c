/* Sizes, average bits and memory of DeepSeek-R1 as arXiv 2505.02390 gives them
 * (table 1, legacy layout), and the shares of table 7. */
#include "proto/plan.h"
#include "tests/unit/r1_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define GIB 1073741824.0

static const struct {
    const char *recipe;
    double bits;
    unsigned gib, memory_gib, per_device_gib;
} table1[] = {
    {"Q4_K_M", 4.82, 377, 568, 71}, {"Q3_K_M", 3.81, 298, 487, 61}, {"DQ3_K_M", 3.59, 281, 469, 59},
    {"Q2_K_L", 2.91, 228, 415, 52}, {"UD-Q2_K_XL", 2.70, 212, 398, 50},
};

static struct r1_group r1, r1_mla;

/* The first group of each layout: only names and shapes are used. */
static int setup(void **state)
{
    FILE *f = r1_open();
    char line[512] = "";
    struct r1_group g;

    (void)state;
    while (f && r1_next(f, &g, line, sizeof line) == 0) {
        struct r1_group *slot = g.model.layout == SL_LAYOUT_LEGACY ? &r1 : &r1_mla;

        if (slot->tensors)
            r1_free(&g);
        else
            *slot = g;
    }
    r1_free(&g);
    return !(f && pclose(f) == 0 && r1.tensors && r1_mla.tensors);
}

static int teardown(void **state)
{
    (void)state;
    r1_free(&r1);
    r1_free(&r1_mla);
    return 0;
}

static struct sl_plan *plan_of(const struct sl_model *m, const char *recipe, bool rules_2025)
{
    struct sl_recipe_opts ro = {.output_type = -1, .embedding_type = -1, .rules_2025 = rules_2025,
                                .has_imatrix = true};
    struct sl_plan_opts po = {.split_max_bytes = 48000000000, .prefix = "R1"};
    struct sl_recipe *r;
    struct sl_plan *p;
    struct sl_error e = {0};

    assert_int_equal(sl_recipe_load(recipe, &r, &e), 0);
    if (sl_plan_build(&(struct sl_checkpoint){0}, m, r, &ro, &po, &p, &e) < 0)
        fail_msg("%s", e.text);
    sl_recipe_close(r);
    return p;
}

static void test_table1(void **state)
{
    (void)state;
    assert_int_equal(r1.model.n_params, 671026419200);
    for (size_t i = 0; i < sizeof table1 / sizeof table1[0]; i++) {
        struct sl_plan *p = plan_of(&r1.model, table1[i].recipe, true);
        double bits = (double)p->tensor_bytes * 8 / (double)r1.model.n_params;
        struct sl_memory mem;

        assert_int_equal((unsigned)ceil((double)p->tensor_bytes / GIB), table1[i].gib);
        assert_true(fabs(bits - table1[i].bits) < 0.005);
        sl_plan_paper(p, 32768, SL_UBATCH, 8, &mem);
        assert_true(fabs((double)mem.total / GIB / table1[i].memory_gib - 1) < 0.006);
        assert_true(fabs((double)mem.per_device / GIB - table1[i].per_device_gib) < 0.6);
        assert_int_equal(mem.weights, p->tensor_bytes);
        assert_int_equal(mem.kv_cache, sl_plan_cache(p, 32768, true, SL_UBATCH));
        assert_int_equal(mem.total, mem.weights + mem.kv_cache + mem.buffers);
        sl_plan_close(p);
    }
}

/* Unsloth's files of January 2025: tensor bytes in GiB, and the types that
 * their load logs count. */
static void test_unsloth(void **state)
{
    static const struct {
        const char *recipe;
        double gib;
        int type, count, other, other_count;
    } files[] = {
        {"ud-iq1_s", 130.596, SL_TYPE_IQ1_S, 168, SL_TYPE_IQ2_XXS, 6},
        {"ud-iq1_m", 157.311, SL_TYPE_IQ1_S, 116, SL_TYPE_Q3_K, 3},
        {"ud-iq2_xxs", 182.686, SL_TYPE_IQ2_XXS, 116, SL_TYPE_Q2_K, 55},
        {"ud-q2_k_xl", 211.034, SL_TYPE_Q2_K, 171, SL_TYPE_Q3_K, 3},
    };

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct sl_plan *p = plan_of(&r1.model, files[i].recipe, true);
        int count[SL_TYPE_LIMIT] = {0};

        for (uint32_t k = 0; k < p->n_tensors; k++)
            count[p->tensors[k].type]++;
        if (fabs((double)p->tensor_bytes / GIB - files[i].gib) > 0.0006)
            fail_msg("%s: %.4f GiB", files[i].recipe, (double)p->tensor_bytes / GIB);
        assert_int_equal(count[SL_TYPE_F32], 361);
        assert_int_equal(count[files[i].type], files[i].count);
        assert_int_equal(count[files[i].other], files[i].other_count);
        sl_plan_close(p);
    }
}

/* The same recipes on today's layout: attn_kv_b's type goes to its halves, and
 * its 128-column half to a type with smaller blocks. */
static void test_mla_layout(void **state)
{
    struct sl_plan *p = plan_of(&r1_mla.model, "dq3_k_m", false);
    int k_b = -1, v_b = -1;

    (void)state;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        if (strstr(p->tensors[i].t->name, "attn_k_b"))
            k_b = p->tensors[i].type;
        if (strstr(p->tensors[i].t->name, "attn_v_b"))
            v_b = p->tensors[i].type;
    }
    assert_int_equal(k_b, SL_TYPE_Q8_0);
    assert_int_equal(v_b, SL_TYPE_Q6_K);
    assert_int_equal(p->n_fallback, 61);
    assert_int_equal(sl_plan_cache(p, 32768, false, SL_UBATCH), 576ull * 2 * 61 * 32768);
    assert_int_equal(sl_plan_cache(p, 32768, true, SL_UBATCH), 320ull * 128 * 2 * 61 * 32768);
    sl_plan_close(p);
}

static void test_down_exps_shares(void **state)
{
    struct sl_plan *p = plan_of(&r1.model, "dq3_k_m", true);
    int count[SL_TYPE_LIMIT] = {0};

    (void)state;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        if (strstr(p->tensors[i].t->name, "ffn_down_exps"))
            count[p->tensors[i].type]++;
    assert_int_equal(count[SL_TYPE_Q3_K], 44);
    assert_int_equal(count[SL_TYPE_Q4_K], 12);
    assert_int_equal(count[SL_TYPE_Q6_K], 2);
    sl_plan_close(p);
}

/* The published Q4_K_M in nine parts: gguf-split's counting. */
static void test_split(void **state)
{
    struct sl_plan *p = plan_of(&r1.model, "q4_k_m", true);

    (void)state;
    assert_int_equal(p->n_segments, 9);
    assert_string_equal(p->segments[8].name, "R1-00009-of-00009.gguf");
    for (uint32_t i = 0; i < p->n_segments; i++)
        assert_true(p->segments[i].data_bytes <= 48000000000);
    for (uint32_t i = 0; i + 1 < p->n_segments; i++)
        assert_true(p->segments[i].data_bytes + p->tensors[p->segments[i + 1].first_tensor].bytes >
                    48000000000);
    sl_plan_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table1),
        cmocka_unit_test(test_unsloth),
        cmocka_unit_test(test_mla_layout),
        cmocka_unit_test(test_down_exps_shares),
        cmocka_unit_test(test_split),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
