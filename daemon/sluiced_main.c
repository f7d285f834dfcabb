/* sluiced: the coordinator. */
#include "daemon/serve.h"
#include "proto/config_file.h"

#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { OPT_LISTEN = 1, OPT_STATE, OPT_ROOT, OPT_KEY, OPT_ALLOW, OPT_PLAIN_TCP, OPT_HEARTBEAT,
       OPT_LEASE, OPT_ATTEMPTS, OPT_QUARANTINE, OPT_METRICS, OPT_METRICS_REMOTE, OPT_LOG,
       OPT_LOG_LEVEL, OPT_CONFIG, OPT_VERSION, OPT_HELP };

/* Values that an option gives to a key of the configuration. */
static const struct {
    int option;
    enum sl_config_key key;
    const char *name;
} keys[] = {
    {OPT_LISTEN, SL_CONFIG_LISTEN, "--listen"},
    {OPT_STATE, SL_CONFIG_STATE_DIR, "--state"},
    {OPT_ROOT, SL_CONFIG_ROOT, "--root"},
    {OPT_KEY, SL_CONFIG_KEY, "--key"},
    {OPT_ALLOW, SL_CONFIG_ALLOW, "--allow"},
    {OPT_PLAIN_TCP, SL_CONFIG_PLAIN_TCP, "--plain-tcp"},
    {OPT_HEARTBEAT, SL_CONFIG_HEARTBEAT, "--heartbeat"},
    {OPT_LEASE, SL_CONFIG_LEASE, "--lease"},
    {OPT_ATTEMPTS, SL_CONFIG_ATTEMPTS, "--attempts"},
    {OPT_QUARANTINE, SL_CONFIG_QUARANTINE_WORKERS, "--quarantine-workers"},
    {OPT_METRICS, SL_CONFIG_METRICS, "--metrics"},
    {OPT_METRICS_REMOTE, SL_CONFIG_METRICS_REMOTE, "--metrics-remote"},
    {OPT_LOG, SL_CONFIG_LOG, "--log"},
    {OPT_LOG_LEVEL, SL_CONFIG_LOG_LEVEL, "--log-level"},
};

static const struct poptOption table[] = {
    {"listen", 'l', POPT_ARG_STRING, NULL, OPT_LISTEN, "ipc:///PATH or tcp://ADDRESS:PORT; may be repeated", "ENDPOINT"},
    {"state", 's', POPT_ARG_STRING, NULL, OPT_STATE, "folder of the queue, on a disk of this machine", "DIR"},
    {"root", 'r', POPT_ARG_STRING, NULL, OPT_ROOT, "folder below which jobs may read and write; may be repeated, one at least is needed", "DIR"},
    {"key", 'k', POPT_ARG_STRING, NULL, OPT_KEY, "own key file, for tcp", "FILE"},
    {"allow", 'a', POPT_ARG_STRING, NULL, OPT_ALLOW, "list of keys and users that may connect, with their roles", "FILE"},
    {"plain-tcp", 0, POPT_ARG_NONE, NULL, OPT_PLAIN_TCP, "tcp without keys, on the loopback address alone", NULL},
    {"lease", 0, POPT_ARG_STRING, NULL, OPT_LEASE, "a task goes back so long after its worker's last progress (60s)", "TIME"},
    {"heartbeat", 0, POPT_ARG_STRING, NULL, OPT_HEARTBEAT, "a peer silent for four times as long is lost (5s)", "TIME"},
    {"attempts", 0, POPT_ARG_STRING, NULL, OPT_ATTEMPTS, "failures after which a task is set aside (5)", "N"},
    {"quarantine-workers", 0, POPT_ARG_STRING, NULL, OPT_QUARANTINE, "workers on which a task fails before it is set aside (3)", "N"},
    {"metrics", 0, POPT_ARG_STRING, NULL, OPT_METRICS, "/metrics, /healthz and /readyz, or off", "ADDRESS:PORT"},
    {"metrics-remote", 0, POPT_ARG_NONE, NULL, OPT_METRICS_REMOTE, "metrics on an address other than loopback", NULL},
    {"log", 0, POPT_ARG_STRING, NULL, OPT_LOG, "form of log lines: plain, json, journal", "FORM"},
    {"log-level", 0, POPT_ARG_STRING, NULL, OPT_LOG_LEVEL, "least important lines: error, warning, notice, info, debug", "LEVEL"},
    {"config", 0, POPT_ARG_STRING, NULL, OPT_CONFIG, "read this configuration file alone", "FILE"},
    {"version", 'V', POPT_ARG_NONE, NULL, OPT_VERSION, "print the version", NULL},
    {"help", 'h', POPT_ARG_NONE, NULL, OPT_HELP, "print this", NULL},
    POPT_TABLEEND,
};

static void print_help(void)
{
    puts("Usage: sluiced [OPTION...]\n\n"
         "Holds the queue of conversions and hands their tasks to sluice-worker processes.\n"
         "SIGTERM: stops; jobs and leases stay as they are and go on with the next start.\n"
         "Every option can stand in sluice.conf.\n");
    for (const struct poptOption *o = table; o->longName; o++) {
        char left[64];

        snprintf(left, sizeof left, "%c%c --%s%s%s", o->shortName ? '-' : ' ',
                 o->shortName ? o->shortName : ' ', o->longName, o->argDescrip ? "=" : "",
                 o->argDescrip ? o->argDescrip : "");
        printf("  %-28s %s\n", left, o->descrip);
    }
}

