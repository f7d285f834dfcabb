#include "proto/job_spec.h"

#include "proto/suffix.h"
#include "proto/suggest.h"
#include "proto/utf8.h"
#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_BYTES 112u   /* a checkpoint's tensor beside its record: name, place in the table */
#define TABLE_BYTES 131072u /* config.json, files, the smallest tables */
#define STRING_BYTES 26u  /* a token or merge: pointer, length, text */

/* ---- texts of options */

int sl_no_type(const char *origin, const char *text, struct sl_error *e)
{
    char word[64];
    struct suggestion s = {.word = word};

    snprintf(word, sizeof word, "%s", text);
    for (char *p = word; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    for (int i = 0; i < SL_TYPE_LIMIT; i++)
        if (sl_type_info(i) && sl_type_info(i)->quantizes)
            suggest_try(&s, sl_type_info(i)->name);
    return sl_fail(e, SL_EUSAGE, "%s: '%s' is no type; %s%s%s'sluice types' lists them", origin, text,
                   s.best ? "did you mean " : "", s.best ? s.best : "", s.best ? "? " : "");
}

static int type_option(const char *option, const char *text, int *out, struct sl_error *e)
{
    *out = text ? sl_type_by_name(text) : -1;
    return text && *out < 0 ? sl_no_type(option, text, e) : 0;
}

int sl_job_add_override(struct sl_job_plan *j, const char *origin, const char *pattern,
                        const char *type, struct sl_error *e)
{
    struct sl_type_override *p = realloc(j->overrides, (j->n_overrides + 1) * sizeof *p);
    char *copy;

    if (!p)
        return sl_no_memory(e);
    j->overrides = p;
    p += j->n_overrides;
    SL_TRY(type_option(origin, type, &p->type, e));
    p->pattern = copy = strdup(pattern);
    if (!copy)
        return sl_no_memory(e);
    for (; *copy; copy++)
        *copy = (char)tolower((unsigned char)*copy);
    j->n_overrides++;
    return 0;
}

/* Keys that say how the file itself is laid out: another value would be a lie. */
static bool is_reserved(const char *key, size_t n)
{
    return (n == 17 && strncmp(key, "general.alignment", n) == 0) ||
           (n > 6 && strncmp(key, "split.", 6) == 0) || (n > 7 && strncmp(key, "sluice.", 7) == 0);
}

int sl_parse_override_kv(struct sl_kvs *kvs, const char *text, struct sl_error *e)
{
    const char *eq = strchr(text, '='), *colon = eq ? strchr(eq, ':') : NULL;
    char *key, *end = NULL;
    const char *type, *value;
    int rc = SL_EUSAGE;

    if (!colon || eq == text)
        return sl_fail(e, SL_EUSAGE, "--override-kv '%s': expected KEY=TYPE:VALUE", text);
    if (!sl_utf8_valid(text))
        return sl_fail(e, SL_EUSAGE, "--override-kv '%s': expected UTF-8", text);
    if (eq - text > 127) /* llama-quantize's limit, as on the text below */
        return sl_fail(e, SL_EUSAGE, "--override-kv '%s': the key has %td bytes; 127 at most are expected", text, eq - text);
    if (is_reserved(text, (size_t)(eq - text)))
        return sl_fail(e, SL_EUSAGE, "--override-kv '%s': general.alignment, split.* and sluice.* "
                                     "describe the file itself and cannot be set", text);
    type = eq + 1;
    value = colon + 1;
    key = strndup(text, (size_t)(eq - text));
    if (!key)
        return sl_no_memory(e);
    errno = 0;
    if (strncmp(type, "int:", 4) == 0) {
        long long v = strtoll(value, &end, 10);

        /* llama-quantize writes integers as u32. */
        if (end != value && !*end && !errno && v >= 0 && v <= UINT32_MAX)
            rc = sl_kvs_set_u32(kvs, key, (uint32_t)v);
    } else if (strncmp(type, "float:", 6) == 0) {
        double v = strtod(value, &end);

        if (end != value && !*end && (isfinite((float)v) || (!isfinite(v) && !errno)))
            rc = sl_kvs_set_f32(kvs, key, (float)v);
    } else if (strncmp(type, "bool:", 5) == 0) {
        if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
            rc = sl_kvs_set_bool(kvs, key, value[0] == 't');
    } else if (strncmp(type, "str:", 4) == 0) {
        if (strlen(value) <= 127)
            rc = sl_kvs_set_str(kvs, key, value);
    }
    free(key);
    if (rc == SL_EFAIL)
        return sl_no_memory(e);
    if (rc < 0)
        return sl_fail(e, rc, "--override-kv '%s': expected int:N (0 to 4294967295), float:X, "
                              "bool:true|false or str:TEXT (at most 127 bytes)", text);
    return 0;
}

static int one_of(const char *option, const char *text, const char *a, const char *b, bool *is_b,
                  struct sl_error *e)
{
    *is_b = text && strcmp(text, b) == 0;
    if (!text || *is_b || strcmp(text, a) == 0)
        return 0;
    return strcmp(a, b) == 0 ? sl_fail(e, SL_EUSAGE, "%s: '%s': expected %s", option, text, a)
                             : sl_fail(e, SL_EUSAGE, "%s: '%s': expected %s or %s", option, text, a, b);
}

/* ---- from options to a plan */

static int recipe_options(const struct sl_job_plan *j, const struct sl_job_options *o, bool legacy,
                          struct sl_recipe_opts *ro, struct sl_error *e)
{
    *ro = (struct sl_recipe_opts){.overrides = j->overrides, .n_overrides = j->n_overrides,
                                  .leave_output = o->leave_output, .pure = o->pure,
                                  .allow_requantize = o->allow_requantize, .any_type = o->any_type};
    SL_TRY(type_option("--output-tensor-type", o->output_type, &ro->output_type, e));
    SL_TRY(type_option("--token-embedding-type", o->embedding_type, &ro->embedding_type, e));
    SL_TRY(one_of("--rules", o->rules, "2026", "2025", &ro->rules_2025, e));
    if (!o->rules && legacy)
        ro->rules_2025 = true; /* that layout ended with those rules */
    return 0;
}

static int plan_options(struct sl_job_plan *j, const struct sl_job_options *o,
                        struct sl_plan_opts *po, struct sl_error *e)
{
    *po = (struct sl_plan_opts){.split_max_bytes = o->split_max_bytes,
                                .split_max_tensors = o->split_max_tensors,
                                .no_mtp = o->no_mtp,
                                .no_tensor_first_split = o->no_tensor_first_split,
                                .keep_split = o->keep_split,
                                .task_bytes = o->task_bytes,
                                .model_name = o->model_name,
                                .extra_kvs = &j->extra_kvs};
    if (o->task_bytes && o->task_bytes < SL_TASK_BYTES_MIN)
        return sl_fail(e, SL_EUSAGE, "--task-size: %llu is too small; at least %u bytes",
                       (unsigned long long)o->task_bytes, SL_TASK_BYTES_MIN);
    SL_TRY(one_of("--round-through", o->round_through, "bf16", "bf16", &j->round_bf16, e));
    po->round_bf16 = j->round_bf16;
    return 0;
}

static struct sl_weight_words weight_words(const struct sl_job_options *o)
{
    bool keep = o->n_include_weights > 0;

    return (struct sl_weight_words){keep ? o->include_weights : o->exclude_weights,
                                    keep ? o->n_include_weights : o->n_exclude_weights, keep};
}

int sl_job_imatrix_open(const struct sl_job_options *o, const struct sl_roots *roots, struct sl_imatrix **out,
                        struct sl_error *e)
{
    const struct sl_weight_words words = weight_words(o);
    struct sl_imatrix *im;
    int rc = 0;

    *out = NULL;
    if (o->n_include_weights && o->n_exclude_weights)
        return sl_fail(e, SL_EUSAGE, "--include-weights and --exclude-weights cannot be used together");
    if (access(o->imatrix, R_OK) != 0)
        return sl_fail(e, SL_ESOURCE, "--imatrix %s: %s; expected llama-imatrix's file, or the word synthetic", o->imatrix,
                       strerror(errno));
    SL_TRY(sl_imatrix_open_within(o->imatrix, roots, &im, e));
    if (words.n)
        rc = sl_imatrix_filter(im, &words, e);
    if (rc == 0)
        rc = sl_imatrix_check(im, e);
    if (rc < 0 || im->n_entries == 0) {
        sl_imatrix_close(im);
        return rc;
    }
    *out = im;
    return 0;
}

/* Opens the imatrix and records it in the output's metadata. */
static int take_imatrix(struct sl_job_plan *j, const struct sl_job_options *o, struct sl_error *e)
{
    const struct sl_weight_words words = weight_words(o);

    if (!o->imatrix && !o->synthetic && words.n)
        return sl_fail(e, SL_EUSAGE, "--include-weights and --exclude-weights need --imatrix FILE");
    if (o->n_include_weights && o->n_exclude_weights)
        return sl_fail(e, SL_EUSAGE, "--include-weights and --exclude-weights cannot be used together");
    j->synthetic = o->synthetic;
    if (o->imatrix)
        SL_TRY(sl_job_imatrix_open(o, j->roots, &j->imatrix, e));
    if ((j->imatrix || j->synthetic) && sl_imatrix_kvs(j->imatrix, &words, &j->extra_kvs) < 0)
        return sl_no_memory(e);
    return 0;
}

int sl_job_recipe_opts(const struct sl_job_plan *j, const struct sl_job_options *o,
                       struct sl_recipe_opts *ro, struct sl_error *e)
{
    bool legacy;

    SL_TRY(one_of("--layout", o->layout, "mla", "legacy", &legacy, e));
    SL_TRY(recipe_options(j, o, legacy, ro, e));
    ro->has_imatrix = j->imatrix || j->synthetic;
    ro->imatrix = j->imatrix;
    ro->words = weight_words(o);
    return 0;
}

/* The output names its source by the path that people gave, whatever way it was opened. */
static int name_source(struct sl_job_plan *j, const char *path, struct sl_error *e)
{
    size_t n = strlen(path);
    const char *slash = strrchr(path, '/');
    char *dir;

    if (!j->ck->dir)
        return 0;
    if (sl_stem(path, ".safetensors") || sl_stem(path, ".safetensors.index.json"))
        n = slash ? (size_t)(slash - path) : 0;
    while (n > 1 && path[n - 1] == '/')
        n--;
    dir = strndup(path, n);
    if (!dir)
        return sl_no_memory(e);
    free(j->ck->dir);
    j->ck->dir = dir;
    return 0;
}

/* llama-quantize's rules go by the numbers that --override-kv gives. */
static void override_hparams(struct sl_model *m, const struct sl_kvs *kvs)
{
    struct { const char *key; uint64_t *value; } number[] = {
        {"block_count", &m->hp.n_layer}, {"expert_count", &m->hp.n_expert},
        {"attention.head_count", &m->hp.n_head}, {"attention.head_count_kv", &m->hp.n_head_kv},
    };

    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        char key[160];

        snprintf(key, sizeof key, "%.80s.%s", m->arch, number[i].key);
        (void)sl_kvs_get_uint(kvs, key, number[i].value);
    }
}

