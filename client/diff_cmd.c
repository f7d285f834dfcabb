/* sluice diff: two models tensor by tensor, in bytes and in values. */
#include "client/cli.h"
#include "client/compare_side.h"
#include "client/kv_print.h"
#include "client/progress.h"
#include "proto/standard_streams.h"
#include "proto/text_line.h"

#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_SHOWN 6

struct diff_args {
    const char *tensor; /* glob; NULL: all */
    const char *imatrix;
    int json, quiet, tensors_only;
};

/* Sums over pairs of values, in double; error figures follow from them. */
struct sums {
    uint64_t n, not_finite, n_weighted;
    double d2, a2, b2, ab, max;
    double wd2, wa2; /* times importance, over n_weighted values */
};

struct diff {
    const struct diff_args *args;
    struct side a, b;
    float *x, *y; /* SIDE_WEIGHTS values each */
    struct sl_imatrix *im; /* NULL: none */
    float *columns;        /* weights of one matrix's columns */
    struct progress progress;
    uint64_t done;
    uint64_t only_a, only_b, equal, differ, kvs;
    struct sums all, by_type[SL_TYPE_LIMIT]; /* over B's types */
    struct sl_error *e;
};

static void add_sums(struct sums *to, const struct sums *s)
{
    to->n += s->n;
    to->not_finite += s->not_finite;
    to->d2 += s->d2;
    to->a2 += s->a2;
    to->b2 += s->b2;
    to->ab += s->ab;
    to->n_weighted += s->n_weighted;
    to->wd2 += s->wd2;
    to->wa2 += s->wa2;
    if (s->max > to->max)
        to->max = s->max;
}

static void sum_values(struct sums *s, const float *x, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        double a = x[i], b = y[i], d = fabs(a - b);

        if (!isfinite(d)) {
            s->not_finite++;
            continue;
        }
        s->n++;
        s->d2 += d * d;
        s->a2 += a * a;
        s->b2 += b * b;
        s->ab += a * b;
        if (d > s->max)
            s->max = d;
    }
}

/* The same with importance: of n values from weight `at` of tensor t on. */
static int sum_weighted(struct diff *d, const struct side_tensor *t, uint32_t entry, uint64_t at,
                        uint64_t n, struct sums *s)
{
    uint64_t row = t->ne[0], matrix = row * t->ne[1];

    for (uint64_t i = 0; i < n; i++) {
        double a = d->x[i], e = a - d->y[i], w;

        if (i == 0 || (at + i) % matrix == 0)
            SL_TRY(sl_imatrix_values(d->im, entry, (at + i) / matrix * row, row, d->columns, d->e));
        if (!isfinite(e))
            continue;
        w = d->columns[(at + i) % row];
        s->n_weighted++;
        s->wd2 += w * e * e;
        s->wa2 += w * a * a;
    }
    return 0;
}

static double rmse(const struct sums *s)
{
    return s->n ? sqrt(s->d2 / (double)s->n) : 0;
}

/* RMSE over the RMS of A. */
static double relative(const struct sums *s)
{
    return s->a2 > 0 ? sqrt(s->d2 / s->a2) : s->d2 > 0 ? INFINITY : 0;
}

/* The share of the outputs' energy that the errors have, its root: inputs as the imatrix saw
 * them, columns taken as uncorrelated. */
static double weighted(const struct sums *s)
{
    return s->wa2 > 0 ? sqrt(s->wd2 / s->wa2) : s->wd2 > 0 ? INFINITY : 0;
}

static double cosine(const struct sums *s)
{
    return s->a2 > 0 && s->b2 > 0 ? s->ab / sqrt(s->a2 * s->b2) : s->a2 == s->b2;
}

static void figures_json(cJSON *o, const struct sums *s)
{
    cJSON_AddNumberToObject(o, "weights", (double)s->n);
    cJSON_AddNumberToObject(o, "rmse", rmse(s));
    cJSON_AddNumberToObject(o, "relative", relative(s));
    cJSON_AddNumberToObject(o, "max_abs", s->max);
    cJSON_AddNumberToObject(o, "cosine", cosine(s));
    cJSON_AddNumberToObject(o, "not_finite", (double)s->not_finite);
    if (s->n_weighted)
        cJSON_AddNumberToObject(o, "weighted", weighted(s));
}

