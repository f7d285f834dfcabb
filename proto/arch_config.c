/* config.json into numbers: every value is held against limits that a real
 * model keeps, so that products of a few of them cannot overflow. */
#include "proto/arch_table.h"
#include "proto/cursor.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define EXACT (UINT64_C(1) << 53)

void sl_num_set(struct sl_params *p, enum sl_num n, uint64_t v)
{
    p->num[n] = (struct sl_number){.have = true, .u = v, .f = (double)v};
}

void sl_num_set_f(struct sl_params *p, enum sl_num n, double v)
{
    p->num[n] = (struct sl_number){.have = true, .f = v};
}

int sl_num_mul(struct sl_params *p, enum sl_num to, uint64_t a, uint64_t b, struct sl_error *e)
{
    uint64_t v;

    if (!sl_mul_u64(a, b, &v) || v > EXACT)
        return sl_fail(e, SL_ESOURCE, "config.json: sizes are absurd: %" PRIu64 " x %" PRIu64, a, b);
    sl_num_set(p, to, v);
    return 0;
}

static const cJSON *entry(const cJSON *object, const char *name)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsNull(j) ? NULL : j;
}

bool sl_config_bool(const cJSON *config, const char *name, bool otherwise)
{
    const cJSON *j = entry(config, name);

    return cJSON_IsBool(j) ? cJSON_IsTrue(j) : otherwise;
}

const char *sl_config_str(const cJSON *config, const char *name)
{
    const cJSON *j = entry(config, name);

    return cJSON_IsString(j) ? j->valuestring : NULL;
}

/* The value as the file may have it, for errors. */
static const char *shown(const cJSON *j, char buf[64])
{
    if (cJSON_IsNumber(j))
        snprintf(buf, 64, "%.17g", j->valuedouble);
    else if (cJSON_IsBool(j))
        snprintf(buf, 64, "%s", cJSON_IsTrue(j) ? "true" : "false");
    else if (cJSON_IsString(j))
        snprintf(buf, 64, "\"%.40s\"", j->valuestring);
    else
        snprintf(buf, 64, "%s", cJSON_IsArray(j) ? "an array" : "an object");
    return buf;
}

int sl_config_float(const cJSON *object, const char *where, const char *name, double *v,
                    struct sl_error *e)
{
    const cJSON *j = entry(object, name);
    char buf[64];

    if (!j)
        return 0;
    if (!cJSON_IsNumber(j) || !isfinite(j->valuedouble) || !isfinite((float)j->valuedouble))
        return sl_fail(e, SL_ESOURCE, "config.json: %s%s is %s: expected a number", where, name,
                       shown(j, buf));
    *v = j->valuedouble;
    return 0;
}

static int read_field(struct sl_params *p, const cJSON *object, const struct sl_field *f, struct sl_error *e)
{
    const struct sl_bounds *is = sl_num_bounds(f->num);
    double min = f->max > 0 ? f->min : is->min, max = f->max > 0 ? f->max : is->max, v = f->otherwise;
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(object, f->name);
    bool truth = is->type == SL_KV_BOOL, any = is->type == SL_KV_F32, ok;
    char buf[64];

    if (cJSON_IsNull(j)) {
        v = f->by_class ? NAN : f->otherwise;
    } else if (j) {
        ok = truth ? cJSON_IsBool(j) : cJSON_IsNumber(j);
        v = truth ? cJSON_IsTrue(j) : ok ? j->valuedouble : 0;
        if (!ok && truth)
            return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" is %s: expected true or false", f->name, shown(j, buf));
        if (!ok || !isfinite(v) || v < min || v > max || (!any && v != floor(v)))
            return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" is %s: expected %s from %.10g to %.10g", f->name, shown(j, buf),
                           any ? "a number" : "an integer", min, max);
    }
    if (isnan(v))
        return 0;
    if (any)
        sl_num_set_f(p, f->num, v);
    else
        sl_num_set(p, f->num, (uint64_t)v);
    return 0;
}

/* The first of its names. */
static const struct sl_field *find_field(const struct sl_field *f, enum sl_num n)
{
    while (f->num != SL_N_NONE && f->num != n)
        f++;
    return f->num == n ? f : NULL;
}