static int take_option(struct sl_config *c, int option, const char *arg, struct sl_error *e)
{
    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (keys[i].option == option)
            return sl_config_set(c, keys[i].key, arg ? arg : "yes", keys[i].name, e);
    return 0;
}

/* Returns 0 to go on, 1 when all is done. */
static int parse(struct sl_config **c, int argc, const char **argv, struct sl_error *e)
{
    const struct sl_config_opts co = {.path = sl_config_path_option(argc, argv)};
    poptContext ctx = poptGetContext("sluiced", argc, argv, table, 0);
    int option = -1, rc = 0;

    if (!ctx)
        return sl_fail(e, SL_EFAIL, "out of memory");
    while (rc == 0 && (option = poptGetNextOpt(ctx)) > 0) {
        char *arg = poptGetOptArg(ctx);

        if (option == OPT_HELP || option == OPT_VERSION) {
            option == OPT_HELP ? print_help() : (void)puts("sluiced " SLUICE_VERSION);
            rc = 1;
        } else if (!*c) {
            rc = sl_config_open(&co, c, e);
        }
        if (rc == 0)
            rc = take_option(*c, option, arg, e);
        free(arg);
    }
    if (rc == 0 && option < -1)
        rc = sl_fail(e, SL_EUSAGE, "%s: %s; see --help", poptBadOption(ctx, 0), poptStrerror(option));
    if (rc == 0 && poptPeekArg(ctx))
        rc = sl_fail(e, SL_EUSAGE, "%s: no argument is expected; see --help", poptPeekArg(ctx));
    if (rc == 0 && !*c)
        rc = sl_config_open(&co, c, e);
    poptFreeContext(ctx);
    return rc;
}

static const char *text_or_null(const struct sl_config *c, enum sl_config_key k)
{
    const char *text = sl_config_text(c, k);

    return *text ? text : NULL;
}

static int run(const struct sl_config *c, struct sl_error *e)
{
    const struct sl_config_value *roots = sl_config_get(c, SL_CONFIG_ROOT);
    const struct sl_config_value *listen = sl_config_get(c, SL_CONFIG_LISTEN);
    struct sl_serve_opts o = {0};
    struct sl_log log;
    int rc;

    if (listen->n == 0)
        listen = sl_config_get(c, SL_CONFIG_ENDPOINT);
    if (roots->n == 0)
        return sl_fail(e, SL_EUSAGE, "no root: --root DIR says below which folder jobs may read and write");
    if (!*sl_config_text(c, SL_CONFIG_STATE_DIR))
        return sl_fail(e, SL_EUSAGE, "no state folder: --state DIR says where the queue is");
    SL_TRY(sl_config_there(c, SL_CONFIG_ROOT, e));
    SL_TRY(sl_config_there(c, SL_CONFIG_ALLOW, e));
    SL_TRY(sl_config_there(c, SL_CONFIG_KEY, e));
    sl_log_open(&log, 2, (enum sl_log_form)sl_config_number(c, SL_CONFIG_LOG),
                (enum sl_log_level)sl_config_number(c, SL_CONFIG_LOG_LEVEL), "sluiced");
    o.log = &log;
    o.state_dir = sl_config_text(c, SL_CONFIG_STATE_DIR);
    o.roots = roots->items;
    o.n_roots = roots->n;
    o.router = (struct sl_router_opts){
        .endpoints = listen->items, .n_endpoints = listen->n, .key_path = text_or_null(c, SL_CONFIG_KEY),
        .allow_path = text_or_null(c, SL_CONFIG_ALLOW),
        .plain_tcp = sl_config_number(c, SL_CONFIG_PLAIN_TCP) != 0};
    o.coord = (struct sl_coord_opts){
        .heartbeat_ms = (uint32_t)sl_config_number(c, SL_CONFIG_HEARTBEAT),
        .lease_ms = (uint32_t)sl_config_number(c, SL_CONFIG_LEASE),
        .attempts = (uint32_t)sl_config_number(c, SL_CONFIG_ATTEMPTS),
        .quarantine_workers = (uint32_t)sl_config_number(c, SL_CONFIG_QUARANTINE_WORKERS)};
    o.metrics_address = text_or_null(c, SL_CONFIG_METRICS);
    if (o.metrics_address && strcmp(o.metrics_address, "off") == 0)
        o.metrics_address = NULL;
    o.metrics_remote = sl_config_number(c, SL_CONFIG_METRICS_REMOTE) != 0;
    umask(077);
    sl_log_say(&log, SL_LOG_NOTICE, "started", "sluiced %s, state in %s", SLUICE_VERSION, o.state_dir);
    rc = sl_serve(&o, e);
    sl_log_say(&log, rc < 0 ? SL_LOG_ERROR : SL_LOG_NOTICE, "ended", "%s", rc < 0 ? e->text : "in order");
    return rc;
}

int main(int argc, const char **argv)
{
    struct sl_config *c = NULL;
    struct sl_error e = {0};
    int rc = parse(&c, argc, argv, &e);

    if (rc == 0)
        rc = run(c, &e);
    else if (rc > 0)
        rc = fflush(stdout) == 0 ? 0 : SL_EFAIL;
    if (rc < 0)
        fprintf(stderr, "sluiced: %s\n", e.text);
    sl_config_close(c);
    return -rc;
}
