/* Which rules can match which names, by what follows "blk.N." in them: the names of a large model
 * have few endings there. */
#ifndef SLUICE_PROTO_RECIPE_FORMS_H
#define SLUICE_PROTO_RECIPE_FORMS_H

#include "proto/recipe_rules.h"

struct sl_rule_forms {
    uint32_t n;
    uint32_t *first; /* of each tensor: the first tensor whose name has this form */
    uint64_t **may;  /* of each first: a bit for each rule; NULL: no other tensor has the form */
};

/* Effect: *f, for the tensors of m; free it with sl_rule_forms_free, after a failure too.
 * Errors: SL_EFAIL (memory). */
int sl_rule_forms_init(struct sl_rule_forms *f, const struct sl_recipe *r, const struct sl_model *m,
                       struct sl_error *e) SL_MUST_USE;
void sl_rule_forms_free(struct sl_rule_forms *f);

/* Returns false when rule `rule` cannot match the name of tensor t. */
bool sl_rule_may_match(const struct sl_rule_forms *f, uint32_t rule, uint32_t t);

/* Returns the name after "blk.N.", and N in *layer; without a block the whole name. */
const char *sl_tensor_form(const char *name, uint64_t *layer);

#endif
