/* sluice-worker: does the tasks that sluiced hands out. */
#include "proto/config_file.h"
#include "worker/worker_run.h"

#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <unistd.h>

enum { OPT_CONNECT = 1, OPT_DEVICE, OPT_THREADS, OPT_MEM, OPT_ROOT, OPT_NAME, OPT_KEY,
       OPT_SERVER_KEY, OPT_PLAIN_TCP, OPT_IO, OPT_AHEAD, OPT_LOG, OPT_LOG_LEVEL, OPT_CONFIG,
       OPT_VERSION, OPT_HELP };

/* Values that an option gives to a key of the configuration. */
static const struct {
    int option;
    enum sl_config_key key;
    const char *name;
} keys[] = {
    {OPT_CONNECT, SL_CONFIG_ENDPOINT, "--connect"},
    {OPT_DEVICE, SL_CONFIG_DEVICE, "--device"},
    {OPT_THREADS, SL_CONFIG_THREADS, "--threads"},
    {OPT_MEM, SL_CONFIG_MEM, "--mem"},
    {OPT_ROOT, SL_CONFIG_ROOT, "--root"},
    {OPT_KEY, SL_CONFIG_KEY, "--key"},
    {OPT_SERVER_KEY, SL_CONFIG_SERVER_KEY, "--server-key"},
    {OPT_PLAIN_TCP, SL_CONFIG_PLAIN_TCP, "--plain-tcp"},
    {OPT_IO, SL_CONFIG_IO, "--io"},
    {OPT_AHEAD, SL_CONFIG_AHEAD, "--ahead"},
    {OPT_LOG, SL_CONFIG_LOG, "--log"},
    {OPT_LOG_LEVEL, SL_CONFIG_LOG_LEVEL, "--log-level"},
};

static const struct poptOption table[] = {
    {"connect", 'c', POPT_ARG_STRING, NULL, OPT_CONNECT, "the daemon: ipc:///PATH or tcp://HOST:PORT", "ENDPOINT"},
    {"root", 'r', POPT_ARG_STRING, NULL, OPT_ROOT, "folder below which it reads and writes; may be repeated, one at least is needed", "DIR"},
    {"device", 'd', POPT_ARG_STRING, NULL, OPT_DEVICE, "cpu, cuda:N, GPU-UUID, several with commas, or auto: every GPU, and cores where GPUs are behind or none is there", "DEVICE"},
    {"threads", 't', POPT_ARG_STRING, NULL, OPT_THREADS, "compute threads; 0: all processors", "N"},
    {"mem", 'm', POPT_ARG_STRING, NULL, OPT_MEM, "memory that it may use (default 1Gi)", "SIZE"},
    {"name", 'n', POPT_ARG_STRING, NULL, OPT_NAME, "name for people, the same over restarts (default HOST-DEVICE)", "NAME"},
    {"ahead", 0, POPT_ARG_STRING, NULL, OPT_AHEAD, "tasks held beside the one in hand", "N"},
    {"io", 0, POPT_ARG_STRING, NULL, OPT_IO, "auto, uring or pread", "MODE"},
    {"key", 'k', POPT_ARG_STRING, NULL, OPT_KEY, "own key file, for tcp", "FILE"},
    {"server-key", 0, POPT_ARG_STRING, NULL, OPT_SERVER_KEY, "the daemon's public key file, for tcp", "FILE"},
    {"plain-tcp", 0, POPT_ARG_NONE, NULL, OPT_PLAIN_TCP, "tcp without keys, on the loopback address alone", NULL},
    {"log", 0, POPT_ARG_STRING, NULL, OPT_LOG, "form of log lines: plain, json, journal", "FORM"},
    {"log-level", 0, POPT_ARG_STRING, NULL, OPT_LOG_LEVEL, "least important lines to write: error, warning, notice, info, debug", "LEVEL"},
    {"config", 0, POPT_ARG_STRING, NULL, OPT_CONFIG, "read this configuration file alone", "FILE"},
    {"version", 'V', POPT_ARG_NONE, NULL, OPT_VERSION, "print the version", NULL},
    {"help", 'h', POPT_ARG_NONE, NULL, OPT_HELP, "print this", NULL},
    POPT_TABLEEND,
};

struct args {
    struct sl_config *config;
    char *name;
};

static void print_help(void)
{
    puts("Usage: sluice-worker --connect ENDPOINT --root DIR [OPTION...]\n\n"
         "Does the tasks that sluiced hands out. SIGTERM: hands back what it has not begun,\n"
         "finishes the rest and ends with 0. Every option but --name can stand in sluice.conf.\n");
    for (const struct poptOption *o = table; o->longName; o++) {
        char left[64];

        snprintf(left, sizeof left, "%c%c %s%s%s%s", o->shortName ? '-' : ' ',
                 o->shortName ? o->shortName : ' ', "--", o->longName, o->argDescrip ? "=" : "",
                 o->argDescrip ? o->argDescrip : "");
        printf("  %-26s %s\n", left, o->descrip);
    }
}

static int take_option(struct args *a, int option, const char *arg, struct sl_error *e)
{
    if (option == OPT_NAME) {
        if (!*arg || strlen(arg) > 64)
            return sl_fail(e, SL_EUSAGE, "--name: 1 to 64 bytes are expected");
        free(a->name);
        a->name = strdup(arg);
        return a->name ? 0 : sl_fail(e, SL_EFAIL, "out of memory");
    }
    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (keys[i].option == option)
            return sl_config_set(a->config, keys[i].key, arg ? arg : "yes", keys[i].name, e);
    return 0;
}

