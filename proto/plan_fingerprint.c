/* Hashes over a canonical form: integers as 8 little-endian bytes, strings as
 * their length and bytes. */
#include "proto/plan_build.h"
#include "proto/tensor_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct sl_hash128 *d, uint64_t v)
{
    uint8_t b[8];

    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(v >> 8 * i);
    sl_hash128_update(d, b, sizeof b);
}

static void put_str(struct sl_hash128 *d, const char *s)
{
    size_t n = s ? strlen(s) : 0;

    put(d, n);
    sl_hash128_update(d, s ? s : "", n);
}

/* Key-values as the header's own bytes. */
static int put_kvs(struct sl_hash128 *d, const struct sl_kvs *kvs)
{
    uint8_t *bytes = NULL;
    uint64_t n = 0;

    if (kvs)
        SL_TRY(sl_gguf_header(kvs, NULL, 0, &bytes, &n));
    put(d, n);
    if (n)
        sl_hash128_update(d, bytes, n);
    free(bytes);
    return 0;
}

static void put_src_tensor(struct sl_hash128 *d, const struct sl_checkpoint *ck, uint32_t i)
{
    const struct sl_src_tensor *t;

    if (i >= ck->n_tensors) {
        put(d, UINT64_MAX);
        return;
    }
    t = &ck->tensors[i];
    put_str(d, t->name);
    put_str(d, sl_dtype_info(t->dtype)->name);
    for (uint32_t k = 0; k < t->n_dims; k++)
        put(d, t->shape[k]);
    put(d, t->file);
    put(d, t->offset);
    put(d, t->bytes);
}

static void source_part(struct sl_hash128 *d, const struct sl_checkpoint *ck, bool with_mtime)
{
    put_str(d, "source");
    put(d, ck->n_files);
    for (uint32_t i = 0; i < ck->n_files; i++) {
        put_str(d, ck->files[i].name);
        put(d, ck->files[i].size);
        if (with_mtime)
            put(d, (uint64_t)ck->files[i].mtime_ns);
    }
    for (uint32_t i = 0; i < ck->n_tensors; i++)
        put_src_tensor(d, ck, i);
}

static void recipe_part(struct sl_hash128 *d, const struct sl_plan_input *in)
{
    put_str(d, "recipe");
    put_str(d, sl_recipe_name(in->r));
    put_str(d, sl_recipe_text(in->r));
    put(d, sl_recipe_file_type(in->r));
}

static void put_view(struct sl_hash128 *d, const struct sl_view *v)
{
    for (uint32_t i = 0; i < v->n_parts; i++) {
        const struct sl_view_part *p = &v->part[i];
        const uint64_t numbers[] = {p->elems, p->first, p->run, p->n[0], p->n[1], p->step[0], p->step[1], p->step[2]};

        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            put(d, numbers[k]);
    }
}

/* Blocks of another size may be as many: the size is config.json's. The usual ones go without saying. */
static void put_blocks(struct sl_hash128 *d, const struct sl_checkpoint *ck, const struct sl_scale *s)
{
    uint64_t br = s->block_rows, bc = s->block_cols;
    struct sl_block b;
    unsigned i = 0;

    while ((b = sl_checkpoint_block(ck, i)).rows && (br != b.rows || bc != b.cols))
        i++;
    if (!b.rows || s->rows * s->cols == 1 || (br == 128 && bc == 128) || (br == 1 && bc == 32))
        return;
    put(d, br);
    put(d, bc);
}

static void put_tensors(struct sl_hash128 *d, const struct sl_plan_input *in, const struct sl_plan *p)
{
    const struct sl_model *m = in->m;

    put(d, m->n_tensors);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct sl_out_tensor *t = &m->tensors[i];

        put_str(d, t->name);
        for (int k = 0; k < 4; k++)
            put(d, t->ne[k]);
        put(d, t->transform);
        put(d, t->heads);
        put(d, t->n_src);
        put_str(d, sl_type_info(p->tensors[i].type)->name);
        if (t->transform == SL_INLINE && t->values)
            sl_hash128_update(d, t->values, t->elems * sizeof *t->values);
        if (t->transform == SL_VIEW)
            put_view(d, t->view);
        if (t->change)
            put(d, t->change);
        if (t->col0)
            put(d, t->col0);
    }
    for (uint32_t i = 0; i < m->n_src; i++) {
        put_src_tensor(d, in->ck, m->src[i].tensor);
        put_src_tensor(d, in->ck, m->src[i].scale.tensor);
        put_blocks(d, in->ck, &m->src[i].scale);
        if (m->src[i].scale.zero_plus)
            put_str(d, "zero points are one more");
        if (m->src[i].scale.zeros)
            put_src_tensor(d, in->ck, m->src[i].scale.zeros - 1);
        if (m->src[i].scale.order)
            put_src_tensor(d, in->ck, m->src[i].scale.order - 1);
    }
}

static int result_part(struct sl_hash128 *d, const struct sl_plan_input *in, const struct sl_plan *p,
                       bool with_tasks)
{
    put_str(d, "result");
    put_str(d, in->m->arch);
    put(d, in->m->layout);
    put(d, in->o->round_bf16);
    put_tensors(d, in, p);
    SL_TRY(put_kvs(d, &in->m->kvs));
    SL_TRY(put_kvs(d, in->o->extra_kvs));
    put(d, p->n_segments);
    for (uint32_t i = 0; i < p->n_segments; i++)
        put(d, p->segments[i].n_tensors);
    for (uint32_t i = 0; with_tasks && i < p->n_segments; i++)
        put_str(d, p->segments[i].name);
    for (uint32_t i = 0; with_tasks && i < p->n_tasks; i++)
        put(d, p->tasks[i].n_items);
    for (uint32_t i = 0; with_tasks && i < p->n_items; i++) {
        put(d, p->items[i].tensor);
        put(d, p->items[i].elem0);
    }
    return 0;
}

static int make_parts(struct sl_hash128 *d, const struct sl_plan_input *in, const struct sl_plan *p,
                      bool full, struct sl_plan_parts *parts)
{
    source_part(d, in->ck, full);
    sl_hash128_final(d, parts->source);
    recipe_part(d, in);
    sl_hash128_final(d, parts->recipe);
    put_str(d, "options");
    put_str(d, p->options);
    sl_hash128_final(d, parts->options);
    SL_TRY(result_part(d, in, p, full));
    sl_hash128_final(d, parts->result);
    snprintf(parts->version, sizeof parts->version, "%s", SL_BYTES_VERSION);
    return 0;
}

/* The options themselves stay out: what they do is in the result, so that another
 * spelling of the same work is the same work. */
static void join(struct sl_hash128 *d, const struct sl_plan_parts *parts, char hex[33])
{
    put_str(d, "plan");
    put_str(d, parts->source);
    put_str(d, parts->recipe);
    put_str(d, parts->result);
    put_str(d, parts->version);
    sl_hash128_final(d, hex);
}

int sl_plan_fingerprint(const struct sl_plan_input *in, struct sl_plan *p, struct sl_error *e)
{
    struct sl_hash128 *d = sl_hash128_new();
    struct sl_plan_parts id;
    int rc = d ? 0 : SL_EFAIL;

    if (rc == 0)
        rc = make_parts(d, in, p, true, &p->parts);
    if (rc == 0)
        rc = make_parts(d, in, p, false, &id);
    if (rc == 0) {
        join(d, &p->parts, p->fingerprint);
        join(d, &id, p->output_id);
    }
    sl_hash128_free(d);
    return rc < 0 ? sl_no_memory(e) : 0;
}
