#include "client/plan_view.h"

#include <stdio.h>
#include <string.h>

#define MIB 1048576.0
#define GIB 1073741824.0
#define GIANT 1000000000u /* from here on in billions and GiB */

static void print_head(const struct plan_view *v)
{
    char x[CLI_SHOWN_BYTES], y[CLI_SHOWN_BYTES];
    const struct sl_job_plan *j = v->job;
    const struct sl_plan *p = j->plan;
    const struct sl_model *m = j->model;
    char a[32];

    printf("%s: %s", cli_shown(x, m->model_name ? m->model_name : m->base_name), cli_shown(y, m->arch));
    if (m->hp.kv_lora)
        printf(", %s layout", m->layout == SL_LAYOUT_LEGACY ? "legacy" : "mla");
    printf(", %.2f %s weights, %u tensors\n", (double)m->n_params / (m->n_params < GIANT ? 1e6 : 1e9),
           m->n_params < GIANT ? "million" : "billion", m->n_tensors);
    printf("Recipe %s%s%s\n\n", cli_shown(x, sl_recipe_name(j->recipe)), *sl_recipe_advice(j->recipe) ? ": " : "",
           cli_shown(y, sl_recipe_advice(j->recipe)));
    printf("Size    %s = %.1f %s, %.3f bits a weight on average\n", cli_size(a, p->tensor_bytes),
           (double)p->tensor_bytes / (p->tensor_bytes < GIANT ? MIB : GIB),
           p->tensor_bytes < GIANT ? "MiB" : "GiB",
           (double)p->tensor_bytes * 8 / (double)m->n_params);
    if (p->n_segments == 1)
        printf("File    %s\n", cli_shown(x, p->segments[0].name));
    else
        printf("Files   %u: %s ...\n", p->n_segments, cli_shown(x, p->segments[0].name));
    printf("Write   %s\n", cli_size(a, p->file_bytes));
    if (v->config_alone)
        printf("Read    %s, when the checkpoint is there\n", cli_size(a, p->src_bytes));
    else
        printf("Read    %s from %u file%s\n", cli_size(a, p->src_bytes), j->ck->n_files,
               j->ck->n_files == 1 ? "" : "s");
    if (p->n_tasks && p->src_bytes)
        printf("Tasks   %u, on average %s of source\n", p->n_tasks,
               cli_size(a, p->src_bytes / p->n_tasks));
}

static void print_space(const struct plan_view *v)
{
    uint64_t need = v->job->plan->file_bytes;
    char a[32], b[32], dir[CLI_SHOWN_BYTES];
    const char *where = v->out_given ? cli_shown(dir, v->out_dir) : "the current folder, where convert writes without -o";

    if (v->free_bytes == UINT64_MAX)
        printf("Space   not counted in %s\n", where);
    else if (v->free_bytes >= need)
        printf("Space   %s free in %s: enough\n", cli_size(a, v->free_bytes), where);
    else
        printf("Space   %s free in %s: %s short\n", cli_size(a, v->free_bytes), where,
               cli_size(b, need - v->free_bytes));
}

static void print_notes(const struct plan_view *v)
{
    const struct sl_plan *p = v->job->plan;
    char line[CLI_SHOWN_BYTES];

    print_space(v);
    if (v->config_alone)
        puts("Note    this is from config.json alone; convert will need the .safetensors files and the "
             "tokenizer (tokenizer.json or tiktoken.model) beside it");
    else if (v->job->model->no_tokenizer)
        printf("Note    %s has no tokenizer (tokenizer.json or tiktoken.model); convert will need it, and "
               "write its metadata besides\n", v->job->ck->dir);
    if (p->n_fallback)
        printf("Note    %u tensor%s rows that the recipe's type does not divide; another type takes its place\n",
               p->n_fallback, p->n_fallback == 1 ? " has" : "s have");
    if (v->unwritable >= 0)
        printf("Note    this version cannot write type %s\n", sl_type_info(v->unwritable)->name);
    if (v->needs_imatrix)
        printf("Note    %s and others need an importance matrix\n", cli_shown(line, v->needs_imatrix));
}

static void print_groups(const struct plan_view *v)
{
    int width = 6;

    for (uint32_t i = 0; i < v->n_groups; i++)
        if ((int)strlen(v->groups[i].name) > width)
            width = (int)strlen(v->groups[i].name);
    printf("\n%-*s  %7s  %11s  %9s  %6s  %s\n", width, "Tensor", "Count", "Weights, M", "Size, MB",
           "Share", "Types");
    for (uint32_t i = 0; i < v->n_groups; i++) {
        const struct plan_group *g = &v->groups[i];
        char line[CLI_SHOWN_BYTES];

        printf("%-*s  %7u  %11.1f  %9.1f  %4.1f %%  ", width, cli_shown(line, g->name), g->tensors,
               (double)g->weights / 1e6, (double)g->bytes / 1e6,
               100.0 * (double)g->bytes / (double)v->job->plan->tensor_bytes);
        for (uint32_t k = 0; k < g->n_types; k++) {
            printf("%s%s", k ? ", " : "", sl_type_info(g->types[k].type)->name);
            if (g->n_types > 1)
                printf(" %.1f %% (%u)", 100.0 * (double)g->types[k].weights / (double)g->weights,
                       g->types[k].tensors);
        }
        putchar('\n');
    }
}

static void print_memory(const struct plan_view *v)
{
    bool mla = v->job->model->hp.kv_lora != 0;

    printf("\nMemory with a context of %llu tokens, estimated, in GiB\n",
           (unsigned long long)v->ctx);
    printf("%-16s  %-18s  %8s  %8s  %8s  %8s  %8s  %s\n", "Devices", "Cache form", "Weights", "Cache",
           "Buffers", "Total", "A device", "Fits");
    for (uint32_t i = 0; i < v->n_sets; i++) {
        const struct plan_device_set *s = &v->sets[i];
        char devices[48], size[32];

        snprintf(devices, sizeof devices, "%u x %s", s->count, cli_size(size, s->bytes));
        printf("%-16s  %-18s  %8.1f  %8.1f  %8.1f  %8.1f  %8.1f  %s\n", devices,
               !mla ? "heads" : s->whole_heads ? "whole heads" : "compressed (MLA)",
               (double)s->mem.weights / GIB, (double)s->mem.kv_cache / GIB,
               (double)s->mem.buffers / GIB, (double)s->mem.total / GIB,
               (double)s->mem.per_device / GIB, s->fits ? "yes" : "no");
    }
    if (mla && !v->job->model->hp.index_dim)
        printf("Whole heads are cached with --layout legacy, the compressed form with --layout mla; "
               "this plan is %s.\n",
               v->job->model->layout == SL_LAYOUT_LEGACY ? "legacy" : "mla");
}

void plan_view_print(const struct plan_view *v)
{
    print_head(v);
    print_notes(v);
    print_groups(v);
    print_memory(v);
}