/* Returns 0 to go on, 1 when all is done. */
static int parse(struct args *a, int argc, const char **argv, struct sl_error *e)
{
    const struct sl_config_opts co = {.path = sl_config_path_option(argc, argv)};
    poptContext ctx = poptGetContext("sluice-worker", argc, argv, table, 0);
    int option, rc = 0;

    if (!ctx)
        return sl_fail(e, SL_EFAIL, "out of memory");
    while (rc == 0 && (option = poptGetNextOpt(ctx)) > 0) {
        char *arg = poptGetOptArg(ctx);

        if (option == OPT_HELP || option == OPT_VERSION) {
            option == OPT_HELP ? print_help() : (void)puts("sluice-worker " SLUICE_VERSION);
            rc = 1;
        } else if (!a->config) {
            rc = sl_config_open(&co, &a->config, e);
        }
        if (rc == 0)
            rc = take_option(a, option, arg, e);
        free(arg);
    }
    if (rc == 0 && option < -1)
        rc = sl_fail(e, SL_EUSAGE, "%s: %s; see --help", poptBadOption(ctx, 0), poptStrerror(option));
    if (rc == 0 && poptPeekArg(ctx))
        rc = sl_fail(e, SL_EUSAGE, "%s: no argument is expected; see --help", poptPeekArg(ctx));
    if (rc == 0 && !a->config)
        rc = sl_config_open(&co, &a->config, e);
    poptFreeContext(ctx);
    return rc;
}

static const char *text_or_null(const struct sl_config *c, enum sl_config_key k)
{
    const char *text = sl_config_text(c, k);

    return *text ? text : NULL;
}

static unsigned processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;

    return n > 0 ? (unsigned)n : 1;
}

static int run(struct args *a, struct sl_error *e)
{
    static const enum sl_io_mode io[] = {SL_IO_AUTO, SL_IO_URING, SL_IO_PREAD};
    const struct sl_config_value *roots = sl_config_get(a->config, SL_CONFIG_ROOT);
    struct sl_worker_run_opts o = {0};
    struct sl_roots *r = NULL;
    struct sl_notify notify = {.fd = -1};
    struct sl_devices devices;
    struct sl_log log;
    char host[65] = "localhost", name[80];
    int rc;

    SL_TRY(sl_devices_choose(sl_config_text(a->config, SL_CONFIG_DEVICE), &devices, e));
    if (roots->n == 0)
        return sl_fail(e, SL_EUSAGE, "no root: --root DIR says below which folder this worker may read and write");
    if (!*sl_config_text(a->config, SL_CONFIG_ENDPOINT))
        return sl_fail(e, SL_EUSAGE, "no daemon: --connect ENDPOINT says where it is");
    SL_TRY(sl_roots_open(roots->items, roots->n, &r, e));
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "%.40s-%.23s", host, devices.label);
    sl_log_open(&log, 2, (enum sl_log_form)sl_config_number(a->config, SL_CONFIG_LOG),
                (enum sl_log_level)sl_config_number(a->config, SL_CONFIG_LOG_LEVEL), "sluice-worker");
    o.dealer = (struct sl_dealer_opts){
        .endpoint = sl_config_text(a->config, SL_CONFIG_ENDPOINT),
        .key_path = text_or_null(a->config, SL_CONFIG_KEY),
        .server_key_path = text_or_null(a->config, SL_CONFIG_SERVER_KEY),
        .plain_tcp = sl_config_number(a->config, SL_CONFIG_PLAIN_TCP) != 0,
    };
    o.cache = (struct sl_job_cache_opts){
        .roots = r, .threads = (unsigned)sl_config_number(a->config, SL_CONFIG_THREADS),
        .mem_bytes = sl_config_number(a->config, SL_CONFIG_MEM),
        .io = io[sl_config_number(a->config, SL_CONFIG_IO) % 3],
        .devices = devices.n ? &devices : NULL,
    };
    o.worker = (struct sl_worker_opts){
        .name = a->name ? a->name : name, .host = host, .device = devices.label, .pid = (uint64_t)getpid(),
        .threads = o.cache.threads ? o.cache.threads : processors(), .mem_bytes = o.cache.mem_bytes,
        .ahead = (unsigned)sl_config_number(a->config, SL_CONFIG_AHEAD), .log = &log,
    };
    sl_log_say(&log, SL_LOG_NOTICE, "started", "sluice-worker %s as %s, for %s", SLUICE_VERSION,
               o.worker.name, o.dealer.endpoint);
    o.notify = &notify;
    rc = sl_notify_open(&notify, e);
    if (rc == 0)
        rc = sl_worker_run(&o, e);
    sl_notify_close(&notify);
    sl_log_say(&log, rc < 0 ? SL_LOG_ERROR : SL_LOG_NOTICE, "ended", "%s", rc < 0 ? e->text : "in order");
    sl_roots_close(r);
    return rc;
}

int main(int argc, const char **argv)
{
    struct args a = {0};
    struct sl_error e = {0};
    int rc = parse(&a, argc, argv, &e);

    if (rc == 0) {
        rc = run(&a, &e);
    } else if (rc > 0) {
        rc = fflush(stdout) == 0 ? 0 : SL_EFAIL;
    }
    if (rc < 0)
        fprintf(stderr, "sluice-worker: %s\n", e.text);
    sl_config_close(a.config);
    free(a.name);
    return -rc;
}
