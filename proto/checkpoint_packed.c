/* Weights that compressed-tensors packs as 4-bit integers, as Kimi-K2-Thinking's experts: X.weight_packed
 * (I32, eight weights each, the first in the lowest bits), X.weight_scale (one for each group of a
 * row) and X.weight_shape. By bytes that is two weights each, the first in the low half: X.weight of I4.
 * And those that it packs as MXFP4 or NVFP4: X.weight_packed (U8, two weights each) and X.weight_scale: X.weight of F4. */
#include "proto/checkpoint_priv.h"
#include "proto/cursor.h"
#include "proto/source_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_A_WORD 8u    /* weights */
#define IN_A_BYTE 2u
#define PACKED ".weight_packed"
#define WEIGHT ".weight"

static int missing(const struct sl_checkpoint *ck, const char *packed, size_t n, const char *suffix, struct sl_error *e)
{
    if (sl_checkpoint_is_shard(ck))
        return sl_fail(e, SL_ESOURCE, "%s is one shard of a checkpoint, and '%.*s%s' is in another; give the folder, %s",
                       ck->files[0].path, (int)n, packed, suffix, ck->dir);
    return sl_fail(e, SL_ESOURCE, "packed tensor '%.160s' has no '%.*s%s'; is the download complete?", packed, (int)n,
                   packed, suffix);
}

/* The headers say it as well, and nothing is made of it: of a file's shapes the first is read. All
 * 70,000 of Kimi-K2-Thinking's would be as many reads, each far from the next. */
static int check_shape(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, const struct sl_src_tensor *shape,
                       struct sl_error *e)
{
    uint8_t raw[16] = {0};
    struct sl_source_stat st;
    uint64_t dims[2] = {0};
    int fd, rc;

    SL_TRY(sl_source_open_path(ck->files[shape->file].path, ck->roots, &fd, &st, e));
    rc = sl_source_read(fd, ck->files[shape->file].path, raw, shape->bytes, shape->offset, e);
    close(fd);
    SL_TRY(rc);
    for (int i = 0; i < 2; i++)
        memcpy(&dims[i], raw + (size_t)i * shape->bytes / 2, shape->bytes / 2);
    if (dims[0] == t->shape[0] && dims[1] == t->shape[1] * IN_A_WORD)
        return 0;
    return sl_fail(e, SL_ESOURCE, "'%.160s' says [%" PRIu64 ", %" PRIu64 "], and '%.160s' holds [%" PRIu64 ", %" PRIu64
                   "] weights; rows are to hold whole groups of %" PRIu64, shape->name, dims[0], dims[1], t->name,
                   t->shape[0], t->shape[1] * IN_A_WORD, ck->i4_group);
}

static int check_floats(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, struct sl_error *e)
{
    uint64_t elems;

    if (t->dtype == SL_DTYPE_U8 && t->n_dims == 2 && sl_mul_u64(t->elems, IN_A_BYTE, &elems))
        return 0;
    return sl_fail(e, SL_ESOURCE, "'%.160s' is no matrix of %s, as config.json says: expected U8 of two dimensions", t->name,
                   ck->nvfp4 ? "NVFP4" : "MXFP4");
}

/* X is the first n bytes of the name; *checked: the file of which a shape was read last. */
static int check_integers(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, size_t n, uint32_t *checked,
                          struct sl_error *e)
{
    uint32_t at = sl_ck_find_joined(ck, t->name, n, ".weight_shape");
    const struct sl_src_tensor *shape;
    uint64_t elems;

    if (at == SL_NO_TENSOR)
        return missing(ck, t->name, n, ".weight_shape", e);
    shape = &ck->tensors[at];
    if (t->dtype != SL_DTYPE_I32 || t->n_dims != 2 || !sl_mul_u64(t->elems, IN_A_WORD, &elems) ||
        (shape->dtype != SL_DTYPE_I32 && shape->dtype != SL_DTYPE_I64) || shape->n_dims != 1 || shape->elems != 2)
        return sl_fail(e, SL_ESOURCE, "'%.160s' and '%.160s' are no matrix of 4-bit integers: expected I32 of two "
                       "dimensions, and its two dimensions in I32 or I64", t->name, shape->name);
    if (t->file == *checked)
        return 0;
    *checked = t->file;
    return check_shape(ck, t, shape, e);
}

static int check_packed(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, size_t n, uint32_t *checked,
                        struct sl_error *e)
{
    static const struct { const char *suffix, *what; } odd[] = {
        {".weight_zero_point", "zero points"}, {".weight_g_idx", "an order of its own"},
        {".weight_global_scale", "a scale of the whole"}};

    if (!ck->i4_group && !ck->mxfp4 && !ck->nvfp4) {
        sl_fail(e, SL_ESOURCE, "'%.160s' is packed, and config.json does not say how: expected a quantization_config "
                "with quant_method 'compressed-tensors' and format 'pack-quantized', 'mxfp4-pack-quantized' or "
                "'nvfp4-pack-quantized'; is it of this model?", t->name);
        return sl_ck_class_first(ck, e) == SL_EUNSUPPORTED ? sl_fail_context(e, "config.json") : e->code;
    }
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        if ((i < 2 || !ck->nvfp4) && sl_ck_find_joined(ck, t->name, n, odd[i].suffix) != SL_NO_TENSOR)
            return sl_fail(e, SL_EUNSUPPORTED, "packed tensor '%.160s' has %s ('%.*s%s'), which are not supported: give an "
                           "FP8 or BF16 checkpoint of the model", t->name, odd[i].what, (int)n, t->name, odd[i].suffix);
    if (sl_ck_find_joined(ck, t->name, n, WEIGHT) != SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "'%.160s' is there, and '%.*s%s' too; expected one", t->name, (int)n, t->name, WEIGHT);
    if (sl_ck_find_joined(ck, t->name, n, ".weight_scale") == SL_NO_TENSOR)
        return missing(ck, t->name, n, ".weight_scale", e);
    return ck->mxfp4 || ck->nvfp4 ? check_floats(ck, t, e) : check_integers(ck, t, n, checked, e);
}

static int rename_all(struct sl_checkpoint *ck, size_t room, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    unsigned weights = ck->mxfp4 || ck->nvfp4 ? IN_A_BYTE : IN_A_WORD;
    char *to = p->arenas[p->n_arenas] = malloc(room);

    if (!to)
        return sl_fail(e, SL_EFAIL, "out of memory for the names of packed tensors");
    p->n_arenas++;
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        struct sl_src_tensor *t = &ck->tensors[i];
        size_t n = sl_stem(t->name, PACKED);

        if (!n)
            continue;
        memcpy(to, t->name, n);
        strcpy(to + n, WEIGHT);
        t->name = to;
        to += n + sizeof WEIGHT;
        t->dtype = ck->mxfp4 || ck->nvfp4 ? SL_DTYPE_F4 : SL_DTYPE_I4;
        t->shape[1] *= weights;
        t->elems *= weights;
    }
    return sl_ck_name_anew(ck, e);
}

int sl_ck_take_packed(struct sl_checkpoint *ck, struct sl_error *e)
{
    uint32_t checked = UINT32_MAX;
    size_t room = 0;

    for (uint32_t i = 0; i < ck->n_tensors && !ck->is_gguf; i++) {
        size_t n = sl_stem(ck->tensors[i].name, PACKED);

        if (!n)
            continue;
        SL_TRY(check_packed(ck, &ck->tensors[i], n, &checked, e));
        room += n + sizeof WEIGHT;
    }
    return room ? rename_all(ck, room, e) : 0;
}
