/* sluice inspect: what is in a GGUF model or a checkpoint. */
#include "client/cli.h"
#include "client/kv_print.h"
#include "client/model_arg.h"
#include "client/progress.h"
#include "proto/size_text.h"
#include "proto/suggest.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOW_ELEMS 3
#define SHOW_CHARS 120

struct inspect_args {
    const char *key;
    int json, tensors;
};

/* Weights and bytes of one type. */
struct total {
    const char *name;
    uint64_t tensors, elems, bytes;
};

static double bits(uint64_t bytes, uint64_t elems)
{
    return elems ? 8.0 * (double)bytes / (double)elems : 0;
}

static void add_total(struct total *all, int i, const char *name, uint64_t elems, uint64_t bytes)
{
    all[i].name = name;
    all[i].tensors++;
    all[i].elems += elems;
    all[i].bytes += bytes;
}

static int by_bytes(const void *a, const void *b)
{
    const struct total *x = a, *y = b;

    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void print_totals(struct total *t, int n, uint64_t all_bytes)
{
    char size[32];

    qsort(t, (size_t)n, sizeof *t, by_bytes);
    printf("\n%-8s %8s %14s %10s %6s %7s\n", "type", "tensors", "weights", "size", "bits", "share");
    for (int i = 0; i < n; i++)
        if (t[i].tensors)
            printf("%-8s %8" PRIu64 " %14" PRIu64 " %10s %6.3f %6.1f%%\n", t[i].name, t[i].tensors,
                   t[i].elems, sl_size_text(size, t[i].bytes), bits(t[i].bytes, t[i].elems),
                   all_bytes ? 100.0 * (double)t[i].bytes / (double)all_bytes : 0);
}

static cJSON *totals_json(struct total *t, int n)
{
    cJSON *list = cJSON_CreateArray();

    qsort(t, (size_t)n, sizeof *t, by_bytes);
    for (int i = 0; i < n; i++) {
        cJSON *o;

        if (!t[i].tensors)
            continue;
        o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "type", t[i].name);
        json_tensors(o, t[i].tensors);
        cJSON_AddNumberToObject(o, "weights", (double)t[i].elems);
        cJSON_AddNumberToObject(o, "bytes", (double)t[i].bytes);
        cJSON_AddNumberToObject(o, "bits_per_weight", bits(t[i].bytes, t[i].elems));
        cJSON_AddItemToArray(list, o);
    }
    return list;
}

static cJSON *tensor_json(const char *name, const char *type, const uint64_t *dims, uint32_t n,
                          uint64_t bytes)
{
    cJSON *o = cJSON_CreateObject(), *shape;

    cJSON_AddItemToObject(o, "name", json_text(name, strlen(name)));
    cJSON_AddStringToObject(o, "type", type);
    shape = cJSON_AddArrayToObject(o, "shape");
    for (uint32_t i = 0; i < n; i++)
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)dims[i]));
    cJSON_AddNumberToObject(o, "bytes", (double)bytes);
    return o;
}

static void print_tensor(const char *name, const char *type, const uint64_t *dims, uint32_t n,
                         uint64_t bytes)
{
    char size[32], shape[8 * 22 + 3] = "[";

    for (uint32_t i = 0; i < n; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%" PRIu64, i ? ", " : "",
                 dims[i]);
    strcat(shape, "]");
    printf("%-8s %10s  %-24s ", type, sl_size_text(size, bytes), shape);
    print_safe(name, strlen(name), 512);
    putchar('\n');
}

static void add_tensors(const struct gguf_set *s, cJSON *o)
{
    cJSON *list = cJSON_AddArrayToObject(o, "tensors");

    for (uint32_t f = 0; f < s->n; f++)
        for (uint64_t i = 0; i < s->files[f]->n_tensors; i++) {
            const struct sl_gguf_tensor *t = &s->files[f]->tensors[i];

            cJSON_AddItemToArray(list, tensor_json(t->name, sl_type_info(t->type)->name, t->ne,
                                                   t->n_dims, t->bytes));
        }
}

