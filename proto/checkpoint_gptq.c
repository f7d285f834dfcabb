/* Weights that programs for GPTQ pack as integers of 2, 4 or 8 bits: X.qweight (I32 [columns / n, rows]: n weights of a row's next columns
 * each, the first in the lowest bits), X.scales [groups, rows], X.qzeros (I32 [groups, rows / n]: n zero points of the next rows each,
 * in the first format of this kind one less than they are) and X.g_idx (I32: of each column its group). Such an X.qweight is X.weight of I2, I4
 * or UINT8, [rows, columns]. And those of AutoAWQ, of 4 bits: X.qweight (I32 [columns, rows / 8]: the same column of eight rows each, in the
 * order 0, 2, 4, 6, 1, 3, 5, 7), X.scales, and X.qzeros in that order and as they are; groups are columns in order. */
#include "proto/checkpoint_priv.h"
#include "proto/cursor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QWEIGHT ".qweight"

static int missing(const struct sl_checkpoint *ck, const char *name, size_t n, const char *suffix, struct sl_error *e)
{
    if (sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and '%.*s%s' is in another; give the folder, %s",
                       ck->files[0].path, (int)n, name, suffix, ck->dir);
    return sl_fail(e, SL_ESOURCE, "packed tensor '%.160s' has no '%.*s%s'; is the download complete?", name, (int)n, name, suffix);
}

/* t: X.qweight, X is n bytes of its name. */
static int check(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, size_t n, struct sl_error *e)
{
    static const char *const needed[] = {".scales", ".qzeros", ".g_idx"}; /* AWQ has no such list */
    uint64_t in_word = 32 / ck->int_bits, columns, elems;
    const struct sl_src_tensor *order;

    for (size_t i = 0; i < sizeof needed / sizeof *needed - !ck->int_order; i++)
        if (sl_ck_find_joined(ck, t->name, n, needed[i]) == SL_NO_TENSOR)
            return missing(ck, t->name, n, needed[i], e);
    if (sl_ck_find_joined(ck, t->name, n, ".weight") != SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "'%.160s' is there, and '%.*s.weight' too; expected one", t->name, (int)n, t->name);
    if (t->dtype != SL_DTYPE_I32 || t->n_dims != 2 || (ck->int_order && t->shape[1] % in_word) || !sl_mul_u64(t->elems, in_word, &elems))
        return sl_fail(e, SL_ESOURCE, "'%.160s' is no matrix of %s's %u-bit integers: expected I32 of two dimensions%s", t->name,
                       ck->int_order ? "GPTQ" : "AWQ", ck->int_bits, !ck->int_order ? "" : in_word == 16 ? ", of which 16 divides the second"
                       : in_word == 8 ? ", of which 8 divides the second" : ", of which 4 divides the second");
    if (!ck->int_order)
        return 0;
    columns = t->shape[0] * in_word;
    order = &ck->tensors[sl_ck_find_joined(ck, t->name, n, ".g_idx")];
    if (order->n_dims == 1 && order->elems != columns)
        return sl_fail(e, SL_EUNSUPPORTED, "'%.160s' has %" PRIu64 " entries, and '%.160s' %" PRIu64 " columns of %u bits, as config.json says: layers of "
                       "other bits ('dynamic') are not supported; give an FP8 or BF16 checkpoint of the model", order->name, order->elems, t->name,
                       columns, ck->int_bits);
    return 0;
}

/* Programs for GPTQ and AWQ have files of their own for what config.json is to tell, and old ones no other. */
static int does_not_say(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, struct sl_error *e)
{
    static const struct { const char *name, *method; } own[] = {{"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};
    char path[4096];

    sl_fail(e, SL_ESOURCE, "'%.160s' is packed, and config.json does not say how: expected a quantization_config with quant_method 'gptq' or 'awq'; "
            "is it of this model?", t->name);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (ck->dir && snprintf(path, sizeof path, "%s/%s", ck->dir, own[i].name) < (int)sizeof path && access(path, F_OK) == 0)
            sl_fail(e, SL_ESOURCE, "'%.160s' is packed, and config.json does not say how, but %s does: give config.json its entries as "
                    "quantization_config, with quant_method '%s'", t->name, own[i].name, own[i].method);
    if (sl_ck_method_first(ck, e) == SL_EUNSUPPORTED)
        return e->code;
    return sl_ck_class_first(ck, e) == SL_EUNSUPPORTED ? sl_fail_context(e, "config.json") : e->code;
}

static int refuse_untold(const struct sl_checkpoint *ck, struct sl_error *e)
{
    for (uint32_t i = 0; i < ck->n_tensors && ck->config; i++) {
        const struct sl_src_tensor *t = &ck->tensors[i];
        size_t n = sl_stem(t->name, QWEIGHT);

        if (n && t->dtype == SL_DTYPE_I32 && sl_ck_find_joined(ck, t->name, n, ".qzeros") != SL_NO_TENSOR)
            return does_not_say(ck, t, e);
    }
    return 0;
}

int sl_ck_take_gptq(struct sl_checkpoint *ck, struct sl_error *e)
{
    if (ck->is_gguf)
        return 0;
    if (ck->int_packing == SL_PACKED_ALONG)
        return refuse_untold(ck, e);
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        struct sl_src_tensor *t = &ck->tensors[i];
        size_t n = sl_stem(t->name, QWEIGHT);
        uint64_t rows = t->shape[1];

        if (!n)
            continue;
        SL_TRY(check(ck, t, n, e));
        t->dtype = ck->int_bits == 8 ? SL_DTYPE_UINT8 : ck->int_bits == 4 ? SL_DTYPE_I4 : SL_DTYPE_I2;
        t->elems *= 32 / ck->int_bits;
        t->shape[1] = t->shape[0] * (ck->int_packing == SL_PACKED_GPTQ ? 32 / ck->int_bits : 1);
        t->shape[0] = rows * (ck->int_packing == SL_PACKED_AWQ ? 32 / ck->int_bits : 1);
    }
    return sl_ck_name_weights(ck, QWEIGHT, e);
}
