#include "client/plan_view.h"

#include "proto/name_table.h"
#include "proto/suffix.h"

#include <stdlib.h>
#include <string.h>

#define CTX_STEP 1024u
#define BATCH 2048u       /* llama.cpp's, within which a micro-batch is */
#define CTX_UNKNOWN (1u << 24) /* tokens; where the model does not say how many it takes */

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

static int fill_groups(struct plan_view *v, struct sl_name_table *names, struct sl_error *e)
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
            && sl_recipe_needs_imatrix(v->job->recipe, t->t->name, t->type, v->job->rules_2025))
            v->needs_imatrix = t->t->name;
    }
    return 0;
}

static int make_groups(struct plan_view *v, struct sl_error *e)
{
    struct sl_name_table names = {0};
    int rc;

    v->groups = calloc((size_t)v->job->plan->n_tensors + 1, sizeof *v->groups);
    if (!v->groups)
        return sl_no_memory(e);
    rc = sl_name_table_init(&names, 64, e);
    if (rc == 0)
        rc = fill_groups(v, &names, e);
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

/* What lies on the devices, and of a machine in RAM. */
static struct sl_memory sums_of(const struct plan_device_set *s)
{
    struct sl_memory m = {0};

    for (uint32_t g = 0; g < s->devices.m.gpus + s->devices.machine; g++) {
        const struct sl_place *p = g < s->devices.m.gpus ? &s->offload.gpu[g] : &s->offload.host;

        m.weights += p->weights;
        m.kv_cache += p->kv_cache;
        m.buffers += p->buffers;
        m.total += p->total;
        if (g < s->devices.m.gpus && p->total > m.per_device)
            m.per_device = p->total;
    }
    return m;
}

bool plan_view_split(const struct plan_device_set *s)
{
    for (uint32_t g = 0; !s->devices.machine && g < s->devices.m.gpus; g++)
        if (s->offload.split[g])
            return true;
    return false;
}

static void add_paper(struct plan_view *v, const struct plan_devices *d)
{
    struct plan_device_set *s = &v->sets[v->n_sets++];

    s->devices = *d;
    s->whole_heads = s->paper = true;
    sl_plan_paper(v->job->plan, v->ctx, v->ubatch, d->count, &s->mem);
    s->fits = s->mem.per_device <= d->bytes;
}

static int add_set(struct plan_view *v, const struct plan_devices *d, bool whole_heads, struct sl_error *e)
{
    const struct sl_model *m = v->job->model;
    struct plan_device_set *s = &v->sets[v->n_sets++];

    s->devices = *d;
    s->whole_heads = whole_heads;
    s->own_layout = one_form(&m->hp) || whole_heads == (m->layout == SL_LAYOUT_LEGACY);
    s->devices.m.gpus = d->count < SL_GPUS_MOST ? d->count : SL_GPUS_MOST;
    s->devices.m.host = SL_HOST_UNKNOWN;
    for (uint32_t g = 0; g < s->devices.m.gpus; g++)
        s->devices.m.gpu[g] = d->bytes;
    if (sl_plan_alike(v->job->plan, &s->devices.m, whole_heads, v->ctx, v->ubatch, &s->offload) < 0)
        return sl_no_memory(e);
    s->mem = sums_of(s);
    s->fits = s->offload.fits;
    return 0;
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
        if (sl_plan_offload(v->job->plan, &s->devices.m, at * CTX_STEP, v->ubatch, &lay) < 0)
            return sl_no_memory(e);
        *(lay.fits ? &least : &most) = at;
    }
    s->longest_ctx = least * CTX_STEP;
    return 0;
}

static int add_machine(struct plan_view *v, const struct plan_devices *d, struct sl_error *e)
{
    const struct sl_model *m = v->job->model;
    struct plan_device_set *s = &v->sets[v->n_sets++];

    s->devices = *d;
    s->whole_heads = !one_form(&m->hp) && m->layout == SL_LAYOUT_LEGACY;
    s->own_layout = true;
    if (sl_plan_offload(v->job->plan, &d->m, v->ctx, v->ubatch, &s->offload) < 0)
        return sl_no_memory(e);
    s->mem = sums_of(s);
    s->fits = s->offload.fits;
    return find_longest_ctx(v, s, e);
}

