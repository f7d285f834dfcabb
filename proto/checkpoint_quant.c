/* What config.json's quantization_config says of weights: blocks of FP8 and INT8, groups of packed ones. */
#include "proto/arch_table.h"
#include "proto/checkpoint_priv.h"
#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define GROUP_MAX (1u << 20)
#define MXFP8_GROUP 32u
#define GROUP_STEP 8u    /* weights of whole words */

static const cJSON *quantization(const struct sl_checkpoint *ck)
{
    return cJSON_GetObjectItemCaseSensitive(sl_checkpoint_config(ck), "quantization_config");
}

static bool is_text(const cJSON *item, const char *text)
{
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

/* What compressed-tensors says of its one group's weights, or NULL. */
static const cJSON *group_weights(const cJSON *q)
{
    const cJSON *groups = cJSON_GetObjectItemCaseSensitive(q, "config_groups");

    return cJSON_IsObject(groups) && groups->child && !groups->child->next
           ? cJSON_GetObjectItemCaseSensitive(groups->child, "weights") : NULL;
}

/* ---- FP8 and INT8 ---- */

static const cJSON *method_of(const cJSON *q)
{
    return cJSON_GetObjectItemCaseSensitive(q, "quant_method");
}

/* compressed-tensors' formats whose weights are not packed. */
static bool is_plain(const cJSON *format)
{
    static const char *const plain[] = {"float-quantized", "int-quantized", "naive-quantized", "mxfp8-quantized", "dense"};

    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (is_text(format, plain[i]))
            return true;
    return false;
}

static int add_block(struct sl_checkpoint *ck, struct sl_block block, struct sl_error *e)
{
    struct sl_block have;

    for (unsigned i = 0; (have = sl_checkpoint_block(ck, i)).rows; i++)
        if (have.rows == block.rows && have.cols == block.cols)
            return 0;
    if (ck->n_fp8_more == SL_MORE_BLOCKS)
        return sl_fail(e, SL_EUNSUPPORTED, "quantization_config's config_groups have blocks of more than %d sizes: give another FP8 checkpoint of the "
                       "model, or a BF16 one", SL_MORE_BLOCKS + 1);
    if (ck->fp8_block_rows) {
        ck->fp8_more[ck->n_fp8_more++] = block;
    } else {
        ck->fp8_block_rows = block.rows;
        ck->fp8_block_cols = block.cols;
    }
    return 0;
}

static int add_array(struct sl_checkpoint *ck, const cJSON *array, const char *name, struct sl_error *e)
{
    const cJSON *rows = array->child;
    struct sl_block block = {0, 0};

    if (cJSON_IsNull(array))
        return 0;
    if (!cJSON_IsArray(array) || !rows || !rows->next || rows->next->next || !sl_json_uint(rows, 1 << 20, &block.rows) ||
        !sl_json_uint(rows->next, 1 << 20, &block.cols) || block.rows == 0 || block.cols == 0)
        return sl_fail(e, SL_ESOURCE, "quantization_config's %s is not an array of two integers from 1 to 2^20", name);
    return add_block(ck, block, e);
}

/* compressed-tensors has blocks by groups of layers, "block_structure", or groups of a row. */
static int add_groups(struct sl_checkpoint *ck, const cJSON *q, struct sl_error *e)
{
    static const char name[] = "block_structure";
    bool plain = is_plain(cJSON_GetObjectItemCaseSensitive(q, "format"));
    const cJSON *group;

    cJSON_ArrayForEach(group, cJSON_GetObjectItemCaseSensitive(q, "config_groups")) {
        const cJSON *w = cJSON_GetObjectItemCaseSensitive(group, "weights"), *array = cJSON_GetObjectItemCaseSensitive(w, name);
        uint64_t size;

        if (array && !cJSON_IsNull(array))
            SL_TRY(add_array(ck, array, name, e));
        else if (plain && is_text(cJSON_GetObjectItemCaseSensitive(w, "strategy"), "group") &&
                 sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "group_size"), GROUP_MAX, &size) && size)
            SL_TRY(add_block(ck, (struct sl_block){1, size}, e));
    }
    return 0;
}

