/* Rules and overrides that decide nothing: mostly a name mistyped, or another architecture's. */
#include "proto/recipe_forms.h"
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
    bool tied;          /* the embedding, which rules see as the output */
};

struct idle {
    const struct sl_recipe *r;
    const struct sl_model *m;
    const struct sl_recipe_opts *o;
    const int *types;
    struct sl_rule_forms forms;
    const struct sl_out_tensor *output; /* the embedding that rules see as the output; NULL: none */
};

/* Whether the name of tensor t is known not to match: the assignment asked, or no name of its form does. */
static bool ruled_out(const struct idle *d, const struct sl_rule *rule, uint32_t t)
{
    return (d->o->asked[t] > d->o->n_overrides + (rule - d->r->rules) && sl_rule_in_layers(rule, d->m->tensors[t].name, &d->m->hp))
        || !sl_rule_may_match(&d->forms, (uint32_t)(rule - d->r->rules), t);
}

/* rule: NULL for an override, which has no layers. */
static struct found find(const struct idle *d, const struct sl_pattern *p, const struct sl_rule *rule, int type)
{
    struct found f = {.tied = false};
    struct sl_error e;

    for (uint32_t i = 0; i < d->m->n_tensors; i++) {
        const struct sl_out_tensor *t = &d->m->tensors[i];
        bool output = rule && t == d->output;

        if (output)
            f.tied = sl_pattern_match(p, t->name, &e) == 1;
        else if (rule && ruled_out(d, rule, i))
            continue;
        if (sl_pattern_match(p, output ? "output.weight" : t->name, &e) != 1)
            continue;
        f.any++;
        if (rule && !sl_rule_in_layers(rule, t->name, &d->m->hp))
            continue;
        f.in_layers++;
        if (sl_recipe_may_quantize(t)) {
            f.open++;
            f.agree += d->types[i] == type;
        }
    }
    return f;
}

/* NULL: it is not worth a word. */
static const char *why(const struct found *f)
{
    if (f->open && f->agree == f->open)
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
static int idle_override(FILE *to, const struct idle *d, const struct sl_type_override *over, uint32_t said)
{
    struct sl_pattern *p;
    struct sl_error e;
    struct found f;
    const char *text;

    SL_TRY(sl_pattern_compile(over->pattern, true, true, &p, &e));
    f = find(d, p, NULL, over->type);
    sl_pattern_free(p);
    text = why(&f);
    if (text && said < SAID)
        fprintf(to, "--tensor-type: '%s' %s\n", over->pattern, text);
    return text != NULL;
}

static int idle_rule(FILE *to, const struct idle *d, const struct sl_rule *rule, uint32_t said)
{
    struct found f = find(d, rule->pattern, rule, rule->type);
    const char *text = why(&f), *where = d->r->where;

    if (text && said < SAID)
        fprintf(to, "%s%s, line %u: '%s' %s\n", strncmp(where, "recipe ", 7) == 0 ? "" : "recipe ", where, rule->line,
                sl_pattern_text(rule->pattern), text);
    return text != NULL;
}

static int say_idle(FILE *to, const struct idle *d)
{
    const struct sl_recipe_opts *o = d->o;
    uint32_t n = 0, n_rules = d->r->stock || o->pure ? 0 : d->r->n_rules;

    for (uint32_t i = 0; i < o->n_overrides; i++)
        if (!o->used[i]) {
            int rc = idle_override(to, d, &o->overrides[i], n);

            SL_TRY(rc);
            n += rc > 0;
        }
    for (uint32_t i = 0; i < n_rules; i++)
        if (!o->used[o->n_overrides + i] && !may_be_absent(&d->r->rules[i]))
            n += idle_rule(to, d, &d->r->rules[i], n);
    if (n > SAID)
        fprintf(to, "%u more rules decide nothing\n", n - SAID);
    return n > 0;
}

int sl_recipe_idle(const struct sl_recipe *r, const struct sl_model *m, const struct sl_recipe_opts *o,
                   const int *types, char **out, struct sl_error *e)
{
    struct idle d = {.r = r, .m = m, .o = o, .types = types};
    size_t size;
    FILE *to = open_memstream(out, &size);
    int rc;

    if (!to)
        return sl_fail(e, SL_EFAIL, "out of memory");
    for (uint32_t i = sl_recipe_tied(m) ? 0 : m->n_tensors; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, "token_embd.weight") == 0)
            d.output = &m->tensors[i];
    rc = sl_rule_forms_init(&d.forms, r, m, e);
    if (rc == 0)
        rc = say_idle(to, &d);
    sl_rule_forms_free(&d.forms);
    if (sl_text_close(to, out) < 0)
        return sl_fail(e, SL_EFAIL, "out of memory");
    if (rc <= 0) {
        free(*out);
        *out = NULL;
    }
    return rc < 0 ? sl_fail(e, SL_EFAIL, "out of memory") : 0;
}
