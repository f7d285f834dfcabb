/* The engine's bytes against an element-by-element computation, for every
 * transform, on both backends, with large and tiny slabs and 1 to 3 threads. */
#include "tests/unit/engine_world.h"
#include "worker/measure.h"
#include "worker/source_element.h"
#include "worker/source_rows.h"

#include <sys/syscall.h>
#include <time.h>

static const float inline_values[40] = {1.0f, 0.5f, 0.25f, 3.0f};

static uint32_t add(struct world *w, struct sl_out_tensor *t, uint64_t item_elems)
{
    uint32_t i = (uint32_t)(t - w->out);

    world_task(w, i, item_elems);
    return i;
}

/* Tables of integers, longer than a slab and than the first run that fits one. */
static void add_ids(struct world *w)
{
    for (int i = 0; i < 2; i++) {
        enum sl_dtype dtype = i ? SL_DTYPE_I32 : SL_DTYPE_I64;
        uint32_t s = world_source(w, (uint32_t)i, i ? "ids32" : "ids64", dtype, 50001, 6, 0, 0, 0);
        struct sl_out_tensor *t = world_out(w, i ? "ids32" : "ids64", SL_TYPE_I32, SL_IDS, 6, 50001, 0, s, 1);

        t->heads = WORLD_IDS;
        add(w, t, i ? 0 : 6 * 20000);
    }
}

/* Norms that are stored less one. */
static void add_norms(struct world *w)
{
    static const enum sl_dtype dtypes[] = {SL_DTYPE_BF16, SL_DTYPE_F16, SL_DTYPE_F32};

    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        const char *name = sl_dtype_info((int)dtypes[i])->name;
        uint32_t s = world_source(w, (uint32_t)(i % 2), name, dtypes[i], 1, 30000, 0, 0, 0);
        struct sl_out_tensor *t = world_out(w, name, SL_TYPE_F32, SL_COPY, 30000, 0, 0, s, 1);

        t->change = SL_PLUS_ONE;
        t->keep_f32 = true;
        add(w, t, 7000);
    }
}

static void add_copies(struct world *w)
{
    uint32_t s = world_source(w, 0, "bf16", SL_DTYPE_BF16, 96, 768, 0, 0, 0);
    struct sl_out_tensor *t;

    add(w, world_out(w, "bf16.q4_k", SL_TYPE_Q4_K, SL_COPY, 768, 96, 0, s, 1), 768 * 40);
    add(w, world_out(w, "bf16.bf16", SL_TYPE_BF16, SL_COPY, 768, 96, 0, s, 1), 0);
    add(w, world_out(w, "bf16.f32", SL_TYPE_F32, SL_COPY, 768, 96, 0, s, 1), 0);
    s = world_source(w, 0, "f32", SL_DTYPE_F32, 3, 1000, 0, 0, 0);
    t = world_out(w, "f32.f32", SL_TYPE_F32, SL_COPY, 1000, 3, 0, s, 1);
    t->keep_f32 = true;
    add(w, t, 700);
    add(w, world_out(w, "f32.f16", SL_TYPE_F16, SL_COPY, 1000, 3, 0, s, 1), 0);
    s = world_source(w, 0, "f16", SL_DTYPE_F16, 64, 96, 0, 0, 0);
    add(w, world_out(w, "f16.f16", SL_TYPE_F16, SL_COPY, 96, 64, 0, s, 1), 0);
    add(w, world_out(w, "f16.q8_0", SL_TYPE_Q8_0, SL_COPY, 96, 64, 0, s, 1), 32 * 3);
    t = world_out(w, "values", SL_TYPE_F32, SL_INLINE, 40, 0, 0, 0, 0);
    t->values = inline_values;
    add(w, t, 0);
    add_ids(w);
    add_norms(w);
}