static int read_blocks(struct sl_checkpoint *ck, struct sl_error *e)
{
    static const char name[] = "weight_block_size";
    const cJSON *q = quantization(ck), *array = cJSON_GetObjectItemCaseSensitive(q, name);
    const char *strategy = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(group_weights(q), "strategy"));
    enum sl_modelopt algo = sl_arch_modelopt(q);

    ck->fp8_by_row = (strategy && strcmp(strategy, "channel") == 0) || is_text(method_of(q), "w8a8_int8") ||
                     is_text(method_of(q), "fbgemm_fp8");
    if (array && !cJSON_IsNull(array))
        return add_array(ck, array, name, e);
    SL_TRY(add_groups(ck, q, e));
    if (!ck->fp8_block_rows && algo == SL_MODELOPT_FP8_BLOCKS)
        return add_block(ck, (struct sl_block){128, 128}, e);
    if (!ck->fp8_block_rows && algo == SL_MODELOPT_MXFP8)
        return add_block(ck, (struct sl_block){1, MXFP8_GROUP}, e);
    return 0;
}

/* compressed-tensors' format says it, or "naive-quantized" and the weights' type; or one of SGLang's methods. */
static int read_int8(struct sl_checkpoint *ck, struct sl_error *e)
{
    const cJSON *q = quantization(ck), *w = group_weights(q), *method = method_of(q);
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(q, "format"), *symmetric = cJSON_GetObjectItemCaseSensitive(w, "symmetric");
    bool integers = is_text(cJSON_GetObjectItemCaseSensitive(w, "type"), "int");

    ck->int8 = is_text(method, "blockwise_int8") || is_text(method, "w8a8_int8") ||
               (is_text(method, "compressed-tensors") &&
                (is_text(format, "int-quantized") || (integers && is_text(format, "naive-quantized"))));
    if (!ck->int8 || !symmetric || cJSON_IsTrue(symmetric))
        return 0;
    sl_fail(e, SL_EUNSUPPORTED, "the weights are 8-bit integers with zero points ('symmetric' is not true), which are not supported: "
            "give an FP8 or BF16 checkpoint of the model");
    return sl_ck_class_first(ck, e);
}

/* ---- packed ---- */

/* The next three write what is not supported of a group's weights to buf, and return false when there is nothing. */
static bool odd_bits(const cJSON *w, const char *expected, uint64_t *bits, char *buf, size_t cap)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(w, "type");
    bool ints = strcmp(expected, "int") == 0;

    *bits = 0;
    if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "num_bits"), 64, bits) || (*bits != 4 && !(*bits == 8 && ints)))
        snprintf(buf, cap, "num_bits %" PRIu64 " instead of 4%s", *bits, ints ? " or 8" : "");
    else if (type && !is_text(type, expected))
        snprintf(buf, cap, "a type that is not '%s'", expected);
    else
        return false;
    return true;
}

static bool odd_floats(const cJSON *w, unsigned expected, char *buf, size_t cap)
{
    const cJSON *symmetric = cJSON_GetObjectItemCaseSensitive(w, "symmetric");
    uint64_t group = 0, bits;

    if (odd_bits(w, "float", &bits, buf, cap))
        return true;
    if (symmetric && !cJSON_IsTrue(symmetric)) {
        snprintf(buf, cap, "zero points ('symmetric' is not true)");
        return true;
    }
    if (sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "group_size"), UINT32_MAX, &group) && group == expected)
        return false;
    snprintf(buf, cap, "group_size %" PRIu64 " instead of %u", group, expected);
    return true;
}

static bool odd_integers(const cJSON *w, uint64_t *bits, uint64_t *group, char *buf, size_t cap)
{
    const cJSON *strategy = cJSON_GetObjectItemCaseSensitive(w, "strategy");

    *group = 0;
    if (odd_bits(w, "int", bits, buf, cap))
        return true;
    if (is_text(strategy, "channel"))
        return false;
    if (!is_text(strategy, "group"))
        snprintf(buf, cap, "a strategy that is not 'group' or 'channel'");
    else if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "group_size"), UINT32_MAX, group) || !*group)
        snprintf(buf, cap, "a group_size that is no number of weights");
    else if (*group > GROUP_MAX)
        snprintf(buf, cap, "a group_size above %u", GROUP_MAX);
    else if (*group % GROUP_STEP)
        snprintf(buf, cap, "a group_size that is no multiple of %u", GROUP_STEP);
    else
        return false;
    return true;
}

