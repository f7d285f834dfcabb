/* Every key of sluice.conf. */
#include "proto/config_file.h"

#include <stddef.h>
#include <string.h>

#define DAY_MS UINT64_C(86400000)

static const struct sl_config_info keys[SL_CONFIG_KEYS] = {
    [SL_CONFIG_ENDPOINT] = {"sluice", "endpoint", "SLUICE_ENDPOINT", SL_CONFIG_IS_ENDPOINT, false, 0, 0,
        NULL, NULL, "where workers and clients find the daemon"},
    [SL_CONFIG_ROOT] = {"sluice", "root", "SLUICE_ROOT", SL_CONFIG_IS_PATH, true, 0, 0,
        NULL, NULL, "folder below which daemon and workers read and write for others"},
    [SL_CONFIG_LOG] = {"sluice", "log", "SLUICE_LOG", SL_CONFIG_IS_CHOICE, false, 0, 0,
        "auto|plain|json|journal", "auto", "form of log lines; auto: journal under systemd, else plain"},
    [SL_CONFIG_LOG_LEVEL] = {"sluice", "log_level", "SLUICE_LOG_LEVEL", SL_CONFIG_IS_CHOICE, false,
        0, 0, "error|warning|notice|info|debug", "info", "least important lines to write"},
    [SL_CONFIG_KEY] = {"sluice", "key", "SLUICE_KEY", SL_CONFIG_IS_PATH, false, 0, 0,
        NULL, "", "own key file, for tcp"},
    [SL_CONFIG_SERVER_KEY] = {"sluice", "server_key", "SLUICE_SERVER_KEY", SL_CONFIG_IS_PATH, false,
        0, 0, NULL, "", "public key file of the daemon, for tcp"},
    [SL_CONFIG_PLAIN_TCP] = {"sluice", "plain_tcp", "SLUICE_PLAIN_TCP", SL_CONFIG_IS_BOOL, false,
        0, 1, NULL, "no", "tcp on loopback without keys"},
    [SL_CONFIG_LISTEN] = {"daemon", "listen", "SLUICE_LISTEN", SL_CONFIG_IS_ENDPOINT, true, 0, 0,
        NULL, NULL, "endpoint that the daemon binds; none: sluice.endpoint"},
    [SL_CONFIG_STATE_DIR] = {"daemon", "state_dir", "SLUICE_STATE_DIR", SL_CONFIG_IS_PATH, false,
        0, 0, NULL, NULL, "folder of the queue, on a local disk"},
    [SL_CONFIG_ALLOW] = {"daemon", "allow", "SLUICE_ALLOW", SL_CONFIG_IS_PATH, false, 0, 0,
        NULL, "", "list of keys and users that may connect, with their roles"},
    [SL_CONFIG_METRICS] = {"daemon", "metrics", "SLUICE_METRICS", SL_CONFIG_IS_ADDRESS, false, 0, 0,
        NULL, "off", "ADDRESS:PORT of /metrics, /healthz and /readyz, or off"},
    [SL_CONFIG_METRICS_REMOTE] = {"daemon", "metrics_remote", "SLUICE_METRICS_REMOTE",
        SL_CONFIG_IS_BOOL, false, 0, 1, NULL, "no", "metrics on an address other than loopback"},
    [SL_CONFIG_HEARTBEAT] = {"daemon", "heartbeat", "SLUICE_HEARTBEAT", SL_CONFIG_IS_TIME, false,
        100, 3600000, NULL, "5s", "a peer that is silent four times as long is lost"},
    [SL_CONFIG_LEASE] = {"daemon", "lease", "SLUICE_LEASE", SL_CONFIG_IS_TIME, false, 1000, DAY_MS,
        NULL, "60s", "a task goes back so long after its worker's last sign of progress"},
    [SL_CONFIG_ATTEMPTS] = {"daemon", "attempts", "SLUICE_ATTEMPTS", SL_CONFIG_IS_NUMBER, false,
        1, 1000, NULL, "5", "failures after which a task is quarantined"},
    [SL_CONFIG_QUARANTINE_WORKERS] = {"daemon", "quarantine_workers", "SLUICE_QUARANTINE_WORKERS",
        SL_CONFIG_IS_NUMBER, false, 1, 1000, NULL, "3",
        "different workers on which a task fails before it is quarantined"},
    [SL_CONFIG_LOSSES] = {"daemon", "losses", "SLUICE_LOSSES", SL_CONFIG_IS_NUMBER, false, 0, 1000,
        NULL, "10", "workers in a row that go away with a task before it is quarantined, or with tasks of a job before that "
        "fails; 0: any number"},
    [SL_CONFIG_DEVICE] = {"worker", "device", "SLUICE_DEVICE", SL_CONFIG_IS_DEVICE, false, 0, 0,
        NULL, "auto", "auto, cpu, cuda:N, GPU-UUID, or several with commas"},
    [SL_CONFIG_THREADS] = {"worker", "threads", "SLUICE_THREADS", SL_CONFIG_IS_NUMBER, false,
        0, 1024, NULL, "0", "compute threads; 0: all processors"},
    [SL_CONFIG_MEM] = {"worker", "mem", "SLUICE_MEM", SL_CONFIG_IS_SIZE, false,
        64000000, UINT64_C(1) << 48, NULL, "1Gi", "resident memory of a worker"},
    [SL_CONFIG_IO] = {"worker", "io", "SLUICE_IO", SL_CONFIG_IS_CHOICE, false, 0, 0,
        "auto|uring|pread", "auto", "how files are read; auto: io_uring where it is allowed"},
    [SL_CONFIG_AHEAD] = {"worker", "ahead", "SLUICE_AHEAD", SL_CONFIG_IS_NUMBER, false, 0, 63,
        NULL, "2", "tasks that a worker holds beside the one in hand; more where they are short"},
};

const struct sl_config_info *sl_config_info(enum sl_config_key k)
{
    return &keys[(unsigned)k < SL_CONFIG_KEYS ? k : 0];
}

bool sl_config_has_section(const char *name, size_t n)
{
    for (int i = 0; i < SL_CONFIG_KEYS; i++)
        if (strlen(keys[i].section) == n && strncmp(keys[i].section, name, n) == 0)
            return true;
    return false;
}

int sl_config_by_name(const char *name)
{
    const char *dot = strchr(name, '.');

    for (int i = 0; dot && i < SL_CONFIG_KEYS; i++)
        if (strlen(keys[i].section) == (size_t)(dot - name)
            && strncmp(keys[i].section, name, (size_t)(dot - name)) == 0
            && strcmp(keys[i].name, dot + 1) == 0)
            return i;
    return -1;
}