/* The other keys have the architecture's name in theirs, and the rules go by it. */
static int check_architecture(const struct sl_model *m, const struct sl_kvs *kvs, struct sl_error *e)
{
    const char *other;

    if (!sl_kvs_find(kvs, "general.architecture") ||
        (sl_kvs_get_str(kvs, "general.architecture", &other) && strcmp(other, m->arch) == 0))
        return 0;
    return sl_fail(e, SL_EUSAGE, "--override-kv general.architecture: this model's is %s, and what it says of its layers "
                   "stands under %s.block_count and the like", m->arch, m->arch);
}

static int keeps_layers(const struct sl_model *m, struct sl_error *e)
{
    uint64_t n = m->hp.n_nextn;
    char list[64] = "";

    if (n && n <= m->hp.n_layer)
        snprintf(list, sizeof list, "%" PRIu64 "%s", m->hp.n_layer - n, n > 1 ? ",..." : "");
    return *list ? sl_fail(e, SL_EUSAGE, "--no-mtp is for checkpoints, and the source is a GGUF file; 'sluice quantize' leaves the "
                           "same out with --prune-layers %s --override-kv %s.nextn_predict_layers=int:0", list, m->arch)
                 : sl_fail(e, SL_EUSAGE, "--no-mtp is for checkpoints, and the source is a GGUF file, which has no layer for "
                           "multi-token prediction");
}