static void figures_text(const struct sums *s)
{
    printf("rmse %.4g  relative %.4g  max %.4g  cosine %.8f", rmse(s), relative(s), s->max, cosine(s));
    if (s->n_weighted)
        printf("  weighted %.4g", weighted(s));
    if (s->not_finite)
        printf("  %" PRIu64 " values not finite", s->not_finite);
}

static void report_only(struct diff *d, const struct side *s, const struct side_tensor *t)
{
    const char *which = s == &d->a ? "A" : "B";

    progress_end(&d->progress);
    if (d->args->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddItemToObject(o, "tensor", json_text(t->name, strlen(t->name)));
        cJSON_AddStringToObject(o, "only_in", which);
        cJSON_AddStringToObject(o, "type", t->type_name);
        json_line(o, "diff_tensor");
        return;
    }
    printf("only in %s  %s  ", which, t->type_name);
    print_safe(t->name, strlen(t->name), SL_NAME_MAX);
    putchar('\n');
}

/* first: the first differing weight of a byte comparison, UINT64_MAX: none was made. */
static void report_pair(struct diff *d, const struct side_tensor *a, const struct side_tensor *b,
                        const char *what, uint64_t first, const struct sums *s)
{
    uint64_t block = first == UINT64_MAX ? 0 : first / sl_type_info(a->type)->block;

    progress_end(&d->progress);
    if (d->args->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddItemToObject(o, "tensor", json_text(a->name, strlen(a->name)));
        cJSON_AddStringToObject(o, "what", what);
        cJSON_AddStringToObject(o, "type_a", a->type_name);
        cJSON_AddStringToObject(o, "type_b", b->type_name);
        if (first != UINT64_MAX)
            cJSON_AddNumberToObject(o, "first_block", (double)block);
        if (s)
            figures_json(o, s);
        json_line(o, "diff_tensor");
        return;
    }
    printf("%-7s  ", what);
    if (strcmp(a->type_name, b->type_name) == 0)
        printf("%s  ", a->type_name);
    else
        printf("%s -> %s  ", a->type_name, b->type_name);
    print_safe(a->name, strlen(a->name), SL_NAME_MAX);
    if (first != UINT64_MAX)
        printf("  from block %" PRIu64, block);
    if (s) {
        printf("  ");
        figures_text(s);
    }
    putchar('\n');
}

static void advance(struct diff *d, const struct side_tensor *a, uint64_t weights)
{
    d->done += (uint64_t)((double)weights * a->weight_bytes);
    progress_update(&d->progress, d->done, d->done, 0);
}

/* Returns 1 when all bytes are the same, 0 with *first otherwise. */
static int same_bytes(struct diff *d, const struct side_tensor *a, const struct side_tensor *b,
                      uint64_t *first)
{
    const struct sl_type_info *info = sl_type_info(a->type);
    const uint8_t *p, *q;

    for (uint64_t at = 0; at < a->elems; at += SIDE_WEIGHTS) {
        uint64_t n = a->elems - at < SIDE_WEIGHTS ? a->elems - at : SIDE_WEIGHTS;
        uint64_t bytes = sl_type_bytes(a->type, n), i = 0;

        SL_TRY(side_bytes(&d->a, a, at, n, &p, d->e));
        SL_TRY(side_bytes(&d->b, b, at, n, &q, d->e));
        if (memcmp(p, q, bytes) == 0)
            continue;
        while (p[i] == q[i])
            i++;
        *first = at + i / info->bytes * info->block;
        return 0;
    }
    return 1;
}

static int same_values(struct diff *d, const struct side_tensor *a, const struct side_tensor *b,
                       struct sums *s)
{
    int64_t entry = -1;

