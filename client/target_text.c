#include "client/target.h"

#include "proto/size_text.h"
#include "proto/text_line.h"

#include <stdlib.h>
#include <string.h>

#define LIST_MAX 16 /* items of a rule's list of layers (proto/RECIPES.md) */

/* A tensor of a recipe: its kind is the name with "*." for "blk.N.". */
struct line {
    char kind[SL_NAME_MAX];
    uint32_t tensor;
    uint64_t layer;
    bool layered;
};

struct text {
    struct target *t;
    FILE *f;
    struct line *lines;
    uint32_t n;
};

static int parts(const char *kind)
{
    int n = 0;

    for (; *kind; kind++)
        n += *kind == '.';
    return n;
}

/* "*.indexer.attn_q_b.weight" stands before "*.attn_q_b.weight", which has its tensors too. */
static int by_kind(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    int c = strcmp(x->kind, y->kind);

    if (x->layered != y->layered)
        return x->layered ? 1 : -1;
    if (parts(x->kind) != parts(y->kind))
        return parts(x->kind) > parts(y->kind) ? -1 : 1;
    if (c)
        return c;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static bool plain_name(const char *s)
{
    return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(s);
}

/* Tensors that rules can type at all; an option's choice is written down as well. */
static int list_tensors(struct text *x, struct sl_error *e)
{
    const struct sl_model *m = x->t->probe.model;
    bool tied = sl_recipe_tied(m);

    x->lines = calloc((size_t)m->n_tensors + 1, sizeof *x->lines);
    if (!x->lines)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        const struct sl_out_tensor *o = &m->tensors[i];
        struct line *l = &x->lines[x->n];

        if (!x->t->free[i] && !sl_recipe_may_quantize(o))
            continue;
        if (!plain_name(o->name))
            return sl_fail(e, SL_EUNSUPPORTED, "tensor '%s': a recipe cannot name it", o->name);
        l->tensor = i;
        l->layered = sl_tensor_layer(o->name, &l->layer);
        if (l->layered)
            snprintf(l->kind, sizeof l->kind, "*%s", strchr(o->name + 4, '.'));
        else /* rules see a tied embedding as the output that it is */
            snprintf(l->kind, sizeof l->kind, "%s",
                     tied && strcmp(o->name, "token_embd.weight") == 0 ? "output.weight" : o->name);
        x->n++;
    }
    qsort(x->lines, x->n, sizeof *x->lines, by_kind);
    return 0;
}

static int type_of(const struct text *x, uint32_t k)
{
    return x->t->types[x->lines[k].tensor];
}

/* The type that most weights of lines [from, to) have; the lower id of two. made: without those that are kept. */
static int usual_type(const struct text *x, uint32_t from, uint32_t to, bool made)
{
    uint64_t n[SL_TYPE_LIMIT] = {0};
    int best = 0;

    for (uint32_t k = from; k < to; k++)
        if (!made || !target_keeps(x->t, x->lines[k].tensor, type_of(x, k)))
            n[type_of(x, k)] += x->t->probe.model->tensors[x->lines[k].tensor].elems;
    for (int i = 1; i < SL_TYPE_LIMIT; i++)
        if (n[i] > n[best])
            best = i;
    return n[best] ? best : SL_TYPE_Q8_0;
}

static void put_rule(const struct text *x, const char *kind, const char *layers, int type)
{
    if (*layers)
        fprintf(x->f, "%-32s layers %s = %s\n", kind, layers, sl_type_info(type)->name);
    else
        fprintf(x->f, "%-32s = %s\n", kind, sl_type_info(type)->name);
}

/* Rules for the layers of one kind that have `type`. */
static void put_layers(const struct text *x, uint32_t from, uint32_t to, int type)
{
    char list[LIST_MAX * 24] = "";
    size_t n = 0;
    int items = 0;

    for (uint32_t k = from; k < to; k++) {
        uint32_t last = k;

        if (type_of(x, k) != type)
            continue;
        while (last + 1 < to && type_of(x, last + 1) == type && x->lines[last + 1].layer == x->lines[last].layer + 1)
            last++;
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%llu", items ? "," : "",
                              (unsigned long long)x->lines[k].layer);
        if (last > k)
            n += (size_t)snprintf(list + n, sizeof list - n, "-%llu", (unsigned long long)x->lines[last].layer);
        k = last;
        if (++items == LIST_MAX) {
            put_rule(x, x->lines[from].kind, list, type);
            n = 0;
            items = 0;
            list[0] = '\0';
        }
    }
    if (items)
        put_rule(x, x->lines[from].kind, list, type);
}

