#include "client/plan_view.h"

#include "client/model_arg.h"

#include <cjson/cJSON.h>

static cJSON *group_json(const struct plan_group *g)
{
    cJSON *o = cJSON_CreateObject(), *types;

    cJSON_AddStringToObject(o, "name", g->name);
    json_tensors(o, g->tensors);
    cJSON_AddNumberToObject(o, "weights", (double)g->weights);
    cJSON_AddNumberToObject(o, "bytes", (double)g->bytes);
    types = cJSON_AddArrayToObject(o, "types");
    for (uint32_t k = 0; k < g->n_types; k++) {
        cJSON *t = cJSON_CreateObject();

        cJSON_AddStringToObject(t, "type", sl_type_info(g->types[k].type)->name);
        json_tensors(t, g->types[k].tensors);
        cJSON_AddNumberToObject(t, "weights", (double)g->types[k].weights);
        cJSON_AddNumberToObject(t, "bytes", (double)g->types[k].bytes);
        cJSON_AddNumberToObject(t, "share", (double)g->types[k].weights / (double)g->weights);
        cJSON_AddItemToArray(types, t);
    }
    return o;
}

static cJSON *place_json(const char *where, const struct sl_place *p, uint64_t bytes)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "where", where);
    if (bytes != SL_HOST_UNKNOWN)
        cJSON_AddNumberToObject(o, "bytes", (double)bytes);
    cJSON_AddNumberToObject(o, "weights_bytes", (double)p->weights);
    cJSON_AddNumberToObject(o, "cache_bytes", (double)p->kv_cache);
    cJSON_AddNumberToObject(o, "buffer_bytes", (double)p->buffers);
    cJSON_AddNumberToObject(o, "total_bytes", (double)p->total);
    return o;
}

/* What a machine has besides. */
static void add_offload(cJSON *o, const struct plan_view *v, const struct plan_device_set *s)
{
    const struct sl_offload *l = &s->offload;
    cJSON *places, *split;
    char options[PLAN_SERVER_TEXT];

    if (s->devices.m.host != SL_HOST_UNKNOWN)
        cJSON_AddNumberToObject(o, "host_bytes", (double)s->devices.m.host);
    cJSON_AddNumberToObject(o, "gpu_layers", l->gpu_layers);
    cJSON_AddNumberToObject(o, "layers", l->layers);
    cJSON_AddNumberToObject(o, "n_cpu_moe", l->cpu_moe);
    split = cJSON_AddArrayToObject(o, "tensor_split");
    places = cJSON_AddArrayToObject(o, "places");
    for (uint32_t g = 0; g < s->devices.count; g++) {
        cJSON_AddItemToArray(split, cJSON_CreateNumber(l->split[g]));
        cJSON_AddItemToArray(places, place_json("gpu", &l->gpu[g], s->devices.m.gpu[g]));
    }
    cJSON_AddItemToArray(places, place_json("ram", &l->host, s->devices.m.host));
    cJSON_AddNumberToObject(o, "longest_context", (double)s->longest_ctx);
    if (s->fits)
        cJSON_AddStringToObject(o, "llama_server", plan_view_server(v, s, options));
}

static cJSON *set_json(const struct plan_view *v, const struct plan_device_set *s)
{
    const struct sl_hparams *hp = &v->job->model->hp;
    const struct sl_memory *mem = &s->mem;
    char options[PLAN_SERVER_TEXT];
    cJSON *o = cJSON_CreateObject();

    cJSON_AddNumberToObject(o, "devices", s->devices.count);
    if (s->devices.bytes || !s->devices.count)
        cJSON_AddNumberToObject(o, "device_bytes", (double)s->devices.bytes);
    cJSON_AddNumberToObject(o, "context", (double)v->ctx);
    cJSON_AddNumberToObject(o, "ubatch", v->ubatch);
    cJSON_AddStringToObject(o, "cache", hp->window || hp->near_window ? "windowed" : !hp->kv_lora ? "heads" : s->whole_heads ? "whole_heads" : "compressed");
    cJSON_AddBoolToObject(o, "own_layout", s->own_layout);
    cJSON_AddStringToObject(o, "estimate", s->paper ? "paper" : "llama.cpp");
    cJSON_AddNumberToObject(o, "weights_bytes", (double)mem->weights);
    cJSON_AddNumberToObject(o, "cache_bytes", (double)mem->kv_cache);
    cJSON_AddNumberToObject(o, "buffer_bytes", (double)mem->buffers);
    cJSON_AddNumberToObject(o, "total_bytes", (double)mem->total);
    cJSON_AddNumberToObject(o, "per_device_bytes", (double)mem->per_device);
    if (s->devices.machine)
        add_offload(o, v, s);
    else if (s->fits && s->own_layout)
        cJSON_AddStringToObject(o, "llama_server", plan_view_server(v, s, options));
    cJSON_AddBoolToObject(o, "fits", s->fits);
    return o;
}