    if (d->im) {
        entry = sl_imatrix_find(d->im, a->name);
        if (entry >= 0 && d->im->entries[entry].n != a->elems / a->ne[1])
            entry = -1; /* of another layout or model */
    }
    if (entry >= 0) {
        free(d->columns);
        d->columns = malloc(a->ne[0] * sizeof *d->columns);
        if (!d->columns)
            return sl_no_memory(d->e);
    }
    for (uint64_t at = 0; at < a->elems; at += SIDE_WEIGHTS) {
        uint64_t n = a->elems - at < SIDE_WEIGHTS ? a->elems - at : SIDE_WEIGHTS;

        SL_TRY(side_values(&d->a, a, at, n, d->x, d->e));
        SL_TRY(side_values(&d->b, b, at, n, d->y, d->e));
        sum_values(s, d->x, d->y, n);
        if (entry >= 0)
            SL_TRY(sum_weighted(d, a, (uint32_t)entry, at, n, s));
        advance(d, a, n);
    }
    return 0;
}

/* Bytes first, where both have the same type; figures only when they differ. */
static int compare(struct diff *d, const struct side_tensor *a, const struct side_tensor *b)
{
    uint64_t first = UINT64_MAX;
    struct sums s = {0};
    int rc;

    if (memcmp(a->ne, b->ne, 4 * sizeof *a->ne) != 0) {
        d->differ++;
        report_pair(d, a, b, "shape", UINT64_MAX, NULL);
        return 0;
    }
    if (a->type >= 0 && a->type == b->type) {
        rc = same_bytes(d, a, b, &first);
        if (rc != 0) {
            advance(d, a, rc > 0 ? a->elems : 0);
            d->equal += rc > 0;
            return rc < 0 ? rc : 0;
        }
    }
    rc = same_values(d, a, b, &s);
    if (rc < 0 && rc != SL_EUNSUPPORTED)
        return rc;
    if (rc == 0 && (a->type < 0 || b->type < 0) && s.max == 0 && s.not_finite == 0) {
        d->equal++; /* a checkpoint has no GGUF bytes: the values count */
        return 0;
    }
    d->differ++;
    add_sums(&d->all, &s);
    if (b->type >= 0)
        add_sums(&d->by_type[b->type], &s);
    report_pair(d, a, b, first != UINT64_MAX ? "bytes" : strcmp(a->type_name, b->type_name) == 0 ? "values" : "type",
                first, rc == 0 ? &s : NULL);
    return 0;
}

static bool wanted(const struct diff *d, const struct side_tensor *t)
{
    return !d->args->tensor || fnmatch(d->args->tensor, t->name, 0) == 0;
}

/* Both sides are sorted by name: one merge. */
static int compare_tensors(struct diff *d)
{
    uint64_t i = 0, j = 0;

    while (i < d->a.n_tensors || j < d->b.n_tensors) {
        const struct side_tensor *a = &d->a.tensors[i], *b = &d->b.tensors[j];
        int c = i == d->a.n_tensors ? 1 : j == d->b.n_tensors ? -1 : strcmp(a->name, b->name);

        i += c <= 0;
        j += c >= 0;
        if (!wanted(d, c <= 0 ? a : b))
            continue;
        if (c == 0) {
            SL_TRY(compare(d, a, b));
        } else {
            d->only_a += c < 0;
            d->only_b += c > 0;
            report_only(d, c < 0 ? &d->a : &d->b, c < 0 ? a : b);
        }
    }
    return 0;
}

static void report_kv(struct diff *d, const struct sl_kv *a, const struct sl_kv *b)
{
    const char *key = a ? a->key : b->key;

    d->kvs++;
    if (d->args->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddItemToObject(o, "key", json_text(key, strlen(key)));
        if (a)
            cJSON_AddItemToObject(o, "a", kv_json(a, 3));
        if (b)
            cJSON_AddItemToObject(o, "b", kv_json(b, 3));
        json_line(o, "diff_metadata");
        return;
    }
    printf("metadata  ");
    print_safe(key, strlen(key), 120);
    printf(": ");
    if (a)
        kv_print(a, 3, 60);
    printf(!a ? "only in B: " : b ? " -> " : " (only in A)");
    if (b)
        kv_print(b, 3, 60);
    putchar('\n');
}

/* A checkpoint's metadata are what a conversion starts from: keys that only
 * the GGUF side has are no difference then. */
