/* A parsed recipe, as recipe_parse.c makes it and recipe_assign.c uses it. */
#ifndef SLUICE_PROTO_RECIPE_RULES_H
#define SLUICE_PROTO_RECIPE_RULES_H

#include "proto/mixture.h"
#include "proto/recipe.h"
#include "proto/recipe_pattern.h"

enum sl_layers_kind {
    SL_LAYERS_RANGE,     /* a, a + step, ... up to b */
    SL_LAYERS_MORE_BITS,
    SL_LAYERS_FIRST,     /* layers < n / a */
    SL_LAYERS_LAST,      /* layers >= (a - 1) * n / a */
    SL_LAYERS_DENSE,     /* in a model with experts: layers that have none */
    SL_LAYERS_MOE,       /* layers with experts */
};

struct sl_layers {
    enum sl_layers_kind kind;
    uint32_t a, b, step;
};

#define SL_RECIPE_MAX (64u << 10) /* bytes of a recipe */
#define SL_RULE_MAX_LAYERS 16
#define SL_RULE_MIXTURE (-1) /* what llama.cpp's mixture says */
#define SL_RULE_KEEP (-2)    /* as the source has it */

struct sl_rule {
    struct sl_pattern *pattern;
    struct sl_layers layers[SL_RULE_MAX_LAYERS];
    uint32_t n_layers;   /* 0: every tensor that the pattern matches */
    int type;            /* ggml id, SL_RULE_MIXTURE or SL_RULE_KEEP */
    uint32_t line;
};

struct sl_recipe {
    char *name, *where, *text, *advice, *encoding;
    struct sl_rule *rules;
    uint32_t n_rules;
    const struct sl_mixture *mixture; /* NULL: none */
    int default_type;                 /* -1: the mixture decides */
    int64_t file_type;                /* -1 until known */
    bool copy;                        /* the source's file_type instead */
    bool stock;                       /* compiled in: written for many models */
};

/* Whether a rule's layers have the tensor of this name. */
bool sl_rule_in_layers(const struct sl_rule *rule, const char *name, const struct sl_hparams *hp);

#endif