int sl_arch_read_fields(struct sl_params *p, const cJSON *object, const struct sl_field *fields, struct sl_error *e)
{
    for (const struct sl_field *f = fields; f->num != SL_N_NONE; f++)
        SL_TRY(read_field(p, object, f, e));
    for (const struct sl_field *f = fields; f->num != SL_N_NONE; f++)
        if (f->needed && !p->num[f->num].have)
            return sl_fail(e, SL_ESOURCE, "config.json has no \"%s\", which %s needs", find_field(fields, f->num)->name, p->hf_class);
    return 0;
}

static const struct sl_field *field_of(const struct sl_params *p, enum sl_num n)
{
    const struct sl_field *f = NULL;

    for (const struct sl_field *const *table = p->arch->fields; *table && !f; table++)
        f = find_field(*table, n);
    return f;
}

const char *sl_arch_field_name(const struct sl_params *p, enum sl_num n)
{
    const struct sl_field *found = field_of(p, n);

    for (const struct sl_field *const *table = p->arch->fields; *table; table++)
        for (const struct sl_field *f = *table; f->num != SL_N_NONE; f++)
            if (f->num == n && entry(p->config, f->name))
                found = f;
    return found ? found->name : "?";
}

int sl_arch_need(const struct sl_params *p, enum sl_num n, struct sl_error *e)
{
    return p->num[n].u ? 0 : sl_fail(e, SL_ESOURCE, "config.json has no \"%s\", which %s needs", sl_arch_field_name(p, n),
                                     p->hf_class);
}

void sl_field_default(struct sl_params *p, enum sl_num n, double v)
{
    const struct sl_field *f = field_of(p, n);

    if (!f || cJSON_GetObjectItemCaseSensitive(p->config, f->name))
        return;
    if (sl_num_bounds(n)->type == SL_KV_F32)
        sl_num_set_f(p, n, v);
    else
        sl_num_set(p, n, (uint64_t)v);
}

/* Entries that say nothing of these architectures, but are passed on: a layer norm's epsilon, that attention looks
 * ahead, and that there are no experts. Of several names the first one counts that is there, be it null. */
static void read_idle(struct sl_params *p)
{
    static const struct {
        enum sl_num num;
        const char *names[3];
    } idle[] = {
        {SL_N_NORM_EPS, {"layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"}},
        {SL_N_NO_EXPERT, {"num_local_experts", "num_experts", "n_routed_experts"}},
        {SL_N_NO_EXPERT_USED, {"num_experts_per_tok", "num_experts_per_token", "top_k_experts"}},
    };

    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        const cJSON *j = NULL;

        for (size_t k = 0; k < 3 && !j; k++)
            j = cJSON_GetObjectItemCaseSensitive(p->config, idle[i].names[k]);
        if (!cJSON_IsNumber(j))
            continue;
        if (idle[i].num == SL_N_NORM_EPS && isfinite((float)j->valuedouble))
            sl_num_set_f(p, SL_N_NORM_EPS, j->valuedouble);
        else if (idle[i].num != SL_N_NORM_EPS && j->valuedouble == 0 && !p->num[SL_N_EXPERT].have)
            sl_num_set(p, idle[i].num, 0);
    }
    if (!sl_config_bool(p->config, "is_causal", true))
        sl_num_set(p, SL_N_CAUSAL, 0);
}

/* ---- rotary embedding ---- */

int sl_rope_float(const struct sl_params *p, const char *name, double *v, struct sl_error *e)
{
    SL_TRY(sl_config_float(p->config, "", name, v, e));
    return sl_config_float(p->rope, "rope_parameters.", name, v, e);
}

int sl_arch_no_llama3(const struct sl_params *p, struct sl_error *e)
{
    if (!p->rope_type || strcmp(p->rope_type, "llama3") != 0)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: rope_scaling of type llama3 is not supported for %s", p->hf_class);
}

int sl_arch_whole_rope(const struct sl_params *p, struct sl_error *e)
{
    double part = 1;

    SL_TRY(sl_rope_float(p, "partial_rotary_factor", &part, e));
    return part == 1 ? 0 : sl_fail(e, SL_EUNSUPPORTED, "config.json: \"partial_rotary_factor\" is %g; supported for %s: 1", part,
                                   p->hf_class);
}

int sl_arch_need_theta(const struct sl_params *p, struct sl_error *e)
{
    double theta = NAN;

    SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    return isnan(theta) ? sl_fail(e, SL_ESOURCE, "config.json has no \"rope_theta\", which %s needs", p->hf_class) : 0;
}

