/* Weights that compressed-tensors packs as integers of 4 or 8 bits, as Kimi-K2-Thinking's experts: X.weight_packed
 * (I32, eight or four weights each, the first in the lowest bits), X.weight_scale (one for each group of a
 * row) and X.weight_shape; where they are not symmetric X.weight_zero_point (one for each scale, packed down a column), and where
 * columns are not in order X.weight_g_idx. By bytes that is two weights each, the first in the low half: X.weight of I4; or one: of UINT8.
 * And those that it packs as MXFP4 or NVFP4: X.weight_packed (U8, two weights each) and X.weight_scale: X.weight of F4. */
#include "proto/checkpoint_priv.h"
#include "proto/cursor.h"
#include "proto/source_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_A_BYTE 2u
#define PACKED ".weight_packed"
#define WEIGHT ".weight"
#define ZEROS ".weight_zero_point"
#define ORDER ".weight_g_idx"

static uint64_t in_a_word(const struct sl_checkpoint *ck)
{
    return 32 / ck->int_bits;
}

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
    if (dims[0] == t->shape[0] && dims[1] == t->shape[1] * in_a_word(ck))
        return 0;
    return sl_fail(e, SL_ESOURCE, "'%.160s' says [%" PRIu64 ", %" PRIu64 "], and '%.160s' holds [%" PRIu64 ", %" PRIu64
                   "] weights; rows are to hold whole %s of %" PRIu64, shape->name, dims[0], dims[1], t->name, t->shape[0],
                   t->shape[1] * in_a_word(ck), ck->int_group ? "groups" : "words", ck->int_group ? ck->int_group : in_a_word(ck));
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
    if (t->dtype != SL_DTYPE_I32 || t->n_dims != 2 || !sl_mul_u64(t->elems, in_a_word(ck), &elems) ||
        (shape->dtype != SL_DTYPE_I32 && shape->dtype != SL_DTYPE_I64) || shape->n_dims != 1 || shape->elems != 2)
        return sl_fail(e, SL_ESOURCE, "'%.160s' and '%.160s' are no matrix of %u-bit integers: expected I32 of two "
                       "dimensions, and its two dimensions in I32 or I64", t->name, shape->name, ck->int_bits);
    if (t->file == *checked)
        return 0;
    *checked = t->file;
    return check_shape(ck, t, shape, e);
}

/* What config.json tells of. */
static int check_there(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, size_t n, struct sl_error *e)
{
    if (ck->int_zeros && sl_ck_find_joined(ck, t->name, n, ZEROS) == SL_NO_TENSOR)
        return missing(ck, t->name, n, ZEROS, e);
    if (ck->int_order && sl_ck_find_joined(ck, t->name, n, ORDER) == SL_NO_TENSOR)
        return missing(ck, t->name, n, ORDER, e);
    return 0;
}

static int check_packed(const struct sl_checkpoint *ck, const struct sl_src_tensor *t, size_t n, uint32_t *checked,
                        struct sl_error *e)
{
    static const struct { const char *suffix, *what; } odd[] = {
        {ZEROS, "zero points"}, {ORDER, "an order of its own"}, {".weight_global_scale", "a scale of the whole"}};

    if ((!ck->int_bits || ck->int_packing != SL_PACKED_ALONG) && !ck->mxfp4 && !ck->nvfp4) {
        sl_fail(e, SL_ESOURCE, "'%.160s' is packed, and config.json does not say how: expected a quantization_config "
                "with quant_method 'compressed-tensors' and format 'pack-quantized', 'mxfp4-pack-quantized' or "
                "'nvfp4-pack-quantized'; is it of this model?", t->name);
        return sl_ck_class_first(ck, e) == SL_EUNSUPPORTED ? sl_fail_context(e, "config.json") : e->code;
    }
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        if (!(i < 2 ? ck->int_bits : ck->nvfp4) && sl_ck_find_joined(ck, t->name, n, odd[i].suffix) != SL_NO_TENSOR)
            return sl_fail(e, SL_EUNSUPPORTED, "packed tensor '%.160s' has %s ('%.*s%s'), which are not supported: give an "
                           "FP8 or BF16 checkpoint of the model", t->name, odd[i].what, (int)n, t->name, odd[i].suffix);
    if (sl_ck_find_joined(ck, t->name, n, WEIGHT) != SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "'%.160s' is there, and '%.*s%s' too; expected one", t->name, (int)n, t->name, WEIGHT);
    if (sl_ck_find_joined(ck, t->name, n, ".weight_scale") == SL_NO_TENSOR)
        return missing(ck, t->name, n, ".weight_scale", e);
    if (ck->mxfp4 || ck->nvfp4)
        return check_floats(ck, t, e);
    SL_TRY(check_there(ck, t, n, e));
    return check_integers(ck, t, n, checked, e);
}

