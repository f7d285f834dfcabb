/* Weights that compressed-tensors packs as 4-bit integers, as Kimi-K2-Thinking's experts: X.weight_packed
 * (I32, eight weights each, the first in the lowest bits), X.weight_scale (one for each group of a
 * row) and X.weight_shape. By bytes that is two weights each, the first in the low half: X.weight of I4.
 * And those that it packs as MXFP4: X.weight_packed (U8, two weights each) and X.weight_scale: X.weight of F4. */
#include "proto/arch_table.h"
#include "proto/checkpoint_priv.h"
#include "proto/cursor.h"
#include "proto/json_file.h"
#include "proto/recipe_pattern.h"
#include "proto/source_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_A_WORD 8u    /* weights */
#define IN_A_BYTE 2u
#define GROUP_MAX (1u << 20)
#define NAMES_MAX 4096   /* entries of "ignore" that are looked at: GLM-4.6-FP8 names 800 layers, */
#define PATTERNS_MAX 100 /* and of these the expressions */
#define PACKED ".weight_packed"
#define WEIGHT ".weight"

/* ---- config.json ---- */

static const cJSON *quantization(const struct sl_checkpoint *ck)
{
    return cJSON_GetObjectItemCaseSensitive(sl_checkpoint_config(ck), "quantization_config");
}

static bool is_text(const cJSON *item, const char *text)
{
    return cJSON_IsString(item) && strcmp(item->valuestring, text) == 0;
}

/* The next three write what is not supported of a group's weights to buf, and return false when there is nothing. */
static bool odd_4bit(const cJSON *w, const char *expected, char *buf, size_t cap)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(w, "type");
    const cJSON *symmetric = cJSON_GetObjectItemCaseSensitive(w, "symmetric");
    uint64_t bits = 0;

    if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "num_bits"), 64, &bits) || bits != 4)
        snprintf(buf, cap, "num_bits %" PRIu64 " instead of 4", bits);
    else if (type && !is_text(type, expected))
        snprintf(buf, cap, "a type that is not '%s'", expected);
    else if (symmetric && !cJSON_IsTrue(symmetric))
        snprintf(buf, cap, "zero points ('symmetric' is not true)");
    else
        return false;
    return true;
}

static bool odd_mxfp4(const cJSON *w, char *buf, size_t cap)
{
    uint64_t group = 0;

    if (odd_4bit(w, "float", buf, cap))
        return true;
    if (sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "group_size"), UINT32_MAX, &group) && group == SL_F4_GROUP)
        return false;
    snprintf(buf, cap, "group_size %" PRIu64 " instead of %u", group, SL_F4_GROUP);
    return true;
}

static bool odd_integers(const cJSON *w, uint64_t *group, char *buf, size_t cap)
{
    const cJSON *order = cJSON_GetObjectItemCaseSensitive(w, "actorder");

    *group = 0;
    if (odd_4bit(w, "int", buf, cap))
        return true;
    if (order && !cJSON_IsNull(order) && !cJSON_IsFalse(order) && !is_text(order, "weight") && !is_text(order, "static"))
        snprintf(buf, cap, "an order of their own ('actorder')");
    else if (!is_text(cJSON_GetObjectItemCaseSensitive(w, "strategy"), "group"))
        snprintf(buf, cap, "a strategy that is not 'group'");
    else if (!sl_json_uint(cJSON_GetObjectItemCaseSensitive(w, "group_size"), UINT32_MAX, group) || !*group)
        snprintf(buf, cap, "a group_size that is no number of weights");
    else if (*group > GROUP_MAX)
        snprintf(buf, cap, "a group_size above %u", GROUP_MAX);
    else if (*group % IN_A_WORD)
        snprintf(buf, cap, "a group_size that is no multiple of %u", IN_A_WORD);
    else
        return false;
    return true;
}

/* A model whose class is not known is refused for that, whatever its weights are packed as. */
static int rather_the_class(const struct sl_checkpoint *ck, struct sl_error *e)
{
    struct sl_error class;

    if (sl_arch_check_class(sl_checkpoint_config(ck), &class) < 0)
        *e = class;
    return e->code;
}

static int read_group(struct sl_checkpoint *ck, const cJSON *q, struct sl_error *e)
{
    const cJSON *groups = cJSON_GetObjectItemCaseSensitive(q, "config_groups");
    const cJSON *first = cJSON_IsObject(groups) ? groups->child : NULL;
    const cJSON *w = cJSON_GetObjectItemCaseSensitive(first, "weights");
    char odd[80];

    if (!first || first->next)
        snprintf(odd, sizeof odd, "%d config_groups instead of one", first ? cJSON_GetArraySize(groups) : 0);
    else if (ck->mxfp4 ? !odd_mxfp4(w, odd, sizeof odd) : !odd_integers(w, &ck->i4_group, odd, sizeof odd))
        return 0;
    sl_fail(e, SL_EUNSUPPORTED, "the weights are packed with %s, and only symmetric 4-bit %s in groups%s are "
            "supported: give an FP8 or BF16 checkpoint of the model", odd, ck->mxfp4 ? "floats" : "integers",
            ck->mxfp4 ? " of 32" : "");
    return rather_the_class(ck, e);
}

