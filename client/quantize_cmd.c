#include "client/convert_run.h"

#include "client/interrupt.h"
#include "client/model_arg.h"
#include "proto/mixture.h"
#include "proto/suffix.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LAYERS_MAX 4096
#define VAL_PRUNE 1
#define ORDER "; the order is IN.gguf [OUT.gguf] RECIPE [THREADS]"

struct args {
    struct cli_plan_args plan;
    struct convert_args run;
    struct words prune;
    int max_buffer;
    uint32_t layers[LAYERS_MAX];
};

static bool is_number(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

static int set_threads(struct args *a, const char *text, struct sl_error *e)
{
    unsigned long n = is_number(text) ? strtoul(text, NULL, 10) : 1025;

    if (n > 1024)
        return sl_fail(e, SL_EUSAGE, "threads '%s': expected a number up to 1024" ORDER, text);
    if (n > 0 && a->run.threads && a->run.threads != (int)n)
        return sl_fail(e, SL_EUSAGE, "threads '%s' and --threads %d: one number is expected", text, a->run.threads);
    if (n > 0) /* llama-quantize's 0: all cores */
        a->run.threads = (int)n;
    return 0;
}

/* The first name that llama-quantize's table has for a number: its Q3_K, Q4_K and Q5_K stand before Q3_K_M ... */
static const char *name_of_number(const char *number)
{
    unsigned long v = strtoul(number, NULL, 10);
    uint32_t i = 0;

    if (v == 12 || v == 15 || v == 17)
        return v == 12 ? "q3_k" : v == 15 ? "q4_k" : "q5_k";
    while (sl_mixture_at(i) && sl_mixture_file_type(sl_mixture_at(i)) != v)
        i++;
    return sl_mixture_at(i) ? sl_mixture_name(sl_mixture_at(i)) : number;
}

/* IN's folder, "ggml-model-" and the type in capitals: llama-quantize's name where none is given. Of a
 * recipe file its own name. */
static char *usual_output(const char *in, const char *type)
{
    const char *slash = strrchr(in, '/'), *base = strrchr(type, '/'), *name = base ? base + 1 : type;
    size_t n = sl_stem(name, ".recipe");
    bool file = base || n;
    char *out;

    if (is_number(name))
        name = name_of_number(name);
    n = n ? n : strlen(name);
    if (asprintf(&out, "%.*sggml-model-%.*s.gguf", slash ? (int)(slash - in) + 1 : 0, in, (int)n, name) < 0)
        return NULL;
    for (char *c = out + strlen(out) - strlen(".gguf") - n; !file && *c != '.'; c++)
        *c = (char)toupper((unsigned char)*c);
    return out;
}

/* llama-quantize's order of arguments: IN [OUT] TYPE [THREADS]. What stands second
 * is the type when it can be one. With --recipe: IN [OUT]. */
static int positions(struct args *a, const struct cli_args *args, char **out, struct sl_error *e)
{
    bool named = args->n_pos == 4 || (args->n_pos == 3 && !sl_recipe_known(args->pos[1]));
    const char *type = args->pos[named ? 2 : 1];

    *out = NULL;
    if (a->plan.recipe) {
        if (args->n_pos > 2 || (args->n_pos == 2 && sl_recipe_known(args->pos[1])))
            return sl_fail(e, SL_EUSAGE, "'%s' and --recipe %s: one recipe is expected", args->pos[args->n_pos > 2 ? 2 : 1],
                           a->plan.recipe);
        *out = args->n_pos == 2 ? strdup(args->pos[1]) : usual_output(args->pos[0], a->plan.recipe);
        return *out ? 0 : sl_no_memory(e);
    }
    if (args->n_pos == 1 || (args->n_pos == 2 && sl_stem(type, ".gguf") && !sl_recipe_known(type)))
        return sl_fail(e, SL_EUSAGE, "no recipe given: it stands last ('sluice recipes' lists them)");
    if (args->n_pos > 2 + named)
        SL_TRY(set_threads(a, args->pos[args->n_pos - 1], e));
    if (named && is_number(type) && !strchr(args->pos[1], '/') && !strchr(args->pos[1], '.'))
        return sl_fail(e, SL_EUSAGE, "'%s' is no recipe; if it is the output's name, write ./%s", args->pos[1],
                       args->pos[1]);
    a->plan.recipe = strdup(type);
    *out = named ? strdup(args->pos[1]) : usual_output(args->pos[0], type);
    return a->plan.recipe && *out ? 0 : sl_no_memory(e);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* "0,5,6" behind the n layers that there are. */
static int add_layers(struct args *a, uint32_t *n, const char *list, struct sl_error *e)
{
    for (const char *s = list; s; s = *s == ',' ? s + 1 : NULL) {
        char *end;
        unsigned long v = strtoul(s, &end, 10);

        if (*s < '0' || *s > '9' || (*end && *end != ',') || v >= 100000 || *n == LAYERS_MAX)
            return sl_fail(e, SL_EUSAGE, "--prune-layers '%s': expected numbers of layers with commas, such as 20,21,22", list);
        a->layers[(*n)++] = (uint32_t)v;
        s = end;
    }
    return 0;
}

/* All that were given to a->plan.prune, ascending, each once. */
static int parse_layers(struct args *a, struct sl_error *e)
{
    uint32_t n = 0, kept = 0;

    for (int i = 0; i < a->prune.n; i++)
        SL_TRY(add_layers(a, &n, a->prune.word[i], e));
    qsort(a->layers, n, sizeof *a->layers, by_value);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || a->layers[i] != a->layers[i - 1])
            a->layers[kept++] = a->layers[i];
    a->plan.prune = a->layers;
    a->plan.n_prune = kept;
    return 0;
}

/* llama-quantize's limit on what it keeps of one tensor is one on everything here. */
static int set_mem(struct args *a, struct sl_error *e)
{
    char *mem;

    if (a->max_buffer <= 0)
        return sl_fail(e, SL_EUSAGE, "--max-buffer-size %d: expected MiB, such as 1024", a->max_buffer);
    if (a->run.mem)
        return sl_fail(e, SL_EUSAGE, "--max-buffer-size %d and --mem %s: one limit is expected", a->max_buffer, a->run.mem);
    if (asprintf(&mem, "%dMi", a->max_buffer) < 0)
        return sl_no_memory(e);
    a->run.mem = mem;
    return 0;
}

/* A copy has no types to choose. */
static int check_copy(const struct cli_plan_args *p, struct sl_error *e)
{
    struct sl_recipe *r;
    bool copy;
    const char *option = p->pure ? "--pure" : p->output_type ? "--output-tensor-type"
                         : p->embedding_type ? "--token-embedding-type" : p->imatrix ? "--imatrix"
                         : p->tensor_type.n ? *p->tensor_type.word[0] == CLI_PAIR ? "--tensor-type" : "--tensor-type-file"
                         : p->round_through ? "--round-through" : NULL;

    SL_TRY(sl_recipe_load(p->recipe, &r, e));
    copy = sl_recipe_is_copy(r);
    sl_recipe_close(r);
    if (!option || !copy)
        return 0;
    return sl_fail(e, SL_EUSAGE, "COPY leaves every tensor as it is: %s does not go with it", option);
}

static void note_imatrix(const struct sl_job_plan *j)
{
    const struct sl_plan *p = j->plan;
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->n_tensors && !j->imatrix && !j->synthetic; i++)
        n += p->tensors[i].type != p->tensors[i].t->src_type
             && sl_recipe_needs_imatrix(j->recipe, p->tensors[i].t->name, p->tensors[i].type, j->rules_2025);
    if (n)
        fprintf(stderr, "sluice: note: without --imatrix this cannot be made: %u tensors need an importance matrix\n", n);
}