int sl_ck_class_first(const struct sl_checkpoint *ck, struct sl_error *e)
{
    struct sl_error class;

    if (sl_arch_check_class(sl_checkpoint_config(ck), &class) < 0)
        *e = class;
    return e->code;
}

int sl_ck_method_first(const struct sl_checkpoint *ck, struct sl_error *e)
{
    struct sl_error method;

    if (cJSON_IsString(method_of(quantization(ck))) && sl_arch_check_method(sl_checkpoint_config(ck), &method) < 0) {
        *e = method;
        return sl_ck_class_first(ck, e);
    }
    return e->code;
}

/* Effect: ck->int_*, of weights of which nothing is odd. */
static void set_integers(struct sl_checkpoint *ck, const cJSON *w, uint64_t bits, uint64_t group)
{
    const cJSON *symmetric = cJSON_GetObjectItemCaseSensitive(w, "symmetric"), *order = cJSON_GetObjectItemCaseSensitive(w, "actorder");

    ck->int_bits = (unsigned)bits;
    ck->int_group = group;
    ck->int_zeros = symmetric && !cJSON_IsTrue(symmetric);
    ck->int_order = order && !cJSON_IsNull(order) && !cJSON_IsFalse(order) && !is_text(order, "weight") && !is_text(order, "static");
}

static int read_group(struct sl_checkpoint *ck, const cJSON *q, struct sl_error *e)
{
    const cJSON *groups = cJSON_GetObjectItemCaseSensitive(q, "config_groups"), *w = group_weights(q);
    int n = cJSON_IsObject(groups) ? cJSON_GetArraySize(groups) : 0;
    unsigned floats = ck->mxfp4 ? SL_F4_GROUP : ck->nvfp4 ? SL_NVFP4_GROUP : 0;
    char odd[80], of[64] = "integers of 4 or 8 bits in groups of a row, or rows";
    uint64_t bits, group;

    if (floats)
        snprintf(of, sizeof of, "symmetric 4-bit floats in groups of %u", floats);
    if (n != 1)
        snprintf(odd, sizeof odd, "%d config_groups instead of one", n);
    else if (floats && !odd_floats(w, floats, odd, sizeof odd))
        return 0;
    else if (!floats && !odd_integers(w, &bits, &group, odd, sizeof odd)) {
        set_integers(ck, w, bits, group);
        return 0;
    }
    sl_fail(e, SL_EUNSUPPORTED, "the weights are packed with %s, and only %s are supported: give an FP8 or BF16 checkpoint of the model", odd, of);
    return sl_ck_class_first(ck, e);
}

/* quant_method "gptq"; the second format of these, without which there is the first, has zero points as they are. */
static int read_gptq(struct sl_checkpoint *ck, const cJSON *q, struct sl_error *e)
{
    const cJSON *form = cJSON_GetObjectItemCaseSensitive(q, "checkpoint_format"), *words = cJSON_GetObjectItemCaseSensitive(q, "pack_dtype");
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(q, "group_size");
    uint64_t bits = 0, group = 0;
    char odd[100];

    if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(q, "bits"), 64, &bits) || (bits != 2 && bits != 4 && bits != 8))
        snprintf(odd, sizeof odd, "bits %" PRIu64 " instead of 2, 4 or 8", bits);
    else if (form && !cJSON_IsNull(form) && !is_text(form, "gptq") && !is_text(form, "gptq_v2"))
        snprintf(odd, sizeof odd, "checkpoint_format '%.40s' instead of 'gptq' or 'gptq_v2'", cJSON_IsString(form) ? form->valuestring : "");
    else if (words && !cJSON_IsNull(words) && !is_text(words, "int32"))
        snprintf(odd, sizeof odd, "pack_dtype '%.40s' instead of 'int32'", cJSON_IsString(words) ? words->valuestring : "");
    else {
        ck->int_bits = (unsigned)bits;
        ck->int_group = sl_json_uint(size, GROUP_MAX, &group) ? group : 0; /* -1: the whole row */
        ck->int_zeros = ck->int_order = true;
        ck->int_packing = SL_PACKED_GPTQ;
        ck->int_zero_plus = !is_text(form, "gptq_v2");
        return 0;
    }
    sl_fail(e, SL_EUNSUPPORTED, "the weights are packed by quant_method 'gptq' with %s, which is not supported: give an FP8 or BF16 "
            "checkpoint of the model", odd);
    return sl_ck_class_first(ck, e);
}