int sl_arch_part_rope(struct sl_params *p, double part, struct sl_error *e)
{
    uint64_t head = p->num[SL_N_HEAD_DIM].u, dim = part > 0 && part <= 1 ? (uint64_t)((double)head * part) : 0;

    if (!dim || dim % 2)
        return sl_fail(e, SL_ESOURCE, "config.json: \"partial_rotary_factor\" is %g of heads of %u: an even number of "
                       "their rows is needed", part, (unsigned)head);
    sl_num_set(p, SL_N_ROPE_DIM, dim);
    return 0;
}

int sl_arch_half_rope(struct sl_params *p, struct sl_error *e)
{
    double part = 0.5;

    SL_TRY(sl_arch_no_llama3(p, e));
    SL_TRY(sl_rope_float(p, "partial_rotary_factor", &part, e));
    return sl_arch_part_rope(p, part, e);
}

static int read_yarn(struct sl_params *p, struct sl_error *e)
{
    const char *attn = cJSON_GetObjectItemCaseSensitive(p->rope, "attention_factor") ? "attention_factor" : "attn_factor";
    const struct { enum sl_num num; const char *name; } floats[] = {
        {SL_N_YARN_EXT, "extrapolation_factor"},
        {SL_N_YARN_ATTN, attn}, /* the first one counts that is there, be it null */
        {SL_N_YARN_FAST, "beta_fast"},
        {SL_N_YARN_SLOW, "beta_slow"},
    };
    double v = NAN;

    SL_TRY(sl_config_float(p->config, "", "original_max_position_embeddings", &v, e));
    SL_TRY(sl_config_float(p->rope, "rope_scaling.", "original_max_position_embeddings", &v, e));
    if (!(v >= 1 && v <= UINT32_MAX && v == floor(v)))
        return sl_fail(e, SL_ESOURCE, "config.json: rope_scaling of type yarn needs "
                       "\"original_max_position_embeddings\", a positive integer");
    sl_num_set(p, SL_N_ROPE_ORIG_CTX, (uint64_t)v);
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        v = NAN;
        SL_TRY(sl_config_float(p->rope, "rope_scaling.", floats[i].name, &v, e));
        if (!isnan(v))
            sl_num_set_f(p, floats[i].num, v);
    }
    return 0;
}

/* rope_parameters (newer; by kinds of attention, where a model has several) or rope_scaling; rope_theta may
 * stand in either place. Scaling of type dynamic begins behind the model's own context, and has no key. */
static int read_rope(struct sl_params *p, struct sl_error *e)
{
    const cJSON *rope = entry(p->config, "rope_parameters");
    double theta = p->arch->theta > 0 ? p->arch->theta : 10000, factor = NAN;
    const char *type;

    if (entry(rope, "full_attention"))
        rope = entry(rope, "full_attention");
    if (!rope || entry(rope, "main")) /* DeepSeek-V4's kinds, which the converter does not look into */
        rope = entry(p->config, "rope_scaling");
    if (rope && !cJSON_IsObject(rope))
        return sl_fail(e, SL_ESOURCE, "config.json: rope_scaling is not an object");
    p->rope = rope;
    if (!p->arch->layer_thetas)
        SL_TRY(sl_rope_float(p, "rope_theta", &theta, e));
    if (theta <= 0)
        return sl_fail(e, SL_ESOURCE, "config.json: \"rope_theta\" is %g: expected a positive number",
                       theta);
    sl_num_set_f(p, SL_N_ROPE_THETA, theta);
    type = sl_config_str(rope, "rope_type");
    if (!type)
        type = sl_config_str(rope, "type");
    if (!type || strcmp(type, "default") == 0 || strcmp(type, "dynamic") == 0)
        return 0;
    SL_TRY(sl_config_float(rope, "rope_scaling.", "factor", &factor, e));
    p->rope_type = type;
    if (strcmp(type, "llama3") == 0)
        return 0;
    if (strcmp(type, "yarn") != 0 && strcmp(type, "linear") != 0)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: rope_scaling of type '%.60s' is not "
                       "supported; supported: yarn, linear, llama3", type);
    if (isnan(factor) || factor <= 0)
        return sl_fail(e, SL_ESOURCE, "config.json: rope_scaling of type %s needs a positive "
                       "\"factor\"", type);
    sl_num_set_f(p, SL_N_ROPE_FACTOR, factor);
    return strcmp(type, "yarn") == 0 ? read_yarn(p, e) : 0;
}

/* ---- the architecture ---- */