static void put_kind(const struct text *x, uint32_t from, uint32_t to)
{
    int usual = usual_type(x, from, to, false);
    double sum = 0;
    uint64_t bytes = 0;
    uint32_t n = 0;
    char a[32];

    for (uint32_t k = from; k < to; k++) {
        uint32_t i = x->lines[k].tensor;

        bytes += target_bytes(x->t, i, x->t->types[i]);
        if (x->t->free[i])
            sum += x->t->error[(size_t)i * SL_TYPE_LIMIT + (size_t)x->t->types[i]];
        n += x->t->free[i];
    }
    fprintf(x->f, "\n# %u tensor%s, %s", to - from, to - from == 1 ? "" : "s", sl_size_text(a, bytes));
    if (n)
        fprintf(x->f, ", mean error %.4g\n", sum / n);
    else
        fprintf(x->f, ", by an option of the plan\n");
    for (int type = 0; type < SL_TYPE_LIMIT; type++)
        if (type != usual && x->lines[from].layered)
            put_layers(x, from, to, type);
    put_rule(x, x->lines[from].kind, "", usual);
}

static void put_head(const struct text *x, const struct target_args *a)
{
    const struct target *t = x->t;
    const struct sl_model *m = t->probe.model;
    const char *weights = t->probe.synthetic ? "weighted by the energy of the weights' own columns"
                          : t->probe.imatrix ? "weighted by an importance matrix"
                                             : "without an importance matrix";
    uint64_t tensors = 0;
    char size[32];

    for (uint32_t i = 0; i < m->n_tensors; i++)
        tensors += sl_type_bytes(t->types[i], m->tensors[i].elems);
    fprintf(x->f, "# Made by 'sluice plan %s' for %.100s:\n# %s of tensor data, %.3f bits a weight.\n#\n", a->command,
            m->model_name && plain_name(m->model_name) ? m->model_name : m->arch, sl_size_text(size, tensors),
            (double)tensors * 8 / (double)m->n_params);
    fprintf(x->f, "# A tensor's error is the share of its products' energy that quantization gets\n"
                  "# wrong, measured on a sample of its rows, %s.\n", weights);
    fprintf(x->f, "# Mean error of the %u tensors: %.6g; ", t->n_free, t->mean_error);
    if (t->exact)
        fprintf(x->f, "no choice of these types has less.\n");
    else
        fprintf(x->f, "no choice of these types has less than %.6g.\n", t->bound);
    if (t->best_stock >= 0)
        fprintf(x->f, "# Best stock recipe within that size: %s, %.6g.\n", t->stock[t->best_stock].name,
                t->stock[t->best_stock].error);
    if (t->from_stock)
        fprintf(x->f, "# Some tensors are as in that recipe, with types or mixed groups of its own.\n");
    fprintf(x->f, "# Types tried:");
    for (uint32_t i = 0; i < t->n_candidates; i++)
        fprintf(x->f, " %s", sl_type_info(t->candidates[i])->name);
    fprintf(x->f, "\nadvice %.3f bits on the model that it was made for, by measured errors\nencoding %s\n",
            (double)tensors * 8 / (double)m->n_params, t->encoding);
    if (usual_type(x, 0, x->n, false) == SL_TYPE_MXFP4)
        fprintf(x->f, "file_type mxfp4_moe\n");
}

int target_write(struct target *t, const struct target_args *a, struct sl_error *e)
{
    struct text x = {.t = t};
    size_t size;
    int rc;

    free(t->text);
    t->text = NULL;
    x.f = open_memstream(&t->text, &size);
    if (!x.f)
        return sl_no_memory(e);
    rc = list_tensors(&x, e);
    if (rc == 0) {
        put_head(&x, a);
        for (uint32_t k = 0, to; k < x.n; k = to) {
            for (to = k + 1; to < x.n && strcmp(x.lines[k].kind, x.lines[to].kind) == 0; to++)
                ;
            put_kind(&x, k, to);
        }
        fprintf(x.f, "\n# What the model above does not have.\ndefault %s\n", sl_type_info(usual_type(&x, 0, x.n, true))->name);
    }
    if (sl_text_close(x.f, &t->text) < 0 && rc == 0)
        rc = sl_no_memory(e);
    free(x.lines);
    return rc;
}