/* llama-quantize leaves such a list as long as it is, too. Returns whether the model has one. */
static bool note_lists(const struct sl_model *m, const struct args *a)
{
    static const char *const lists[] = {"attention.indexer.types", "swiglu_clamp_exp", "attention.head_count_kv"};
    char key[160], shown[CLI_SHOWN_BYTES];
    const struct sl_kv *list = NULL;

    for (size_t i = 0; i < sizeof lists / sizeof *lists && !list; i++) {
        snprintf(key, sizeof key, "%.80s.%s", m->arch, lists[i]);
        list = sl_kvs_find(&m->kvs, key);
        list = list && list->type == SL_KV_ARR ? list : NULL;
    }
    if (a->plan.n_prune && list && a->layers[0] < list->n)
        fprintf(stderr, "sluice: note: %s still tells of %" PRIu64 " layers: llama.cpp will not load the file\n",
                cli_shown(shown, key), list->n);
    return list != NULL;
}

static void note_requantized(const struct sl_job_plan *j, const struct cli_plan_args *p)
{
    uint32_t n = p->allow_requantize ? 0 : cli_requantized(j);

    if (n)
        fprintf(stderr, "sluice: note: without --allow-requantize this cannot be made: %u tensors are quantized in the source already\n", n);
}

/* llama-quantize leaves that number as it is, too. */
static void note_pruned(const struct sl_model *m, const struct args *a, const struct sl_kvs *given)
{
    char key[160], shown[CLI_SHOWN_BYTES];
    bool listed = note_lists(m, a);

    snprintf(key, sizeof key, "%.80s.nextn_predict_layers", m->arch);
    if (!a->plan.n_prune || a->layers[a->plan.n_prune - 1] + m->hp.n_nextn < m->hp.n_layer || !m->hp.n_nextn ||
        sl_kvs_find(given, key))
        return;
    cli_shown(shown, key);
    fprintf(stderr, "sluice: note: a layer for multi-token prediction is left out, and %s stays %" PRIu64 ": llama.cpp would "
            "not %s; give --override-kv %s=int:N too, N being how many such layers are left\n", shown, m->hp.n_nextn,
            listed ? "load the file" : "run the last layer that is left", shown);
}

