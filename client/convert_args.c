#include "client/convert_run.h"

#include <stdio.h>
#include <string.h>

void convert_table(struct convert_args *a, struct poptOption table[CONVERT_TABLE_MAX])
{
    const struct poptOption t[] = {
        {"threads", 't', POPT_ARG_INT, &a->threads, 0, "compute threads (default: all cores)", "N"},
        {"mem", 0, POPT_ARG_STRING, &a->mem, 0, "resident memory allowed (default 1Gi)", "SIZE"},
        {"io", 0, POPT_ARG_STRING, &a->io, 0,
         "how files are read and written (default auto: io_uring where it is allowed)",
         "auto|uring|pread"},
        {"direct", 0, POPT_ARG_STRING, &a->direct, 0, "O_DIRECT for source reads (default auto)",
         "auto|on|off"},
        {"backend", 0, POPT_ARG_STRING, &a->backend, 0,
         "instruction set of the kernels (default auto); the bytes are the same",
         "auto|scalar|portable|avx2|avx512"},
        {"device", 0, POPT_ARG_STRING, &a->device, 0,
         "where it is computed (default cpu): cpu, cuda:N, GPU-UUID, several with commas, or auto: every GPU; the bytes are the same",
         "DEVICE"},
        {"vram", 0, POPT_ARG_STRING, &a->vram, 0, "device memory allowed on each GPU (default 2Gi, at most half of what is free)", "SIZE"},
        {"force", 'f', POPT_ARG_NONE, &a->force, 0,
         "replace an existing output and parts of a former set; drop other unfinished work on it", NULL},
        {"sha256", 0, POPT_ARG_NONE, &a->sha256, 0, "SHA-256 in the manifest too", NULL},
        {"dry-run", 'n', POPT_ARG_NONE, &a->dry_run, 0, "show the plan and write nothing", NULL},
        {"stats", 0, POPT_ARG_NONE, &a->stats, 0, "show at the end where the time went", NULL},
        {"json", 0, POPT_ARG_NONE, &a->json, 0, "progress and result as JSON lines on stdout", NULL},
        {"quiet", 'q', POPT_ARG_NONE, &a->quiet, 0, "no progress, no summary", NULL},
        POPT_TABLEEND,
    };

    _Static_assert(sizeof t / sizeof t[0] <= CONVERT_TABLE_MAX, "table too small");
    memcpy(table, t, sizeof t);
}

/* Index of text in a NULL-terminated list; 0 when text is NULL. */
static int choice(const char *option, const char *text, const char *const *list, int *out,
                  struct sl_error *e)
{
    *out = 0;
    if (!text)
        return 0;
    for (int i = 0; list[i]; i++)
        if (strcmp(list[i], text) == 0) {
            *out = i;
            return 0;
        }
    return sl_fail(e, SL_EUSAGE, "%s: '%s' is not known; see --help", option, text);
}

int convert_options(const struct convert_args *a, struct convert_opts *o, struct sl_error *e)
{
    static const char *const io[] = {"auto", "uring", "pread", NULL};
    static const char *const direct[] = {"auto", "on", "off", NULL};
    static const char *const backend[] = {"auto", "scalar", "portable", "avx2", "avx512", NULL};
    int i;

    memset(o, 0, sizeof *o);
    if (a->threads < 0 || a->threads > 1024)
        return sl_fail(e, SL_EUSAGE, "--threads: expected 1 to 1024");
    o->threads = a->threads;
    SL_TRY(cli_parse_size("--mem", a->mem ? a->mem : "1Gi", &o->mem_bytes, e));
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
    o->progress = progress_mode_for(a->json, a->quiet);
    return 0;
}

void convert_print_stats(const struct sl_engine_stats *st, uint64_t wall_ns)
{
    double s = (double)wall_ns / 1e9;

    fprintf(stderr,
            "stats: %.2f s; read %.2f GB at %.2f GB/s, wrote %.2f GB at %.2f GB/s (%s%s)\n"
            "stats: %u threads (%s): %.0f %% of their time in kernels, %.0f %% waiting for data; "
            "disk waited for a free slab %.0f %% of the time; %u slabs of %.1f MiB\n",
            s, (double)st->read_bytes / 1e9, (double)st->read_bytes / 1e9 / s,
            (double)st->written_bytes / 1e9, (double)st->written_bytes / 1e9 / s, st->io_name,
            st->direct ? ", O_DIRECT" : "", st->threads, st->backend_name,
            100.0 * (double)st->compute_ns / 1e9 / s / st->threads,
            100.0 * (double)st->read_wait_ns / 1e9 / s / st->threads,
            100.0 * (double)st->slab_wait_ns / 1e9 / s, st->slabs,
            (double)st->slab_bytes / 1048576.0);
}

int convert_dry_run(const struct sl_plan *p, const struct output *out)
{
    char a[32], b[32];

    for (uint32_t i = 0; i < p->n_segments; i++)
        printf("%s  %llu bytes  %u tensors\n", out->final[i],
               (unsigned long long)p->segments[i].file_bytes, p->segments[i].n_tensors);
    for (uint32_t i = 0; i < p->n_tensors; i++)
        printf("%-48s %-8s %llu\n", p->tensors[i].t->name, sl_type_info(p->tensors[i].type)->name,
               (unsigned long long)p->tensors[i].bytes);
    printf("%s to read, %s to write, %u tasks; nothing was written\n", cli_size(a, p->src_bytes),
           cli_size(b, p->file_bytes), p->n_tasks);
    return 0;
}