static void compare_kvs(struct diff *d)
{
    const struct sl_kvs *ka = side_kvs(&d->a), *kb = side_kvs(&d->b);

    for (uint64_t i = 0; i < ka->n; i++) {
        const struct sl_kv *b = sl_kvs_find(kb, ka->kv[i].key);

        if (b ? !kv_equal(&ka->kv[i], b) : !d->b.model)
            report_kv(d, &ka->kv[i], b);
    }
    for (uint64_t i = 0; i < kb->n && !d->a.model; i++)
        if (!sl_kvs_find(ka, kb->kv[i].key))
            report_kv(d, NULL, &kb->kv[i]);
}

static void types_json(const struct diff *d, cJSON *o)
{
    cJSON *types = cJSON_AddObjectToObject(o, "types");

    for (int i = 0; i < SL_TYPE_LIMIT; i++)
        if (d->by_type[i].n)
            figures_json(cJSON_AddObjectToObject(types, sl_type_info(i)->name), &d->by_type[i]);
}

/* Figures over all different tensors, and by B's types. */
static void print_totals(const struct diff *d)
{
    for (int i = 0; i < SL_TYPE_LIMIT; i++)
        if (d->by_type[i].n) {
            printf("%-8s %14" PRIu64 " weights  ", sl_type_info(i)->name, d->by_type[i].n);
            figures_text(&d->by_type[i]);
            putchar('\n');
        }
    if (d->all.n) {
        printf("%-8s %14" PRIu64 " weights  ", "all", d->all.n);
        figures_text(&d->all);
        putchar('\n');
    }
}

/* Bytes of the "blk.N." that a name begins with; 0: it is of no layer. */
static size_t layer_of(const char *name)
{
    size_t n = strncmp(name, "blk.", 4) == 0 ? 4 + strspn(name + 4, "0123456789") : 0;

    return n > 4 && name[n] == '.' ? n + 1 : 0;
}

static bool has_layer(const struct side *s, const char *layer, size_t n)
{
    uint64_t low = 0, high = s->n_tensors;

    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        int c = strncmp(s->tensors[mid].name, layer, n);

        if (c == 0)
            return true;
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return false;
}

/* Layers of which the other side has no tensor at all. */
static void print_layers(const struct side *s, const struct side *other, const char *which)
{
    struct sl_line list = {.n = 0};
    uint64_t layers = 0;

    for (uint64_t i = 0, n; i < s->n_tensors; i += n) {
        const char *name = s->tensors[i].name;
        size_t len = layer_of(name);
        bool mtp = false;

        for (n = 0; i + n < s->n_tensors && (n == 0 || (len && strncmp(s->tensors[i + n].name, name, len) == 0)); n++)
            mtp |= strncmp(s->tensors[i + n].name + len, "nextn.", 6) == 0;
        if (!len || has_layer(other, name, len))
            continue;
        if (layers++ < LAYERS_SHOWN)
            sl_line_add(&list, "%s%.*s (%" PRIu64 " tensors%s)", layers > 1 ? ", " : "", (int)len - 5, name + 4, n,
                        mtp ? ", for multi-token prediction" : "");
    }
    if (layers > LAYERS_SHOWN)
        sl_line_add(&list, " and %" PRIu64 " more", layers - LAYERS_SHOWN);
    if (layers)
        printf("layer%s in %s alone: %s\n", layers > 1 ? "s" : "", which, list.text);
}

static int finish(struct diff *d)
{
    bool same = d->only_a + d->only_b + d->differ + d->kvs == 0;

    progress_end(&d->progress);
    if (d->args->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddBoolToObject(o, "equal", same);
        cJSON_AddNumberToObject(o, "equal_tensors", (double)d->equal);
        cJSON_AddNumberToObject(o, "different_tensors", (double)d->differ);
        cJSON_AddNumberToObject(o, "only_in_a", (double)d->only_a);
        cJSON_AddNumberToObject(o, "only_in_b", (double)d->only_b);
        cJSON_AddNumberToObject(o, "different_keys", (double)d->kvs);
        if (d->all.n)
            figures_json(o, &d->all);
        types_json(d, o);
        json_line(o, "diff");
    } else {
        printf("%" PRIu64 " tensors equal, %" PRIu64 " different, %" PRIu64 " only in A, %" PRIu64
               " only in B; %" PRIu64 " metadata keys different\n",
               d->equal, d->differ, d->only_a, d->only_b, d->kvs);
        if (!d->args->tensor) {
            print_layers(&d->a, &d->b, "A");
            print_layers(&d->b, &d->a, "B");
        }
        print_totals(d);
    }
    SL_TRY(sl_stdout_flush(d->e));
    return same ? 0 : sl_fail(d->e, SL_EFAIL, "%s and %s differ", d->a.arg, d->b.arg);
}