static int open_model(struct sl_job_plan *j, const char *source, const struct sl_job_options *o,
                      const struct sl_model_opts *mo, struct sl_error *e)
{
    SL_TRY(o->config_only ? sl_checkpoint_open_config(source, &j->ck, e)
                          : sl_checkpoint_open_within(source, j->roots, j->watch, &j->ck, e));
    SL_TRY(sl_model_open(j->ck, mo, &j->model, e));
    if (o->layout && j->ck->is_gguf && j->model->hp.kv_lora && j->model->layout != mo->layout)
        return sl_fail(e, SL_EUSAGE, "--layout %s: the source is a GGUF file in the other layout, and keeps it",
                       o->layout);
    if (o->no_mtp && j->ck->is_gguf)
        return keeps_layers(j->model, e);
    SL_TRY(check_architecture(j->model, &j->extra_kvs, e));
    override_hparams(j->model, &j->extra_kvs);
    return o->source_name ? name_source(j, o->source_name, e) : 0;
}

int sl_job_plan_make(struct sl_job_plan *j, const char *source, const struct sl_job_options *o,
                     struct sl_error *e)
{
    struct sl_model_opts mo = {.model_name = o->model_name, .no_mtp = o->no_mtp, .keep_order = o->keep_split,
                               .prune = o->prune, .n_prune = o->n_prune,
                               .tokenizer_optional = o->any_type};
    struct sl_recipe_opts ro;
    struct sl_plan_opts po;
    bool legacy;