/* quant_method "awq", AutoAWQ's. */
static int read_awq(struct sl_checkpoint *ck, const cJSON *q, struct sl_error *e)
{
    const cJSON *version = cJSON_GetObjectItemCaseSensitive(q, "version"), *zeros = cJSON_GetObjectItemCaseSensitive(q, "zero_point");
    const char *text = cJSON_GetStringValue(version);
    uint64_t bits = 0, group = 0;
    char odd[100];

    if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(q, "bits"), 64, &bits) || bits != 4)
        snprintf(odd, sizeof odd, "bits %" PRIu64 " instead of 4", bits);
    else if (text && strcasecmp(text, "gemm") != 0)
        snprintf(odd, sizeof odd, "version '%.40s' instead of 'gemm'", text);
    else if (zeros && !cJSON_IsTrue(zeros))
        snprintf(odd, sizeof odd, "a zero_point that is not true");
    else {
        ck->int_bits = (unsigned)bits;
        ck->int_group = sl_json_uint(cJSON_GetObjectItemCaseSensitive(q, "group_size"), GROUP_MAX, &group) ? group : 0; /* -1: the whole row */
        ck->int_zeros = true;
        ck->int_packing = SL_PACKED_AWQ;
        return 0;
    }
    sl_fail(e, SL_EUNSUPPORTED, "the weights are packed by quant_method 'awq' with %s, which is not supported: give an FP8 or BF16 "
            "checkpoint of the model", odd);
    return sl_ck_class_first(ck, e);
}

static int read_packing(struct sl_checkpoint *ck, struct sl_error *e)
{
    const cJSON *q = quantization(ck), *format = cJSON_GetObjectItemCaseSensitive(q, "format");

    ck->nvfp4 = sl_arch_modelopt(q) == SL_MODELOPT_NVFP4;
    ck->mxfp4 = sl_arch_modelopt(q) == SL_MODELOPT_MXFP4 || sl_arch_quark(q, "fp4");
    if (is_text(method_of(q), "gptq"))
        return read_gptq(ck, q, e);
    if (is_text(method_of(q), "awq"))
        return read_awq(ck, q, e);
    if (!is_text(method_of(q), "compressed-tensors") || !cJSON_IsString(format) || is_plain(format))
        return 0;
    ck->mxfp4 = is_text(format, "mxfp4-pack-quantized");
    ck->nvfp4 = is_text(format, "nvfp4-pack-quantized");
    if (ck->mxfp4 || ck->nvfp4 || is_text(format, "pack-quantized"))
        return read_group(ck, q, e);
    sl_fail(e, SL_EUNSUPPORTED, "the weights are packed by quant_method 'compressed-tensors', "
            "format '%.60s', and only FP8, INT8, unquantized weights, 'pack-quantized', 'mxfp4-pack-quantized' and "
            "'nvfp4-pack-quantized' ones are supported: give an FP8 or BF16 checkpoint of the model", format->valuestring);
    return sl_ck_class_first(ck, e);
}

/* compressed-tensors may turn a model's weights together with what they are multiplied by: other weights, which changes nothing,
 * or activations while it runs, which llama.cpp does not. */
static int check_turned(const struct sl_checkpoint *ck, struct sl_error *e)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(quantization(ck), "transform_config"), *group, *apply;

    cJSON_ArrayForEach(group, cJSON_GetObjectItemCaseSensitive(all, "config_groups"))
        cJSON_ArrayForEach(apply, cJSON_GetObjectItemCaseSensitive(group, "apply")) {
            const cJSON *where = cJSON_GetObjectItemCaseSensitive(apply, "location");

            if (is_text(where, "weight_input") || is_text(where, "weight_output"))
                continue;
            sl_fail(e, SL_EUNSUPPORTED, "the model turns its activations while it runs (quantization_config's transform_config, location '%.40s'), "
                    "which llama.cpp does not: give another checkpoint of it", cJSON_IsString(where) ? where->valuestring : "");
            return sl_ck_class_first(ck, e);
        }
    return 0;
}

int sl_ck_read_quantization(struct sl_checkpoint *ck, struct sl_error *e)
{
    SL_TRY(check_turned(ck, e));
    ck->fp8_method = is_text(method_of(quantization(ck)), "fp8");
    SL_TRY(read_blocks(ck, e));
    SL_TRY(read_int8(ck, e));
    return read_packing(ck, e);
}
