/* sluice-worker: does the tasks that sluiced hands out. */
#include "proto/config_options.h"
#include "proto/open_files.h"
#include "proto/tensor_hash.h"
#include "worker/io.h"
#include "worker/worker_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct sl_config_option options[] = {
    {"connect", 'c', SL_CONFIG_ENDPOINT, "ENDPOINT", "the daemon: ipc:///PATH or tcp://HOST:PORT"},
    {"root", 'r', SL_CONFIG_ROOT, "DIR", "folder below which it reads and writes; may be repeated, one at least is needed"},
    {"device", 'd', SL_CONFIG_DEVICE, "DEVICE", "cpu, cuda:N, GPU-UUID, several with commas, or auto: every GPU, and cores where they help or no GPU is there"},
    {"threads", 't', SL_CONFIG_THREADS, "N", "compute threads; 0: all processors"},
    {"mem", 'm', SL_CONFIG_MEM, "SIZE", "memory that it may use (default 1Gi)"},
    {"name", 'n', SL_CONFIG_OWN, "NAME", "name for people, the same over restarts (default HOST-DEVICE)"},
    {"ahead", 0, SL_CONFIG_AHEAD, "N", "tasks held beside the one in hand; more where they are short"},
    {"io", 0, SL_CONFIG_IO, "MODE", "auto, uring or pread"},
    {"key", 'k', SL_CONFIG_KEY, "FILE", "own key file, for tcp"},
    {"server-key", 0, SL_CONFIG_SERVER_KEY, "FILE", "the daemon's public key file, for tcp"},
    {"plain-tcp", 0, SL_CONFIG_PLAIN_TCP, NULL, "tcp without keys, on the loopback address alone"},
};

static const char about[] =
    "Usage: sluice-worker --connect ENDPOINT --root DIR [OPTION...]\n\n"
    "Does the tasks that sluiced hands out. SIGTERM: hands back what it has not\n"
    "begun, finishes the rest and ends with 0. Every option but --name can stand in\n"
    "sluice.conf.\n";

static int take_name(void *user, const char *option, const char *arg, struct sl_error *e)
{
    char **name = user;

    if (!*arg || strlen(arg) > 64)
        return sl_fail(e, SL_EUSAGE, "--%s: 1 to 64 bytes are expected", option);
    free(*name);
    *name = strdup(arg);
    return *name ? 0 : sl_no_memory(e);
}

static void on_slow_lookup(void *user, const char *host)
{
    sl_log_say(user, SL_LOG_NOTICE, "lookup", "waiting for a name server to tell the address of %s", host);
}

/* HOST-DEVICE; where that is too long, with a mark that those who are alike in what is shown of them do not share. */
static void make_name(const char *host, const char *device, char name[65])
{
    char whole[160];
    int n = snprintf(whole, sizeof whole, "%s-%s", host, device);

    if (n <= 64)
        memcpy(name, whole, (size_t)n + 1);
    else
        snprintf(name, 65, "%.31s-%08x-%.23s", host, (unsigned)sl_xxh64(whole, strlen(whole)), device);
}

/* io_uring alone: where it is refused each task would fail, and so end its job. */
static int check_io(enum sl_io_mode mode, struct sl_error *e)
{
    const struct sl_io_conf c = {.depth = 4};
    struct sl_io *io;

    if (mode != SL_IO_URING)
        return 0;
    SL_TRY(sl_io_open(mode, &c, &io, e));
    sl_io_close(io);
    return 0;
}

/* user: the name given, or NULL. */
static int run(void *user, const struct sl_config *c, struct sl_error *e)
{
    const struct sl_config_value *roots = sl_config_get(c, SL_CONFIG_ROOT);
    struct sl_worker_run_opts o = {0};
    struct sl_roots *r = NULL;
    struct sl_notify notify = {.fd = -1};
    struct sl_devices devices;
    struct sl_log log;
    char host[65] = "localhost", name[65], *const *given = user;
    bool tcp;
    int rc;

    SL_TRY(sl_devices_choose(sl_config_text(c, SL_CONFIG_DEVICE), &devices, e));
    SL_TRY(check_io((enum sl_io_mode)sl_config_number(c, SL_CONFIG_IO), e));
    if (roots->n == 0)
        return sl_fail(e, SL_EUSAGE, "no root: --root DIR says below which folder this worker may read and write");
    SL_TRY(sl_config_there(c, SL_CONFIG_ROOT, e));
    tcp = strncmp(sl_config_text(c, SL_CONFIG_ENDPOINT), "tcp:", 4) == 0;
    if (tcp) {
        SL_TRY(sl_config_there(c, SL_CONFIG_KEY, e));
        SL_TRY(sl_config_there(c, SL_CONFIG_SERVER_KEY, e));
    }
    sl_open_files_allow();
    SL_TRY(sl_roots_open(roots->items, roots->n, &r, e));
    gethostname(host, sizeof host - 1);
    make_name(host, devices.label, name);
    sl_log_open(&log, 2, (enum sl_log_form)sl_config_number(c, SL_CONFIG_LOG),
                (enum sl_log_level)sl_config_number(c, SL_CONFIG_LOG_LEVEL), "sluice-worker");
    o.dealer = (struct sl_dealer_opts){
        .endpoint = sl_config_text(c, SL_CONFIG_ENDPOINT),
        .key_path = tcp ? sl_config_text_or_null(c, SL_CONFIG_KEY) : NULL,
        .server_key_path = tcp ? sl_config_text_or_null(c, SL_CONFIG_SERVER_KEY) : NULL,
        .plain_tcp = sl_config_number(c, SL_CONFIG_PLAIN_TCP) != 0,
        .patient = true, .slow = on_slow_lookup, .user = &log,
    };
    o.cache = (struct sl_job_cache_opts){
        .roots = r, .threads = (unsigned)sl_config_number(c, SL_CONFIG_THREADS),
        .mem_bytes = sl_config_number(c, SL_CONFIG_MEM),
        .io = (enum sl_io_mode)sl_config_number(c, SL_CONFIG_IO),
        .devices = devices.n ? &devices : NULL,
    };
    o.worker = (struct sl_worker_opts){
        .name = *given ? *given : name, .host = host, .device = devices.label, .pid = (uint64_t)getpid(),
        .threads = o.cache.threads ? o.cache.threads : sl_usable_cores(), .mem_bytes = o.cache.mem_bytes,
        .ahead = (unsigned)sl_config_number(c, SL_CONFIG_AHEAD), .log = &log,
    };
    sl_log_say(&log, SL_LOG_NOTICE, "started", "sluice-worker %s as %s, for %s", SLUICE_VERSION,
               o.worker.name, o.dealer.endpoint);
    o.notify = &notify;
    rc = sl_notify_open(&notify, e);
    if (rc == 0)
        rc = sl_worker_run(&o, e);
    sl_notify_close(&notify);
    sl_log_say(&log, rc < 0 ? SL_LOG_ERROR : SL_LOG_NOTICE, "ended", "%s", rc < 0 ? e->text : "in order");
    e->text[0] = '\0'; /* the log has it */
    sl_roots_close(r);
    return rc;
}

int main(int argc, const char **argv)
{
    char *name = NULL;
    const struct sl_config_program p = {"sluice-worker", about, options,
                                        sizeof options / sizeof *options, take_name, run, &name};
    int status = sl_config_main(&p, argc, argv);

    free(name);
    return status;
}