int sl_ck_read_packing(struct sl_checkpoint *ck, struct sl_error *e)
{
    static const char *const plain[] = {"float-quantized", "naive-quantized", "dense"};
    const cJSON *q = quantization(ck), *format = cJSON_GetObjectItemCaseSensitive(q, "format");

    if (!is_text(cJSON_GetObjectItemCaseSensitive(q, "quant_method"), "compressed-tensors") || !cJSON_IsString(format))
        return 0;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (is_text(format, plain[i]))
            return 0;
    ck->mxfp4 = is_text(format, "mxfp4-pack-quantized");
    if (ck->mxfp4 || is_text(format, "pack-quantized"))
        return read_group(ck, q, e);
    sl_fail(e, SL_EUNSUPPORTED, "the weights are packed by quant_method 'compressed-tensors', "
            "format '%.60s', and only FP8, unquantized weights, 'pack-quantized' and 'mxfp4-pack-quantized' ones are "
            "supported: give an FP8 or BF16 checkpoint of the model", format->valuestring);
    return rather_the_class(ck, e);
}

/* An entry names a layer, or after "re:" it is an expression for the beginning of its name; one that
 * is none, or needs too long, ignores nothing. */
static int ignores(const char *entry, const char *layer, struct sl_error *e)
{
    struct sl_pattern *p;
    char text[1024];
    int rc;

    if (strncmp(entry, "re:", 3) != 0)
        return strcmp(entry, layer) == 0;
    if (snprintf(text, sizeof text, "^(?:%s)", entry + 3) >= (int)sizeof text)
        return 0;
    rc = sl_pattern_compile(text, true, false, &p, e);
    if (rc == 0) {
        rc = sl_pattern_match(p, layer, e);
        sl_pattern_free(p);
    }
    return rc == SL_EUSAGE ? 0 : rc;
}

int sl_checkpoint_ignores(const struct sl_checkpoint *ck, const char *name, struct sl_error *e)
{
    const cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(quantization(ck), "ignore"), 0);
    char layer[SL_SRC_MAX_NAME + 1];
    int hit = 0, n_patterns = 0;

    snprintf(layer, sizeof layer, "%.*s", (int)sl_stem(name, WEIGHT), name);
    for (int i = 0; i < NAMES_MAX && entry && !hit; i++, entry = entry->next)
        if (cJSON_IsString(entry) && (strncmp(entry->valuestring, "re:", 3) != 0 || n_patterns++ < PATTERNS_MAX))
            hit = ignores(entry->valuestring, layer, e);
    return hit;
}

/* ---- tensors ---- */

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

static int check_mxfp4(const struct sl_src_tensor *t, struct sl_error *e)
{
    uint64_t elems;

    if (t->dtype == SL_DTYPE_U8 && t->n_dims == 2 && sl_mul_u64(t->elems, IN_A_BYTE, &elems))
        return 0;
    return sl_fail(e, SL_ESOURCE, "'%.160s' is no matrix of MXFP4, as config.json says: expected U8 of two dimensions", t->name);
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

    if (!ck->i4_group && !ck->mxfp4) {
        sl_fail(e, SL_ESOURCE, "'%.160s' is packed, and config.json does not say how: expected a quantization_config "
                "with quant_method 'compressed-tensors' and format 'pack-quantized' or 'mxfp4-pack-quantized'; is it of "
                "this model?", t->name);
        return rather_the_class(ck, e) == SL_EUNSUPPORTED ? sl_fail_context(e, "config.json") : e->code;
    }
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        if (sl_ck_find_joined(ck, t->name, n, odd[i].suffix) != SL_NO_TENSOR)
            return sl_fail(e, SL_EUNSUPPORTED, "packed tensor '%.160s' has %s ('%.*s%s'), which are not supported: give an "
                           "FP8 or BF16 checkpoint of the model", t->name, odd[i].what, (int)n, t->name, odd[i].suffix);
    if (sl_ck_find_joined(ck, t->name, n, WEIGHT) != SL_NO_TENSOR)
        return sl_fail(e, SL_ESOURCE, "'%.160s' is there, and '%.*s%s' too; expected one", t->name, (int)n, t->name, WEIGHT);
    if (sl_ck_find_joined(ck, t->name, n, ".weight_scale") == SL_NO_TENSOR)
        return missing(ck, t->name, n, ".weight_scale", e);
    return ck->mxfp4 ? check_mxfp4(t, e) : check_integers(ck, t, n, checked, e);
}

static int rename_all(struct sl_checkpoint *ck, size_t room, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    unsigned weights = ck->mxfp4 ? IN_A_BYTE : IN_A_WORD;
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
        t->dtype = ck->mxfp4 ? SL_DTYPE_F4 : SL_DTYPE_I4;
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