/* Of a model's own keys people know the end: block_count of deepseek2.block_count. */
static int no_key(const struct gguf_set *s, const char *key, struct sl_error *e)
{
    struct suggestion near = {.word = key};
    const char *path = s->files[0]->path;

    for (uint32_t i = 0; i < s->n; i++)
        for (uint64_t k = 0; k < s->files[i]->kvs.n; k++) {
            const char *name = s->files[i]->kvs.kv[k].key, *dot = strchr(name, '.');

            if (dot && strcmp(dot + 1, key) == 0)
                near = (struct suggestion){.word = key, .best = name};
            suggest_try(&near, name);
        }
    if (near.best)
        return sl_fail(e, SL_EFAIL, "%s: no metadata key %s; did you mean %s? 'sluice inspect %s' lists them", path, key,
                       near.best, path);
    return sl_fail(e, SL_EFAIL, "%s: no metadata key %s; 'sluice inspect %s' lists them", path, key, path);
}

static int show_key(const struct gguf_set *s, const struct inspect_args *a, struct sl_error *e)
{
    const struct sl_kv *kv = NULL;

    for (uint32_t i = 0; i < s->n && !kv; i++)
        kv = sl_kvs_find(&s->files[i]->kvs, a->key);
    if (!kv)
        return no_key(s, a->key, e);
    if (a->json) {
        cJSON *o = kv_json(kv, UINT64_MAX);

        cJSON_AddStringToObject(o, "key", a->key);
        if (a->tensors)
            add_tensors(s, o);
        json_line(o, "metadata");
    } else if (kv->type == SL_KV_STR && !isatty(STDOUT_FILENO)) {
        fwrite(kv->strs[0], 1, kv->str_len[0], stdout);
        putchar('\n');
    } else {
        kv_print(kv, UINT64_MAX, UINT64_MAX);
        putchar('\n');
    }
    return 0;
}

static void list_gguf(const struct gguf_set *s)
{
    for (uint32_t f = 0; f < s->n; f++)
        for (uint64_t i = 0; i < s->files[f]->n_tensors; i++) {
            const struct sl_gguf_tensor *t = &s->files[f]->tensors[i];

            print_tensor(t->name, sl_type_info(t->type)->name, t->ne, t->n_dims, t->bytes);
        }
}

static void print_gguf(const struct gguf_set *s, struct total *types, uint64_t elems,
                       const struct inspect_args *a)
{
    char size[32];

    if (a->tensors) {
        list_gguf(s);
        return;
    }
    for (uint32_t f = 0; f < s->n; f++) {
        const struct sl_gguf *g = s->files[f];

        print_safe(g->path, strlen(g->path), PATH_MAX);
        printf(": GGUF version %" PRIu32 ", %" PRIu64 " tensors, %s (header %" PRIu64 " bytes)\n",
               g->version, g->n_tensors, sl_size_text(size, g->file_size), g->header_bytes);
    }
    printf("%" PRIu64 " weights, %s of tensors, %.3f bits per weight\n", elems,
           sl_size_text(size, s->tensor_bytes), bits(s->tensor_bytes, elems));
    for (uint32_t f = 0; f < s->n; f++) {
        const struct sl_kvs *kvs = &s->files[f]->kvs;

        printf("\nmetadata of file %u: %" PRIu64 " keys\n", f + 1, kvs->n);
        for (uint64_t i = 0; i < kvs->n; i++) {
            printf("  ");
            print_safe(kvs->kv[i].key, strlen(kvs->kv[i].key), SHOW_CHARS);
            printf(" (%s%s) = ", kvs->kv[i].type == SL_KV_ARR ? "arr " : "",
                   sl_gguf_type_name(kvs->kv[i].elem));
            kv_print(&kvs->kv[i], SHOW_ELEMS, SHOW_CHARS);
            putchar('\n');
        }
    }
    print_totals(types, SL_TYPE_LIMIT, s->tensor_bytes);
    putchar('\n');
    list_gguf(s);
}

