#include "client/plan_view.h"

#include "client/term.h"
#include "proto/size_text.h"
#include "proto/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MIB 1048576.0
#define GIB 1073741824.0
#define GIANT 1000000000u /* from here on in billions and GiB */
#define FIELD 8           /* column of what "Size", "Note" and the like are */
#define WIDE 96           /* columns that the tables take where there is room */

/* A line of a plan; a terminal that has no room for it sees the rest below that column. */
static void line(int column, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(int column, const char *fmt, ...)
{
    char text[2 * CLI_SHOWN_BYTES];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sl_utf8_disarm(text); /* it may hold names that the source chose */
    printf("%.*s", column, text);
    term_fold(stdout, text + column, column, term_width(STDOUT_FILENO));
}

static void print_head(const struct plan_view *v)
{
    const struct sl_job_plan *j = v->job;
    const struct sl_plan *p = j->plan;
    const struct sl_model *m = j->model;
    const char *advice = sl_recipe_advice(j->recipe);
    bool giant = p->tensor_bytes >= GIANT;
    char a[32];

    line(0, "%s: %s%s, %.2f %s weights, %u tensors", m->model_name ? m->model_name : m->base_name, m->arch,
         !m->hp.kv_lora ? "" : m->layout == SL_LAYOUT_LEGACY ? ", legacy layout" : ", mla layout",
         (double)m->n_params / (m->n_params < GIANT ? 1e6 : 1e9), m->n_params < GIANT ? "million" : "billion",
         m->n_tensors);
    line(7, "Recipe %s%s%s", sl_recipe_name(j->recipe), *advice ? ": " : "", advice);
    putchar('\n');
    line(FIELD, "Size    %s = %.1f %s, %.3f bits a weight on average", sl_size_text(a, p->tensor_bytes),
         (double)p->tensor_bytes / (giant ? GIB : MIB), giant ? "GiB" : "MiB",
         (double)p->tensor_bytes * 8 / (double)m->n_params);
    if (p->n_segments == 1)
        line(FIELD, "File    %s", p->segments[0].name);
    else
        line(FIELD, "Files   %u: %s ...", p->n_segments, p->segments[0].name);
    line(FIELD, "Write   %s", sl_size_text(a, p->file_bytes));
    if (v->config_alone)
        line(FIELD, "Read    %s, when the checkpoint is there", sl_size_text(a, p->src_bytes));
    else
        line(FIELD, "Read    %s from %u file%s", sl_size_text(a, p->src_bytes), j->ck->n_files,
             j->ck->n_files == 1 ? "" : "s");
    if (p->n_tasks && p->src_bytes)
        line(FIELD, "Tasks   %u, on average %s of source", p->n_tasks, sl_size_text(a, p->src_bytes / p->n_tasks));
}

static void print_space(const struct plan_view *v)
{
    uint64_t need = v->job->plan->file_bytes;
    char a[32], b[32];
    const char *where = v->out_given ? v->out_dir : "the current folder, where convert writes without -o";

    if (v->free_bytes == UINT64_MAX)
        line(FIELD, "Space   not counted in %s", where);
    else if (v->free_bytes >= need)
        line(FIELD, "Space   %s free in %s: enough", sl_size_text(a, v->free_bytes), where);
    else
        line(FIELD, "Space   %s free in %s: %s short", sl_size_text(a, v->free_bytes), where,
             sl_size_text(b, need - v->free_bytes));
}

/* The files that a model's tokenizer may be in. */
static const char *tokenizers(const struct plan_view *v)
{
    const char *file = v->job->model->tokenizer_file;

    return file ? file : "tokenizer.json or tiktoken.model";
}

static void print_notes(const struct plan_view *v)
{
    const struct sl_plan *p = v->job->plan;
    char a[32];

    print_space(v);
    if (v->config_alone)
        line(FIELD, "Note    this is from config.json alone; convert will need the .safetensors files and the "
                    "tokenizer (%s) beside it", tokenizers(v));
    else if (v->job->model->no_tokenizer)
        line(FIELD, "Note    %s has no tokenizer (%s); convert will need it, and write its metadata besides", v->job->ck->dir,
             tokenizers(v));
    if (p->n_fallback)
        line(FIELD, "Note    %u tensor%s rows that the recipe's type does not divide; another type takes its place",
             p->n_fallback, p->n_fallback == 1 ? " has" : "s have");
    if (v->unwritable >= 0)
        line(FIELD, "Note    this version cannot write type %s", sl_type_info(v->unwritable)->name);
    if (v->grown)
        line(FIELD, "Note    %u tensor%s MXFP4 in the source, 4.25 bits a weight: the larger types here take %s more than "
                    "mxfp4 (keep) would, and hold nothing more", v->grown, v->grown == 1 ? " is" : "s are",
             sl_size_text(a, v->grown_bytes));
    if (v->needs_imatrix)
        line(FIELD, "Note    %s and others need an importance matrix", v->needs_imatrix);
    if (v->requantized)
        line(FIELD, "Note    %u tensor%s quantized in the source already; convert will need the F32, F16 or BF16 file, or "
                    "--allow-requantize", v->requantized, v->requantized == 1 ? " is" : "s are");
}

/* The types of a group, at a column of a line of so many; each stays whole. */
static void print_types(const struct plan_group *g, int column, int width)
{
    int at = column;

    for (uint32_t k = 0; k < g->n_types; k++) {
        char text[64];
        int n = snprintf(text, sizeof text, "%s", sl_type_info(g->types[k].type)->name);

        if (g->n_types > 1)
            n += snprintf(text + n, sizeof text - (size_t)n, " %.1f %% (%u)",
                          100.0 * (double)g->types[k].weights / (double)g->weights, g->types[k].tensors);
        if (k && width && at + 2 + n + (k + 1 < g->n_types) > width)
            at = printf(",\n%*s", column, "") - 2;
        else if (k)
            at += printf(", ");
        at += printf("%s", text);
    }
    putchar('\n');
}

static void print_groups(const struct plan_view *v)
{
    int width = 6, columns = term_width(STDOUT_FILENO);
    bool wide = !columns || columns >= WIDE;
    int n = wide ? 7 : 5, w = wide ? 11 : 10, s = wide ? 9 : 8;

    for (uint32_t i = 0; i < v->n_groups; i++)
        if ((int)strlen(v->groups[i].name) > width)
            width = (int)strlen(v->groups[i].name);
    printf("\n%-*s  %*s  %*s  %*s  %6s  %s\n", width, "Tensor", n, "Count", w, "Weights, M", s, "Size, MB",
           "Share", "Types");
    for (uint32_t i = 0; i < v->n_groups; i++) {
        const struct plan_group *g = &v->groups[i];
        char shown[CLI_SHOWN_BYTES];

        printf("%-*s  %*u  %*.1f  %*.1f  %4.1f %%  ", width, cli_shown(shown, g->name), n, g->tensors, w,
               (double)g->weights / 1e6, s, (double)g->bytes / 1e6,
               100.0 * (double)g->bytes / (double)v->job->plan->tensor_bytes);
        print_types(g, width + n + w + s + 16, columns);
    }
}

static void print_place(const char *where, const struct sl_place *p, uint64_t size)
{
    printf("%-8s  %8.1f  %8.1f  %8.1f  %8.1f", where, (double)p->weights / 1e9, (double)p->kv_cache / 1e9,
           (double)p->buffers / 1e9, (double)p->total / 1e9);
    if (size == SL_HOST_UNKNOWN)
        printf("  %8s\n", "-");
    else
        printf("  %8.1f\n", (double)size / 1e9);
}

static void print_lack(const struct plan_device_set *s)
{
    const struct sl_machine *m = &s->devices.m;
    uint64_t gpus = 0, host = s->offload.host.total;
    char a[32], b[32];

    for (uint32_t g = 0; g < m->gpus; g++)
        gpus += s->offload.gpu[g].total > m->gpu[g] ? s->offload.gpu[g].total - m->gpu[g] : 0;
    if (m->host == SL_HOST_UNKNOWN)
        line(0, "Does not fit: the GPUs lack %s. Part of it may lie in RAM: add its size, as in 24G,16G+192G.",
             sl_size_text(a, gpus));
    else if (gpus && host > m->host)
        line(0, "Does not fit, even with all experts in RAM: a GPU lacks %s, and RAM %s.", sl_size_text(a, gpus),
             sl_size_text(b, host - m->host));
    else if (gpus)
        line(0, "Does not fit, even with all experts in RAM: a GPU lacks %s.", sl_size_text(a, gpus));
    else
        line(0, "Does not fit: RAM lacks %s.", sl_size_text(b, host - m->host));
}

/* " without GPU 2", " without 3 GPUs"; "" when all hold something. */
static const char *left_out(const struct plan_device_set *s, char buf[32])
{
    uint32_t n = 0, last = 0;

    for (uint32_t g = 0; g < s->devices.count; g++)
        if (!s->offload.split[g]) {
            last = g;
            n++;
        }
    if (n)
        snprintf(buf, 32, n > 1 ? " without %u GPUs" : " without GPU %u", n > 1 ? n : last);
    return n ? buf : "";
}

static void print_fit(const struct plan_view *v, const struct plan_device_set *s)
{
    const struct sl_offload *o = &s->offload;
    char options[PLAN_SERVER_TEXT], name[CLI_SHOWN_BYTES], without[32];
    const char *more = s->devices.count > 1 ? "s" : "";
    int columns = term_width(STDOUT_FILENO);

    if (!s->fits) {
        print_lack(s);
        return;
    }
    if (!s->devices.count || !o->gpu_layers)
        line(0, "Fits, all in RAM:");
    else if (o->gpu_layers < o->layers)
        line(0, "Fits%s, with %u of %u layers on the GPU%s, the output among them:", left_out(s, without), o->gpu_layers,
             o->layers, more);
    else if (o->cpu_moe)
        line(0, "Fits%s, with the experts of the first %u of %u layers in RAM:", left_out(s, without), o->cpu_moe, o->layers - 1);
    else
        line(0, "Fits%s, with all layers on the GPU%s:", left_out(s, without), more);
    plan_view_server(v, s, options);
    cli_shown(name, v->job->plan->segments[0].name);
    if (columns && (size_t)columns < sizeof "    llama-server -m  " - 1 + strlen(name) + strlen(options))
        printf("    llama-server -m %s \\\n        %s\n", name, options);
    else
        printf("    llama-server -m %s %s\n", name, options);
}

/* A machine, place by place. */
static void print_offload(const struct plan_view *v, const struct plan_device_set *s)
{
    char devices[PLAN_DEVICES_TEXT];

    putchar('\n');
    line(0, "%s with llama.cpp, a context of %llu tokens, estimated, in GB", plan_devices_text(&s->devices, devices),
         (unsigned long long)v->ctx);
    printf("%-8s  %8s  %8s  %8s  %8s  %8s\n", "Where", "Weights", "Cache", "Buffers", "Total", "Of");
    for (uint32_t g = 0; g < s->devices.count; g++) {
        char where[16];

        snprintf(where, sizeof where, s->devices.count > 1 ? "GPU %u" : "GPU", g);
        print_place(where, &s->offload.gpu[g], s->devices.m.gpu[g]);
    }
    print_place("RAM", &s->offload.host, s->devices.m.host);
    print_fit(v, s);
    if (s->longest_ctx)
        printf("Longest context that fits: %llu tokens\n", (unsigned long long)s->longest_ctx);
}

static const char *cache_form(const struct plan_view *v, const struct plan_device_set *s)
{
    const struct sl_hparams *h = &v->job->model->hp;

    if (s->paper)
        return "whole heads, paper";
    return h->window || h->near_window ? "windowed" : !h->kv_lora ? "heads" : s->whole_heads ? "whole heads" : "compressed (MLA)";
}

/* The option with which a set fits that does not by itself. */
static void print_split(const struct plan_view *v, const struct plan_device_set *s)
{
    char devices[PLAN_DEVICES_TEXT], list[PLAN_SERVER_TEXT];
    int n = 0;

    for (uint32_t g = 0; g < s->devices.m.gpus; g++)
        n += snprintf(list + n, sizeof list - (size_t)n, "%s%u", g ? "," : "", s->offload.split[g]);
    line(0, "%s, %s: -ts %s; by itself llama.cpp gives each device as many layers, which do not fit.",
         plan_devices_text(&s->devices, devices), cache_form(v, s), list);
}

static void print_even_notes(const struct plan_view *v)
{
    bool both = false, more = false;

    line(0, "In llama.cpp, all layers on GPUs and token_embd in RAM. A device: the fullest, with 1 GiB to spare.");
    for (uint32_t i = 0; i < v->n_sets; i++) {
        const struct plan_device_set *s = &v->sets[i];

        if (plan_view_split(s))
            print_split(v, s);
        both = both || s->paper;
        more = more || (s->devices.count > SL_GPUS_MOST && !s->devices.machine);
    }
    if (more)
        line(0, "llama.cpp takes %u devices; more are left out.", SL_GPUS_MOST);
    if (!both)
        return;
    line(0, "paper: as table 1 of arXiv 2505.02390 counts; llama.cpp of 2026 needs the row below.");
    line(0, "Whole heads are cached with %s, the compressed form with %s; this plan is %s.",
         v->job->ck->is_gguf ? "the legacy layout" : "--layout legacy", v->job->ck->is_gguf ? "the MLA layout" : "--layout mla",
         v->job->model->layout == SL_LAYOUT_LEGACY ? "legacy" : "mla");
}

static void print_even_sets(const struct plan_view *v)
{
    int columns = term_width(STDOUT_FILENO);
    bool wide = !columns || columns >= WIDE;
    int c = wide ? 8 : 7, d = wide ? 16 : 11, f = wide ? 18 : 16;

    printf("\nMemory with a context of %llu tokens, estimated, in GB\n", (unsigned long long)v->ctx);
    printf("%-*s  %-*s  %*s  %*s  %*s  %*s %*s  %s\n", d, "Devices", f, "Cache form", c, "Weights", c - !wide, "Cache",
           c, "Buffers", c - !wide, "Total", 8 + wide, "A device", "Fits");
    for (uint32_t i = 0; i < v->n_sets; i++) {
        const struct plan_device_set *s = &v->sets[i];
        const struct sl_memory *m = &s->mem;
        char devices[PLAN_DEVICES_TEXT];
        int n, end = d + f + c + 3;

        if (s->devices.machine)
            continue;
        n = printf("%-*s  %-*s", d, plan_devices_text(&s->devices, devices), f, cache_form(v, s));
        /* long texts take of the room before the weights */
        printf(" %*.1f  %*.1f  %*.1f  %*.1f %*.1f  %s\n", end > n ? end - n : 0, (double)m->weights / 1e9, c - !wide, (double)m->kv_cache / 1e9, c,
               (double)m->buffers / 1e9, c - !wide, (double)m->total / 1e9, 8 + wide, (double)m->per_device / 1e9,
               !s->fits ? "no" : plan_view_split(s) ? "by -ts" : "yes");
    }
    print_even_notes(v);
}

static void print_memory(const struct plan_view *v)
{
    uint32_t machines = 0;

    for (uint32_t i = 0; i < v->n_sets; i++)
        machines += v->sets[i].devices.machine;
    if (machines < v->n_sets)
        print_even_sets(v);
    for (uint32_t i = 0; i < v->n_sets; i++)
        if (v->sets[i].devices.machine)
            print_offload(v, &v->sets[i]);
}

void plan_view_print(const struct plan_view *v)
{
    print_head(v);
    print_notes(v);
    print_groups(v);
    print_memory(v);
}
