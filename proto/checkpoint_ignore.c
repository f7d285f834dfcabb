/* Which layers are not quantized by config.json's quantization_config: for plans from it alone. */
#include "proto/checkpoint_priv.h"
#include "proto/recipe_pattern.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#define NAMES_MAX 4096   /* entries of a list that are looked at: GLM-4.6-FP8 names 800 layers, */
#define PATTERNS_MAX 100 /* and of these the expressions */
#define LAYER_NAMES 3    /* of one layer */
#define LAYER_BUF (SL_SRC_MAX_NAME + 32)

/* How an entry that is no expression names layers. */
enum naming { NAMES_ONE, NAMES_PART /* of the name, between dots */, NAMES_ANY /* part */ };

static const struct { const char *method, *list; enum naming naming; } lists[] = {
    {NULL, "ignore", NAMES_ONE},
    {"fbgemm_fp8", "modules_to_not_convert", NAMES_PART}, {"fp8", "modules_to_not_convert", NAMES_PART}, {"fp8", "ignored_layers", NAMES_PART},
    {"awq", "modules_to_not_convert", NAMES_ANY}, {"modelopt", "exclude_modules", NAMES_ONE}, {"quark", "exclude", NAMES_ONE},
};

static const cJSON *entry(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static bool has_method(const cJSON *q, const char *method)
{
    const char *is = cJSON_GetStringValue(entry(q, "quant_method"));

    return is && strcmp(is, method) == 0;
}

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

/* The beginning of a name; what is no expression, or needs too long, matches nothing, the latter from then on. */
static int matches(const struct sl_checkpoint *ck, const char *expression, const char *layer, struct sl_error *e)
{
    struct sl_ck_priv *priv = sl_ck_priv(ck);
    struct sl_pattern *p;
    char text[1024];
    int rc;

    for (unsigned i = 0; i < priv->n_slow; i++)
        if (priv->slow[i] == expression || priv->n_slow == SL_CK_SLOW)
            return 0;
    if (snprintf(text, sizeof text, "^(?:%s)", expression) >= (int)sizeof text)
        return 0;
    rc = sl_pattern_compile(text, true, false, &p, e);
    if (rc == 0) {
        rc = sl_pattern_match(p, layer, e);
        if (rc == SL_EUSAGE)
            priv->slow[priv->n_slow++] = expression;
        sl_pattern_free(p);
    }
    return rc == SL_EUSAGE ? 0 : rc;
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

/* Strings after "re:" are expressions, others names, of which some hold stars. */
static int in_list(const struct sl_checkpoint *ck, const cJSON *list, enum naming naming, char names[LAYER_NAMES][LAYER_BUF], size_t n, struct sl_error *e)
{
    const cJSON *x = cJSON_IsArray(list) ? list->child : NULL;
    int hit = 0, n_patterns = 0;

    for (int i = 0; i < NAMES_MAX && x && !hit; i++, x = x->next) {
        const char *text = cJSON_IsString(x) ? x->valuestring : "";
        bool expression = strncmp(text, "re:", 3) == 0;

        if (expression && n_patterns++ >= PATTERNS_MAX)
            continue;
        for (size_t k = 0; k < n && !hit; k++)
            hit = expression ? matches(ck, text + 3, names[k], e) : globs(text, names[k]) || (naming == NAMES_PART && has_part(names[k], text)) ||
                                                         (naming == NAMES_ANY && *text && strstr(names[k], text));
    }
    return hit;
}

/* GPTQ quantizes the head when it is told to, and has in "dynamic" a member "-:" with an expression for layers that it leaves out. */
static int gptq_ignores(const struct sl_checkpoint *ck, const cJSON *q, char names[LAYER_NAMES][LAYER_BUF], size_t n, struct sl_error *e)
{
    const cJSON *dynamic = entry(q, "dynamic"), *x = cJSON_IsObject(dynamic) ? dynamic->child : NULL;
    int hit = strcmp(names[0], "lm_head") == 0 && !cJSON_IsTrue(entry(q, "lm_head"));

    for (int i = 0; i < PATTERNS_MAX && x && !hit; i++, x = x->next)
        for (size_t k = 0; k < n && !hit && strncmp(x->string, "-:", 2) == 0; k++)
            hit = matches(ck, x->string + 2, names[k], e);
    return hit;
}

int sl_checkpoint_ignores(const struct sl_checkpoint *ck, const char *name, struct sl_error *e)
{
    const cJSON *q = entry(sl_checkpoint_config(ck), "quantization_config");
    char names[LAYER_NAMES][LAYER_BUF];
    size_t n = layer_names(ck, name, names);
    int hit = has_method(q, "gptq") ? gptq_ignores(ck, q, names, n, e) : has_method(q, "awq") && strcmp(names[0], "lm_head") == 0;

    for (size_t i = 0; i < sizeof lists / sizeof *lists && !hit; i++)
        if (!lists[i].method || has_method(q, lists[i].method))
            hit = in_list(ck, entry(q, lists[i].list), lists[i].naming, names, n, e);
    return hit;
}
