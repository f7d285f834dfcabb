/* sluiced: the coordinator. */
#include "daemon/serve.h"
#include "proto/config_options.h"
#include "proto/open_files.h"

#include <string.h>
#include <sys/stat.h>

static const struct sl_config_option options[] = {
    {"listen", 'l', SL_CONFIG_LISTEN, "ENDPOINT", "ipc:///PATH or tcp://ADDRESS:PORT; may be repeated"},
    {"state", 's', SL_CONFIG_STATE_DIR, "DIR", "folder of the queue, on a disk of this machine"},
    {"root", 'r', SL_CONFIG_ROOT, "DIR", "folder below which jobs may read and write; may be repeated, one at least is needed"},
    {"key", 'k', SL_CONFIG_KEY, "FILE", "own key file, for tcp"},
    {"allow", 'a', SL_CONFIG_ALLOW, "FILE", "list of keys and users that may connect, with their roles"},
    {"plain-tcp", 0, SL_CONFIG_PLAIN_TCP, NULL, "tcp without keys, on the loopback address alone"},
    {"lease", 0, SL_CONFIG_LEASE, "TIME", "a task goes back so long after its worker's last progress (60s)"},
    {"heartbeat", 0, SL_CONFIG_HEARTBEAT, "TIME", "a peer silent for four times as long is lost (5s)"},
    {"attempts", 0, SL_CONFIG_ATTEMPTS, "N", "failures after which a task is set aside (5)"},
    {"quarantine-workers", 0, SL_CONFIG_QUARANTINE_WORKERS, "N", "workers on which a task fails before it is set aside (3)"},
    {"losses", 0, SL_CONFIG_LOSSES, "N", "workers in a row that go away with a task before it is set aside, or with tasks of a job before that fails (10); 0: any number"},
    {"metrics", 0, SL_CONFIG_METRICS, "ADDRESS:PORT", "/metrics, /healthz and /readyz, or off"},
    {"metrics-remote", 0, SL_CONFIG_METRICS_REMOTE, NULL, "metrics on an address other than loopback"},
};

static const char about[] =
    "Usage: sluiced [OPTION...]\n\n"
    "Holds the queue of conversions and hands their tasks to sluice-worker processes.\n"
    "SIGTERM: stops; jobs and leases stay as they are and go on with the next start.\n"
    "Every option can stand in sluice.conf.\n";

static int run(void *user, const struct sl_config *c, struct sl_error *e)
{
    const struct sl_config_value *roots = sl_config_get(c, SL_CONFIG_ROOT);
    const struct sl_config_value *listen = sl_config_get(c, SL_CONFIG_LISTEN);
    struct sl_serve_opts o = {0};
    struct sl_log log;
    int rc;

    (void)user;
    if (listen->n == 0)
        listen = sl_config_get(c, SL_CONFIG_ENDPOINT);
    if (roots->n == 0)
        return sl_fail(e, SL_EUSAGE, "no root: --root DIR says below which folder jobs may read and write");
    SL_TRY(sl_config_check_pairs(c, e));
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
        .endpoints = listen->items, .n_endpoints = listen->n,
        .key_path = sl_config_text_or_null(c, SL_CONFIG_KEY),
        .allow_path = sl_config_text_or_null(c, SL_CONFIG_ALLOW),
        .plain_tcp = sl_config_number(c, SL_CONFIG_PLAIN_TCP) != 0};
    o.coord = (struct sl_coord_opts){
        .heartbeat_ms = (uint32_t)sl_config_number(c, SL_CONFIG_HEARTBEAT),
        .lease_ms = (uint32_t)sl_config_number(c, SL_CONFIG_LEASE),
        .attempts = (uint32_t)sl_config_number(c, SL_CONFIG_ATTEMPTS),
        .quarantine_workers = (uint32_t)sl_config_number(c, SL_CONFIG_QUARANTINE_WORKERS),
        .losses = (uint32_t)sl_config_number(c, SL_CONFIG_LOSSES)};
    o.metrics_address = sl_config_text_or_null(c, SL_CONFIG_METRICS);
    if (o.metrics_address && strcmp(o.metrics_address, "off") == 0)
        o.metrics_address = NULL;
    o.metrics_remote = sl_config_number(c, SL_CONFIG_METRICS_REMOTE) != 0;
    sl_open_files_allow();
    umask(077);
    sl_log_say(&log, SL_LOG_NOTICE, "started", "sluiced %s, state in %s", SLUICE_VERSION, o.state_dir);
    rc = sl_serve(&o, e);
    sl_log_say(&log, rc < 0 ? SL_LOG_ERROR : SL_LOG_NOTICE, "ended", "%s", rc < 0 ? e->text : "in order");
    e->text[0] = '\0'; /* the log has it */
    return rc;
}

int main(int argc, const char **argv)
{
    const struct sl_config_program p = {"sluiced", about, options, sizeof options / sizeof *options,
                                        .run = run};

    return sl_config_main(&p, argc, argv);
}