static void add_model(cJSON *root, const struct sl_job_plan *j)
{
    const struct sl_model *m = j->model;
    cJSON *o = cJSON_AddObjectToObject(root, "model");

    cJSON_AddStringToObject(o, "name", m->model_name ? m->model_name : "");
    cJSON_AddStringToObject(o, "architecture", m->arch);
    if (m->hp.kv_lora)
        cJSON_AddStringToObject(o, "layout", m->layout == SL_LAYOUT_LEGACY ? "legacy" : "mla");
    cJSON_AddNumberToObject(o, "weights", (double)m->n_params);
    json_tensors(o, m->n_tensors);
    o = cJSON_AddObjectToObject(root, "recipe");
    cJSON_AddStringToObject(o, "name", sl_recipe_name(j->recipe));
    cJSON_AddStringToObject(o, "encoding", sl_recipe_encoding(j->recipe));
    cJSON_AddNumberToObject(o, "file_type", sl_recipe_file_type(j->recipe));
}

static void add_plan(cJSON *root, const struct plan_view *v)
{
    const struct sl_plan *p = v->job->plan;
    cJSON *list;

    cJSON_AddNumberToObject(root, "tensor_bytes", (double)p->tensor_bytes);
    cJSON_AddNumberToObject(root, "file_bytes", (double)p->file_bytes);
    cJSON_AddNumberToObject(root, "bits_per_weight",
                            (double)p->tensor_bytes * 8 / (double)v->job->model->n_params);
    cJSON_AddNumberToObject(root, "source_bytes", (double)p->src_bytes);
    cJSON_AddNumberToObject(root, "source_files", v->job->ck->n_files);
    cJSON_AddNumberToObject(root, "tasks", p->n_tasks);
    cJSON_AddNumberToObject(root, "fallback_tensors", p->n_fallback);
    cJSON_AddNumberToObject(root, "mxfp4_grown_tensors", v->grown);
    cJSON_AddNumberToObject(root, "mxfp4_grown_bytes", (double)v->grown_bytes);
    cJSON_AddStringToObject(root, "fingerprint", p->fingerprint);
    cJSON_AddStringToObject(root, "output_id", p->output_id);
    list = cJSON_AddArrayToObject(root, "files");
    for (uint32_t i = 0; i < p->n_segments; i++) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddStringToObject(o, "name", p->segments[i].name);
        json_tensors(o, p->segments[i].n_tensors);
        cJSON_AddNumberToObject(o, "bytes", (double)p->segments[i].file_bytes);
        cJSON_AddItemToArray(list, o);
    }
}

static void add_output(cJSON *root, const struct plan_view *v)
{
    cJSON *o = cJSON_AddObjectToObject(root, "output"), *missing;

    cJSON_AddItemToObject(o, "folder", json_text(v->out_dir, strlen(v->out_dir)));
    cJSON_AddBoolToObject(o, "given", v->out_given);
    if (v->free_bytes != UINT64_MAX)
        cJSON_AddNumberToObject(o, "free_bytes", (double)v->free_bytes);
    cJSON_AddBoolToObject(o, "enough", v->free_bytes >= v->job->plan->file_bytes);
    missing = cJSON_AddArrayToObject(root, "missing");
    if (v->config_alone)
        cJSON_AddItemToArray(missing, cJSON_CreateString(".safetensors"));
    if (v->job->model->no_tokenizer)
        cJSON_AddItemToArray(missing, cJSON_CreateString(v->job->model->tokenizer_file ? v->job->model->tokenizer_file : "tokenizer.json"));
}

static void add_warning(void *list, const char *line)
{
    cJSON_AddItemToArray(list, cJSON_CreateString(line));
}

int plan_view_json(const struct plan_view *v, struct cJSON *extra, struct sl_error *e)
{
    cJSON *root = cJSON_CreateObject(), *list;

    cJSON_AddNumberToObject(root, "schema", 1);
    cJSON_AddStringToObject(root, "message_type", "plan");
    add_model(root, v->job);
    add_plan(root, v);
    list = cJSON_AddArrayToObject(root, "groups");
    for (uint32_t i = 0; i < v->n_groups; i++)
        cJSON_AddItemToArray(list, group_json(&v->groups[i]));
    list = cJSON_AddArrayToObject(root, "memory");
    for (uint32_t i = 0; i < v->n_sets; i++)
        cJSON_AddItemToArray(list, set_json(v, &v->sets[i]));
    add_output(root, v);
    if (v->unwritable >= 0)
        cJSON_AddStringToObject(root, "unwritable_type", sl_type_info(v->unwritable)->name);
    cJSON_AddBoolToObject(root, "needs_imatrix", v->needs_imatrix != NULL);
    cJSON_AddBoolToObject(root, "needs_allow_requantize", v->requantized > 0);
    cli_each_warning(v->job, add_warning, cJSON_AddArrayToObject(root, "warnings"));
    while (extra && extra->child) {
        cJSON *field = cJSON_DetachItemViaPointer(extra, extra->child);

        cJSON_AddItemToObject(root, field->string, field);
    }
    cJSON_Delete(extra);
    return cli_print_json(root, e);
}
