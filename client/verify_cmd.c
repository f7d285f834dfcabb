/* sluice verify: structure, checksums, and blocks made again from the source. */
#include "client/cli.h"
#include "client/model_arg.h"
#include "client/progress.h"
#include "client/verify_job.h"
#include "proto/size_text.h"
#include "proto/standard_streams.h"
#include "proto/suffix.h"
#include "worker/verify.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct verify_args {
    const char *source, *sample, *imatrix;
    int seed, sha256, json, quiet;
};

struct run {
    const struct verify_args *a;
    struct progress progress;
    uint64_t done;
    double weight_bytes; /* of the output, on average over the sample */
};

static void print_line(struct run *r, const char *text, const char *type, const char *head)
{
    progress_end(&r->progress);
    if (r->a->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddStringToObject(o, "text", text);
        json_line(o, type);
    } else {
        printf("%s  %s\n", head, text);
    }
}

static void print_failure(void *user, const char *text)
{
    print_line(user, text, "verify_failure", "FAILED");
}

static void print_unchecked(void *user, const char *text)
{
    print_line(user, text, "verify_unchecked", "PART  ");
}

static int on_progress(void *user, uint64_t bytes)
{
    struct run *r = user;

    r->done += bytes;
    progress_update(&r->progress, r->done, r->done, 0);
    return 0;
}

static int on_made(void *user, uint64_t weights)
{
    struct run *r = user;

    return on_progress(r, (uint64_t)((double)weights * r->weight_bytes));
}

/* Returns the bytes of the output that the sample is of, nearly. */
static uint64_t sample_bytes(struct run *r, const struct verify_set *s, const struct verify_sample *sample)
{
    double weights = 0, bytes = 0;

    for (uint32_t f = 0; f < s->n; f++)
        for (uint64_t i = 0; i < s->files[f].g.n_tensors; i++) {
            const struct sl_gguf_tensor *t = &s->files[f].g.tensors[i];
            double n = (double)gguf_elems(t), want = (double)sample->blocks * sl_type_info(t->type)->block;

            want = sample->all ? n : !sample->blocks ? n * sample->share : want < n ? want : n;
            weights += want;
            bytes += want / n * (double)t->bytes;
        }
    r->weight_bytes = bytes / weights;
    return (uint64_t)bytes;
}

static int compare(struct run *run, const struct verify_set *s, const struct verify_sample *chosen, struct verify_report *r,
                   struct verify_tally *tally, struct sl_error *e)
{
    struct verify_sample sample = *chosen;
    int rc;

    sample.progress = on_made;
    sample.user = run;
    run->done = 0;
    progress_begin(&run->progress, run->progress.mode, "compare", sample_bytes(run, s, &sample), 0);
    rc = verify_source(s, run->a->source, run->a->imatrix, &sample, r, tally, e);
    progress_end(&run->progress);
    return rc;
}

static int parse_sample(const char *text, struct verify_sample *s, struct sl_error *e)
{
    char *end;
    double v;

    *s = (struct verify_sample){.share = 0.01};
    if (!text)
        return 0;
    s->all = strcmp(text, "all") == 0;
    if (s->all)
        return 0;
    v = strtod(text, &end);
    if (end != text && strcmp(end, "%") == 0 && v > 0 && v <= 100) {
        s->share = v / 100;
        return 0;
    }
    if (end != text && *end == '\0' && v >= 1 && v < 1e15 && v == floor(v)) {
        s->blocks = (uint64_t)v;
        return 0;
    }
    return sl_fail(e, SL_EUSAGE, "--sample %s: give a share of the blocks such as 1%%, a number of blocks of each tensor, or all",
                   text);
}

