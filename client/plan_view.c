#include "client/plan_view.h"

#include "proto/name_table.h"
#include "proto/suffix.h"

#include <stdlib.h>
#include <string.h>

#define CTX_STEP 1024u
#define CTX_UNKNOWN (1u << 24) /* tokens; where the model does not say how many it takes */
#define DEVICE_LEAST 1000000u /* bytes; "8" is no device of 8 bytes */

/* "blk.3.ffn_down_exps.weight" -> "ffn_down_exps" */
static void group_name(const char *tensor, char name[SL_NAME_MAX])
{
    size_t n;

    if (strncmp(tensor, "blk.", 4) == 0) {
        const char *dot = strchr(tensor + 4, '.');

        tensor = dot ? dot + 1 : tensor;
    }
    snprintf(name, SL_NAME_MAX, "%s", tensor);
    n = sl_stem(name, ".weight");
    if (n)
        name[n] = '\0';
}

static int find_group(struct plan_view *v, struct sl_name_table *names, const char *name, struct plan_group **g,
                      struct sl_error *e)
{
    uint32_t at;

    memcpy(v->groups[v->n_groups].name, name, SL_NAME_MAX);
    SL_TRY(sl_name_table_add(names, v->groups[v->n_groups].name, v->n_groups, &at, e));
    v->n_groups += at == v->n_groups;
    *g = &v->groups[at];
    return 0;
}

static void add_tensor(struct plan_group *g, const struct sl_plan_tensor *t)
{
    uint32_t k = 0;

    while (k < g->n_types && g->types[k].type != t->type)
        k++;
    if (k == g->n_types)
        g->types[g->n_types++].type = t->type;
    g->types[k].tensors++;
    g->types[k].weights += t->t->elems;
    g->types[k].bytes += t->bytes;
    g->tensors++;
    g->weights += t->t->elems;
    g->bytes += t->bytes;
}

static int by_bytes(const void *a, const void *b)
{
    const struct plan_group *x = a, *y = b;

    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_weights(const void *a, const void *b)
{
    const struct plan_group_type *x = a, *y = b;

    if (x->weights != y->weights)
        return x->weights > y->weights ? -1 : 1;
    return x->type - y->type;
}

/* A larger type than MXFP4 holds no more of what is MXFP4 already. */
static void add_grown(struct plan_view *v, const struct sl_plan_tensor *t)
{
    uint64_t kept = sl_type_bytes(SL_TYPE_MXFP4, t->t->elems);

    if (t->bytes <= kept || !sl_model_is_mxfp4(v->job->model, t->t))
        return;
    v->grown++;
    v->grown_bytes += t->bytes - kept;
}

static int fill_groups(struct plan_view *v, bool rules_2025, struct sl_name_table *names, struct sl_error *e)
{
    const struct sl_plan *p = v->job->plan;

    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const struct sl_plan_tensor *t = &p->tensors[i];
        struct plan_group *g;
        char name[SL_NAME_MAX];

        group_name(t->t->name, name);
        SL_TRY(find_group(v, names, name, &g, e));
        add_tensor(g, t);
        add_grown(v, t);
        if (sl_model_keeps(p->model, t->t, t->type))
            continue;
        if (!sl_type_info(t->type)->quantizes)
            v->unwritable = t->type;
        if (!v->job->imatrix && !v->job->synthetic && !v->needs_imatrix
            && sl_recipe_needs_imatrix(v->job->recipe, t->t->name, t->type, rules_2025))
            v->needs_imatrix = t->t->name;
    }
    return 0;
}