/* A checkpoint is laid out as the GGUF on the other side. */
static int open_sides(struct diff *d, const char *a, const char *b)
{
    int a_is_ck = side_is_checkpoint(a, d->e);

    SL_TRY(a_is_ck);
    if (!a_is_ck) {
        SL_TRY(side_open(&d->a, a, SL_LAYOUT_MLA, d->e));
        return side_open(&d->b, b, side_layout(&d->a), d->e);
    }
    SL_TRY(side_open(&d->b, b, SL_LAYOUT_MLA, d->e));
    return side_open(&d->a, a, side_layout(&d->b), d->e);
}

/* *bytes: what the comparison will read of A. A pattern for nothing is a mistake. */
static int choose_tensors(const struct diff *d, double *bytes)
{
    bool any = !d->args->tensor;

    for (uint64_t i = 0; i < d->a.n_tensors; i++)
        if (wanted(d, &d->a.tensors[i])) {
            *bytes += (double)d->a.tensors[i].elems * d->a.tensors[i].weight_bytes;
            any = true;
        }
    for (uint64_t i = 0; i < d->b.n_tensors && !any; i++)
        any = wanted(d, &d->b.tensors[i]);
    return any ? 0 : sl_fail(d->e, SL_EUSAGE, "--tensor '%s': no tensor of %s or %s has a name that matches this "
                             "shell pattern; 'sluice inspect' lists the names", d->args->tensor, d->a.arg, d->b.arg);
}

static int diff_paths(const char *a, const char *b, const struct diff_args *args, struct sl_error *e)
{
    struct diff d = {.args = args, .a = {.fd = -1}, .b = {.fd = -1}, .e = e};
    double bytes = 0;
    int rc = open_sides(&d, a, b);

    if (rc == 0 && args->imatrix)
        rc = sl_imatrix_open(args->imatrix, &d.im, e);
    if (rc == 0 && d.im)
        rc = sl_imatrix_check(d.im, e);
    d.x = malloc(SIDE_WEIGHTS * sizeof *d.x);
    d.y = malloc(SIDE_WEIGHTS * sizeof *d.y);
    if (rc == 0 && (!d.x || !d.y))
        rc = sl_no_memory(e);
    if (rc == 0)
        rc = choose_tensors(&d, &bytes);
    if (rc == 0) {
        if (!args->tensors_only)
            compare_kvs(&d);
        progress_begin(&d.progress, progress_mode_for(args->json, args->quiet), "diff", (uint64_t)bytes, 0);
        rc = compare_tensors(&d);
        progress_end(&d.progress);
    }
    if (rc == 0)
        rc = finish(&d);
    free(d.x);
    free(d.y);
    free(d.columns);
    sl_imatrix_close(d.im);
    side_close(&d.a);
    side_close(&d.b);
    return rc;
}

static int run_diff(int argc, const char **argv, struct sl_error *e)
{
    struct diff_args a = {0};
    struct poptOption table[] = {
        CLI_TEXT("tensor", 't', &a.tensor, "only tensors whose name matches (shell pattern)", "PATTERN"),
        CLI_FLAG("tensors-only", 0, &a.tensors_only, "leave metadata out"),
        CLI_TEXT("imatrix", 0, &a.imatrix, "also weigh errors by an importance matrix", "FILE"),
        CLI_FLAG("json", 0, &a.json, "JSON lines on standard output"),
        CLI_FLAG("quiet", 'q', &a.quiet, "no progress"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    int rc = cli_parse(&args, &cli_diff, argc, argv, table, 2, 2, NULL, NULL, e);

    if (rc != 0)
        return rc > 0 ? 0 : rc;
    rc = diff_paths(args.pos[0], args.pos[1], &a, e);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_diff = {
    "diff", "A B [OPTION...]",
    "Compare two models (GGUF or checkpoint) tensor by tensor; 0: equal, 1: different", run_diff};