static const struct sl_arch *const archs[] = {&sl_arch_deepseek2, &sl_arch_deepseek32, &sl_arch_deepseek4, &sl_arch_kimi_k3, &sl_arch_exaone_moe,
                                            &sl_arch_glm_dsa, &sl_arch_glm4_moe, &sl_arch_solar_open, &sl_arch_glm_flash, &sl_arch_mimo2,
                                            &sl_arch_minimax_m2, &sl_arch_minimax_m3, &sl_arch_qwen2, &sl_arch_qwen3, &sl_arch_qwen3moe,
                                            &sl_arch_qwen3vl, &sl_arch_qwen3vlmoe, &sl_arch_qwen3next, &sl_arch_qwen35, &sl_arch_qwen35moe, &sl_arch_step35,
                                            &sl_arch_llama, &sl_arch_bailing2, &sl_arch_mistral_large3, &sl_arch_llama4,
                                            &sl_arch_hunyuan_moe, &sl_arch_hy_v3, &sl_arch_ernie45_moe};
#define N_ARCHS (sizeof archs / sizeof *archs)

/* Names the classes by their ends, and without them: in full they are more than a message holds. */
static int unsupported(const char *class, struct sl_error *e)
{
    static const char *const ends[] = {"ForCausalLM", "ForConditionalGeneration"};
    char list[800];
    size_t at = 0, n;

    for (size_t i = 0; i < sizeof ends / sizeof *ends && at < sizeof list; i++) {
        const char *before = " ";

        at += (size_t)snprintf(list + at, sizeof list - at, "%s before %s:", i ? ";" : "", ends[i]);
        for (size_t a = 0; a < N_ARCHS; a++)
            for (const char *const *c = archs[a]->classes; *c && at < sizeof list; c++)
                if ((n = sl_stem(*c, ends[i])) > 0) {
                    at += (size_t)snprintf(list + at, sizeof list - at, "%s%.*s", before, (int)n, *c);
                    before = ", ";
                }
    }
    return sl_fail(e, SL_EUNSUPPORTED, "architecture '%.100s' is not supported; supported,%s", class, list);
}

/* The name of a config's class, NULL: it has none. *arch = what it is of, NULL: it is not known. */
static const char *class_of(const cJSON *config, const struct sl_arch **arch)
{
    const cJSON *list = entry(config, "architectures");
    const char *class = cJSON_IsArray(list) ? cJSON_GetStringValue(list->child) : NULL;

    *arch = NULL;
    for (size_t a = 0; class && a < N_ARCHS; a++)
        for (const char *const *c = archs[a]->classes; *c; c++)
            if (strcmp(*c, class) == 0) {
                *arch = archs[a];
                return *c;
            }
    return class;
}

int sl_arch_check_class(const cJSON *config, struct sl_error *e)
{
    const struct sl_arch *arch;
    const char *class = class_of(config, &arch);

    return class && !arch ? unsupported(class, e) : 0;
}

static int find_arch(struct sl_params *p, struct sl_error *e)
{
    p->hf_class = class_of(p->config, &p->arch);
    if (!p->hf_class)
        return sl_fail(e, SL_ESOURCE, "config.json has no \"architectures\": a list with the name of "
                       "the model's class");
    if (p->arch)
        return 0;
    unsupported(p->hf_class, e);
    return sl_fail_context(e, "config.json");
}

enum sl_modelopt sl_arch_modelopt(const cJSON *q)
{
    static const struct { const char *begin; enum sl_modelopt is; } algos[] = {
        {"FP8_PB", SL_MODELOPT_FP8_BLOCKS}, {"FP8", SL_MODELOPT_FP8}, {"MXFP8", SL_MODELOPT_MXFP8},
        {"MXFP4", SL_MODELOPT_MXFP4}, {"NVFP4", SL_MODELOPT_NVFP4}, {"W4A16_NVFP4", SL_MODELOPT_NVFP4},
    };
    const char *method = sl_config_str(q, "quant_method"), *algo = sl_config_str(q, "quant_algo");

    for (size_t i = 0; method && algo && strcmp(method, "modelopt") == 0 && i < sizeof algos / sizeof *algos; i++) {
        size_t n = strlen(algos[i].begin);

        if (strncasecmp(algo, algos[i].begin, n) == 0 && (strncmp(algos[i].begin, "FP8", 3) == 0 || !algo[n]))
            return algos[i].is;
    }
    return SL_MODELOPT_NONE;
}