static int make_groups(struct plan_view *v, bool rules_2025, struct sl_error *e)
{
    struct sl_name_table names = {0};
    int rc;

    v->groups = calloc((size_t)v->job->plan->n_tensors + 1, sizeof *v->groups);
    if (!v->groups)
        return sl_fail(e, SL_EFAIL, "out of memory");
    rc = sl_name_table_init(&names, 64, e);
    if (rc == 0)
        rc = fill_groups(v, rules_2025, &names, e);
    sl_name_table_free(&names);
    SL_TRY(rc);
    qsort(v->groups, v->n_groups, sizeof *v->groups, by_bytes);
    for (uint32_t i = 0; i < v->n_groups; i++)
        qsort(v->groups[i].types, v->groups[i].n_types, sizeof v->groups[i].types[0], by_weights);
    return 0;
}

/* Whether what is cached of a token can have one form alone. */
static bool one_form(const struct sl_hparams *h)
{
    return h->kv_lora == 0 || h->index_dim || h->mla_only;
}

static void add_set(struct plan_view *v, uint32_t count, uint64_t bytes, bool whole_heads)
{
    const struct sl_model *m = v->job->model;
    struct plan_device_set *s = &v->sets[v->n_sets++];

    s->count = count;
    s->bytes = bytes;
    s->whole_heads = whole_heads;
    s->own_layout = one_form(&m->hp) || whole_heads == (m->layout == SL_LAYOUT_LEGACY);
    sl_plan_memory(v->job->plan, v->ctx, whole_heads, count, &s->mem);
    s->fits = s->mem.per_device <= bytes;
}

/* To 1024 tokens. */
static int find_longest_ctx(const struct plan_view *v, struct plan_device_set *s, struct sl_error *e)
{
    uint64_t least = 0, most = CTX_UNKNOWN, at;
    struct sl_offload lay;
    char key[SL_NAME_MAX];

    snprintf(key, sizeof key, "%s.context_length", v->job->model->arch);
    sl_kvs_get_uint(&v->job->model->kvs, key, &most);
    most = (most < CTX_UNKNOWN ? most : CTX_UNKNOWN) / CTX_STEP + 1;
    while (most - least > 1) {
        at = least + (most - least) / 2;
        if (sl_plan_offload(v->job->plan, at * CTX_STEP, s->count, s->bytes, s->host_bytes, &lay) < 0)
            return sl_fail(e, SL_EFAIL, "out of memory");
        *(lay.fits ? &least : &most) = at;
    }
    s->longest_ctx = least * CTX_STEP;
    return 0;
}

static int add_beside_host(struct plan_view *v, uint32_t count, uint64_t bytes, uint64_t host, struct sl_error *e)
{
    const struct sl_model *m = v->job->model;
    struct plan_device_set *s = &v->sets[v->n_sets++];

    s->count = count;
    s->bytes = bytes;
    s->whole_heads = !one_form(&m->hp) && m->layout == SL_LAYOUT_LEGACY;
    s->own_layout = true;
    s->beside_host = true;
    s->host_bytes = host;
    if (sl_plan_offload(v->job->plan, v->ctx, count, bytes, host, &s->offload) < 0)
        return sl_fail(e, SL_EFAIL, "out of memory");
    s->fits = s->offload.fits;
    return find_longest_ctx(v, s, e);
}

static int add_sets(struct plan_view *v, uint32_t count, uint64_t bytes)
{
    if (!one_form(&v->job->model->hp))
        add_set(v, count, bytes, true);
    add_set(v, count, bytes, false);
    return 0;
}

/* "8x80G" or "80G". */
static int parse_count(const char *item, unsigned long *count, uint64_t *bytes, struct sl_error *e)
{
    const char *size = strchr(item, 'x');
    char *end;

    *count = size ? strtoul(item, &end, 10) : 1;
    if (size && (end != size || !size[1] || *item == '-' || *count < 1 || *count > 65536))
        return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected COUNTxSIZE, such as 8x80G", item);
    SL_TRY(cli_parse_size("--devices", size ? size + 1 : item, bytes, e));
    return *bytes < DEVICE_LEAST
               ? sl_fail(e, SL_EUSAGE, "--devices: '%s': expected COUNTxSIZE, such as 8x80G", item) : 0;
}