static int add_devices(struct plan_view *v, const char *text, struct sl_error *e)
{
    struct plan_devices sets[PLAN_MAX_DEVICE_SETS];
    uint32_t n;

    SL_TRY(plan_devices_parse(text, sets, PLAN_MAX_DEVICE_SETS, &n, e));
    if (v->n_sets + PLAN_SET_ROWS * n > PLAN_MAX_DEVICE_SETS * PLAN_SET_ROWS)
        return sl_fail(e, SL_EUSAGE, "--devices: at most %d sets", PLAN_MAX_DEVICE_SETS);
    for (uint32_t i = 0; i < n; i++) {
        if (sets[i].machine) {
            SL_TRY(add_machine(v, &sets[i], e));
            continue;
        }
        if (!one_form(&v->job->model->hp)) {
            add_paper(v, &sets[i]);
            SL_TRY(add_set(v, &sets[i], true, e));
        }
        SL_TRY(add_set(v, &sets[i], false, e));
    }
    return 0;
}

/* Sets that are common for a model of this size. */
static int add_common_devices(struct plan_view *v, struct sl_error *e)
{
    const struct sl_job_plan *job = v->job;
    bool experts = job->model->hp.n_expert > 0, large = job->plan->tensor_bytes > 80000000000;

    SL_TRY(add_devices(v, large ? "8x80G,8x64G" : "1x80G,1x24G", e));
    if (experts && job->plan->tensor_bytes > 20000000000)
        SL_TRY(add_devices(v, large ? "1x24G+512G" : "1x24G+64G", e));
    return 0;
}

/* The GPUs that llama.cpp takes of more. */
static int put_first_gpus(char *buf, size_t cap)
{
    int n = 0;

    for (uint32_t g = 0; g < SL_GPUS_MOST; g++)
        n += snprintf(buf + n, cap - (size_t)n, "%sCUDA%u", g ? "," : " -dev ", g);
    return n;
}

/* GPUs that hold anything: their names, and their layers. */
static int put_gpus(const struct plan_device_set *s, char *buf, size_t cap)
{
    uint32_t used = 0, seen = 0;
    int n = 0;

    for (uint32_t g = 0; g < s->devices.m.gpus; g++)
        used += s->offload.split[g] > 0;
    if (!used && !s->devices.machine)
        return s->devices.count > SL_GPUS_MOST ? put_first_gpus(buf, cap) : 0;
    if (s->devices.count && !used)
        return snprintf(buf, cap, " -dev none");
    for (uint32_t g = 0; used < s->devices.count && g < s->devices.m.gpus; g++)
        if (s->offload.split[g])
            n += snprintf(buf + n, cap - (size_t)n, "%sCUDA%u", seen++ ? "," : " -dev ", g);
    seen = 0;
    for (uint32_t g = 0; used > 1 && g < s->devices.m.gpus; g++)
        if (s->offload.split[g])
            n += snprintf(buf + n, cap - (size_t)n, "%s%u", seen++ ? "," : " -ts ", s->offload.split[g]);
    return n;
}

const char *plan_view_server(const struct plan_view *v, const struct plan_device_set *s, char buf[PLAN_SERVER_TEXT])
{
    const struct sl_hparams *h = &v->job->model->hp;
    const struct sl_offload *o = &s->offload;
    uint32_t all = o->layers > 99 ? 9999 : 99;
    size_t cap = PLAN_SERVER_TEXT;
    int n = snprintf(buf, cap, "-c %llu", (unsigned long long)v->ctx);

    if (v->ubatch > BATCH)
        n += snprintf(buf + n, cap - (size_t)n, " -b %u", v->ubatch);
    if (v->ubatch != SL_UBATCH)
        n += snprintf(buf + n, cap - (size_t)n, " -ub %u", v->ubatch);
    n += snprintf(buf + n, cap - (size_t)n, " -ngl %u", o->gpu_layers < o->layers ? o->gpu_layers : all);
    if (h->n_linear || h->window || h->near_window || (h->index_dim && !h->kv_lora)) /* a state, window or choice of blocks of each sequence */
        n += snprintf(buf + n, cap - (size_t)n, " -np 1");
    if (o->cpu_moe)
        n += snprintf(buf + n, cap - (size_t)n, " --n-cpu-moe %u", o->cpu_moe);
    put_gpus(s, buf + n, cap - (size_t)n);
    return buf;
}

int plan_view_make(struct plan_view *v, const struct sl_job_plan *job, const struct plan_question *q,
                   const struct output *out, struct sl_error *e)
{
    memset(v, 0, sizeof *v);
    v->job = job;
    v->ctx = q->ctx;
    v->ubatch = q->ubatch;
    v->unwritable = -1;
    v->out_dir = out->dir;
    v->out_given = q->out_given;
    v->config_alone = job->ck->n_files == 0;
    SL_TRY(make_groups(v, e));
    for (int i = 0; i < q->devices.n; i++)
        SL_TRY(add_devices(v, q->devices.word[i], e));
    if (!q->devices.n)
        SL_TRY(add_common_devices(v, e));
    return output_free_space(out, &v->free_bytes, e);
}

void plan_view_free(struct plan_view *v)
{
    free(v->groups);
    v->groups = NULL;
}
