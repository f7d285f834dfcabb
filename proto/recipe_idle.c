/* Rules and overrides that decide nothing: mostly a name mistyped, or another architecture's. */
#include "proto/recipe_rules.h"
#include "proto/text_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAID 10

/* Tensors that a pattern finds, by how far it gets with them. */
struct found {
    uint32_t any;       /* the name alone */
    uint32_t in_layers;
    uint32_t open;      /* and nothing but an option or another rule was in the way */
    uint32_t agree;     /* which gave the same type */
    uint32_t kept;      /* never quantized, but of that type */
    bool tied;          /* the embedding, which rules see as the output */
};

/* rule: NULL for an override, which has no layers. */
static struct found find(const struct sl_pattern *p, const struct sl_rule *rule, int type, const struct sl_model *m,
                         const int *types)
{
    bool tied = rule && sl_recipe_tied(m);
    struct found f = {.tied = false};
    struct sl_error e;

    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct sl_out_tensor *t = &m->tensors[i];
        bool output = tied && strcmp(t->name, "token_embd.weight") == 0;

        if (output)
            f.tied = sl_pattern_match(p, t->name, &e) == 1;
        if (sl_pattern_match(p, output ? "output.weight" : t->name, &e) != 1)
            continue;
        f.any++;
        if (rule && !sl_rule_in_layers(rule, t->name, &m->hp))
            continue;
        f.in_layers++;
        if (sl_recipe_may_quantize(t)) {
            f.open++;
            f.agree += types[i] == type;
        } else {
            f.kept += types[i] == type;
        }
    }
    return f;
}

/* NULL: it is not worth a word. */
static const char *why(const struct found *f)
{
    if (f->open ? f->agree == f->open : f->in_layers && f->kept == f->in_layers)
        return NULL;
    if (f->open)
        return "decides nothing: an option or a rule before it decides every tensor that it matches";
    if (f->in_layers)
        return "decides nothing: it matches only tensors that are never quantized";
    if (f->any)
        return "matches no tensor in these layers";
    if (f->tied)
        return "decides nothing: in this model token_embd.weight is the output too, and rules see it as "
               "output.weight";
    return "matches no tensor of this model; 'sluice convert --dry-run' lists their names";
}

/* Layers that a model need not have, by the rule's own words. */
static bool may_be_absent(const struct sl_rule *rule)
{
    for (uint32_t i = 0; i < rule->n_layers; i++)
        if (rule->layers[i].kind != SL_LAYERS_DENSE && rule->layers[i].kind != SL_LAYERS_MOE)
            return false;
    return rule->n_layers > 0;
}

/* Both return whether there is something to say; beyond SAID it is not written. */
static int idle_override(FILE *to, const struct sl_type_override *over, const struct sl_model *m, const int *types,
                         uint32_t said)
{
    struct sl_pattern *p;
    struct sl_error e;
    struct found f;
    const char *text;

    SL_TRY(sl_pattern_compile(over->pattern, true, true, &p, &e));
    f = find(p, NULL, over->type, m, types);
    sl_pattern_free(p);
    text = why(&f);
    if (text && said < SAID)
        fprintf(to, "--tensor-type: '%s' %s\n", over->pattern, text);
    return text != NULL;
}

static int idle_rule(FILE *to, const struct sl_recipe *r, const struct sl_rule *rule, const struct sl_model *m,
                     const int *types, uint32_t said)
{
    struct found f = find(rule->pattern, rule, rule->type, m, types);
    const char *text = why(&f);

    if (text && said < SAID)
        fprintf(to, "%s%s, line %u: '%s' %s\n", strncmp(r->where, "recipe ", 7) == 0 ? "" : "recipe ", r->where,
                rule->line, sl_pattern_text(rule->pattern), text);
    return text != NULL;
}

int sl_recipe_idle(const struct sl_recipe *r, const struct sl_model *m, const struct sl_recipe_opts *o,
                   const int *types, char **out, struct sl_error *e)
{
    uint32_t n = 0, n_rules = r->stock || o->pure ? 0 : r->n_rules;
    size_t size;
    FILE *to = open_memstream(out, &size);
    int rc = 0;

    if (!to)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < o->n_overrides && rc >= 0; i++)
        if (!o->used[i]) {
            rc = idle_override(to, &o->overrides[i], m, types, n);
            n += rc > 0;
        }
    for (uint32_t i = 0; i < n_rules && rc >= 0; i++)
        if (!o->used[o->n_overrides + i] && !may_be_absent(&r->rules[i]))
            n += idle_rule(to, r, &r->rules[i], m, types, n);
    if (n > SAID)
        fprintf(to, "%u more rules decide nothing\n", n - SAID);
    if (sl_text_close(to, out) < 0)
        return sl_no_memory(e);
    if (rc < 0 || n == 0) {
        free(*out);
        *out = NULL;
    }
    return rc < 0 ? sl_no_memory(e) : 0;
}
