/* sluice doctor: what this machine can do for Sluice, and what is in its way. */
#include "client/progress.h"
#include "client/service_args.h"
#include "client/term.h"
#include "worker/gpu_health.h"
#include "kernels/kernels.h"
#include "proto/size_text.h"
#include "worker/dealer.h"
#include "worker/engine.h"
#include "worker/io.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

enum grade { FINE = 0, NOTE, WARNING, BROKEN };

struct doctor {
    struct service_args service;
    int json;
    enum grade worst;
};

static void finding(struct doctor *d, enum grade g, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void finding(struct doctor *d, enum grade g, const char *what, const char *fmt, ...)
{
    static const char *const words[] = {"ok", "note", "warning", "broken"};
    static const char *const paint[] = {"\033[32m", "", "\033[33m", "\033[31m"};
    bool colour = term_can_colour() && paint[g][0];
    char text[900];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sl_utf8_disarm(text); /* it may hold a path */
    d->worst = g > d->worst ? g : d->worst;
    if (d->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddStringToObject(o, "check", what);
        cJSON_AddStringToObject(o, "grade", words[g]);
        cJSON_AddStringToObject(o, "text", text);
        json_line(o, "finding");
        return;
    }
    printf("%s%-8s%s %-12s ", colour ? paint[g] : "", words[g], colour ? "\033[0m" : "", what);
    term_fold(stdout, text, 22, term_width(STDOUT_FILENO));
    fflush(stdout);
}

static void check_program(struct doctor *d)
{
    long all = sysconf(_SC_NPROCESSORS_ONLN), ours = (long)sl_usable_cores();
    struct utsname u;

    if (uname(&u) == 0)
        finding(d, FINE, "version", "sluice " SLUICE_VERSION ", %s %s, %s, %ld processor%s%s", u.sysname, u.release,
                u.machine, ours, ours == 1 ? "" : "s", ours < all ? " (taskset or a cpuset keeps others away)" : "");
}

static void check_backends(struct doctor *d)
{
    char can[100] = "", cannot[100] = "";
    enum sl_backend best = SL_BACKEND_AVX512;

    while (best > SL_BACKEND_SCALAR && !sl_backend_usable(best))
        best--;
    for (int b = SL_BACKEND_SCALAR; b <= SL_BACKEND_AVX512; b++) {
        const char *name = sl_backend_name((enum sl_backend)b);
        char *list = sl_backend_usable((enum sl_backend)b) ? can : cannot;

        if (name)
            snprintf(list + strlen(list), sizeof can - strlen(list), "%s%s", *list ? ", " : "", name);
    }
    finding(d, strstr(can, "avx") ? FINE : NOTE, "kernels", "%s is used (--backend takes another); %s%s%s%s",
            sl_backend_name(best), can, *cannot ? " (not on this processor: " : "", cannot, *cannot ? ")" : "");
}

static void check_cuda(struct doctor *d)
{
    const struct sl_gpu_api *api = sl_gpu_api();
    int n = sl_gpu_count(api);

    if (n == 0)
        finding(d, NOTE, "cuda", "no device (workers use the processor): %s", sl_gpu_absence(api));
    for (int i = 0; i < n; i++) {
        struct sl_gpu_health h;
        struct sl_gpu_info g;
        char state[96] = "";
        int err = api->info(i, &g);

        if (err) {
            finding(d, WARNING, "cuda", "cuda:%d does not answer: %s", i, api->words(err));
            continue;
        }
        if (sl_gpu_health(&g, &h))
            snprintf(state, sizeof state, " (%llu in use), %u W, %u degrees", (unsigned long long)(h.memory_used >> 20), h.watts,
                     h.celsius);
        finding(d, sl_gpu_fits(&g) ? FINE : NOTE, "cuda", "cuda:%d: %s (%s), sm_%d%d%s, %llu MiB%s", i, g.name, g.uuid, g.major,
                g.minor, sl_gpu_fits(&g) ? "" : " (not used: 8.0 or later is needed)", (unsigned long long)(g.memory >> 20), state);
    }
}

static void check_io(struct doctor *d)
{
    const struct sl_io_conf c = {.depth = 4};
    struct sl_error e;
    struct sl_io *io;
    struct rlimit r;

    if (sl_io_open(SL_IO_URING, &c, &io, &e) == 0) {
        sl_io_close(io);
        finding(d, FINE, "io_uring", "available");
    } else {
        finding(d, WARNING, "io_uring", "%s; without it a pool of threads reads, slower", e.text);
    }
    if (getrlimit(RLIMIT_MEMLOCK, &r) != 0)
        return;
    if (r.rlim_max == RLIM_INFINITY)
        finding(d, FINE, "memlock", "unlimited");
    else
        finding(d, r.rlim_max < 64u << 20 && geteuid() != 0 ? NOTE : FINE, "memlock",
                "%llu KiB may be locked; registered buffers want 64 MiB or more (LimitMEMLOCK=, "
                "ulimit -l)", (unsigned long long)(r.rlim_max >> 10));
}

static void check_library(struct doctor *d)
{
    char text[32];

    if (sl_dealer_library(text))
        finding(d, FINE, "libzmq", "%s, with CURVE", text);
    else
        finding(d, BROKEN, "libzmq", "%s: 4.3.3 or later, built with CURVE, is needed", text);
}

static void check_space(struct doctor *d, const char *path)
{
    struct statvfs v;
    struct statfs f;
    char size[32];

    if (statvfs(path, &v) != 0 || statfs(path, &f) != 0) {
        finding(d, WARNING, "space", "%s: %s", path, strerror(errno));
        return;
    }
    finding(d, v.f_bavail == 0 ? WARNING : FINE, "space", "%s: %s free (decimal units)%s", path,
            sl_size_text(size, (uint64_t)v.f_bavail * v.f_frsize),
            f.f_type == 0x6969 ? ", on NFS: keep the daemon's state elsewhere" : "");
}

/* What the daemon says of itself. */
static int ask_daemon(struct service *s, struct sl_msg *answer, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_ABOUT, NULL, &m, e));
    return daemon_link_ask(s->link, &m, SL_M_DAEMON, answer, e);
}