    SL_TRY(one_of("--layout", o->layout, "mla", "legacy", &legacy, e));
    mo.layout = legacy ? SL_LAYOUT_LEGACY : SL_LAYOUT_MLA;
    SL_TRY(plan_options(j, o, &po, e));
    SL_TRY(take_imatrix(j, o, e));
    SL_TRY(sl_job_recipe_opts(j, o, &ro, e));
    j->rules_2025 = ro.rules_2025;
    if (!j->model)
        SL_TRY(open_model(j, source, o, &mo, e));
    if (sl_recipe_is_copy(j->recipe))
        SL_TRY(sl_job_copy_file_type(j, e));
    if (o->n_prune && sl_kvs_set_arr(&j->extra_kvs, SL_KEY_PRUNED, SL_KV_U32, o->prune, o->n_prune) < 0)
        return sl_no_memory(e);
    if (o->prefix)
        j->prefix = strdup(o->prefix);
    else if (asprintf(&j->prefix, "%s-%s", j->model->base_name, sl_recipe_encoding(j->recipe)) < 0)
        j->prefix = NULL;
    if (!j->prefix)
        return sl_no_memory(e);
    po.prefix = j->prefix;
    SL_TRY(sl_plan_build(j->ck, j->model, j->recipe, &ro, &po, &j->plan, e));
    (void)malloc_trim(0); /* what reading the JSON took */
    if (j->synthetic)
        return sl_imatrix_use_synthetic(&j->weights, j->plan, &ro.words, e);
    SL_TRY(sl_imatrix_use_make(&j->weights, j->imatrix, j->plan, e));
    j->weights.nothing_left = o->imatrix && !j->imatrix;
    return 0;
}

/* ---- specifications */

/* The strings of an array; *list is the caller's, the strings the tree's. */
static int string_list(const cJSON *array, const char *const **list, uint32_t *n,
                       struct sl_error *e)
{
    const char **p = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof *p);
    const cJSON *item;

    *list = p;
    *n = 0;
    if (!p)
        return sl_no_memory(e);
    cJSON_ArrayForEach(item, array)
        p[(*n)++] = cJSON_GetStringValue(item);
    return 0;
}

