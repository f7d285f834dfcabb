#include "proto/imatrix_use.h"

#include "proto/text_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LLAMA_VALUE_MAX 127 /* bytes of a string that llama-quantize adds */

static bool quantized(const struct sl_plan *p, const struct sl_plan_tensor *t)
{
    return !sl_model_keeps(p->model, t->t, t->type) && sl_type_info(t->type)->block > 1;
}

static int take_plan(struct sl_imatrix_use *u, const struct sl_plan *plan, struct sl_error *e)
{
    u->plan = plan;
    u->entry = malloc(((size_t)plan->n_tensors + 1) * sizeof *u->entry);
    return u->entry ? 0 : sl_no_memory(e);
}

int sl_imatrix_use_make(struct sl_imatrix_use *u, const struct sl_imatrix *im,
                        const struct sl_plan *plan, struct sl_error *e)
{
    bool known = false;

    *u = (struct sl_imatrix_use){.im = im, .plan = plan};
    if (!im)
        return 0;
    SL_TRY(take_plan(u, plan, e));
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct sl_plan_tensor *t = &plan->tensors[i];
        int rc;

        u->entry[i] = SL_NO_NAME;
        known = known || sl_imatrix_find(im, t->t->known_as ? t->t->known_as : t->t->name) >= 0;
        if (!quantized(plan, t))
            continue;
        SL_TRY(rc = sl_imatrix_for(im, t->t, &u->entry[i], e));
        u->n_with += rc == 1;
        u->n_without += rc == 0;
        if (rc == 1 && im->entries[u->entry[i]].n_zero) {
            u->n_zero_tensors++;
            u->n_zero += im->entries[u->entry[i]].n_zero;
        }
    }
    if (!known && u->n_without)
        return sl_fail(e, SL_EUSAGE, "imatrix %s has data for none of the %u tensors that are quantized; "
                       "is it of another model? Its first entry is '%s'", im->path, u->n_without,
                       im->entries[0].name);
    return 0;
}

int sl_imatrix_use_synthetic(struct sl_imatrix_use *u, const struct sl_plan *plan,
                             const struct sl_weight_words *words, struct sl_error *e)
{
    *u = (struct sl_imatrix_use){.synthetic = true};
    SL_TRY(take_plan(u, plan, e));
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct sl_plan_tensor *t = &plan->tensors[i];
        bool has = quantized(plan, t) && sl_weight_words_use(words, t->t->name);

        u->entry[i] = has ? 0 : SL_NO_NAME;
        u->n_with += has;
        u->n_without += quantized(plan, t) && !has;
    }
    return 0;
}

void sl_imatrix_use_free(struct sl_imatrix_use *u)
{
    free(u->entry);
    memset(u, 0, sizeof *u);
}

bool sl_imatrix_use_has(void *user, uint32_t i)
{
    const struct sl_imatrix_use *u = user;

    return u->entry && i < u->plan->n_tensors && u->entry[i] != SL_NO_NAME;
}

int sl_imatrix_use_load(void *user, uint32_t i, uint64_t slice, float *out, struct sl_error *e)
{
    const struct sl_imatrix_use *u = user;
    uint64_t row = u->plan->tensors[i].t->ne[0];

    return sl_imatrix_values(u->im, u->entry[i], slice * row, row, out, e);
}

#define NAMED 5 /* tensors named in a line */

/* llama-imatrix never collects the one, and the other on request only. */
static bool edge(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "output.weight") == 0;
}

static bool lacks(const struct sl_imatrix_use *u, uint32_t i)
{
    const struct sl_plan_tensor *t = &u->plan->tensors[i];

    return quantized(u->plan, t) && u->entry[i] == SL_NO_NAME && !edge(t->t->name);
}

static uint32_t note_without(const struct sl_imatrix_use *u, struct sl_line *l)
{
    uint32_t named = 0, n = 0;

    for (uint32_t i = 0; i < u->plan->n_tensors; i++)
        n += lacks(u, i);
    sl_line_add(l, "%u of %u quantized tensors have no data in the imatrix and are quantized without: ", n,
        u->n_with + u->n_without);
    for (uint32_t i = 0; i < u->plan->n_tensors && named < NAMED; i++)
        if (lacks(u, i))
            sl_line_add(l, "%s%s", named++ ? ", " : "", u->plan->tensors[i].t->name);
    if (n > named)
        sl_line_add(l, ", ...");
    return n;
}