static void json_gguf(const struct gguf_set *s, struct total *types, uint64_t elems, bool tensors)
{
    cJSON *o = cJSON_CreateObject(), *files;

    if (tensors) {
        add_tensors(s, o);
        json_line(o, "gguf");
        return;
    }
    files = cJSON_AddArrayToObject(o, "files");
    for (uint32_t f = 0; f < s->n; f++) {
        const struct sl_gguf *g = s->files[f];
        cJSON *file = cJSON_CreateObject(), *kvs;

        cJSON_AddItemToObject(file, "path", json_text(g->path, strlen(g->path)));
        cJSON_AddNumberToObject(file, "version", g->version);
        cJSON_AddNumberToObject(file, "bytes", (double)g->file_size);
        cJSON_AddNumberToObject(file, "header_bytes", (double)g->header_bytes);
        json_tensors(file, g->n_tensors);
        kvs = cJSON_AddArrayToObject(file, "metadata");
        for (uint64_t i = 0; i < g->kvs.n; i++) {
            cJSON *kv = kv_json(&g->kvs.kv[i], SHOW_ELEMS);

            cJSON_AddItemToObject(kv, "key", json_text(g->kvs.kv[i].key, strlen(g->kvs.kv[i].key)));
            cJSON_AddItemToArray(kvs, kv);
        }
        cJSON_AddItemToArray(files, file);
    }
    cJSON_AddNumberToObject(o, "weights", (double)elems);
    cJSON_AddNumberToObject(o, "tensor_bytes", (double)s->tensor_bytes);
    cJSON_AddNumberToObject(o, "bits_per_weight", bits(s->tensor_bytes, elems));
    cJSON_AddItemToObject(o, "types", totals_json(types, SL_TYPE_LIMIT));
    add_tensors(s, o);
    json_line(o, "gguf");
}

static int inspect_gguf(const char *path, const struct inspect_args *a, struct sl_error *e)
{
    struct total types[SL_TYPE_LIMIT] = {{0}};
    uint64_t elems = 0;
    struct gguf_set s;
    int rc = gguf_set_open(path, &s, e);

    if (rc == 0 && a->key) {
        rc = show_key(&s, a, e);
        if (rc == 0 && a->tensors && !a->json)
            list_gguf(&s);
    } else if (rc == 0) {
        for (uint32_t f = 0; f < s.n; f++)
            for (uint64_t i = 0; i < s.files[f]->n_tensors; i++) {
                const struct sl_gguf_tensor *t = &s.files[f]->tensors[i];

                elems += gguf_elems(t);
                add_total(types, t->type, sl_type_info(t->type)->name, gguf_elems(t), t->bytes);
            }
        if (a->json)
            json_gguf(&s, types, elems, a->tensors);
        else
            print_gguf(&s, types, elems, a);
    }
    gguf_set_close(&s);
    return rc;
}

static void list_checkpoint(const struct sl_checkpoint *ck)
{
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        const struct sl_src_tensor *t = &ck->tensors[i];

        print_tensor(t->name, sl_dtype_info(t->dtype)->name, t->shape, t->n_dims, t->bytes);
    }
}

static void print_checkpoint(const struct sl_checkpoint *ck, struct total *dtypes, uint64_t elems,
                             uint64_t bytes, const struct inspect_args *a)
{
    const cJSON *arch = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(ck->config, "architectures"), 0);
    struct sl_block b;
    char size[32];

    if (a->tensors) {
        list_checkpoint(ck);
        return;
    }
    printf("checkpoint of %u file%s, %u tensors, %" PRIu64 " elements, %s\n", ck->n_files,
           ck->n_files == 1 ? "" : "s", ck->n_tensors, elems, sl_size_text(size, bytes));
    if (cJSON_IsString(arch)) {
        printf("architecture: ");
        print_safe(arch->valuestring, strlen(arch->valuestring), SHOW_CHARS);
        putchar('\n');
    }
    for (unsigned i = 0; (b = sl_checkpoint_block(ck, i)).rows; i++)
        printf("%s scale blocks: %" PRIu64 " x %" PRIu64 "\n", ck->int8 ? "INT8" : "FP8", b.rows, b.cols);
    if (ck->int_bits && ck->int_group)
        printf("packed %u-bit integers: groups of %" PRIu64 "\n", ck->int_bits, ck->int_group);
    else if (ck->int_bits)
        printf("packed %u-bit integers: a scale for each row\n", ck->int_bits);
    print_totals(dtypes, SL_DTYPE_COUNT, bytes);
    putchar('\n');
    list_checkpoint(ck);
}

