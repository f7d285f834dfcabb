#include "client/convert_run.h"

#include "client/model_arg.h"
#include "proto/size_text.h"
#include "proto/text_line.h"
#include "worker/former_set.h"
#include "worker/slab.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

void convert_table(struct convert_args *a, struct poptOption table[CONVERT_TABLE_MAX])
{
    const struct poptOption t[] = {
        CLI_NUMBER("threads", 't', &a->threads, "compute threads (default: all cores)", "N"),
        CLI_TEXT("mem", 0, &a->mem, "resident memory allowed (default 1Gi)", "SIZE"),
        CLI_TEXT("io", 0, &a->io, "how files are read and written (default auto: io_uring where it is allowed)", "auto|uring|pread"),
        CLI_TEXT("direct", 0, &a->direct, "O_DIRECT for the source and large outputs (default auto)", "auto|on|off"),
        CLI_TEXT("backend", 0, &a->backend,
                 "instruction set of the kernels (default auto); the bytes are the same", "auto|scalar|portable|avx2|avx512"),
        CLI_TEXT("device", 0, &a->device,
                 "where it is computed (default cpu): cpu, cuda:N, GPU-UUID, several with commas, or auto: every GPU, and cores where "
                 "they help; the bytes are the same", "DEVICE"),
        CLI_TEXT("vram", 0, &a->vram, "device memory allowed on each GPU (default 2Gi, at most half of what is free)", "SIZE"),
        CLI_FLAG("force", 'f', &a->force, "replace an existing output and parts of a former set; drop other unfinished work on it"),
        CLI_FLAG("sha256", 0, &a->sha256, "SHA-256 in the manifest too"),
        CLI_FLAG("sparse", 0, &a->sparse, "zeros of the output take no room: nothing is reserved, and long runs become holes"),
        CLI_FLAG("dry-run", 'n', &a->dry_run, "show the plan and write nothing"),
        CLI_FLAG("stats", 0, &a->stats, "show at the end where the time went"),
        CLI_FLAG("json", 0, &a->json, "progress and result as JSON lines on stdout"),
        CLI_FLAG("quiet", 'q', &a->quiet, "no progress, no summary"),
        POPT_TABLEEND,
    };

    _Static_assert(sizeof t / sizeof t[0] <= CONVERT_TABLE_MAX, "table too small");
    memcpy(table, t, sizeof t);
}

/* Index of text in a NULL-terminated list; 0 when text is NULL. */
static int choice(const char *option, const char *text, const char *const *list, int *out,
                  struct sl_error *e)
{
    struct sl_line known = {.n = 0};

    *out = 0;
    if (!text)
        return 0;
    for (int i = 0; list[i]; i++) {
        if (strcmp(list[i], text) == 0) {
            *out = i;
            return 0;
        }
        sl_line_add(&known, "%s%s", !i ? "" : list[i + 1] ? ", " : " or ", list[i]);
    }
    return sl_fail(e, SL_EUSAGE, "%s: '%s': expected %s", option, text, known.text);
}

int convert_options(const struct convert_args *a, struct convert_opts *o, struct sl_error *e)
{
    static const char *const io[] = {"auto", "uring", "pread", NULL};
    static const char *const direct[] = {"auto", "on", "off", NULL};
    static const char *const backend[] = {"auto", "scalar", "portable", "avx2", "avx512", NULL};
    int i;

    memset(o, 0, sizeof *o);
    if (a->threads < 0 || a->threads > 1024)
        return sl_fail(e, SL_EUSAGE, "--threads: expected 1 to 1024, or 0 for all cores");
    o->threads = a->threads;
    SL_TRY(cli_parse_size("--mem", a->mem ? a->mem : "1Gi", &o->mem_bytes, e));
    SL_TRY(sl_slabs_enough(o->mem_bytes, e));
    SL_TRY(choice("--io", a->io, io, &i, e));
    o->io = (enum sl_io_mode)i;
    SL_TRY(choice("--direct", a->direct, direct, &i, e));
    o->direct = (enum sl_direct)i;
    SL_TRY(choice("--backend", a->backend, backend, &i, e));
    o->backend = (enum sl_backend)i;
    if (!sl_backend_usable(o->backend))
        return sl_fail(e, SL_EUNSUPPORTED, "--backend %s: this machine cannot run it", a->backend);
    SL_TRY(sl_devices_choose(a->device ? a->device : "cpu", &o->devices, e));
    if (a->vram)
        SL_TRY(cli_parse_size("--vram", a->vram, &o->vram_bytes, e));
    o->force = a->force;
    o->sha256 = a->sha256;
    o->stats = a->stats;
    o->sparse = a->sparse;
    o->progress = progress_mode_for(a->json, a->quiet);
    return 0;
}

/* What the whole waited for: threads that always have work need more processor; if
 * not, the disk is behind, in the direction in which more is under way. */
static const char *bound_by(const struct sl_engine_stats *st, double busy)
{
    if (busy > 0.9)
        return st->device_units ? "the GPUs, or the cores that feed them" : "the processor";
    return st->writing_ns > st->reading_ns ? "writing" : "reading";
}

