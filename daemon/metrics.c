#include "daemon/metrics.h"
#include "proto/clock.h"
#include "daemon/metrics_text.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct sl_metrics {
    struct MHD_Daemon *http;
    char address[80];
    char *version, *bytes_version, *state_dir;
    uint64_t stale_ms;
    double start_seconds;
    pthread_mutex_t lock;          /* the two below */
    struct sl_metrics_figures figures;
    uint64_t published_ms;         /* sl_run_ms: no loop turns while the machine sleeps; 0: never */
};

/* ---- what the process knows of itself */

static uint64_t resident_bytes(void)
{
    unsigned long long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f) {
        if (fscanf(f, "%llu %llu", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n > 3 ? n - 3 : 0;      /* ".", "..", and the folder itself */
}

static void look(const struct sl_metrics *m, uint64_t published_ms, struct sl_process_figures *p)
{
    struct statvfs fs;
    struct rlimit lim;
    struct rusage ru;
    uint64_t now = sl_run_ms();

    *p = (struct sl_process_figures){.version = m->version, .bytes_version = m->bytes_version,
                                     .start_seconds = m->start_seconds};
    p->loop_age_seconds = published_ms ? (double)(now - published_ms) / 1000 : -1;
    if (getrusage(RUSAGE_SELF, &ru) == 0)
        p->cpu_seconds = (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec)
                         + (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
    if (getrlimit(RLIMIT_NOFILE, &lim) == 0)
        p->max_fds = lim.rlim_cur;
    p->resident_bytes = resident_bytes();
    p->open_fds = open_fds();
    if (m->state_dir && statvfs(m->state_dir, &fs) == 0) {
        p->has_state = true;
        p->state_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        p->state_size_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    }
}

/* ---- answers */

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type,
                              const char *allow, char *text, size_t n,
                              enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(n, text, mode);
    enum MHD_Result rc;

    if (!r) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(text);
        return MHD_NO;
    }
    rc = MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (rc == MHD_YES)
        rc = MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (rc == MHD_YES && allow)
        rc = MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allow);
    if (rc == MHD_YES)
        rc = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result line(struct MHD_Connection *c, unsigned status, const char *allow,
                            const char *text)
{
    return answer(c, status, "text/plain; charset=utf-8", allow, (char *)(uintptr_t)text,
                  strlen(text), MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result metrics_page(struct MHD_Connection *c, const struct sl_metrics *m,
                                    const struct sl_metrics_figures *f, uint64_t published_ms)
{
    struct sl_process_figures p;
    struct sl_error e;
    char *text;
    size_t n;

    look(m, published_ms, &p);
    if (sl_metrics_text(f, &p, &text, &n, &e) < 0)
        return line(c, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, "out of memory\n");
    return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", NULL, text, n,
                  MHD_RESPMEM_MUST_FREE);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *body,
                                  size_t *body_n, void **request)
{
    struct sl_metrics *m = user;
    struct sl_metrics_figures f;
    uint64_t published_ms;
    bool alive;

    (void)version;
    (void)body;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return line(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET, HEAD", "only GET and HEAD\n");
    if (!*request) {               /* headers are read; a body is passed over first */
        *request = m;
        return MHD_YES;
    }
    if (*body_n) {
        *body_n = 0;
        return MHD_YES;
    }
    pthread_mutex_lock(&m->lock);
    f = m->figures;
    published_ms = m->published_ms;
    pthread_mutex_unlock(&m->lock);
    alive = published_ms && sl_run_ms() - published_ms <= m->stale_ms;
    if (strcmp(url, "/metrics") == 0)
        return metrics_page(c, m, &f, published_ms);
    if (strcmp(url, "/healthz") == 0)
        return alive ? line(c, MHD_HTTP_OK, NULL, "ok\n")
                     : line(c, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "the event loop stands still\n");
    if (strcmp(url, "/readyz") == 0) {
        if (!alive)
            return line(c, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "the event loop stands still\n");
        return f.ready ? line(c, MHD_HTTP_OK, NULL, "ready\n")
                       : line(c, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "starting or stopping, or the queue cannot be written: see the log\n");
    }
    return line(c, MHD_HTTP_NOT_FOUND, NULL, "/metrics, /healthz or /readyz\n");
}

/* ---- the socket */

static bool is_loopback(const struct sockaddr *a)
{
    const struct in6_addr *six;

    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    if (a->sa_family != AF_INET6)
        return false;
    six = &((const struct sockaddr_in6 *)a)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
}

/* "127.0.0.1:9560" or "[::1]:9560" to an address. */
static int parse(const char *text, struct addrinfo **out, struct sl_error *e)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                   .ai_socktype = SOCK_STREAM};
    const char *colon = strrchr(text, ':');
    char host[64];
    size_t n = colon ? (size_t)(colon - text) : 0;
    unsigned long port = 0;

    for (const char *s = colon ? colon + 1 : ""; *s && port <= 65535; s++)
        port = *s >= '0' && *s <= '9' ? port * 10 + (unsigned long)(*s - '0') : 65536;
    if (n == 0 || n >= sizeof host || !colon[1] || port > 65535)
        return sl_fail(e, SL_EUSAGE, "metrics: expected ADDRESS:PORT (127.0.0.1:9560), not '%s'",
                       text);
    memcpy(host, text, n);
    host[n] = '\0';
    if (host[0] == '[' && host[n - 1] == ']') {
        memmove(host, host + 1, n - 2);
        host[n - 2] = '\0';
    } else if (strchr(host, ':')) {
        host[0] = '\0';
    }
    if (!*host || getaddrinfo(host, colon + 1, &hints, out) != 0)
        return sl_fail(e, SL_EUSAGE, "metrics: expected an address in digits ([::1]:9560 for IPv6), "
                       "not '%s'", text);
    return 0;
}

/* Returns a listening socket. */
static int listen_on(const struct sl_metrics_opts *o, char bound[80], struct sl_error *e)
{
    struct sockaddr_storage at;
    socklen_t at_n = sizeof at;
    char host[64] = "", port[16] = "";
    struct addrinfo *a;
    int fd, one = 1, bad;

    SL_TRY(parse(o->address, &a, e));
    if (!o->remote && !is_loopback(a->ai_addr)) {
        freeaddrinfo(a);
        return sl_fail(e, SL_EUSAGE, "metrics: %s is not loopback; daemon.metrics_remote = yes "
                       "allows that: everybody who reaches it may read", o->address);
    }
    fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && a->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0
        || bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 16) != 0
        || getsockname(fd, (struct sockaddr *)&at, &at_n) != 0) {
        bad = errno;
        freeaddrinfo(a);
        if (fd >= 0)
            close(fd);
        return sl_fail(e, bad == EADDRINUSE ? SL_EEXISTS : SL_EFAIL, "metrics: cannot listen on %s: %s",
                       o->address, strerror(bad));
    }
    freeaddrinfo(a);
    (void)getnameinfo((struct sockaddr *)&at, at_n, host, sizeof host, port, sizeof port,
                      NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(bound, 80, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return fd;
}

static void no_log(void *user, const char *fmt, va_list ap)
{
    (void)user;
    (void)fmt;
    (void)ap;
}

static void discard(struct sl_metrics *m)
{
    pthread_mutex_destroy(&m->lock);
    free(m->version);
    free(m->bytes_version);
    free(m->state_dir);
    free(m);
}

int sl_metrics_open(const struct sl_metrics_opts *o, struct sl_metrics **out, struct sl_error *e)
{
    struct sl_metrics *m = calloc(1, sizeof *m);
    sigset_t all, before;
    int fd;

    *out = NULL;
    if (!m || pthread_mutex_init(&m->lock, NULL) != 0) {
        free(m);
        return sl_no_memory(e);
    }
    m->stale_ms = o->stale_ms ? o->stale_ms : 30000;
    m->start_seconds = (double)sl_wall_ms() / 1000;
    m->version = strdup(o->version);
    m->bytes_version = strdup(o->bytes_version);
    m->state_dir = o->state_dir ? strdup(o->state_dir) : NULL;
    fd = m->version && m->bytes_version && (m->state_dir || !o->state_dir)
             ? listen_on(o, m->address, e) : sl_no_memory(e);
    if (fd < 0) {
        discard(m);
        return fd;
    }
    /* Signals are for the thread that waits for them, not for this one. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    m->http = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL,
        NULL, on_request, m, MHD_OPTION_EXTERNAL_LOGGER, no_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, 16u, MHD_OPTION_CONNECTION_TIMEOUT, 5u,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)16384, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!m->http) {
        discard(m);
        return sl_fail(e, SL_EFAIL, "metrics: libmicrohttpd cannot start on %s", o->address);
    }
    *out = m;
    return 0;
}

void sl_metrics_close(struct sl_metrics *m)
{
    if (!m)
        return;
    MHD_stop_daemon(m->http);
    discard(m);
}

const char *sl_metrics_address(const struct sl_metrics *m)
{
    return m->address;
}

void sl_metrics_publish(struct sl_metrics *m, const struct sl_metrics_figures *f)
{
    uint64_t now;

    if (!m)
        return;
    now = sl_run_ms();
    pthread_mutex_lock(&m->lock);
    m->figures = *f;
    m->published_ms = now ? now : 1;
    pthread_mutex_unlock(&m->lock);
}