static void check_daemon(struct doctor *d)
{
    struct sl_error e;
    struct sl_msg m;
    struct service s;
    const cJSON *root;
    uint64_t workers, jobs;
    int rc = service_open(&s, &d->service, &e);

    if (rc == 0)
        rc = ask_daemon(&s, &m, &e);
    if (rc < 0) {
        finding(d, rc == SL_EUNREACHABLE ? NOTE : WARNING, "daemon", "%s", e.text);
        service_close(&s);
        return;
    }
    workers = sl_get_uint(m.tree, "workers", 0);
    jobs = sl_get_uint(m.tree, "jobs", 0);
    finding(d, strcmp(sl_get_str(m.tree, "version"), SLUICE_VERSION) == 0 ? FINE : WARNING, "daemon",
            "%s, version %s, process %llu: %llu worker%s, %llu job%s not ended, you are %s",
            daemon_link_endpoint(s.link), sl_get_str(m.tree, "version"),
            (unsigned long long)sl_get_uint(m.tree, "pid", 0), (unsigned long long)workers,
            workers == 1 ? "" : "s", (unsigned long long)jobs, jobs == 1 ? "" : "s", daemon_link_role(s.link));
    if (cJSON_GetArraySize(sl_get(m.tree, "roots")) == 0)
        finding(d, WARNING, "roots", "the daemon has no root: it refuses every job; set [sluice] root");
    cJSON_ArrayForEach(root, sl_get(m.tree, "roots"))
        finding(d, FINE, "root", "%s", root->valuestring);
    if (service_is_local(&s))
        check_space(d, sl_get_str(m.tree, "state"));
    sl_msg_free(&m);
    service_close(&s);
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct doctor d = {0};
    struct poptOption service[SERVICE_TABLE_MAX];
    const struct poptOption table[] = {
        CLI_FLAG("json", 0, &d.json, "JSON lines, one for each finding"),
        CLI_TABLE(service, "Which daemon:"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    int rc;

    service_table(&d.service, service);
    rc = cli_parse(&args, &cli_doctor, argc, argv, table, 0, 64, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    check_program(&d);
    check_backends(&d);
    check_cuda(&d);
    check_io(&d);
    check_library(&d);
    if (args.n_pos == 0)
        check_space(&d, ".");
    for (int i = 0; i < args.n_pos; i++)
        check_space(&d, args.pos[i]);
    check_daemon(&d);
    cli_args_free(&args);
    if (d.worst == BROKEN)
        return sl_fail(e, SL_EFAIL, "something is broken; see above");
    return d.worst == WARNING ? sl_fail(e, SL_EWARN, "there are warnings; see above") : 0;
}

const struct cli_verb cli_doctor = {
    "doctor", "[FOLDER...] [OPTION...]",
    "Check this machine: kernels, GPUs, io_uring, limits, space, the daemon", run};