static void json_checkpoint(const struct sl_checkpoint *ck, struct total *dtypes, uint64_t elems,
                            uint64_t bytes, bool tensors)
{
    cJSON *o = cJSON_CreateObject(), *files = tensors ? NULL : cJSON_AddArrayToObject(o, "files"), *list;

    for (uint32_t i = 0; i < ck->n_files && !tensors; i++) {
        cJSON *f = cJSON_CreateObject();

        cJSON_AddItemToObject(f, "path", json_text(ck->files[i].path, strlen(ck->files[i].path)));
        cJSON_AddNumberToObject(f, "bytes", (double)ck->files[i].size);
        cJSON_AddItemToArray(files, f);
    }
    if (!tensors) {
        cJSON_AddNumberToObject(o, "weights", (double)elems);
        cJSON_AddNumberToObject(o, "tensor_bytes", (double)bytes);
        cJSON_AddItemToObject(o, "types", totals_json(dtypes, SL_DTYPE_COUNT));
    }
    if (ck->config && !tensors)
        cJSON_AddItemToObject(o, "config", cJSON_Duplicate(ck->config, true));
    list = cJSON_AddArrayToObject(o, "tensors");
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        const struct sl_src_tensor *t = &ck->tensors[i];

        cJSON_AddItemToArray(list, tensor_json(t->name, sl_dtype_info(t->dtype)->name, t->shape,
                                               t->n_dims, t->bytes));
    }
    json_line(o, "checkpoint");
}

static int inspect_checkpoint(const char *path, const struct inspect_args *a, struct sl_error *e)
{
    struct total dtypes[SL_DTYPE_COUNT] = {{0}};
    struct sl_checkpoint *ck;
    uint64_t elems = 0, bytes = 0;

    if (a->key)
        return sl_fail(e, SL_EUSAGE, "--kv: %s is a checkpoint; only GGUF files have metadata keys", path);
    SL_TRY(sl_checkpoint_open(path, &ck, e));
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        const struct sl_src_tensor *t = &ck->tensors[i];

        elems += t->elems;
        bytes += t->bytes;
        add_total(dtypes, (int)t->dtype, sl_dtype_info(t->dtype)->name, t->elems, t->bytes);
    }
    if (a->json)
        json_checkpoint(ck, dtypes, elems, bytes, a->tensors);
    else
        print_checkpoint(ck, dtypes, elems, bytes, a);
    sl_checkpoint_close(ck);
    return 0;
}

static int run_inspect(int argc, const char **argv, struct sl_error *e)
{
    struct inspect_args a = {0};
    struct poptOption table[] = {
        CLI_FLAG("tensors", 't', &a.tensors, "the list of tensors; beside it only what --kv asks for"),
        CLI_TEXT("kv", 'k', &a.key, "print one metadata value in full", "KEY"),
        CLI_FLAG("json", 0, &a.json, "one JSON line"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    char *path = NULL;
    int rc = cli_parse(&args, &cli_inspect, argc, argv, table, 1, 1, NULL, NULL, e);

    if (rc != 0)
        return rc > 0 ? 0 : rc;
    rc = model_arg_either(args.pos[0], &path, e);
    if (rc == 0)
        rc = path ? inspect_gguf(path, &a, e) : inspect_checkpoint(args.pos[0], &a, e);
    free(path);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_inspect = {
    "inspect", "FILE.gguf|CHECKPOINT [OPTION...]",
    "Show metadata, tensors and types of a GGUF model or a checkpoint", run_inspect};
