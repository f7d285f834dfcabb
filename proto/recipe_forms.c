#include "proto/recipe_forms.h"

#include "proto/name_table.h"

#include <stdlib.h>
#include <string.h>

const char *sl_tensor_form(const char *name, uint64_t *layer)
{
    const char *dot = sl_tensor_layer(name, layer) ? strchr(name + 4, '.') : NULL;

    return dot ? dot + 1 : name;
}

/* Whether p may match "blk.N.FORM" for some N. A word that "blk" or a number holds says nothing. */
static bool may_match(const struct sl_pattern *p, const char *form)
{
    size_t len, digits = 0;
    const char *word = sl_pattern_word(p, &len);

    while (digits < len && word[digits] >= '0' && word[digits] <= '9')
        digits++;
    return digits == len || memmem("blk", 3, word, len) || memmem(form, strlen(form), word, len);
}

static uint64_t *row_of(const struct sl_recipe *r, const char *form)
{
    uint64_t *row = calloc(r->n_rules / 64 + 1, sizeof *row);

    for (uint32_t i = 0; row && i < r->n_rules; i++)
        row[i / 64] |= (uint64_t)may_match(r->rules[i].pattern, form) << i % 64;
    return row;
}

static int find_forms(struct sl_rule_forms *f, const struct sl_recipe *r, const struct sl_model *m,
                      struct sl_name_table *seen, struct sl_error *e)
{
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        uint64_t layer;
        const char *form = sl_tensor_form(m->tensors[i].name, &layer);
        uint32_t first;

        SL_TRY(sl_name_table_add(seen, form, i, &first, e));
        f->first[i] = first;
        if (first != i && !f->may[first] && !(f->may[first] = row_of(r, form)))
            return sl_fail(e, SL_EFAIL, "out of memory");
    }
    return 0;
}

int sl_rule_forms_init(struct sl_rule_forms *f, const struct sl_recipe *r, const struct sl_model *m,
                       struct sl_error *e)
{
    struct sl_name_table seen = {.n = 0};
    int rc;

    f->n = m->n_tensors;
    f->first = calloc((size_t)f->n + 1, sizeof *f->first);
    f->may = calloc((size_t)f->n + 1, sizeof *f->may);
    if (!f->first || !f->may)
        return sl_fail(e, SL_EFAIL, "out of memory");
    rc = sl_name_table_init(&seen, 1024, e);
    if (rc == 0)
        rc = find_forms(f, r, m, &seen, e);
    sl_name_table_free(&seen);
    return rc;
}

void sl_rule_forms_free(struct sl_rule_forms *f)
{
    for (uint32_t i = 0; f->may && i < f->n; i++)
        free(f->may[i]);
    free(f->may);
    free(f->first);
    memset(f, 0, sizeof *f);
}

bool sl_rule_may_match(const struct sl_rule_forms *f, uint32_t rule, uint32_t t)
{
    const uint64_t *row = f->may[f->first[t]];

    return !row || row[rule / 64] >> rule % 64 & 1;
}
