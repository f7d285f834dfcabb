#include "proto/plan_build.h"
#include "proto/source_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GGML_QUANT_VERSION 2u /* of the block formats: general.quantization_version */

/* The types, and what there is to say of the rules. */
static int assign_types(const struct sl_plan_input *in, struct sl_plan *p, int *types, struct sl_error *e)
{
    struct sl_recipe_opts o = *in->ro;
    int rc;

    o.used = calloc((size_t)o.n_overrides + sl_recipe_rules(in->r) + 1, 1);
    if (!o.used)
        return sl_no_memory(e);
    rc = sl_recipe_assign(in->r, in->m, &o, types, &p->n_fallback, e);
    if (rc == 0)
        rc = sl_recipe_idle(in->r, in->m, &o, types, &p->idle, e);
    free(o.used);
    return rc;
}

static int type_tensors(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
{
    uint32_t n = in->m->n_tensors;
    int *types = calloc((size_t)n + 1, sizeof *types);
    int rc;

    p->tensors = calloc((size_t)n + 1, sizeof *p->tensors);
    if (!types || !p->tensors) {
        free(types);
        return sl_no_memory(e);
    }
    rc = assign_types(in, p, types, e);
    p->n_tensors = n;
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        struct sl_plan_tensor *t = &p->tensors[i];

        t->t = &in->m->tensors[i];
        t->type = types[i];
        t->bytes = sl_type_bytes(t->type, t->t->elems);
        if (t->bytes == 0 || t->bytes > (UINT64_MAX >> 8)
            || __builtin_add_overflow(p->tensor_bytes, t->bytes, &p->tensor_bytes))
            rc = sl_fail(e, SL_ESOURCE, "%s: %llu weights are no size that a tensor can have",
                         t->t->name, (unsigned long long)t->t->elems);
    }
    free(types);
    return rc;
}

/* Whether tensor i starts a new segment after one of n tensors and `data` bytes. */
static bool starts_segment(const struct sl_plan_opts *o, uint64_t n, uint64_t data, uint64_t bytes)
{
    if (n == 0)
        return false;
    return (o->split_max_bytes && data + sl_gguf_padded(bytes) > o->split_max_bytes)
           || (o->split_max_tensors && n >= o->split_max_tensors);
}

/* The source file of output tensor i; a model from GGUF has one source a tensor. */
static uint32_t file_of(const struct sl_plan_input *in, uint32_t i)
{
    uint32_t src = in->m->src[in->m->tensors[i].first_src].tensor;

    return src < in->ck->n_tensors ? in->ck->tensors[src].file : 0;
}

/* Tensors go into segments in order, counted as llama.cpp's gguf-split does:
 * padded tensor bytes, headers left out. */
static int fill_segments(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
{
    const struct sl_plan_opts *o = in->o;
    bool keep_split = o->keep_split && in->ck->is_gguf;
    struct sl_plan_segment *s = calloc((size_t)p->n_tensors + 2, sizeof *s);

    if (!s)
        return sl_no_memory(e);
    p->segments = s;
    p->n_segments = 1;
    if (p->n_tensors && (o->no_tensor_first_split || (keep_split && file_of(in, 0) > 0))) {
        s++;
        p->n_segments++;
    }
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        struct sl_plan_tensor *t = &p->tensors[i];

        if (starts_segment(o, s->n_tensors, s->data_bytes, t->bytes) ||
            (keep_split && i > 0 && file_of(in, i) != file_of(in, i - 1))) {
            s++;
            s->first_tensor = i;
            p->n_segments++;
        }
        t->segment = p->n_segments - 1;
        t->offset = s->data_bytes;
        s->n_tensors++;
        if (__builtin_add_overflow(s->data_bytes, sl_gguf_padded(t->bytes), &s->data_bytes))
            return sl_fail(e, SL_ESOURCE, "%s: the output is too large", t->t->name);
    }
    if (p->n_segments > UINT16_MAX)
        return sl_fail(e, SL_EUSAGE,
                       "%u output files, but a set has at most 65535; allow larger ones with "
                       "--split-max-size",
                       p->n_segments);
    return 0;
}

static int name_segments(const struct sl_plan_opts *o, struct sl_plan *p, struct sl_error *e)
{
    const char *prefix = o->prefix ? o->prefix : "model";
    size_t cap = strlen(prefix) + 64;

    for (uint32_t i = 0; i < p->n_segments; i++) {
        p->segments[i].name = malloc(cap);
        if (!p->segments[i].name)
            return sl_no_memory(e);
        if (sl_gguf_split_path(p->segments[i].name, cap, prefix, i, p->n_segments) < 0)
            return sl_fail(e, SL_EFAIL, "cannot name part %u of %u", i + 1, p->n_segments);
    }
    return 0;
}

