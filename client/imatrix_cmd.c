/* sluice imatrix: what is in an importance matrix; the other format. */
#include "client/cli.h"
#include "client/model_arg.h"
#include "client/progress.h"
#include "proto/size_text.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

struct imatrix_args {
    const char *convert, *format;
    int json, entries;
};

struct sums {
    uint64_t values, zero, zero_entries, bad, bad_entries;
};

static const char *format_name(enum sl_imatrix_format f)
{
    return f == SL_IMATRIX_GGUF ? "gguf" : "dat";
}

static struct sums sum_up(const struct sl_imatrix *im)
{
    struct sums s = {0};

    for (uint32_t i = 0; i < im->n_entries; i++) {
        const struct sl_imatrix_entry *x = &im->entries[i];

        s.values += x->n;
        s.zero += x->n_zero;
        s.zero_entries += x->n_zero > 0;
        s.bad += x->bad;
        s.bad_entries += x->bad > 0;
    }
    return s;
}

/* Least, mean and greatest weight of an entry. */
static int spread(const struct sl_imatrix *im, uint32_t i, double v[3], struct sl_error *e)
{
    const struct sl_imatrix_entry *x = &im->entries[i];
    float piece[4096];

    v[0] = HUGE_VAL;
    v[1] = v[2] = 0;
    for (uint64_t at = 0; at < x->n; at += 4096) {
        uint64_t n = x->n - at < 4096 ? x->n - at : 4096;

        SL_TRY(sl_imatrix_values(im, i, at, n, piece, e));
        for (uint64_t k = 0; k < n; k++) {
            v[0] = (double)piece[k] < v[0] ? (double)piece[k] : v[0];
            v[1] += (double)piece[k] / (double)x->n;
            v[2] = (double)piece[k] > v[2] ? (double)piece[k] : v[2];
        }
    }
    return 0;
}

static double count_of(const struct sl_imatrix_entry *x)
{
    double most = 0;

    for (uint64_t i = 0; i < x->n_counts; i++)
        most = (double)x->counts[i] > most ? (double)x->counts[i] : most;
    return most;
}

static int print_json(const struct sl_imatrix *im, struct sl_error *e)
{
    cJSON *o = cJSON_CreateObject(), *sets, *list;
    struct sums s = sum_up(im);
    int rc = 0;

    cJSON_AddItemToObject(o, "path", json_text(im->path, strlen(im->path)));
    cJSON_AddStringToObject(o, "format", format_name(im->format));
    cJSON_AddNumberToObject(o, "bytes", (double)im->file_size);
    cJSON_AddStringToObject(o, "xxh3_128", im->hash);
    cJSON_AddNumberToObject(o, "chunks", im->n_chunks);
    if (im->chunk_size)
        cJSON_AddNumberToObject(o, "chunk_size", im->chunk_size);
    sets = cJSON_AddArrayToObject(o, "datasets");
    for (uint32_t i = 0; i < im->n_datasets; i++)
        cJSON_AddItemToArray(sets, json_text(im->datasets[i], strlen(im->datasets[i])));
    cJSON_AddNumberToObject(o, "values", (double)s.values);
    cJSON_AddNumberToObject(o, "zero_count", (double)s.zero);
    cJSON_AddNumberToObject(o, "bad_values", (double)s.bad);
    cJSON_AddNumberToObject(o, "foreign_tensors", im->n_foreign);
    list = cJSON_AddArrayToObject(o, "entries");
    for (uint32_t i = 0; rc == 0 && i < im->n_entries; i++) {
        const struct sl_imatrix_entry *x = &im->entries[i];
        cJSON *t = cJSON_CreateObject();
        double v[3];

        cJSON_AddItemToArray(list, t);
        cJSON_AddItemToObject(t, "name", json_text(x->name, strlen(x->name)));
        cJSON_AddNumberToObject(t, "values", (double)x->n);
        cJSON_AddNumberToObject(t, "counts", (double)x->n_counts);
        cJSON_AddNumberToObject(t, "count", count_of(x));
        cJSON_AddNumberToObject(t, "zero_count", (double)x->n_zero);
        cJSON_AddNumberToObject(t, "bad_values", (double)x->bad);
        rc = x->bad ? 0 : spread(im, i, v, e);
        if (rc == 0 && !x->bad) {
            cJSON_AddNumberToObject(t, "min", v[0]);
            cJSON_AddNumberToObject(t, "mean", v[1]);
            cJSON_AddNumberToObject(t, "max", v[2]);
        }
    }
    if (rc == 0)
        json_line(o, "imatrix");
    else
        cJSON_Delete(o);
    return rc;
}