/* What Quark's file says of all weights but those of layers with an entry of their own. */
static const cJSON *quark_weight(const cJSON *q)
{
    const char *method = sl_config_str(q, "quant_method");

    return method && strcmp(method, "quark") == 0 ? entry(entry(q, "global_quant_config"), "weight") : NULL;
}

bool sl_arch_quark(const cJSON *q, const char *dtype)
{
    const char *is = sl_config_str(quark_weight(q), "dtype");

    return is && strcmp(is, dtype) == 0;
}

/* Its algorithms may turn activations, and its integers are packed in an order of their own. */
static int check_quark(const cJSON *q, struct sl_error *e)
{
    const char *is = sl_config_str(quark_weight(q), "dtype");
    const cJSON *algorithms = entry(q, "algo_config");

    if (algorithms && algorithms->child)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: quantization_config.algo_config of quark is not empty, which is not supported");
    if (!sl_arch_quark(q, "fp8_e4m3") && !sl_arch_quark(q, "fp4"))
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: weights of quark's dtype '%.60s' are not supported; supported of it: fp8_e4m3, fp4",
                       is ? is : "(none)");
    return 0;
}

int sl_arch_check_method(const cJSON *config, struct sl_error *e)
{
    static const char *const methods[] = {"fp8", "fbgemm_fp8", "mxfp8", "blockwise_int8", "w8a8_int8", "modelopt", "quark", "gptq", "awq", "compressed-tensors"};
    const cJSON *q = entry(config, "quantization_config");
    const char *method = sl_config_str(q, "quant_method"), *algo = sl_config_str(q, "quant_algo");
    size_t i = 0, n = sizeof methods / sizeof *methods;

    if (!q || (cJSON_IsObject(q) && !q->child))
        return 0;
    while (i < n && !(method && strcmp(method, methods[i]) == 0))
        i++;
    if (i == n)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: quantization_config.quant_method '%.60s' is "
                       "not supported; supported: fp8, fbgemm_fp8, mxfp8, blockwise_int8, w8a8_int8, modelopt, quark, gptq, awq, compressed-tensors, and checkpoints that are not quantized",
                       method ? method : "(none)");
    if (strcmp(method, "modelopt") == 0 && sl_arch_modelopt(q) == SL_MODELOPT_NONE)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: quantization_config.quant_algo '%.60s' of modelopt is not supported; "
                       "supported of it: FP8, FP8_PB_WO, MXFP8, MXFP4, NVFP4", algo ? algo : "(none)");
    return strcmp(method, "quark") == 0 ? check_quark(q, e) : 0;
}

static int read_dtypes(struct sl_params *p, struct sl_error *e)
{
    static const struct { const char *name; enum sl_dtype dtype; } dtypes[] = {
        {"bfloat16", SL_DTYPE_BF16}, {"float16", SL_DTYPE_F16}, {"float32", SL_DTYPE_F32},
    };
    const cJSON *q = entry(p->config, "quantization_config");
    const char *method = sl_config_str(q, "quant_method"), *format = sl_config_str(q, "format"), *dtype;
    bool packed = method && strcmp(method, "compressed-tensors") == 0;
    enum sl_modelopt of = sl_arch_modelopt(q);

    p->dtype = SL_DTYPE_BF16;
    dtype = sl_config_str(p->config, "torch_dtype");
    if (!dtype)
        dtype = sl_config_str(p->config, "dtype");
    for (size_t i = 0; dtype && i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtype, dtypes[i].name) == 0)
            p->dtype = dtypes[i].dtype;
    p->mxfp8 = (method && strcmp(method, "mxfp8") == 0) || of == SL_MODELOPT_MXFP8 ||
               (packed && format && strcmp(format, "mxfp8-quantized") == 0);
    p->fp8 = p->mxfp8 || (method && (strcmp(method, "fp8") == 0 || strcmp(method, "fbgemm_fp8") == 0)) || of == SL_MODELOPT_FP8 ||
             of == SL_MODELOPT_FP8_BLOCKS || sl_arch_quark(q, "fp8_e4m3");
    if (packed && format && (strcmp(format, "float-quantized") == 0 || strcmp(format, "naive-quantized") == 0))
        p->fp8 = true;
    return sl_arch_check_method(p->config, e);
}

const char *sl_arch_scoring(const struct sl_params *p, const char **name)
{
    static const char *const names[] = {"score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
                                        "expert_selection_fn"};
    size_t i = 0;

    while (i + 1 < sizeof names / sizeof *names && !cJSON_GetObjectItemCaseSensitive(p->config, names[i]))
        i++;
    *name = names[i];
    return sl_config_str(p->config, names[i]);
}