int sl_ck_name_weights(struct sl_checkpoint *ck, const char *from, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    size_t room = 0, n;
    char *to;

    for (uint32_t i = 0; i < ck->n_tensors; i++)
        room += (n = sl_stem(ck->tensors[i].name, from)) ? n + sizeof WEIGHT : 0;
    if (!room)
        return 0;
    to = p->arenas[p->n_arenas] = malloc(room);
    if (!to)
        return sl_fail(e, SL_EFAIL, "out of memory for the names of packed tensors");
    p->n_arenas++;
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        struct sl_src_tensor *t = &ck->tensors[i];

        if (!(n = sl_stem(t->name, from)))
            continue;
        memcpy(to, t->name, n);
        strcpy(to + n, WEIGHT);
        t->name = to;
        to += n + sizeof WEIGHT;
    }
    return sl_ck_name_anew(ck, e);
}

int sl_ck_take_packed(struct sl_checkpoint *ck, struct sl_error *e)
{
    bool floats = ck->mxfp4 || ck->nvfp4;
    uint32_t checked = UINT32_MAX;

    for (uint32_t i = 0; i < ck->n_tensors && !ck->is_gguf; i++) {
        struct sl_src_tensor *t = &ck->tensors[i];
        size_t n = sl_stem(t->name, PACKED);
        uint64_t weights;

        if (!n)
            continue;
        SL_TRY(check_packed(ck, t, n, &checked, e));
        weights = floats ? IN_A_BYTE : in_a_word(ck);
        t->dtype = floats ? SL_DTYPE_F4 : ck->int_bits == 8 ? SL_DTYPE_UINT8 : SL_DTYPE_I4;
        t->shape[1] *= weights;
        t->elems *= weights;
    }
    return ck->is_gguf ? 0 : sl_ck_name_weights(ck, PACKED, e);
}

/* Effect: *at = 1 + the tensor of integers that has that suffix in place of ".weight", whose shape is to be n numbers; 0: there is none. */
static int find_part(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, const char *suffix, uint32_t n_dims, const uint64_t *shape,
                     uint32_t *at, struct sl_error *e)
{
    uint32_t i = sl_ck_find_joined(ck, w->name, sl_stem(w->name, WEIGHT), suffix);
    char want[SL_SHAPE_TEXT], is[SL_SHAPE_TEXT];
    struct sl_src_tensor as = {.n_dims = n_dims};

    *at = 0;
    if (i == SL_NO_TENSOR)
        return 0;
    *at = i + 1;
    memcpy(as.shape, shape, n_dims * sizeof *shape);
    if (ck->tensors[i].dtype == SL_DTYPE_I32 && ck->tensors[i].n_dims == n_dims && memcmp(ck->tensors[i].shape, shape, n_dims * sizeof *shape) == 0)
        return 0;
    return sl_fail(e, SL_ESOURCE, "'%.160s' is %s of shape %s: expected I32 of %s", ck->tensors[i].name, sl_dtype_info(ck->tensors[i].dtype)->name,
                   sl_src_shape_text(&ck->tensors[i], is), sl_src_shape_text(&as, want));
}

int sl_ck_match_packing(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, struct sl_scale *s, struct sl_error *e)
{
    const uint64_t zeros[] = {sl_ceil_div_u64(s->rows, in_a_word(ck)), s->cols}, by_group[] = {zeros[1], zeros[0]};
    bool along = ck->int_packing == SL_PACKED_ALONG;

    s->packing = ck->int_packing;
    s->zero_plus = ck->int_zero_plus;
    SL_TRY(find_part(ck, w, along ? ZEROS : ".qzeros", 2, along ? zeros : by_group, &s->zeros, e));
    return find_part(ck, w, along ? ORDER : ".g_idx", 1, &w->shape[1], &s->order, e);
}

bool sl_ck_is_packing(const struct sl_checkpoint *ck, const char *name)
{
    static const char *const suffixes[] = {".weight_shape", ZEROS, ORDER, ".qzeros", ".g_idx"};

    for (size_t i = ck->int_packing == SL_PACKED_ALONG ? 0 : 3; i < (ck->int_packing == SL_PACKED_ALONG ? 3 : 5); i++) {
        size_t n = sl_stem(name, suffixes[i]);
        uint32_t w = n ? sl_ck_find_joined(ck, name, n, WEIGHT) : SL_NO_TENSOR;

        if (w != SL_NO_TENSOR && sl_packed_bits(ck->tensors[w].dtype))
            return true;
    }
    return false;
}