static int spec_lists(struct sl_job_plan *j, const cJSON *options, struct sl_error *e)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, sl_get(options, "tensor_types"))
        SL_TRY(sl_job_add_override(j, "--tensor-type", sl_get_str(item, "pattern"),
                                   sl_get_str(item, "type"), e));
    cJSON_ArrayForEach(item, sl_get(options, "override_kv"))
        SL_TRY(sl_parse_override_kv(&j->extra_kvs, cJSON_GetStringValue(item), e));
    return 0;
}

/* A base name becomes a path's last part. */
static int check_prefix(const char *prefix, struct sl_error *e)
{
    if (!prefix || (*prefix && *prefix != '.' && !strchr(prefix, '/')))
        return 0;
    return sl_fail(e, SL_EUSAGE, "prefix '%s': a file's base name without '/', not hidden", prefix);
}

int sl_job_plan_open(struct sl_job_plan *j, const cJSON *spec, const char *source,
                     struct sl_error *e)
{
    const cJSON *options = sl_get(spec, "options");
    const char *recipe = sl_get_str(spec, "recipe");
    struct sl_job_options o = {
        .layout = sl_get_str(options, "layout"),
        .round_through = sl_get_str(options, "round_through"),
        .rules = sl_get_str(options, "rules"),
        .model_name = sl_get_str(options, "model_name"),
        .output_type = sl_get_str(options, "output_type"),
        .embedding_type = sl_get_str(options, "embedding_type"),
        .split_max_bytes = sl_get_uint(options, "split_max_bytes", SL_SPLIT_DEFAULT),
        .split_max_tensors = sl_get_uint(options, "split_max_tensors", 0),
        .task_bytes = sl_get_uint(options, "task_bytes", 0),
        .no_mtp = sl_get_bool(options, "no_mtp"),
        .no_tensor_first_split = sl_get_bool(options, "no_tensor_first_split"),
        .keep_split = sl_get_bool(options, "keep_split"),
        .leave_output = sl_get_bool(options, "leave_output"),
        .pure = sl_get_bool(options, "pure"),
        .allow_requantize = sl_get_bool(options, "allow_requantize"),
        .imatrix = sl_get_str(options, "imatrix"),
        .synthetic = sl_get_bool(options, "synthetic_imatrix"),
        .prefix = sl_get_str(spec, "prefix"),
        .source_name = sl_get_str(spec, "source"),
    };
    int rc = check_prefix(o.prefix, e);

    if (rc == 0 && o.imatrix && o.synthetic)
        rc = sl_fail(e, SL_EUSAGE, "imatrix and synthetic_imatrix cannot be used together");
    j->sha256 = sl_get_bool(options, "sha256");
    j->force = sl_get_bool(options, "force");
    j->sparse = sl_get_bool(options, "sparse");
    if (rc == 0)
        rc = string_list(sl_get(options, "include_weights"), &o.include_weights,
                         &o.n_include_weights, e);
    if (rc == 0)
        rc = string_list(sl_get(options, "exclude_weights"), &o.exclude_weights,
                         &o.n_exclude_weights, e);
    if (rc == 0)
        rc = spec_lists(j, options, e);
    if (rc == 0)
        rc = sl_recipe_parse(recipe, recipe, sl_get_str(spec, "recipe_text"), &j->recipe, e);
    if (rc == 0)
        rc = sl_job_plan_make(j, source ? source : o.source_name, &o, e);
    free((void *)(uintptr_t)o.include_weights);
    free((void *)(uintptr_t)o.exclude_weights);
    return rc;
}

void sl_job_plan_close(struct sl_job_plan *j)
{
    sl_imatrix_use_free(&j->weights);
    sl_imatrix_close(j->imatrix);
    sl_plan_close(j->plan);
    sl_recipe_close(j->recipe);
    sl_model_close(j->model);
    sl_checkpoint_close(j->ck);
    for (uint32_t i = 0; i < j->n_overrides; i++)
        free((char *)(uintptr_t)j->overrides[i].pattern);
    free(j->overrides);
    free(j->prefix);
    sl_kvs_free(&j->extra_kvs);
    memset(j, 0, sizeof *j);
}