static int borrow_kvs(struct sl_kvs *to, const struct sl_kvs *from)
{
    for (uint64_t i = 0; i < from->n; i++)
        SL_TRY(sl_kvs_borrow(to, &from->kv[i]));
    return 0;
}

static int copy_kvs(struct sl_kvs *to, const struct sl_kvs *from)
{
    for (uint64_t i = 0; from && i < from->n; i++)
        SL_TRY(sl_kvs_copy(to, &from->kv[i]));
    return 0;
}

/* The checkpoint's name: that of its folder, or of a GGUF source's first file. */
static int source_name(const struct sl_plan_input *in, char *buf, size_t cap)
{
    const struct sl_checkpoint *ck = in->ck;
    size_t n;
    const char *from = sl_source_folder_name(ck->dir ? ck->dir : "", &n);

    if (ck->is_gguf)
        return snprintf(buf, cap, "%s", ck->files[0].name);
    if (n == 0 || (n <= 2 && from[0] == '.'))
        return snprintf(buf, cap, "%s", in->m->model_name ? in->m->model_name : "");
    return snprintf(buf, cap, "%.*s", (int)n, from);
}

/* llama-quantize sets the number of layers that are left last of all. */
static int move_block_count(const struct sl_plan_input *in, struct sl_kvs *k)
{
    const struct sl_kv *kv;
    char key[160];

    if (!sl_kvs_find(k, SL_KEY_PRUNED))
        return 0;
    snprintf(key, sizeof key, "%.80s.block_count", in->m->arch);
    kv = sl_kvs_find(&in->m->kvs, key);
    return kv ? sl_kvs_copy(k, kv) : 0;
}

/* The first segment's metadata: as llama-quantize orders it, then Sluice's own. */
static int model_kvs(const struct sl_plan_input *in, struct sl_plan *p)
{
    struct sl_kvs *k = &p->segments[0].kvs;
    char source[256];

    SL_TRY(borrow_kvs(k, &in->m->kvs));
    SL_TRY(sl_kvs_set_u32(k, "general.quantization_version", GGML_QUANT_VERSION));
    SL_TRY(sl_kvs_set_u32(k, "general.file_type", sl_recipe_file_type(in->r)));
    SL_TRY(copy_kvs(k, in->o->extra_kvs));
    SL_TRY(move_block_count(in, k));
    SL_TRY(sl_kvs_set_str(k, SL_KEY_VERSION, SLUICE_VERSION));
    SL_TRY(sl_kvs_set_str(k, SL_KEY_RECIPE, sl_recipe_name(in->r)));
    SL_TRY(sl_kvs_set_str(k, SL_KEY_RECIPE_TEXT, sl_recipe_text(in->r)));
    source_name(in, source, sizeof source);
    if (*source)
        SL_TRY(sl_kvs_set_str(k, SL_KEY_SOURCE, source));
    if (strcmp(in->m->arch, "deepseek2") == 0)
        SL_TRY(sl_kvs_set_str(k, SL_KEY_LAYOUT,
                              in->m->layout == SL_LAYOUT_LEGACY ? "legacy" : "mla"));
    if (in->o->round_bf16)
        SL_TRY(sl_kvs_set_str(k, SL_KEY_ROUND_THROUGH, "bf16"));
    return 0;
}

/* zeros: as many as there will be checksums. */
static int set_keys(const struct sl_plan *p, uint32_t i, struct sl_plan_segment *s, const uint64_t *zeros)
{
    SL_TRY(sl_kvs_set_str(&s->kvs, SL_KEY_FINGERPRINT, p->output_id));
    if (p->n_segments > 1) {
        SL_TRY(sl_kvs_set_u16(&s->kvs, "split.no", (uint16_t)i));
        SL_TRY(sl_kvs_set_u16(&s->kvs, "split.count", (uint16_t)p->n_segments));
        SL_TRY(sl_kvs_set_i32(&s->kvs, "split.tensors.count", (int32_t)p->n_tensors));
    }
    SL_TRY(sl_kvs_set_arr(&s->kvs, SL_KEY_SUM_TENSORS, SL_KV_U64, zeros, s->n_tensors));
    /* Of the tensors, and of the keys: these two as well. */
    SL_TRY(sl_kvs_set_arr(&s->kvs, SL_KEY_SUM_RECORDS, SL_KV_U64, zeros, s->kvs.n + 2 + s->n_tensors));
    return sl_kvs_set_u64(&s->kvs, SL_KEY_SUM_HEADER, 0);
}