/* "8x80G"; "1x24G+512G" and "+512G", beside host memory. */
static int parse_set(struct plan_view *v, char *item, struct sl_error *e)
{
    char *plus = strchr(item, '+');
    unsigned long count = 0;
    uint64_t bytes = 0, host = 0;

    if (plus)
        *plus = '\0';
    if (!plus || plus > item)
        SL_TRY(parse_count(item, &count, &bytes, e));
    if (v->n_sets + 2 > PLAN_MAX_DEVICE_SETS)
        return sl_fail(e, SL_EUSAGE, "--devices: at most %d sets", PLAN_MAX_DEVICE_SETS / 2);
    if (!plus)
        return add_sets(v, (uint32_t)count, bytes);
    SL_TRY(cli_parse_size("--devices", plus + 1, &host, e));
    if (host < DEVICE_LEAST)
        return sl_fail(e, SL_EUSAGE, "--devices: '+%s': expected the size of host memory, such as 1x24G+512G", plus + 1);
    if (count > SL_MAX_GPUS)
        return sl_fail(e, SL_EUSAGE, "--devices: '%s+%s': at most %d devices beside host memory", item, plus + 1, SL_MAX_GPUS);
    return add_beside_host(v, (uint32_t)count, bytes, host, e);
}

/* Several sets, with commas. */
static int parse_devices(struct plan_view *v, const char *text, struct sl_error *e)
{
    char *copy = strdup(text), *rest = copy, *item;
    int rc = copy ? 0 : sl_fail(e, SL_EFAIL, "out of memory");

    while (rc == 0 && (item = strsep(&rest, ",")) != NULL)
        rc = parse_set(v, item, e);
    free(copy);
    return rc;
}

/* Sets that are common for a model of this size. */
static const char *common_devices(const struct sl_job_plan *job)
{
    bool experts = job->model->hp.n_expert > 0;

    if (job->plan->tensor_bytes > 80000000000)
        return experts ? "8x80G,8x64G,1x24G+512G" : "8x80G,8x64G";
    return experts && job->plan->tensor_bytes > 20000000000 ? "1x80G,1x24G,1x24G+64G" : "1x80G,1x24G";
}

const char *plan_view_server(const struct plan_view *v, const struct plan_device_set *s, char buf[256])
{
    const struct sl_offload *o = &s->offload;
    uint32_t all = o->layers > 99 ? 9999 : 99;
    int n = snprintf(buf, 256, "-c %llu -ngl %u", (unsigned long long)v->ctx,
                     o->gpu_layers < o->layers ? o->gpu_layers : all);

    if (v->job->model->hp.n_linear || v->job->model->hp.window) /* a state or window of each sequence */
        n += snprintf(buf + n, 256 - (size_t)n, " -np 1");
    if (o->cpu_moe)
        n += snprintf(buf + n, 256 - (size_t)n, " --n-cpu-moe %u", o->cpu_moe);
    for (uint32_t g = 0; s->count > 1 && g < s->count; g++)
        n += snprintf(buf + n, 256 - (size_t)n, g ? ",%u" : " -ts %u", o->split[g]);
    return buf;
}

int plan_view_make(struct plan_view *v, const struct sl_job_plan *job, uint64_t ctx,
                   const char *devices, const struct output *out, bool given, bool rules_2025,
                   struct sl_error *e)
{
    memset(v, 0, sizeof *v);
    v->job = job;
    v->ctx = ctx;
    v->unwritable = -1;
    v->out_dir = out->dir;
    v->out_given = given;
    v->config_alone = job->ck->n_files == 0;
    SL_TRY(make_groups(v, rules_2025, e));
    SL_TRY(parse_devices(v, devices ? devices : common_devices(job), e));
    return output_free_space(out, &v->free_bytes, e);
}

void plan_view_free(struct plan_view *v)
{
    free(v->groups);
    v->groups = NULL;
}