static int print_entries(const struct sl_imatrix *im, struct sl_error *e)
{
    printf("\n%10s  %6s  %8s  %10s  %10s  %10s  %s\n", "Values", "Counts", "Largest", "Least", "Mean",
           "Greatest", "Tensor");
    for (uint32_t i = 0; i < im->n_entries; i++) {
        const struct sl_imatrix_entry *x = &im->entries[i];
        double v[3];

        printf("%10" PRIu64 "  %6" PRIu64 "  %8.0f  ", x->n, x->n_counts, count_of(x));
        if (x->bad) {
            printf("%10s  %10s  %10s  ", "-", "-", "-");
        } else {
            SL_TRY(spread(im, i, v, e));
            printf("%10.4g  %10.4g  %10.4g  ", v[0], v[1], v[2]);
        }
        print_safe(x->name, strlen(x->name), 120);
        if (x->n_zero)
            printf("  (%" PRIu64 " without data)", x->n_zero);
        if (x->bad)
            printf("  (%" PRIu64 " bad values)", x->bad);
        putchar('\n');
    }
    return 0;
}

static int print_text(const struct sl_imatrix *im, const struct imatrix_args *a, struct sl_error *e)
{
    struct sums s = sum_up(im);
    char size[32];

    print_safe(im->path, strlen(im->path), 400);
    printf(": importance matrix, %s format, %s\n", format_name(im->format), sl_size_text(size, im->file_size));
    printf("%u entries, %" PRIu64 " values; %u chunks", im->n_entries, s.values, im->n_chunks);
    if (im->chunk_size)
        printf(" of %u tokens", im->chunk_size);
    printf("\nData sets:");
    for (uint32_t i = 0; i < im->n_datasets; i++) {
        putchar(' ');
        print_safe(im->datasets[i], strlen(im->datasets[i]), 200);
    }
    printf("%s\nXXH3-128: %s\n", im->n_datasets ? "" : " not told", im->hash);
    if (s.zero)
        printf("Without data: %" PRIu64 " experts in %" PRIu64 " entries; they get weights of 1.0\n", s.zero,
               s.zero_entries);
    if (s.bad)
        printf("Not usable: %" PRIu64 " values in %" PRIu64 " entries are negative, NaN or infinite\n", s.bad,
               s.bad_entries);
    if (im->n_foreign)
        printf("Not used: %u tensors that are neither sums nor counts\n", im->n_foreign);
    return a->entries ? print_entries(im, e) : 0;
}

/* As asked, else as the file's name ends, else the other one. */
static enum sl_imatrix_format format_for(const struct imatrix_args *a, enum sl_imatrix_format have)
{
    const char *dot = strrchr(a->convert, '.'), *word = a->format ? a->format : dot ? dot + 1 : "";

    if (strcmp(word, "gguf") == 0 || strcmp(word, "dat") == 0)
        return *word == 'g' ? SL_IMATRIX_GGUF : SL_IMATRIX_DAT;
    return have == SL_IMATRIX_DAT ? SL_IMATRIX_GGUF : SL_IMATRIX_DAT;
}

static int show_or_convert(const char *path, const struct imatrix_args *a, struct sl_error *e)
{
    struct sl_imatrix *im;
    int rc;

    if (a->format && strcmp(a->format, "dat") != 0 && strcmp(a->format, "gguf") != 0)
        return sl_fail(e, SL_EUSAGE, "--format: '%s': expected dat or gguf", a->format);
    if (a->format && !a->convert)
        return sl_fail(e, SL_EUSAGE, "--format needs --convert OUT");
    SL_TRY(sl_imatrix_open(path, &im, e));
    rc = a->convert ? sl_imatrix_check(im, e) : 0;
    if (rc == 0 && a->convert)
        rc = sl_imatrix_write(im, format_for(a, im->format), a->convert, e);
    if (rc == 0 && (a->json || a->entries || !a->convert))
        rc = a->json ? print_json(im, e) : print_text(im, a, e);
    sl_imatrix_close(im);
    return rc;
}

static int run_imatrix(int argc, const char **argv, struct sl_error *e)
{
    struct imatrix_args a = {0};
    struct poptOption table[] = {
        CLI_FLAG("entries", 0, &a.entries, "list every entry"),
        CLI_FLAG("json", 0, &a.json, "one JSON line"),
        CLI_TEXT("convert", 0, &a.convert,
                 "write it to a new file, .gguf or .dat, else in the other format; the weights stay equal bit by bit", "OUT"),
        CLI_TEXT("format", 0, &a.format, "the format of that file, whatever its name ends with", "dat|gguf"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    int rc = cli_parse(&args, &cli_imatrix, argc, argv, table, 1, 1, NULL, NULL, e);

    if (rc != 0)
        return rc > 0 ? 0 : rc;
    rc = show_or_convert(args.pos[0], &a, e);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_imatrix = {
    "imatrix", "FILE [OPTION...]",
    "Show what an importance matrix holds; convert it to the other format", run_imatrix};
