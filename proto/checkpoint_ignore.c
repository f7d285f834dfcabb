/* Which layers are not quantized by config.json's quantization_config: for plans from it alone. */
#include "proto/checkpoint_priv.h"
#include "proto/recipe_pattern.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 4096   /* entries of a list: GLM-4.6-FP8 names 800 layers, */
#define PATTERNS_MAX 100 /* and of these the expressions */
#define TEXT_MAX 1024    /* bytes of one; no layer has so long a name */
#define LAYER_NAMES 3    /* of one layer */
#define LAYER_BUF (SL_SRC_MAX_NAME + 32)

/* Steps of matching for all layers, some seconds: 4096 layers of seven matrices and 100 expressions of a hundred choices take
 * 900 million. A list that needs more is refused. A name costs some whatever it is. */
#define STEPS_ALL UINT64_C(1000000000)
#define STEPS_NAME 8u
#define STEPS_FIRST 64u

/* How an entry names layers. */
enum naming { NAMES_ONE, NAMES_PART /* of the name, between dots */, NAMES_ANY /* part */, NAMES_EXPRESSION };

struct entry {
    const char *text;              /* in config.json; of an expression NULL */
    struct sl_pattern *expression; /* of that alone */
    enum naming naming;
};

struct sl_ck_ignore {
    struct entry *entries;
    size_t n;
    uint64_t spent; /* steps */
};

static const struct { const char *method, *list; enum naming naming; } lists[] = {
    {NULL, "ignore", NAMES_ONE},
    {"fbgemm_fp8", "modules_to_not_convert", NAMES_PART}, {"fp8", "modules_to_not_convert", NAMES_PART}, {"fp8", "ignored_layers", NAMES_PART},
    {"awq", "modules_to_not_convert", NAMES_ANY}, {"modelopt", "exclude_modules", NAMES_ONE}, {"quark", "exclude", NAMES_ONE},
};

static const cJSON *entry_of(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool has_method(const cJSON *q, const char *method)
{
    const char *is = cJSON_GetStringValue(entry_of(q, "quant_method"));

    return is && strcmp(is, method) == 0;
}

/* ---- one name ---- */

/* A star stands for any bytes. */
static bool globs(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL;

    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static bool has_part(const char *name, const char *part)
{
    size_t n = strlen(part);

    for (const char *at = name; n && (at = strstr(at, part)); at++)
        if ((at == name || at[-1] == '.') && (!at[n] || at[n] == '.'))
            return true;
    return false;
}

static int too_long(struct sl_error *e)
{
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: which layers quantization_config leaves out takes too many steps to tell: shorten its lists of "
                   "them, or simplify the expressions there");
}

static int spend(struct sl_ck_ignore *g, uint64_t steps, struct sl_error *e)
{
    if (STEPS_ALL - g->spent < steps)
        return too_long(e);
    g->spent += steps;
    return 0;
}

/* The beginning of a name. */
static int matches(struct sl_ck_ignore *g, const struct entry *x, const char *layer, struct sl_error *e)
{
    for (uint32_t steps = STEPS_FIRST;; steps *= 4) {
        int rc;

        SL_TRY(spend(g, steps, e));
        rc = sl_pattern_match_within(x->expression, layer, steps, e);
        if (rc != SL_EUSAGE)
            return rc;
        if (steps >= SL_PATTERN_STEPS)
            return too_long(e);
    }
}

static int names_layer(struct sl_ck_ignore *g, const struct entry *x, const char *layer, struct sl_error *e)
{
    if (x->naming == NAMES_EXPRESSION)
        return matches(g, x, layer, e);
    SL_TRY(spend(g, STEPS_NAME, e));
    return globs(x->text, layer) || (x->naming == NAMES_PART && has_part(layer, x->text)) ||
           (x->naming == NAMES_ANY && *x->text && strstr(layer, x->text));
}

/* The names that a weight's layer may have there: that of a text model inside another has a prefix. Returns how many. */
static size_t layer_names(const struct sl_checkpoint *ck, const char *weight, char names[LAYER_NAMES][LAYER_BUF])
{
    int n = (int)(sl_stem(weight, ".weight") ? sl_stem(weight, ".weight") : strlen(weight));
    int in_model = strncmp(weight, "model.", 6) == 0 ? 6 : 0; /* bytes of that */

    snprintf(names[0], LAYER_BUF, "%.*s", n, weight);
    snprintf(names[1], LAYER_BUF, "language_model.%.*s", n, weight);
    snprintf(names[2], LAYER_BUF, "model.language_model.%.*s", n - in_model, weight + in_model);
    return !sl_ck_priv(ck)->text ? 1 : in_model ? 3 : 2;
}

/* ---- the lists ---- */

static int too_many(struct sl_error *e)
{
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: quantization_config has a list of layers that it leaves out with more than %d entries, %d "
                   "expressions or %d bytes in one of these: shorten it", NAMES_MAX, PATTERNS_MAX, TEXT_MAX);
}