int sl_arch_only(const struct sl_params *p, const char *name, const char *word, bool needed, struct sl_error *e)
{
    const char *v = sl_config_str(p->config, name);

    if (v ? strcmp(v, word) == 0 : !needed)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is '%.60s'; supported for %s: %s", name, v ? v : "(none)", p->hf_class, word);
}

int sl_arch_layer_list(struct sl_params *p, const char *name, enum sl_layer_kind kind, int v, struct sl_error *e)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(p->config, name), *x;
    uint64_t n = p->num[SL_N_LAYER].u, i = 0;

    if (!cJSON_IsArray(list) || (uint64_t)cJSON_GetArraySize(list) != n)
        return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" is no list of %u entries, one for each layer", name, (unsigned)n);
    cJSON_ArrayForEach(x, list) {
        if (!cJSON_IsNumber(x) || (x->valuedouble != 0 && x->valuedouble != 1))
            return sl_fail(e, SL_ESOURCE, "config.json: \"%s\" has an entry for layer %u that is not 0 or 1", name, (unsigned)i);
        if (x->valuedouble == v)
            p->kinds[i] |= (uint8_t)kind;
        i++;
    }
    return 0;
}

int sl_arch_gating(struct sl_params *p, const char *name, const char *func, struct sl_error *e)
{
    bool sigmoid = strcmp(func, "sigmoid") == 0;

    if (!sigmoid && strcmp(func, "softmax") != 0)
        return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is '%.60s'; supported: softmax, sigmoid", name, func);
    sl_num_set(p, SL_N_GATING, sigmoid ? 2 : 1);
    return 0;
}

/* What a model divides its frequencies by, as far as it has such numbers. */
static int check_freqs(const struct sl_params *p, struct sl_error *e)
{
    for (uint64_t i = 0; p->values && i < p->num[SL_N_HALF_ROPE].u; i++)
        if (!isfinite(p->values[i]) || p->values[i] <= 0)
            return sl_fail(e, SL_ESOURCE, "config.json: rope_scaling of type %s has absurd values: factor %u of rope_freqs is no positive number",
                           p->rope_type, (unsigned)i);
    return 0;
}

/* Those for multi-token prediction are counted among them where they are kept. */
static int check_layers(const struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    return n[SL_N_LAYER].u + n[SL_N_NEXTN].u <= SL_MAX_LAYER ? 0
               : sl_fail(e, SL_ESOURCE, "config.json: %u layers and %u for multi-token prediction: at most %d are supported",
                         (unsigned)n[SL_N_LAYER].u, (unsigned)n[SL_N_NEXTN].u, SL_MAX_LAYER);
}

static int check_facts(const struct sl_params *p, struct sl_error *e)
{
    for (const struct sl_fact *f = p->arch->facts; f && f->name; f++)
        if (sl_config_bool(p->config, f->name, f->must) != f->must)
            return sl_fail(e, SL_EUNSUPPORTED, "config.json: \"%s\" is %s, and llama.cpp's %s has %s", f->name, f->must ? "false" : "true",
                           p->arch->name, f->has);
    return 0;
}

int sl_params_read(const cJSON *config, enum sl_layout layout, bool no_mtp, struct sl_params *p,
                   struct sl_error *e)
{
    *p = (struct sl_params){.config = config, .layout = layout, .no_mtp = no_mtp};
    SL_TRY(find_arch(p, e));
    SL_TRY(read_dtypes(p, e));
    if (layout == SL_LAYOUT_LEGACY && p->arch->mla_only)
        return sl_fail(e, SL_EUSAGE, "--layout legacy: llama.cpp runs %s in the layout mla alone", p->hf_class);
    for (const struct sl_field *const *table = p->arch->fields; *table; table++)
        SL_TRY(sl_arch_read_fields(p, config, *table, e));
    SL_TRY(check_layers(p, e));
    read_idle(p);
    SL_TRY(read_rope(p, e));
    p->vision = cJSON_IsObject(entry(config, "vision_config"));
    p->tied = sl_config_bool(config, "tie_word_embeddings", false);
    if (!p->tied)
        p->when |= SL_W_OUTPUT;
    SL_TRY(check_facts(p, e));
    SL_TRY(p->arch->derive(p, e));
    return check_freqs(p, e);
}