static int segment_kvs(const struct sl_plan *p, uint32_t i)
{
    struct sl_plan_segment *s = &p->segments[i];
    uint64_t *zeros = calloc((size_t)s->n_tensors + s->kvs.n + 8, sizeof *zeros);
    int rc = zeros ? set_keys(p, i, s, zeros) : SL_EFAIL;

    free(zeros);
    return rc;
}

/* buf NULL: only its length. */
static int segment_header(const struct sl_plan *p, const struct sl_plan_segment *s, uint8_t **buf,
                          uint64_t *bytes)
{
    struct sl_gguf_tensor *list = calloc((size_t)s->n_tensors + 1, sizeof *list);
    int rc;

    if (!list)
        return SL_EFAIL;
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        const struct sl_plan_tensor *t = &p->tensors[s->first_tensor + i];

        memcpy(list[i].name, t->t->name, sizeof list[i].name);
        list[i].n_dims = sl_gguf_dims(t->t->ne);
        memcpy(list[i].ne, t->t->ne, sizeof list[i].ne);
        list[i].type = t->type;
        list[i].offset = t->offset;
        list[i].bytes = t->bytes;
    }
    rc = sl_gguf_header(&s->kvs, list, s->n_tensors, buf, bytes);
    free(list);
    return rc;
}

int sl_plan_header(const struct sl_plan *p, uint32_t segment, uint8_t **buf)
{
    uint64_t bytes;

    return segment_header(p, &p->segments[segment], buf, &bytes);
}

static int place_headers(struct sl_plan *p, struct sl_error *e)
{
    for (uint32_t i = 0; i < p->n_segments; i++) {
        struct sl_plan_segment *s = &p->segments[i];

        if (segment_kvs(p, i) < 0 || segment_header(p, s, NULL, &s->header_bytes) < 0)
            return sl_no_memory(e);
        /* What the reader does not take could never be verified. */
        if (s->kvs.n > SL_GGUF_MAX_KEYS || s->header_bytes > SL_GGUF_MAX_HEADER)
            return sl_fail(e, SL_EUNSUPPORTED, "%s would have %" PRIu64 " metadata keys in a header of %" PRIu64 " bytes; %u and %u "
                           "at most are read", s->name, s->kvs.n, s->header_bytes, SL_GGUF_MAX_KEYS, SL_GGUF_MAX_HEADER);
        s->file_bytes = s->header_bytes + s->data_bytes;
        p->file_bytes += s->file_bytes;
        for (uint32_t k = 0; k < s->n_tensors; k++)
            p->tensors[s->first_tensor + k].file_offset =
                s->header_bytes + p->tensors[s->first_tensor + k].offset;
    }
    return 0;
}

static int build(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
{
    p->model = in->m;
    SL_TRY(type_tensors(in, p, e));
    SL_TRY(fill_segments(in, p, e));
    SL_TRY(name_segments(in->o, p, e));
    SL_TRY(sl_plan_make_tasks(in, p, e));
    if (model_kvs(in, p) < 0 || sl_plan_options(in, p) < 0)
        return sl_no_memory(e);
    SL_TRY(sl_plan_fingerprint(in, p, e));
    return place_headers(p, e);
}

int sl_plan_build(const struct sl_checkpoint *ck, const struct sl_model *m,
                  const struct sl_recipe *r, const struct sl_recipe_opts *ro,
                  const struct sl_plan_opts *o, struct sl_plan **out, struct sl_error *e)
{
    static const struct sl_plan_opts defaults;
    struct sl_plan_input in = {ck, m, r, o ? o : &defaults, ro};
    struct sl_plan *p = calloc(1, sizeof *p);
    int rc;

    *out = NULL;
    if (!p)
        return sl_no_memory(e);
    rc = build(&in, p, e);
    if (rc < 0) {
        sl_plan_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void sl_plan_close(struct sl_plan *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->n_segments; i++) {
        free(p->segments[i].name);
        sl_kvs_free(&p->segments[i].kvs);
    }
    free(p->segments);
    free(p->tensors);
    free(p->items);
    free(p->tasks);
    free(p->options);
    free(p->idle);
    free(p);
}