static void hex(char *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void add_files(cJSON *o, const struct verify_set *s, const struct sl_hash_total *totals)
{
    cJSON *files = cJSON_AddArrayToObject(o, "files");

    for (uint32_t i = 0; i < s->n; i++) {
        cJSON *f = cJSON_CreateObject();
        char text[65];

        cJSON_AddItemToObject(f, "path", json_text(s->files[i].g.path, strlen(s->files[i].g.path)));
        cJSON_AddNumberToObject(f, "bytes", (double)s->files[i].g.file_size);
        json_tensors(f, s->files[i].g.n_tensors);
        snprintf(text, sizeof text, "%016llx", (unsigned long long)totals[i].xxh64);
        cJSON_AddStringToObject(f, "xxh64", text);
        if (totals[i].has_sha256) {
            hex(text, totals[i].sha256, SL_SHA256_BYTES);
            cJSON_AddStringToObject(f, "sha256", text);
        }
        cJSON_AddItemToArray(files, f);
    }
}

static void print_json(const struct verify_set *s, const struct sl_hash_total *totals,
                       const struct verify_report *r, const struct verify_tally *t, bool source)
{
    cJSON *o = cJSON_CreateObject();

    cJSON_AddBoolToObject(o, "ok", r->failures == 0 && r->gaps == 0);
    cJSON_AddNumberToObject(o, "failures", (double)r->failures);
    cJSON_AddBoolToObject(o, "complete", r->gaps == 0);
    json_tensors(o, s->n_tensors);
    cJSON_AddNumberToObject(o, "file_bytes", (double)s->bytes);
    cJSON_AddBoolToObject(o, "checksums", s->files[0].sluice);
    add_files(o, s, totals);
    if (source) {
        cJSON *c = cJSON_AddObjectToObject(o, "source");

        json_tensors(c, t->tensors);
        cJSON_AddNumberToObject(c, "blocks", (double)t->blocks);
        cJSON_AddNumberToObject(c, "blocks_total", (double)t->blocks_total);
        cJSON_AddNumberToObject(c, "skipped_tensors", (double)t->skipped_tensors);
    }
    json_line(o, "verify");
}

static void print_text(const struct verify_args *a, const struct verify_set *s,
                       const struct sl_hash_total *totals, const struct verify_tally *t)
{
    char size[32], source[CLI_SHOWN_BYTES];

    printf("ok      %u file%s, %llu tensors, %s: structure%s\n", s->n, s->n == 1 ? "" : "s",
           (unsigned long long)s->n_tensors, sl_size_text(size, s->bytes),
           s->files[0].sluice ? ", header and every tensor's checksum" : " (no checksums in the file)");
    if (a->source)
        printf("ok      %llu of %llu blocks of %llu tensors made again from %s: same bytes\n",
               (unsigned long long)t->blocks, (unsigned long long)t->blocks_total,
               (unsigned long long)t->tensors, cli_shown(source, a->source));
    for (uint32_t i = 0; i < s->n && a->sha256; i++) {
        const char *slash = strrchr(s->files[i].g.path, '/');

        if (sl_manifest_file(stdout, slash ? slash + 1 : s->files[i].g.path, &totals[i]) < 0)
            return;
    }
}

/* On standard error: of machines' lines the first failure in words; people have each of them on
 * standard output. */
static int failed(const struct verify_args *a, const char *path, uint64_t failures, const char *first, struct sl_error *e)
{
    if (!a->json)
        return sl_fail(e, SL_EVERIFY, "%s: %llu failure%s, on standard output", path, (unsigned long long)failures,
                       failures == 1 ? "" : "s");
    if (failures > 1)
        return sl_fail(e, SL_EVERIFY, "%llu failures; the first: %s", (unsigned long long)failures, first);
    return sl_fail(e, SL_EVERIFY, "%s", first);
}

/* The output again by structure, data and source, as far as it gets. */
static int check(struct run *run, const struct verify_set *s, struct sl_hash_total *totals,
                 struct verify_report *r, const struct verify_sample *sample, struct sl_error *e)
{
    const struct verify_args *a = run->a;
    struct verify_tally tally = {0};

    if (!s->files[0].sluice && !(a->source && sample->all))
        verify_unchecked(r, "%s: no Sluice checksums: its data are proved by --source CHECKPOINT --sample all alone",
                         s->files[0].g.path);
    progress_begin(&run->progress, progress_mode_for(a->json, a->quiet), "verify", s->bytes, 0);
    SL_TRY(verify_data(s, a->sha256, totals, r, on_progress, run, e));
    progress_end(&run->progress);
    if (a->source)
        SL_TRY(compare(run, s, sample, r, &tally, e));
    if (a->json)
        print_json(s, totals, r, &tally, a->source != NULL);
    else if (r->failures == 0)
        print_text(a, s, totals, &tally);
    SL_TRY(sl_stdout_flush(e));
    if (r->failures)
        return failed(a, s->files[0].g.path, r->failures, r->first.text, e);
    return r->gaps ? sl_fail(e, SL_EWARN, "nothing wrong was found, but not all was checked; see above") : 0;
}

/* A file whose header gives no more than this one failure. */
static int damaged(struct run *run, const char *path, struct sl_error *e)
{
    const struct sl_error first = *e;

    print_failure(run, first.text);
    if (run->a->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddBoolToObject(o, "ok", false);
        cJSON_AddNumberToObject(o, "failures", 1);
        json_line(o, "verify");
    }
    SL_TRY(sl_stdout_flush(e));
    return failed(run->a, path, 1, first.text, e);
}

static int verify_path(const char *path, const struct verify_args *a,
                       const struct verify_sample *sample, struct sl_error *e)
{
    struct run run = {.a = a};
    struct verify_report r = {.fail = print_failure, .unchecked = print_unchecked, .user = &run};
    struct sl_hash_total *totals = NULL;
    struct verify_set s;
    int rc = verify_set_open(path, &s, e);

    if (rc == 0) {
        totals = calloc(s.n, sizeof *totals);
        rc = totals ? check(&run, &s, totals, &r, sample, e) : sl_no_memory(e);
    } else if (rc == SL_EVERIFY) {
        rc = damaged(&run, path, e);
    }
    progress_end(&run.progress);
    free(totals);
    verify_set_free(&s);
    return rc;
}

#define MANIFEST ".xxh64"

static bool is_manifest(const char *path)
{
    return sl_stem(path, MANIFEST) > 0;
}

static int run_verify(int argc, const char **argv, struct sl_error *e)
{
    struct verify_args a = {.seed = UNSET};
    struct service_args sa = {0};
    const char *job = NULL;
    struct poptOption service[SERVICE_TABLE_MAX];
    struct poptOption table[] = {
        CLI_TEXT("source", 's', &a.source, "make blocks again from this checkpoint and compare bytes", "CHECKPOINT"),
        CLI_TEXT("imatrix", 0, &a.imatrix,
                 "the importance matrix that the output was made with (a synthetic one is made again anyway)", "FILE"),
        CLI_TEXT("sample", 'n', &a.sample, "how much of it: a share, a number of blocks of each tensor, or all (default 1%)", "1%|N|all"),
        CLI_NUMBER("seed", 0, &a.seed, "choose other blocks (default 1)", "N"),
        CLI_FLAG("sha256", 0, &a.sha256, "also print each file's SHA-256 over its tensors, as llama-gguf-hash does"),
        CLI_FLAG("json", 0, &a.json, "JSON lines on standard output"),
        CLI_FLAG("quiet", 'q', &a.quiet, "no progress"),
        CLI_TEXT("job", 'j', &job, "in place of a file: have the service verify this job's files against its source", "JOB"),
        CLI_TABLE(service, "Which daemon, for --job:"),
        POPT_TABLEEND,
    };
    struct verify_sample sample;
    struct cli_args args;
    char *path = NULL;
    int rc;

    service_table(&sa, service);
    rc = cli_parse(&args, &cli_verify, argc, argv, table, 0, 1, NULL, NULL, e);
    if (rc != 0)
        return rc > 0 ? 0 : rc;
    if (job ? args.n_pos > 0 || a.source || a.sample || a.seed != UNSET || a.sha256 || a.imatrix : args.n_pos == 0)
        rc = sl_fail(e, SL_EUSAGE, job ? "--job goes with no file and no other option but --json and --quiet"
                                       : "an argument is missing: a GGUF file, or --job JOB");
    else if (job)
        rc = verify_job(&sa, job, a.json, a.quiet, e);
    if (rc < 0 || job) {
        cli_args_free(&args);
        return rc;
    }
    rc = parse_sample(a.sample, &sample, e);
    sample.seed = a.seed == UNSET ? 1 : (uint64_t)a.seed;
    if (rc == 0 && !a.source && (a.sample || a.seed != UNSET))
        rc = sl_fail(e, SL_EUSAGE, "%s needs --source", a.sample ? "--sample" : "--seed");
    if (rc == 0 && a.imatrix && !a.source)
        rc = sl_fail(e, SL_EUSAGE, "--imatrix needs --source");
    if (rc == 0 && is_manifest(args.pos[0]))
        rc = sl_fail(e, SL_EUSAGE, "%s is a list of hashes; give the file itself: %.*s", args.pos[0],
                     (int)(strlen(args.pos[0]) - strlen(MANIFEST)), args.pos[0]);
    if (rc == 0)
        rc = model_arg_gguf(args.pos[0], &path, e);
    if (rc == 0 && !path)
        rc = sl_fail(e, SL_EUSAGE, "%s: no GGUF file; verify looks at outputs", args.pos[0]);
    if (rc == 0)
        rc = verify_path(path, &a, &sample, e);
    free(path);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_verify = {
    "verify", "OUT.gguf|--job JOB [--source CHECKPOINT] [OPTION...]",
    "Prove an output: structure, checksums, and blocks made again from the source", run_verify};
