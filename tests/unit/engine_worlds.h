/* What engine_convert_test converts: every transform, source type, shape of scales and order of elements. */
#ifndef SLUICE_TESTS_ENGINE_WORLDS_H
#define SLUICE_TESTS_ENGINE_WORLDS_H

#include "tests/unit/engine_world.h"

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

/* Rows of zeros of either sign, each as long as what is quantized in one go. */
static void add_zeros(struct world *w)
{
    uint32_t s = world_source(w, 0, "zeros", SL_DTYPE_BF16, 4, 8192, 0, 0, 0), tensor = w->src[s].tensor;
    const struct sl_src_tensor *t = &w->tensor[tensor];

    memset(w->data[tensor], 0, t->bytes);
    for (uint64_t i = 1; i < t->bytes; i += 2)
        w->data[tensor][i] = i / (2 * 8192) % 2 ? 0x80 : 0;
    assert_int_equal(pwrite(w->fd[0], w->data[tensor], t->bytes, (off_t)t->offset), (ssize_t)t->bytes);
    add(w, world_out(w, "zeros.f32", SL_TYPE_F32, SL_COPY, 8192, 4, 0, s, 1), 0);
    add(w, world_out(w, "zeros.f16", SL_TYPE_F16, SL_COPY, 8192, 4, 0, s, 1), 0);
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
    s = world_source(w, 0, "expert0", SL_DTYPE_BF16, 4, 96, 0, 0, 0);
    for (int i = 1; i < 4; i++) { /* of several sources some are copied */
        char name[24];

        snprintf(name, sizeof name, "expert%d", i);
        world_source(w, 0, name, i == 1 ? SL_DTYPE_F16 : SL_DTYPE_F32, 4, 96, 0, 0, 0);
    }
    add(w, world_out(w, "mixed.f32", SL_TYPE_F32, SL_COPY, 96, 4, 4, s, 4), 0);
    t = world_out(w, "values", SL_TYPE_F32, SL_INLINE, 40, 0, 0, 0, 0);
    t->values = inline_values;
    add(w, t, 0);
    add_ids(w);
    add_norms(w);
    add_zeros(w);
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
    add(w, world_out(w, "stack.q2_0", SL_TYPE_Q2_0, SL_COPY, 768, 200, 5, s - 4, 5), 768 * 61);
    world_weigh(w, add(w, world_out(w, "stack.q1_0.weighted", SL_TYPE_Q1_0, SL_COPY, 768, 200, 5, s - 4, 5), 0));
    world_weigh(w, add(w, world_out(w, "stack.q4_k.weighted", SL_TYPE_Q4_K, SL_COPY, 768, 200, 5, s - 4, 5),
                       768 * 333)); /* what is computed in one go spans two experts */
    s = world_source(w, 0, "by_row", SL_DTYPE_F8_E4M3, 70, 512, SL_DTYPE_BF16, 1, 512);
    add(w, world_out(w, "by_row.q6_k", SL_TYPE_Q6_K, SL_COPY, 512, 70, 0, s, 1), 0);
    add(w, world_out(w, "by_row.mxfp4", SL_TYPE_MXFP4, SL_COPY, 512, 70, 0, s, 1), 512 * 3);
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

/* 4-bit integers, a byte for two: in order, a head's columns, rows in pairs, longer rows than a slab; and of eight bits, by
 * blocks and by rows. */
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
    s = world_source(w, 0, "int8_kv_b", SL_DTYPE_INT8, 2 * (128 + 32), 1024, SL_DTYPE_F32, 128, 128);
    t = world_out(w, "int8_k_b", SL_TYPE_Q4_1, SL_K_B, 128, 1024, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    add(w, t, 0);
    s = world_source(w, 1, "int8_q", SL_DTYPE_INT8, 8 * 16, 256, SL_DTYPE_BF16, 1, 256);
    t = world_out(w, "int8_q", SL_TYPE_Q8_0, SL_PERMUTE, 256, 8 * 16, 0, s, 1);
    t->heads = 8;
    add(w, t, 256 * 16 * 3);
}

/* Integers with zero points and columns in no order: a stack, a head's columns, rows in pairs, runs. */
static void add_unordered(struct world *w)
{
    static const struct sl_view columns = {1, {{64 * 192, 0, 32, {2, 3}, {96, 32, 192}}}, 192};
    struct sl_out_tensor *t;
    uint32_t s = 0;

    for (int i = 0; i < 4; i++) {
        char name[24];

        snprintf(name, sizeof name, "unordered%d", i);
        s = world_source(w, (uint32_t)(i % 2), name, i % 2 ? SL_DTYPE_I4 : SL_DTYPE_UINT8, 203, 768, SL_DTYPE_BF16, 1, 32);
        world_pack(w, s, i < 3, i > 0, SL_PACKED_ALONG);
    }
    add(w, world_out(w, "unordered.q4_k", SL_TYPE_Q4_K, SL_COPY, 768, 203, 4, s - 3, 4), 768 * 100);
    add(w, world_out(w, "unordered.f32", SL_TYPE_F32, SL_COPY, 768, 203, 4, s - 3, 4), 768 * 7);
    add(w, world_out(w, "unordered.q8_0", SL_TYPE_Q8_0, SL_COPY, 768, 203, 4, s - 3, 4), 768 * 13);
    world_weigh(w, add(w, world_out(w, "unordered.q6_k.weighted", SL_TYPE_Q6_K, SL_COPY, 768, 203, 4, s - 3, 4), 768 * 203));
    s = world_source(w, 0, "unordered_kv_b", SL_DTYPE_I4, 2 * (128 + 32), 1024, SL_DTYPE_F16, 1, 64);
    world_pack(w, s, true, true, SL_PACKED_ALONG);
    t = world_out(w, "unordered_k_b", SL_TYPE_Q4_1, SL_K_B, 128, 1024, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    add(w, t, 0);
    t = world_out(w, "unordered_v_b", SL_TYPE_Q8_0, SL_V_B, 1024, 32, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 1024;
    add(w, t, 1024 * 9);
    s = world_source(w, 1, "unordered_q", SL_DTYPE_UINT8, 8 * 16, 256, SL_DTYPE_F32, 1, 64);
    world_pack(w, s, true, true, SL_PACKED_ALONG);
    t = world_out(w, "unordered_q", SL_TYPE_F16, SL_PERMUTE, 256, 8 * 16, 0, s, 1);
    t->heads = 8;
    add(w, t, 256 * 16 * 3);
    s = world_source(w, 1, "unordered_view", SL_DTYPE_I4, 64, 192, SL_DTYPE_BF16, 1, 32);
    world_pack(w, s, true, true, SL_PACKED_ALONG);
    t = world_out(w, "unordered_view", SL_TYPE_Q5_1, SL_VIEW, 192, 64, 0, s, 1);
    t->view = &columns;
    add(w, t, 192 * 33);
}

/* The same where rows lie side by side: a stack in which some do, a head's columns, rows in pairs, runs. */
static void add_side_by_side(struct world *w)
{
    static const struct sl_view columns = {1, {{64 * 192, 0, 32, {2, 3}, {96, 32, 192}}}, 192};
    struct sl_out_tensor *t;
    uint32_t s = 0;

    for (int i = 0; i < 4; i++) {
        char name[24];

        snprintf(name, sizeof name, "beside%d", i);
        s = world_source(w, (uint32_t)(i % 2), name, i % 2 ? SL_DTYPE_I4 : SL_DTYPE_UINT8, 200, 768, SL_DTYPE_F16, 1, 32);
        world_pack(w, s, true, i == 1 || i == 2, i == 2 ? SL_PACKED_ALONG : i == 3 ? SL_PACKED_AWQ : SL_PACKED_GPTQ);
    }
    add(w, world_out(w, "beside.q4_k", SL_TYPE_Q4_K, SL_COPY, 768, 200, 4, s - 3, 4), 768 * 100);
    add(w, world_out(w, "beside.f32", SL_TYPE_F32, SL_COPY, 768, 200, 4, s - 3, 4), 768 * 7);
    add(w, world_out(w, "beside.q8_0", SL_TYPE_Q8_0, SL_COPY, 768, 200, 4, s - 3, 4), 768 * 13);
    world_weigh(w, add(w, world_out(w, "beside.q6_k.weighted", SL_TYPE_Q6_K, SL_COPY, 768, 200, 4, s - 3, 4), 768 * 200));
    s = world_source(w, 1, "beside_tall", SL_DTYPE_I2, 1600, 512, SL_DTYPE_F32, 1, 128);
    world_pack(w, s, true, true, SL_PACKED_GPTQ);
    add(w, world_out(w, "beside_tall.q8_0", SL_TYPE_Q8_0, SL_COPY, 512, 1600, 0, s, 1), 0);
    s = world_source(w, 1, "beside_awq", SL_DTYPE_I4, 1600, 512, SL_DTYPE_F16, 1, 64);
    world_pack(w, s, true, false, SL_PACKED_AWQ);
    add(w, world_out(w, "beside_awq.q5_k", SL_TYPE_Q5_K, SL_COPY, 512, 1600, 0, s, 1), 512 * 333);
    s = world_source(w, 0, "beside_kv_b", SL_DTYPE_I4, 2 * (128 + 32), 256, SL_DTYPE_F16, 1, 64);
    world_pack(w, s, true, true, SL_PACKED_GPTQ);
    t = world_out(w, "beside_k_b", SL_TYPE_Q4_1, SL_K_B, 128, 256, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 256;
    add(w, t, 0);
    t = world_out(w, "beside_v_b", SL_TYPE_Q8_0, SL_V_B, 256, 32, 2, s, 1);
    t->heads = 2, t->nope = 128, t->v_dim = 32, t->lora = 256;
    add(w, t, 256 * 9);
    s = world_source(w, 1, "beside_q", SL_DTYPE_UINT8, 8 * 16, 256, SL_DTYPE_BF16, 1, 64);
    world_pack(w, s, true, true, SL_PACKED_GPTQ);
    t = world_out(w, "beside_q", SL_TYPE_F16, SL_PERMUTE, 256, 8 * 16, 0, s, 1);
    t->heads = 8;
    add(w, t, 256 * 16 * 3);
    s = world_source(w, 1, "beside_view", SL_DTYPE_I4, 64, 192, SL_DTYPE_BF16, 1, 32);
    world_pack(w, s, true, false, SL_PACKED_AWQ);
    t = world_out(w, "beside_view", SL_TYPE_Q5_1, SL_VIEW, 192, 64, 0, s, 1);
    t->view = &columns;
    add(w, t, 192 * 33);
}

/* Rows that are read with their neighbours, or with a list of their columns' groups, and fit no small slab; large reads, where
 * files have integers anywhere. */
static void add_long_packed(struct world *w)
{
    uint32_t s;

    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"long_gptq", "long_awq", "long_order"};

        w->file[1].size++;
        s = world_source(w, 1, names[i], SL_DTYPE_I4, 16, 1 << 15, SL_DTYPE_F16, 1, 128);
        world_pack(w, s, true, i != 1, i == 0 ? SL_PACKED_GPTQ : i == 1 ? SL_PACKED_AWQ : SL_PACKED_ALONG);
        add(w, world_out(w, names[i], SL_TYPE_Q8_0, SL_COPY, 1 << 15, 16, 0, s, 1), 3 << 15);
    }
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

/* Experts that are transposed: all columns of a matrix, or half of them; a matrix is larger than a tiny slab. */
static void add_columns(struct world *w)
{
    uint32_t fp8 = world_source(w, 1, "gate_up", SL_DTYPE_F8_E4M3, 3 * 256, 2 * 192, SL_DTYPE_BF16, 128, 128);
    uint32_t bf16 = world_source(w, 0, "gate_up_large", SL_DTYPE_BF16, 2 * 1024, 2 * 96, 0, 0, 0);
    struct sl_out_tensor *t;

    for (int up = 0; up < 2; up++) {
        t = world_out(w, up ? "up" : "gate", up ? SL_TYPE_Q4_K : SL_TYPE_Q8_0, SL_K_B, 256, 192, 3, fp8, 1);
        t->heads = 3, t->nope = 256, t->lora = 192, t->col0 = up ? 192 : 0;
        add(w, t, up ? 256 * 192 : 0);
        t = world_out(w, up ? "up_large" : "gate_large", up ? SL_TYPE_Q3_K : SL_TYPE_F16, SL_K_B, 1024, 96, 2, bf16, 1);
        t->heads = 2, t->nope = 1024, t->lora = 96, t->col0 = up ? 96 : 0;
        if (up)
            world_weigh(w, add(w, t, 0));
        else
            add(w, t, 0);
    }
    t = world_out(w, "down", SL_TYPE_Q6_K, SL_K_B, 256, 2 * 192, 3, fp8, 1);
    t->heads = 3, t->nope = 256, t->lora = 2 * 192;
    add(w, t, 0);
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
    add_columns(w);
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

/* A source of several parts, whose blocks of br rows begin anew with each. */
static uint32_t source_of_parts(struct world *w, const char *name, uint64_t parts, uint64_t each, uint64_t cols, uint64_t br, uint64_t bc)
{
    uint64_t blocks = (each + br - 1) / br, rows = parts * each;
    uint32_t s = world_source(w, 1, name, SL_DTYPE_F8_E4M3, rows, cols, SL_DTYPE_F32, (rows + parts * blocks - 1) / (parts * blocks), bc);

    assert_int_equal(w->src[s].scale.rows, parts * blocks);
    w->src[s].scale.block_rows = br;
    w->src[s].scale.part_rows = each;
    w->src[s].scale.part_blocks = blocks;
    return s;
}

/* Queries, keys and values of four parts, one kind after the other; in order, as rows longer than a slab, and with a scale for
 * every three weights of a row, which fit none. */
static void add_parts(struct world *w)
{
    static const struct sl_view kinds = {3, {{48 * 512, 0, 12 * 512, {4, 1}, {20 * 512}}, {16 * 512, 12 * 512, 4 * 512, {4, 1}, {20 * 512}},
                                             {16 * 512, 16 * 512, 4 * 512, {4, 1}, {20 * 512}}}, 0};
    const uint64_t tall[3] = {512, 80};
    uint32_t s = source_of_parts(w, "kinds", 4, 20, 512, 16, 128);

    add_view(w, "kinds.f32", SL_TYPE_F32, &kinds, tall, s, 0, 0);
    add_view(w, "kinds.q6_k", SL_TYPE_Q6_K, &kinds, tall, s, 0, 512 * 37);
    world_weigh(w, add_view(w, "kinds.q3_k.weighted", SL_TYPE_Q3_K, &kinds, tall, s, 0, 512 * 13));
    add(w, world_out(w, "parts.q4_k", SL_TYPE_Q4_K, SL_COPY, 512, 80, 0, s, 1), 512 * 33);
    s = source_of_parts(w, "threes", 2, 4, 32768, 3, 3);
    add(w, world_out(w, "threes.q4_k", SL_TYPE_Q4_K, SL_COPY, 32768, 8, 0, s, 1), 0);
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

#endif