static void note_embedding(const struct sl_imatrix_use *u, void (*say)(void *user, const char *line),
                           void *user)
{
    int64_t at = sl_imatrix_find(u->im, "token_embd.weight");
    struct sl_line l = {.n = 0};

    for (uint32_t i = 0; at >= 0 && i < u->plan->n_tensors; i++) {
        const struct sl_out_tensor *t = u->plan->tensors[i].t;

        if (strcmp(t->name, "token_embd.weight") == 0 && u->im->entries[at].n != sl_imatrix_wanted(t)) {
            sl_line_add(&l, "token_embd.weight has %llu values in the imatrix, %llu are expected; it is "
                "quantized without", (unsigned long long)u->im->entries[at].n,
                (unsigned long long)sl_imatrix_wanted(t));
            say(user, l.text);
        }
    }
}

static void note_zero(const struct sl_imatrix_use *u, struct sl_line *l)
{
    uint32_t named = 0;

    sl_line_add(l, "%llu experts had no data when the imatrix was made and get weights of 1.0: ",
        (unsigned long long)u->n_zero);
    for (uint32_t i = 0; i < u->plan->n_tensors && named < NAMED; i++)
        if (u->entry[i] != SL_NO_NAME && u->im->entries[u->entry[i]].n_zero)
            sl_line_add(l, "%s%llu in %s", named++ ? ", " : "",
                (unsigned long long)u->im->entries[u->entry[i]].n_zero, u->plan->tensors[i].t->name);
    if (u->n_zero_tensors > named)
        sl_line_add(l, ", ... (%u tensors)", u->n_zero_tensors);
}

static bool knows(const struct sl_imatrix *im, const char *part)
{
    for (uint32_t i = 0; i < im->n_entries; i++)
        if (strstr(im->entries[i].name, part))
            return true;
    return false;
}

void sl_imatrix_use_notes(const struct sl_imatrix_use *u, void (*say)(void *user, const char *line),
                          void *user)
{
    bool mla = u->plan->model->layout == SL_LAYOUT_MLA;
    struct sl_line l = {.n = 0};

    if (u->synthetic)
        sl_line_add(&l, "--imatrix synthetic: %u of %u quantized tensors are weighted by the energy of their own "
            "columns; an imatrix of real inputs is better", u->n_with, u->n_with + u->n_without);
    if (u->nothing_left)
        sl_line_add(&l, "--include-weights or --exclude-weights leave nothing of the imatrix; quantized without one");
    if (l.n)
        say(user, l.text);
    if (!u->im)
        return;
    if (note_without(u, &l))
        say(user, l.text);
    note_embedding(u, say, user);
    if (u->n_zero) {
        l.n = 0;
        note_zero(u, &l);
        say(user, l.text);
    }
    if (strcmp(u->plan->model->arch, "deepseek2") == 0
        && knows(u->im, mla ? ".attn_kv_b." : ".attn_k_b.")
        && !knows(u->im, mla ? ".attn_k_b." : ".attn_kv_b.")) {
        l.n = 0;
        sl_line_add(&l, "the imatrix was made with a model in the %s layout", mla ? "legacy" : "mla");
        if (u->plan->tensors[0].t->src_type < 0) /* a GGUF source keeps its own */
            sl_line_add(&l, "; --layout %s uses all of it", mla ? "legacy" : "mla");
        say(user, l.text);
    }
}

static int set_text(struct sl_kvs *kvs, const char *key, const char *text)
{
    char buf[LLAMA_VALUE_MAX + 1];
    size_t n = (size_t)snprintf(buf, sizeof buf, "%s", text);

    if (n > LLAMA_VALUE_MAX) { /* no half of a character */
        for (n = LLAMA_VALUE_MAX; n > LLAMA_VALUE_MAX - 3 && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
            ;
        buf[n] = '\0';
    }
    return sl_kvs_set_str(kvs, key, buf);
}

int sl_imatrix_kvs(const struct sl_imatrix *im, const struct sl_weight_words *words,
                   struct sl_kvs *kvs)
{
    SL_TRY(set_text(kvs, "quantize.imatrix.file", im ? im->path : "synthetic"));
    if (!im || im->n_datasets)
        SL_TRY(set_text(kvs, "quantize.imatrix.dataset", im ? im->datasets[0] : "column energy of the weights"));
    if (im)
        SL_TRY(sl_kvs_set_u32(kvs, "quantize.imatrix.entries_count", im->n_entries));
    if (im && im->n_chunks > 0 && im->n_chunks <= INT32_MAX)
        SL_TRY(sl_kvs_set_u32(kvs, "quantize.imatrix.chunks_count", im->n_chunks));
    SL_TRY(sl_kvs_set_str(kvs, SL_KEY_IMATRIX, im ? im->hash : SL_IMATRIX_SYNTHETIC));
    if (words->n)
        SL_TRY(sl_kvs_set_strs(kvs, words->keep ? SL_KEY_IMATRIX_INCLUDE : SL_KEY_IMATRIX_EXCLUDE,
                               words->words, words->n));
    return 0;
}