/* Vectors: two multiplied, longer than a slab; the first of one made negative exponentials. */
static void add_made(struct world *w)
{
    uint32_t s = world_source(w, 0, "norm", SL_DTYPE_BF16, 1, 50001, 0, 0, 0);
    struct sl_out_tensor *t;

    (void)world_source(w, 1, "proj", SL_DTYPE_F32, 1, 50001, 0, 0, 0);
    t = world_out(w, "score", SL_TYPE_F32, SL_PRODUCT, 50001, 0, 0, s, 2);
    t->keep_f32 = true;
    add(w, t, 30000);
    s = world_source(w, 1, "A_log", SL_DTYPE_F32, 1, 30000, 0, 0, 0);
    t = world_out(w, "ssm_a", SL_TYPE_F32, SL_FIRST, 20000, 0, 0, s, 1);
    t->keep_f32 = true;
    t->change = SL_MINUS_EXP;
    add(w, t, 0);
}

static void add_scaled(struct world *w)
{
    uint32_t s = 0;

    for (int i = 0; i < 5; i++) {
        char name[24];

        snprintf(name, sizeof name, "expert%d", i);
        s = world_source(w, (uint32_t)(i % 2), name, SL_DTYPE_F8_E4M3, 200, 768, SL_DTYPE_F32, 128, 128);
    }
    add(w, world_out(w, "stack.q3_k", SL_TYPE_Q3_K, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 300);
    world_weigh(w, add(w, world_out(w, "stack.q4_k.weighted", SL_TYPE_Q4_K, SL_COPY, 768, 200, 5, s - 4, 5),
                       768 * 333)); /* what is computed in one go spans two experts */
    s = world_source(w, 0, "by_row", SL_DTYPE_F8_E4M3, 70, 512, SL_DTYPE_BF16, 1, 512);
    add(w, world_out(w, "by_row.q6_k", SL_TYPE_Q6_K, SL_COPY, 512, 70, 0, s, 1), 0);
    s = world_source(w, 0, "whole", SL_DTYPE_F8_E4M3, 70, 512, SL_DTYPE_F16, 70, 512);
    add(w, world_out(w, "whole.f32", SL_TYPE_F32, SL_COPY, 512, 70, 0, s, 1), 512 * 3);
    s = world_source(w, 1, "e8m0", SL_DTYPE_F8_E4M3, 64, 1024, SL_DTYPE_F8_E8M0, 32, 32);
    add(w, world_out(w, "e8m0.q2_k", SL_TYPE_Q2_K, SL_COPY, 1024, 64, 0, s, 1), 0);
    s = world_source(w, 1, "u8", SL_DTYPE_F8_E4M3, 64, 256, SL_DTYPE_U8, 1, 32);
    add(w, world_out(w, "u8.q5_k", SL_TYPE_Q5_K, SL_COPY, 256, 64, 0, s, 1), 0);
    /* A scale for each weight: at tiny slabs a row's scales fit none. */
    s = world_source(w, 1, "each", SL_DTYPE_F8_E4M3, 6, 32768, SL_DTYPE_F32, 1, 1);
    add(w, world_out(w, "each.q8_0", SL_TYPE_Q8_0, SL_COPY, 32768, 6, 0, s, 1), 32768 * 2);
    s = world_source(w, 1, "pairs", SL_DTYPE_F8_E4M3, 7, 32768, SL_DTYPE_F32, 2, 3);
    add(w, world_out(w, "pairs.q4_k", SL_TYPE_Q4_K, SL_COPY, 32768, 7, 0, s, 1), 0);
}

/* 4-bit integers, a byte for two: in order, a head's columns, rows in pairs, longer rows than a slab. */
static void add_packed(struct world *w)
{
    struct sl_out_tensor *t;
    uint32_t s = 0;

    for (int i = 0; i < 5; i++) {
        char name[24];

        snprintf(name, sizeof name, "packed%d", i);
        s = world_source(w, (uint32_t)(i % 2), name, SL_DTYPE_I4, 200, 768, SL_DTYPE_BF16, 1, 32);
    }
    add(w, world_out(w, "stack.q4_k", SL_TYPE_Q4_K, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 300);
    add(w, world_out(w, "stack.f32", SL_TYPE_F32, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 7);
    world_weigh(w, add(w, world_out(w, "stack.q6_k.weighted", SL_TYPE_Q6_K, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 333));
    s = world_source(w, 0, "packed_kv_b", SL_DTYPE_I4, 2 * (128 + 32), 1024, SL_DTYPE_F16, 1, 8);
    t = world_out(w, "packed_k_b", SL_TYPE_Q4_1, SL_K_B, 128, 1024, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    add(w, t, 0);
    t = world_out(w, "packed_v_b", SL_TYPE_Q8_0, SL_V_B, 1024, 32, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    add(w, t, 1024 * 9);
    s = world_source(w, 1, "packed_q", SL_DTYPE_I4, 8 * 16, 256, SL_DTYPE_F32, 1, 64);
    t = world_out(w, "packed_q", SL_TYPE_F16, SL_PERMUTE, 256, 8 * 16, 0, s, 1);
    t->heads = 8;
    add(w, t, 256 * 16 * 3);
    s = world_source(w, 1, "packed_row", SL_DTYPE_I4, 3, 1 << 17, SL_DTYPE_BF16, 1, 8);
    add(w, world_out(w, "packed_row.bf16", SL_TYPE_BF16, SL_COPY, 1 << 17, 3, 0, s, 1), 1 << 17);
}

/* MXFP4: a stack, and rows longer than a slab. */
static void add_fp4(struct world *w)
{
    uint32_t s = 0;

    for (int i = 0; i < 5; i++) {
        char name[24];

        snprintf(name, sizeof name, "fp4.%d", i);
        s = world_source(w, (uint32_t)(i % 2), name, SL_DTYPE_F4, 200, 768, i % 2 ? SL_DTYPE_U8 : SL_DTYPE_F8_E8M0, 1, 32);
    }
    add(w, world_out(w, "fp4.q4_k", SL_TYPE_Q4_K, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 300);
    add(w, world_out(w, "fp4.f32", SL_TYPE_F32, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 7);
    world_weigh(w, add(w, world_out(w, "fp4.q2_k.weighted", SL_TYPE_Q2_K, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 333));
    s = world_source(w, 1, "fp4_row", SL_DTYPE_F4, 3, 1 << 17, SL_DTYPE_F8_E8M0, 1, 32);
    add(w, world_out(w, "fp4_row.q8_0", SL_TYPE_Q8_0, SL_COPY, 1 << 17, 3, 0, s, 1), 1 << 17);
    add(w, world_out(w, "fp4_row.mxfp4", SL_TYPE_MXFP4, SL_COPY, 1 << 17, 3, 0, s, 1), 1 << 17);
    world_weigh(w, add(w, world_out(w, "fp4.mxfp4", SL_TYPE_MXFP4, SL_COPY, 768, 200, 5, s - 5, 5), 768 * 61));
}

static void add_heads(struct world *w)
{
    uint32_t s = world_source(w, 0, "kv_b", SL_DTYPE_F8_E4M3, 6 * (64 + 96), 512, SL_DTYPE_F32, 128, 128);
    struct sl_out_tensor *t;

    t = world_out(w, "k_b", SL_TYPE_Q8_0, SL_K_B, 64, 512, 6, s, 1);
    t->heads = 6, t->nope = 64, t->v_dim = 96, t->lora = 512;
    add(w, t, 64 * 512 * 4);
    t = world_out(w, "v_b", SL_TYPE_Q4_K, SL_V_B, 512, 96, 6, s, 1);
    t->heads = 6, t->nope = 64, t->v_dim = 96, t->lora = 512;
    add(w, t, 512 * 50);
    /* A head of 128 x 1024 is larger than a tiny slab: columns at a time. */
    s = world_source(w, 0, "kv_b_large", SL_DTYPE_F8_E4M3, 2 * (128 + 32), 1024, SL_DTYPE_F32, 128, 128);
    t = world_out(w, "k_b_large", SL_TYPE_Q4_1, SL_K_B, 128, 1024, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    world_weigh(w, add(w, t, 0));
    t = world_out(w, "k_b_large.f32", SL_TYPE_F32, SL_K_B, 128, 1024, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    add(w, t, 128 * 1024);
    s = world_source(w, 1, "q", SL_DTYPE_BF16, 8 * 16, 256, 0, 0, 0);
    t = world_out(w, "q.q4_k", SL_TYPE_Q4_K, SL_PERMUTE, 256, 8 * 16, 0, s, 1);
    t->heads = 8;
    add(w, t, 256 * 16 * 3);
    s = world_source(w, 1, "q_large", SL_DTYPE_BF16, 2 * 64, 4096, 0, 0, 0);
    t = world_out(w, "q_large.q6_k", SL_TYPE_Q6_K, SL_PERMUTE, 4096, 2 * 64, 0, s, 1);
    t->heads = 2;
    add(w, t, 0);
    s = world_source(w, 1, "q_bias", SL_DTYPE_F32, 1, 128, 0, 0, 0);
    t = world_out(w, "q_bias", SL_TYPE_F32, SL_PERMUTE, 128, 0, 0, s, 1);
    t->heads = 4;
    t->keep_f32 = true;
    add(w, t, 0);
}

static uint32_t add_view(struct world *w, const char *name, int type, const struct sl_view *view, const uint64_t ne[3], uint32_t src,
                         enum sl_change change, uint64_t item_elems)
{
    struct sl_out_tensor *t = world_out(w, name, type, view ? SL_VIEW : SL_COPY, ne[0], ne[1], ne[2], src, 1);

    t->view = view;
    t->change = change;
    t->keep_f32 = t->n_dims == 1;
    return add(w, t, item_elems);
}

/* Heads in another order: within rows, as rows behind others, one by one; experts in turns with others; changed values. */
static void add_views(struct world *w)
{
    static const struct sl_view columns = {1, {{64 * 768, 0, 128, {2, 3}, {384, 128, 768}}}, 768},
        narrow = {1, {{64 * 192, 0, 32, {2, 3}, {96, 32, 192}}}, 192},
        rows = {2, {{32 * 512, 0, 32 * 512, {1, 1}, {0}}, {48 * 512, 32 * 512, 8 * 512, {3, 2}, {16 * 512, 8 * 512, 48 * 512}}}, 0},
        few = {1, {{6 * 512, 0, 512, {2, 3}, {1536, 512, 3072}}}, 3072}, heads = {1, {{6, 0, 1, {2, 3}, {3, 1, 6}}}, 6},
        up = {1, {{5 * 24 * 256, 24 * 256, 24 * 256, {5, 1}, {48 * 256}}}, 0};
    static const int types[] = {SL_TYPE_Q4_K, SL_TYPE_IQ4_NL, SL_TYPE_F32, SL_TYPE_Q8_0};
    const uint64_t wide[3] = {768, 64}, tall[3] = {512, 80};
    uint32_t s = world_source(w, 0, "columns", SL_DTYPE_F8_E4M3, 64, 768, SL_DTYPE_F32, 128, 128);

    for (int i = 0; i < 4; i++)
        add_view(w, sl_type_info(types[i])->name, types[i], &columns, wide, s, 0, 768 * 20);
    world_weigh(w, add_view(w, "columns.q2_k.weighted", SL_TYPE_Q2_K, &columns, wide, s, 0, 0));
    s = world_source(w, 1, "narrow", SL_DTYPE_I4, 64, 192, SL_DTYPE_BF16, 1, 32);
    add_view(w, "narrow.q5_1", SL_TYPE_Q5_1, &narrow, (uint64_t[3]){192, 64}, s, 0, 192 * 33);
    s = world_source(w, 1, "rows", SL_DTYPE_F8_E4M3, 80, 512, SL_DTYPE_F32, 16, 128);
    add_view(w, "rows.q6_k", SL_TYPE_Q6_K, &rows, tall, s, 0, 512 * 37);
    s = world_source(w, 1, "by_row", SL_DTYPE_F8_E4M3, 80, 512, SL_DTYPE_F32, 1, 512);
    add_view(w, "by_row.q6_k", SL_TYPE_Q6_K, &rows, tall, s, 0, 512 * 37);
    s = world_source(w, 1, "bf16", SL_DTYPE_BF16, 80, 512, 0, 0, 0);
    add_view(w, "bf16.bf16", SL_TYPE_BF16, &rows, tall, s, 0, 512 * 37);
    s = world_source(w, 0, "few", SL_DTYPE_BF16, 6, 512, 0, 0, 0);
    add_view(w, "few.q4_k", SL_TYPE_Q4_K, &few, (uint64_t[3]){512, 6}, s, 0, 0);
    s = world_source(w, 0, "heads", SL_DTYPE_BF16, 1, 6, 0, 0, 0);
    add_view(w, "heads", SL_TYPE_F32, &heads, (uint64_t[3]){6}, s, SL_MINUS_EXP, 0);
    s = world_source(w, 0, "norm", SL_DTYPE_F32, 1, 700, 0, 0, 0);
    add_view(w, "norm", SL_TYPE_F32, NULL, (uint64_t[3]){700}, s, SL_PLUS_ONE, 0);
    s = world_source(w, 1, "experts", SL_DTYPE_BF16, 5 * 48, 256, 0, 0, 0);
    world_weigh(w, add_view(w, "up.q3_k", SL_TYPE_Q3_K, &up, (uint64_t[3]){256, 24, 5}, s, 0, 256 * 31));
}

/* What a thread keeps from one piece of work to the next, column weights and a block of
 * zeros, is another tensor's or another type's the next time. */
static void add_alike(struct world *w)
{
    static const int types[] = {SL_TYPE_Q4_K, SL_TYPE_Q4_0, SL_TYPE_Q5_0, SL_TYPE_IQ4_XS};
    uint32_t s = world_source(w, 0, "rows", SL_DTYPE_BF16, 16, 512, 0, 0, 0), zeros = w->model.n_src++;

    w->src[zeros] = (struct sl_model_src){.dtype = SL_DTYPE_BF16, .rows = 16, .cols = 512,
                                          .scale = {.tensor = SL_NO_TENSOR}};
    w->src[zeros].tensor = world_tensor(w, 0, "zeros", SL_DTYPE_BF16, 16, 512, calloc(16 * 512, 2));
    for (int i = 0; i < 4; i++) {
        char name[24];

        snprintf(name, sizeof name, "weighted%d", i);
        world_weigh(w, add(w, world_out(w, name, SL_TYPE_Q4_K, SL_COPY, 512, 16, 0, s, 1), 0));
        snprintf(name, sizeof name, "zeros%d", i);
        add(w, world_out(w, name, types[i], SL_COPY, 512, 16, 0, zeros, 1), 0);
    }
}

static void run(struct world *w, const struct sl_engine_opts *o, uint8_t **expected)
{
    struct sl_engine *en = NULL;
    struct sl_engine_stats st;
    struct sl_error e = {0, ""};
    uint64_t src = 0;

    world_seal(w);
    if (world_engine(w, o, &en, &e) < 0)
        fail_msg("%s", e.text);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++)
        assert_int_equal(sl_engine_submit(en, i, 1, &e), 0);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++) {
        struct sl_task_result r = world_wait(en);
        const struct sl_plan_tensor *pt = &w->pt[r.task]; /* one task for each tensor */

        if (r.code < 0)
            fail_msg("%s: %s", pt->t->name, r.error.text);
        if (r.checksum != world_task_sum(w, r.task, expected[r.task])) {
            uint8_t *got = world_output(w, r.task);
            uint64_t at = 0;

            while (at < pt->bytes && got[at] == expected[r.task][at])
                at++;
            fail_msg("%s: checksum differs; byte %llu of %llu", pt->t->name, (unsigned long long)at,
                     (unsigned long long)pt->bytes);
        }
    }
    assert_int_equal(sl_engine_sync(en, 0, &e), 0);
    sl_engine_stats(en, &st);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++)
        src += w->task[i].src_bytes;
    assert_int_equal(st.source_bytes, src);
    assert_string_equal(st.io_name, o->io == SL_IO_PREAD ? "pread" : "io_uring");
    assert_int_equal(st.threads, o->threads);
    assert_true(st.slabs * st.slab_bytes <= o->mem_bytes);
    sl_engine_close(en);
    for (uint32_t i = 0; i < w->plan.n_tensors; i++) {
        uint8_t *got = world_output(w, i);

        assert_memory_equal(got, expected[i], w->pt[i].bytes);
        free(got);
    }
}

static void all_ways(struct world *w, bool round)
{
    uint8_t *expected[WORLD_MAX] = {NULL};
    const enum sl_io_mode ways[] = {SL_IO_URING, SL_IO_PREAD};
    const uint64_t slabs[] = {1u << 17, 3u << 16, 0};

    for (uint32_t i = 0; i < w->plan.n_tensors; i++)
        expected[i] = world_expected(w, i, round);
    for (unsigned i = 0; i < 12; i++) {
        struct sl_engine_opts o = {.threads = 1 + i % 3, .mem_bytes = 64u << 20, .io = ways[i % 2],
                                   .direct = i % 4 < 2 ? SL_DIRECT_ON : SL_DIRECT_OFF,
                                   .round_bf16 = round, .segment_paths = w->segment_paths,
                                   .weights = world_weights(w),
                                   .slab_bytes = slabs[i / 4]};

        run(w, &o, expected);
    }
    for (uint32_t i = 0; i < w->plan.n_tensors; i++)
        free(expected[i]);
}

static void convert(void (*what)(struct world *), bool round)
{
    struct world w;

    world_open(&w);
    world_file(&w, "a.safetensors");
    world_file(&w, "b.safetensors");
    what(&w);
    all_ways(&w, round);
    world_close(&w);
}

static void test_copies(void **state)
{
    (void)state;
    convert(add_copies, false);
    convert(add_copies, true);
    convert(add_made, false);
    convert(add_made, true);
}

static void test_scaled(void **state)
{
    (void)state;
    convert(add_scaled, false);
    convert(add_scaled, true);
}

static void test_packed(void **state)
{
    (void)state;
    convert(add_packed, false);
    convert(add_packed, true);
    convert(add_fp4, false);
    convert(add_fp4, true);
}

static void test_heads(void **state)
{
    (void)state;
    convert(add_heads, false);
}

static void test_views(void **state)
{
    (void)state;
    convert(add_views, false);
    convert(add_views, true);
}

static void test_alike(void **state)
{
    (void)state;
    convert(add_alike, false);
}

/* One row, by those who sample and by those who verify; tensors take turns, so that
 * what is kept of one is not taken for another's. */
static void rows_of(struct world *w)
{
    struct sl_error e = {0, ""};
    struct source_rows *rows;
    struct source_reader *reader;
    float *x = malloc(2 * (sizeof *x << 17)), *y = x + (1 << 17);

    world_seal(w);
    assert_int_equal(source_rows_open(&w->ck, &w->model, &rows, &e), 0);
    assert_int_equal(source_reader_open(&w->ck, &w->model, &reader, &e), 0);
    for (uint64_t turn = 0; turn < 40; turn++)
        for (uint32_t i = 0; i < w->model.n_tensors; i++) {
            const struct sl_out_tensor *t = &w->out[i];
            uint64_t n = t->ne[0], row = turn * 7 % (t->elems / n);

            if (t->transform != SL_IDS && source_values(reader, t, row * n, n, y, &e) < 0)
                fail_msg("%s, row %llu: %s", t->name, (unsigned long long)row, e.text);
            if (t->transform == SL_IDS || t->transform == SL_PRODUCT || t->transform == SL_FIRST || (t->transform == SL_PERMUTE && t->n_dims == 1)) {
                assert_int_equal(source_row(rows, t, row, x, &e), SL_EUNSUPPORTED);
                continue;
            }
            if (source_row(rows, t, row, x, &e) < 0)
                fail_msg("%s, row %llu: %s", t->name, (unsigned long long)row, e.text);
            for (uint64_t c = 0; c < n; c++)
                if (x[c] != world_value(w, t, row * n + c) || y[c] != x[c])
                    fail_msg("%s, row %llu, column %llu", t->name, (unsigned long long)row, (unsigned long long)c);
        }
    source_rows_close(rows);
    source_reader_close(reader);
    free(x);
}

static void test_single_rows(void **state)
{
    void (*const what[])(struct world *) = {add_copies, add_scaled, add_heads, add_packed, add_views, add_made};

    (void)state;
    for (int k = 0; k < 6; k++) {
        struct world w;

        world_open(&w);
        world_file(&w, "a.safetensors");
        world_file(&w, "b.safetensors");
        what[k](&w);
        rows_of(&w);
        world_close(&w);
    }
}

/* Several tensors in one task: the checksum covers their checksums in order. */
static void test_many_in_one_task(void **state)
{
    struct sl_engine_opts o = {.threads = 2, .mem_bytes = 64u << 20, .slab_bytes = 1u << 17, .backend = SL_BACKEND_SCALAR};
    struct sl_engine_stats st;
    struct sl_engine *en = NULL;
    struct sl_error e = {0, ""};
    struct sl_task_result r;
    struct sl_hash *h = sl_hash_new(false);
    uint64_t sum = 0;
    struct world w;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    world_file(&w, "b.safetensors");
    add_heads(&w);
    w.task[0].n_items = w.plan.n_items;
    w.plan.n_tasks = 1;
    o.weights = world_weights(&w);
    o.segment_paths = w.segment_paths;
    world_seal(&w);
    for (uint32_t i = 0; i < w.plan.n_items; i++) {
        const struct sl_plan_item *it = &w.item[i];
        int type = w.pt[it->tensor].type;
        uint8_t *x = world_expected(&w, it->tensor, false);

        sum = sl_xxh64(x + (it->elem0 ? sl_type_bytes(type, it->elem0) : 0),
                       sl_type_bytes(type, it->elems));
        assert_int_equal(sl_hash_update(h, &sum, sizeof sum), 0);
        free(x);
    }
    assert_int_equal(sl_hash_final(h, &sum, NULL), 0);
    sl_hash_free(h);
    assert_int_equal(world_engine(&w, &o, &en, &e), 0);
    sl_engine_stats(en, &st);
    assert_string_equal(st.backend_name, "scalar");
    assert_int_equal(sl_engine_submit(en, 0, 1, &e), 0);
    r = world_wait(en);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.checksum, sum);
    sl_engine_close(en);
    world_close(&w);
}

/* Types of the same block size, each recipe's own. */
static int turn_types(int type, unsigned by)
{
    static const int kinds[3][3] = {{SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_BF16},
                                    {SL_TYPE_Q8_0, SL_TYPE_Q4_1, SL_TYPE_IQ4_NL},
                                    {SL_TYPE_Q4_K, SL_TYPE_Q6_K, SL_TYPE_Q3_K}};

    for (unsigned k = 0; k < 3; k++)
        for (unsigned i = 0; i < 3; i++)
            if (kinds[k][i] == type)
                return kinds[k][(i + by) % 3];
    return type;
}

static int second(int type)
{
    return turn_types(type, 1);
}

static int third(int type)
{
    return turn_types(type, 2);
}

/* Bytes read for all tasks of these members; what they write is checked. */
static uint64_t read_together(struct world *w, unsigned n, uint64_t slab)
{
    const struct sl_plan *plans[3];
    struct sl_engine_opts o[3];
    struct sl_engine *en = NULL;
    struct sl_engine_stats st;
    struct sl_error e = {0, ""};

    for (unsigned m = 0; m < n; m++) {
        world_seal(&w[m]);
        plans[m] = &w[m].plan;
        o[m] = (struct sl_engine_opts){.threads = 2, .mem_bytes = 64u << 20,
                                       .direct = slab < 1u << 20 ? SL_DIRECT_OFF : SL_DIRECT_ON,
                                       .slab_bytes = slab, .segment_paths = w[m].segment_paths,
                                       .round_bf16 = m == 1};
        if (m != 2)
            o[m].weights = world_weights(&w[m]);
    }
    if (sl_engine_open(&w->ck, plans, o, n, &en, &e) < 0)
        fail_msg("%s", e.text);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++)
        assert_int_equal(sl_engine_submit(en, i, (1u << n) - 1, &e), 0);
    for (uint32_t i = 0; i < n * w->plan.n_tasks; i++) {
        struct sl_task_result r = world_wait(en);
        uint8_t *bytes, *got;

        if (r.code < 0)
            fail_msg("%s", r.error.text);
        assert_true(r.member < n);
        bytes = world_expected(&w[r.member], r.task, r.member == 1);
        got = world_output(&w[r.member], r.task);
        assert_memory_equal(got, bytes, w[r.member].pt[r.task].bytes);
        assert_true(r.checksum == world_task_sum(&w[r.member], r.task, bytes));
        free(bytes);
        free(got);
    }
    for (uint32_t m = 0; m < n; m++)
        assert_int_equal(sl_engine_sync(en, m, &e), 0);
    sl_engine_stats(en, &st);
    assert_true(st.source_bytes == n * sl_engine_member_bytes(en, 0));
    sl_engine_close(en);
    return st.read_bytes;
}

/* Three recipes: each one's own bytes, and the source read once for all of them. */
static void test_recipes_share_their_reads(void **state)
{
    void (*const what[])(struct world *) = {add_copies, add_scaled, add_heads, add_views};
    /* In the largest, outputs lie as their pages do and are written with O_DIRECT. */
    const uint64_t slabs[] = {1u << 18, 0, 2u << 20};

    (void)state;
    for (unsigned k = 0; k < 12; k++) {
        struct world w[3];
        uint64_t one, three;

        for (unsigned m = 0; m < 3; m++) {
            world_open(&w[m]);
            w[m].retype = m == 0 ? NULL : m == 1 ? second : third;
            world_file(&w[m], "a.safetensors");
            world_file(&w[m], "b.safetensors");
            what[k % 4](&w[m]);
            for (uint32_t i = 0; m == 1 && i < WORLD_MAX; i++) /* each recipe's own weights, too */
                for (uint64_t v = 0; v < w[m].n_weights[i]; v++)
                    w[m].weights[i][v] = 2.0f - w[m].weights[i][v];
            for (uint32_t i = 0; m == 2 && i < WORLD_MAX; i++) {
                free(w[m].weights[i]);
                w[m].weights[i] = NULL;
            }
        }
        one = read_together(w, 1, slabs[k / 4]);
        three = read_together(w, 3, slabs[k / 4]);
        /* Units may be shorter, and then read a row of scales once more. */
        assert_true(one > 0 && three <= one + one / 10);
        /* Plans that are cut differently are refused. */
        w[1].item[0].elems--;
        assert_false(sl_engine_same_cuts(&w[0].plan, &w[1].plan));
        for (unsigned m = 0; m < 3; m++)
            world_close(&w[m]);
    }
}

/* In place of libc's: the time of day was set, so many seconds ahead. */
static int64_t ahead;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    long rc = syscall(SYS_clock_gettime, clock, t);

    t->tv_sec += clock == CLOCK_REALTIME ? ahead : 0;
    return (int)rc;
}

static int count_call(void *user, uint64_t done, uint64_t total, uint64_t read)
{
    assert_true(done <= total);
    (void)read;
    ++*(unsigned *)user;
    return 0;
}

/* Whoever waits for a measurement is asked while it lasts, not at its end alone. */
static void test_measuring_goes_by_no_time_of_day(void **state)
{
    const uint64_t types = 1u << SL_TYPE_IQ3_S | 1u << SL_TYPE_IQ3_XXS | 1u << SL_TYPE_IQ2_S | 1u << SL_TYPE_IQ1_M;
    struct measure_opts o = {.threads = 1, .backend = SL_BACKEND_SCALAR, .progress = count_call};
    double error[SL_TYPE_LIMIT];
    struct measure_stats st;
    struct sl_job_plan job;
    struct sl_error e;
    struct world w;
    unsigned calls = 0;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    world_out(&w, "a", SL_TYPE_Q4_K, SL_COPY, 1024, 1024, 0, world_source(&w, 0, "a", SL_DTYPE_BF16, 1024, 1024, 0, 0, 0), 1);
    world_seal(&w);
    job = (struct sl_job_plan){.ck = &w.ck, .model = &w.model, .plan = &w.plan};
    o.user = &calls;
    ahead = 365 * 86400;
    for (o.weights = 1 << 16; calls < 2 && o.weights <= 1 << 20; o.weights *= 2) { /* until one takes long enough */
        calls = 0;
        assert_int_equal(measure_errors(&job, &types, &o, error, &st, &e), 0);
    }
    ahead = 0;
    assert_true(calls >= 2);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_scaled),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_alike),
        cmocka_unit_test(test_single_rows),
        cmocka_unit_test(test_many_in_one_task),
        cmocka_unit_test(test_recipes_share_their_reads),
        cmocka_unit_test(test_measuring_goes_by_no_time_of_day),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