/* What is no expression matches nothing. */
static int add_expression(struct sl_ck_ignore *g, const char *expression, struct sl_error *e)
{
    struct entry *x = &g->entries[g->n];
    char text[TEXT_MAX + 8];
    int rc;

    if (strlen(expression) > TEXT_MAX)
        return too_many(e);
    snprintf(text, sizeof text, "^(?:%s)", expression);
    rc = sl_pattern_compile(text, true, false, &x->expression, e);
    if (rc < 0)
        return rc == SL_EUSAGE ? 0 : rc;
    x->naming = NAMES_EXPRESSION;
    g->n++;
    return 0;
}

/* Strings after "re:" are expressions, others names, of which some hold stars. */
static int add_list(struct sl_ck_ignore *g, const cJSON *list, enum naming naming, struct sl_error *e)
{
    const cJSON *x = cJSON_IsArray(list) ? list->child : NULL;
    int n_names = 0, n_patterns = 0;

    for (; x; x = x->next) {
        const char *text = cJSON_IsString(x) ? x->valuestring : "";
        bool expression = strncmp(text, "re:", 3) == 0;

        n_patterns += expression;
        if (n_names++ == NAMES_MAX || n_patterns > PATTERNS_MAX)
            return too_many(e);
        if (expression)
            SL_TRY(add_expression(g, text + 3, e));
        else if (strnlen(text, TEXT_MAX) < TEXT_MAX)
            g->entries[g->n++] = (struct entry){.text = text, .naming = naming};
    }
    return 0;
}

/* GPTQ has in "dynamic" a member "-:" with an expression for layers that it leaves out. */
static int add_dynamic(struct sl_ck_ignore *g, const cJSON *q, struct sl_error *e)
{
    const cJSON *dynamic = entry_of(q, "dynamic"), *x = cJSON_IsObject(dynamic) ? dynamic->child : NULL;
    int n = 0;

    for (; x; x = x->next) {
        if (strncmp(x->string, "-:", 2) != 0)
            continue;
        if (n++ == PATTERNS_MAX)
            return too_many(e);
        SL_TRY(add_expression(g, x->string + 2, e));
    }
    return 0;
}

static bool of_method(const cJSON *q, size_t list)
{
    return !lists[list].method || has_method(q, lists[list].method);
}

static int read_lists(struct sl_ck_ignore *g, const cJSON *q, struct sl_error *e)
{
    size_t room = PATTERNS_MAX;

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        room += of_method(q, i) && entry_of(q, lists[i].list) ? NAMES_MAX : 0;
    g->entries = calloc(room, sizeof *g->entries);
    if (!g->entries)
        return sl_no_memory(e);
    if (has_method(q, "gptq"))
        SL_TRY(add_dynamic(g, q, e));
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (of_method(q, i))
            SL_TRY(add_list(g, entry_of(q, lists[i].list), lists[i].naming, e));
    return 0;
}

void sl_ck_free_ignore(struct sl_ck_ignore *g)
{
    for (size_t i = 0; g && i < g->n; i++)
        sl_pattern_free(g->entries[i].expression);
    free(g ? g->entries : NULL);
    free(g);
}

/* Effect: *out = the lists, read once. */
static int lists_of(const struct sl_checkpoint *ck, const cJSON *q, struct sl_ck_ignore **out, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    int rc = 0;

    if (!p->ignore) {
        p->ignore = calloc(1, sizeof *p->ignore);
        rc = p->ignore ? read_lists(p->ignore, q, e) : sl_no_memory(e);
        if (rc < 0) {
            sl_ck_free_ignore(p->ignore);
            p->ignore = NULL;
        }
    }
    *out = p->ignore;
    return rc;
}

int sl_checkpoint_ignores(const struct sl_checkpoint *ck, const char *name, struct sl_error *e)
{
    const cJSON *q = entry_of(sl_checkpoint_config(ck), "quantization_config");
    char names[LAYER_NAMES][LAYER_BUF];
    size_t n = layer_names(ck, name, names);
    struct sl_ck_ignore *g = NULL;
    int hit = 0;

    SL_TRY(lists_of(ck, q, &g, e));
    /* GPTQ quantizes the head when it is told to. */
    if (strcmp(names[0], "lm_head") == 0 && (has_method(q, "awq") || (has_method(q, "gptq") && !cJSON_IsTrue(entry_of(q, "lm_head")))))
        return 1;
    for (size_t i = 0; i < g->n && !hit; i++)
        for (size_t k = 0; k < n && !hit; k++)
            hit = names_layer(g, &g->entries[i], names[k], e);
    return hit;
}