/* convert wants the folder, and not each shard of it. */
static int no_gguf(const char *source, struct sl_error *e)
{
    const char *slash = strrchr(source, '/');

    if (!model_arg_is_part(source))
        return sl_fail(e, SL_EUSAGE, "%s is no GGUF file; use 'sluice convert' for a checkpoint", source);
    return sl_fail(e, SL_EUSAGE, "%s is no GGUF file but a part of a checkpoint; 'sluice convert' takes its folder, %.*s", source,
                   slash ? (int)(slash - source) + (slash == source) : 1, slash ? source : ".");
}

static int quantize(struct args *a, const char *source, const char *target, struct sl_job_plan *j,
                    struct output *out, struct sl_error *e)
{
    struct convert_opts o;

    if (access(source, F_OK) != 0 && errno == ENOENT)
        return sl_fail(e, SL_ESOURCE, "%s: %s" ORDER, source, strerror(ENOENT));
    if (model_arg_is_part(source))
        return no_gguf(source, e);
    a->plan.silent = a->run.quiet || a->run.json;
    SL_TRY(convert_options(&a->run, &o, e));
    SL_TRY(output_parse(out, target, e));
    if (!a->plan.split_max_size)
        a->plan.split_max_size = strdup("0");
    SL_TRY(check_copy(&a->plan, e));
    /* As llama-quantize does, sizes are shown also where an imatrix would be needed. */
    a->plan.sizes_only = a->run.dry_run && !a->plan.imatrix;
    SL_TRY(cli_job_open(j, source, false, &a->plan, out->prefix, e));
    if (!j->ck->is_gguf)
        return no_gguf(source, e);
    if (!a->run.dry_run)
        convert_as_begun(j, out, source, &a->plan, &o);
    if (!a->run.quiet) {
        cli_job_notes(j, a->run.json, NULL);
        note_pruned(j->model, a, &j->extra_kvs);
    }
    SL_TRY(output_attach(out, j->plan, e));
    out->sparse = o.sparse;
    if (a->run.dry_run) {
        SL_TRY(convert_dry_run(j, out, a->run.force, a->run.json));
        note_imatrix(j);
        note_requantized(j, &a->plan);
        return 0;
    }
    interrupt_install();
    return convert_run(j, out, &o, e);
}

static bool is_negative(const char *s)
{
    return s[0] == '-' && is_number(s + 1);
}

/* llama-quantize's -1 threads are all cores; behind an argument that is no option. The caller's (free), or NULL. */
static const char **without_negatives(int argc, const char **argv)
{
    const char **copy = calloc((size_t)argc + 1, sizeof *copy);

    for (int i = 0; copy && i < argc; i++)
        copy[i] = i > 1 && is_negative(argv[i]) && argv[i - 1][0] != '-' ? "0" : argv[i];
    return copy;
}

static int on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct args *a = user;

    return val == VAL_PRUNE ? words_add(&a->prune, arg, e) : cli_plan_on_val(val, arg, &a->plan, e);
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct args a = {.max_buffer = UNSET};
    struct poptOption plan[CLI_PLAN_TABLE_MAX], conv[CONVERT_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_FLAG("keep-split", 0, &a.plan.keep_split,
                 "split the output as the input is; of one file it is one, OUT.gguf (llama-quantize: OUT-00001-of-00001.gguf)"),
        CLI_CALL("prune-layers", 0, VAL_PRUNE, "leave these layers out and number the others anew; may be repeated", "L0,L1,..."),
        CLI_NUMBER("max-buffer-size", 0, &a.max_buffer, "--mem in MiB, as llama-quantize has it", "MIB"),
        CLI_TABLE(plan, "What is made:"),
        CLI_TABLE(conv, "How it is made:"),
        POPT_TABLEEND,
    };
    const char **given = argc > 3 ? without_negatives(argc, argv) : NULL;
    struct cli_args args;
    struct sl_job_plan job = {0};
    struct output out = {0};
    char *target = NULL;
    int rc;

    cli_plan_table(&a.plan, plan);
    convert_table(&a.run, conv);
    rc = cli_parse(&args, &cli_quantize, argc, given ? given : argv, table, 1, 4, on_val, &a, e);
    if (rc == 0) {
        rc = positions(&a, &args, &target, e);
        if (rc == 0 && a.prune.n)
            rc = parse_layers(&a, e);
        if (rc == 0 && a.max_buffer != UNSET)
            rc = set_mem(&a, e);
        if (rc == 0)
            rc = quantize(&a, args.pos[0], target, &job, &out, e);
        output_free(&out);
        sl_job_plan_close(&job);
        cli_args_free(&args);
        free(target);
    }
    cli_plan_args_free(&a.plan);
    words_free(&a.prune);
    free(given);
    return rc < 0 ? rc : 0;
}

const struct cli_verb cli_quantize = {
    "quantize", "IN.gguf [OUT.gguf] RECIPE [THREADS] [OPTION...]",
    "Quantize a GGUF file, as llama-quantize does and with its options", run};