uint64_t sl_job_plan_model_bytes(const struct sl_job_plan *j)
{
    const struct sl_kvs *kvs = &j->model->kvs;
    uint64_t bytes = TABLE_BYTES + j->ck->n_tensors * (sizeof *j->ck->tensors + NAME_BYTES) +
                     j->model->n_src * sizeof *j->model->src +
                     j->model->n_tensors * sizeof *j->model->tensors;

    for (uint64_t i = 0; i < kvs->n; i++)
        bytes += kvs->kv[i].n * (kvs->kv[i].elem == SL_KV_STR ? STRING_BYTES : sl_gguf_type_size(kvs->kv[i].elem));
    return bytes;
}

uint64_t sl_job_plan_bytes(const struct sl_job_plan *j)
{
    const struct sl_plan *p = j->plan;
    uint64_t imatrix = j->imatrix ? j->imatrix->n_entries * (sizeof *j->imatrix->entries + NAME_BYTES) +
                                    j->imatrix->n_counts * sizeof(float) : 0;

    return imatrix + p->n_tensors * (sizeof *p->tensors + sizeof *p->segments + 4 * sizeof(uint64_t)) +
           p->n_items * sizeof *p->items + p->n_tasks * sizeof *p->tasks;
}

/* ---- the record of a plan */

static void put_label(cJSON *o, const char *field, const char *name, const char *hash)
{
    char text[256];

    sl_plan_label(text, name, hash);
    sl_put_text(o, field, text);
}

/* Number of the source file that a task begins in. */
static uint32_t task_shard(const struct sl_job_plan *j, const struct sl_plan_task *t)
{
    const struct sl_plan_item *it = &j->plan->items[t->first_item];
    const struct sl_out_tensor *ot = j->plan->tensors[it->tensor].t;
    uint64_t each = ot->n_src ? ot->elems / ot->n_src : 0, at = each ? it->elem0 / each : 0;
    uint32_t tensor;

    if (!each || at >= ot->n_src)
        return 0;
    tensor = j->model->src[ot->first_src + (uint32_t)at].tensor;
    return tensor < j->ck->n_tensors ? j->ck->tensors[tensor].file : 0;
}

int sl_job_plan_record(const struct sl_job_plan *j, cJSON **out, struct sl_error *e)
{
    const struct sl_plan *p = j->plan;
    const char *layout = NULL;
    uint32_t shard = 0;
    uint64_t *v;
    cJSON *o;

    *out = NULL;
    if (p->n_tasks > SL_TASKS_MAX)
        return sl_fail(e, SL_EUNSUPPORTED, "%u tasks are more than %u; use --task-size %lluM or more",
                       p->n_tasks, SL_TASKS_MAX,
                       (unsigned long long)(p->src_bytes / SL_TASKS_MAX * 2 / 1000000 + 1));
    v = calloc(3 * (size_t)p->n_tasks + 1, sizeof *v);
    o = v ? cJSON_CreateObject() : NULL;
    if (!o) {
        free(v);
        return sl_no_memory(e);
    }
    sl_kvs_get_str(&p->segments[0].kvs, SL_KEY_LAYOUT, &layout);
    sl_put_str(o, "fingerprint", p->fingerprint);
    put_label(o, "source", j->ck->dir ? j->ck->dir : j->ck->files[0].name, p->parts.source);
    put_label(o, "recipe", sl_recipe_name(j->recipe), p->parts.recipe);
    put_label(o, "options", layout ? layout : "options", p->parts.options);
    sl_put_str(o, "version", p->parts.version);
    sl_put_uint(o, "file_bytes", p->file_bytes);
    for (uint32_t i = 0; i < p->n_tasks; i++) {
        uint32_t at = task_shard(j, &p->tasks[i]);

        shard = at > shard ? at : shard;
        v[i] = p->tasks[i].src_bytes;
        v[p->n_tasks + i] = p->tasks[i].out_bytes;
        v[2 * (size_t)p->n_tasks + i] = shard;
    }
    sl_put_uints(o, "src_bytes", v, p->n_tasks);
    sl_put_uints(o, "out_bytes", v + p->n_tasks, p->n_tasks);
    sl_put_uints(o, "shard", v + 2 * (size_t)p->n_tasks, p->n_tasks);
    free(v);
    *out = o;
    return 0;
}