void convert_print_stats(const struct sl_engine_stats *st, uint64_t wall_ns, uint64_t cpu_ns)
{
    double s = (double)wall_ns / 1e9, ns = (double)wall_ns, cpu, busy, other;

    cpu = (double)st->compute_cpu_ns / 1e9;
    other = (double)cpu_ns / 1e9 - cpu;
    busy = 1 - (double)st->read_wait_ns / ns / st->threads;
    fprintf(stderr,
            "stats: convert %.2f s; read %.2f GB at %.2f GB/s%s, wrote %.2f GB at %.2f GB/s%s, "
            "left %.2f GB as holes (%s)\n",
            s, (double)st->read_bytes / 1e9, (double)st->read_bytes / 1e9 / s,
            st->direct ? " (O_DIRECT)" : "", (double)st->written_bytes / 1e9,
            (double)st->written_bytes / 1e9 / s, st->direct_out ? " (O_DIRECT)" : "",
            (double)st->hole_bytes / 1e9, st->io_name);
    fprintf(stderr,
            "stats: %u threads (%s): %.1f %% of their time with work, %.1f %% in kernels, %.1f %% "
            "waiting for data; no slab was free to read into %.1f %% of the time\n",
            st->threads, st->backend_name, 100 * busy, 100 * (double)st->compute_ns / ns / st->threads,
            100 * (double)st->read_wait_ns / ns / st->threads, 100 * (double)st->slab_wait_ns / ns);
    fprintf(stderr,
            "stats: of %u slabs of %.1f MiB, on average %.1f being read, %.1f waiting for a thread, "
            "%.1f being written; %llu syncs, %.2f s\n",
            st->slabs, (double)st->slab_bytes / 1048576.0, (double)st->reading_ns / ns,
            (double)st->ready_ns / ns, (double)st->writing_ns / ns, (unsigned long long)st->syncs,
            (double)st->sync_ns / 1e9);
    if (st->device_units || st->core_units)
        fprintf(stderr,
                "stats: GPUs made %llu slabs of output, cores beside them %llu; ready after %.2f s, with %.0f MiB of each one's memory, slabs %spinned%s%s\n",
                (unsigned long long)st->device_units, (unsigned long long)st->core_units, (double)st->open_ns / 1e9,
                (double)st->vram_bytes / 1048576.0, st->unpinned ? "not " : "", st->unpinned ? ": " : "", st->unpinned ? st->unpinned : "");
    fprintf(stderr,
            "stats: processor time %.2f s in compute threads, %.2f s in all else (%.1f %% of a core); "
            "bound by %s\n", cpu, other, 100 * other / s, bound_by(st, busy));
}

void convert_print_check(uint64_t bytes, uint64_t wall_ns)
{
    fprintf(stderr, "stats: check %.2f s; read %.2f GB again at %.2f GB/s\n", (double)wall_ns / 1e9,
            (double)bytes / 1e9, (double)bytes / (double)(wall_ns ? wall_ns : 1));
}

static void dry_run_json(const struct sl_plan *p, const struct output *out)
{
    cJSON *o = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(o, "files"), *item;

    for (uint32_t i = 0; i < p->n_segments; i++) {
        cJSON_AddItemToArray(list, item = cJSON_CreateObject());
        cJSON_AddItemToObject(item, "path", json_text(out->final[i], strlen(out->final[i])));
        cJSON_AddNumberToObject(item, "bytes", (double)p->segments[i].file_bytes);
        json_tensors(item, p->segments[i].n_tensors);
    }
    list = cJSON_AddArrayToObject(o, "tensors");
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        cJSON_AddItemToArray(list, item = cJSON_CreateObject());
        cJSON_AddStringToObject(item, "name", p->tensors[i].t->name);
        cJSON_AddStringToObject(item, "type", sl_type_info(p->tensors[i].type)->name);
        cJSON_AddNumberToObject(item, "bytes", (double)p->tensors[i].bytes);
    }
    cJSON_AddNumberToObject(o, "source_bytes", (double)p->src_bytes);
    cJSON_AddNumberToObject(o, "file_bytes", (double)p->file_bytes);
    cJSON_AddNumberToObject(o, "tasks", p->n_tasks);
    json_line(o, "dry_run");
}

/* What would keep the run itself from beginning. */
static void note_place(const struct output *out, const struct sl_checkpoint *ck, bool force)
{
    char shown[CLI_SHOWN_BYTES];
    struct sl_error why;

    if (output_not_source(out, ck, &why) < 0 || output_absent(out, force, &why) < 0 ||
        former_set_absent(out, force, ck, &why) < 0 || (!out->new_dir && output_check_space(out, &why) < 0))
        fprintf(stderr, "sluice: note: this cannot be made there: %s\n", cli_shown(shown, why.text));
}

int convert_dry_run(const struct sl_job_plan *j, const struct output *out, bool force, bool json)
{
    const struct sl_plan *p = j->plan;
    char a[32], b[32], shown[CLI_SHOWN_BYTES];

    note_place(out, j->ck, force);
    if (json) {
        dry_run_json(p, out);
        return 0;
    }
    for (uint32_t i = 0; i < p->n_segments; i++)
        printf("%s  %llu bytes  %u tensors\n", cli_shown(shown, out->final[i]),
               (unsigned long long)p->segments[i].file_bytes, p->segments[i].n_tensors);
    for (uint32_t i = 0; i < p->n_tensors; i++)
        printf("%-48s %-8s %llu\n", cli_shown(shown, p->tensors[i].t->name), sl_type_info(p->tensors[i].type)->name,
               (unsigned long long)p->tensors[i].bytes);
    printf("%s to read, %s to write, %u task%s; nothing was written\n", sl_size_text(a, p->src_bytes),
           sl_size_text(b, p->file_bytes), p->n_tasks, p->n_tasks == 1 ? "" : "s");
    return 0;
}
