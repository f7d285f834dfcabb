/* The HTTP side of the daemon, by real requests; and every metric that the
 * dashboard and the alert rules name is there. */
#include "daemon/event_log.h"
#include "daemon/metrics.h"
#include "daemon/metrics_text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static const struct sl_metrics_opts usual = {.address = "127.0.0.1:0", .version = "1.2.3",
                                             .bytes_version = "2026-08", .state_dir = "/"};

static int dial(const struct sl_metrics *m)
{
    const struct timeval patience = {.tv_sec = 10};
    struct sockaddr_in a = {.sin_family = AF_INET};
    const char *colon = strrchr(sl_metrics_address(m), ':');
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)atoi(colon + 1));
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Sends a request as it stands; returns the status, and the whole answer. */
static int ask(const struct sl_metrics *m, const char *request, char *answer, size_t size)
{
    int fd = dial(m);
    size_t n = 0;
    ssize_t r;

    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
    while (n + 1 < size && (r = recv(fd, answer + n, size - n - 1, 0)) > 0)
        n += (size_t)r;
    answer[n] = '\0';
    close(fd);
    return n > 12 && strncmp(answer, "HTTP/1.", 7) == 0 ? atoi(answer + 9) : -1;
}

static int get(const struct sl_metrics *m, const char *path, char *answer, size_t size)
{
    char request[256];

    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
             path);
    return ask(m, request, answer, size);
}

static void figures(struct sl_metrics_figures *f)
{
    memset(f, 0, sizeof *f);
    f->coord.grants = 41;
    f->coord.stages[0] = 1500;
    f->coord.stages[SL_STAGES - 1] = 250;
    f->coord.gpus[0] = (struct sl_coord_gpu){"a\"b", "cuda:0", 61, 313, 1500000000, 2000000000};
    f->coord.n_gpus = 1;
    f->coord.done_bytes = UINT64_C(688000000000);
    f->coord.jobs[SL_JOB_RUNNING] = 3;
    f->coord.leased = 5;
    f->events.ended[SL_JOB_FAILED] = 2;
    f->refused_connections = 9;
    f->ready = true;
}

static void test_answers(void **state)
{
    char text[32768];
    struct sl_metrics *m;
    struct sl_error e;
    struct sl_metrics_figures f;

    (void)state;
    figures(&f);
    if (sl_metrics_open(&usual, &m, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(strncmp(sl_metrics_address(m), "127.0.0.1:", 10), 0);
    assert_int_equal(get(m, "/healthz", text, sizeof text), 503);
    assert_int_equal(get(m, "/readyz", text, sizeof text), 503);
    assert_int_equal(get(m, "/metrics", text, sizeof text), 200);
    assert_null(strstr(text, "event_loop_age"));

    f.ready = false;
    sl_metrics_publish(m, &f);
    assert_int_equal(get(m, "/healthz", text, sizeof text), 200);
    assert_non_null(strstr(text, "\r\n\r\nok\n"));
    assert_int_equal(get(m, "/readyz", text, sizeof text), 503);
    assert_non_null(strstr(text, "starting or stopping, or the queue cannot be written"));

    f.ready = true;
    sl_metrics_publish(m, &f);
    assert_int_equal(get(m, "/readyz", text, sizeof text), 200);
    assert_int_equal(get(m, "/metrics", text, sizeof text), 200);
    assert_non_null(strstr(text, "text/plain; version=0.0.4"));
    assert_non_null(strstr(text, "\nsluice_task_grants_total 41\n"));
    assert_non_null(strstr(text, "\nsluice_source_bytes_total 688000000000\n"));
    assert_non_null(strstr(text, "\nsluice_worker_stage_seconds_total{stage=\"kernels\"} 1.500\n"));
    assert_non_null(strstr(text, "\nsluice_worker_queue_slab_seconds_total{queue=\"writing\"} 0.250\n"));
    assert_non_null(strstr(text, "\nsluice_worker_gpu_temperature_celsius{worker=\"a\\\"b\",gpu=\"cuda:0\"} 61\n"));
    assert_non_null(strstr(text, "\nsluice_worker_gpu_power_watts{worker=\"a\\\"b\",gpu=\"cuda:0\"} 313\n"));
    assert_non_null(strstr(text, "\nsluice_worker_gpu_memory_used_bytes{worker=\"a\\\"b\",gpu=\"cuda:0\"} 1500000000\n"));
    assert_non_null(strstr(text, "\nsluice_jobs{state=\"running\"} 3\n"));
    assert_non_null(strstr(text, "\nsluice_jobs_ended_total{state=\"failed\"} 2\n"));
    assert_non_null(strstr(text, "\nsluice_tasks{state=\"leased\"} 5\n"));
    assert_non_null(strstr(text, "\nsluice_connections_refused_total 9\n"));
    assert_non_null(strstr(text, "\nsluice_build_info{version=\"1.2.3\",bytes_version=\"2026-08\"} 1\n"));
    assert_non_null(strstr(text, "\nsluice_state_free_bytes "));
    assert_null(strstr(text, "state=\"succeeded\"} 3"));

    assert_int_equal(get(m, "/", text, sizeof text), 404);
    assert_int_equal(get(m, "/metrics/", text, sizeof text), 404);
    assert_int_equal(get(m, "/../etc/passwd", text, sizeof text), 404);
    assert_int_equal(ask(m, "HEAD /metrics HTTP/1.0\r\n\r\n", text, sizeof text), 200);
    assert_null(strstr(text, "sluice_"));
    assert_int_equal(ask(m, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                            "Connection: close\r\n\r\nhi", text, sizeof text), 405);
    assert_non_null(strstr(text, "Allow: GET, HEAD"));
    assert_true(ask(m, "nonsense\r\n\r\n", text, sizeof text) != 200);
    sl_metrics_close(m);
}

static void test_stands_still(void **state)
{
    struct sl_metrics_opts o = usual;
    struct sl_metrics_figures f;
    struct sl_metrics *m;
    struct sl_error e;
    char text[4096];
    int status = 0;

    (void)state;
    figures(&f);
    o.stale_ms = 200;
    assert_int_equal(sl_metrics_open(&o, &m, &e), 0);
    sl_metrics_publish(m, &f);
    nanosleep(&(struct timespec){.tv_nsec = 400000000}, NULL);
    assert_int_equal(get(m, "/healthz", text, sizeof text), 503);
    assert_non_null(strstr(text, "stands still"));
    assert_int_equal(get(m, "/readyz", text, sizeof text), 503);
    for (unsigned i = 0; i < 100 && status != 200; i++) { /* a busy machine may take as long to ask */
        sl_metrics_publish(m, &f);
        status = get(m, "/healthz", text, sizeof text);
    }
    assert_int_equal(status, 200);
    sl_metrics_close(m);
}

/* Publishing never waits for clients, whatever they do; and no torn figures. */
static void *publisher(void *user)
{
    struct sl_metrics_figures f;

    figures(&f);
    for (uint64_t i = 0; i < 200000; i++) {
        f.coord.grants = f.coord.results = i;
        sl_metrics_publish(user, &f);
    }
    return NULL;
}

static void test_threads(void **state)
{
    char text[32768];
    struct sl_metrics *m;
    struct sl_error e;
    pthread_t t;
    int idle[8];

    (void)state;
    assert_int_equal(sl_metrics_open(&usual, &m, &e), 0);
    for (int i = 0; i < 8; i++) {
        idle[i] = dial(m);           /* says half a request, and waits */
        assert_int_equal(send(idle[i], "GET /met", 8, 0), 8);
    }
    assert_int_equal(pthread_create(&t, NULL, publisher, m), 0);
    for (int i = 0; i < 20; i++) {
        unsigned long long a = 1, b = 2;

        assert_int_equal(get(m, "/metrics", text, sizeof text), 200);
        assert_int_equal(sscanf(strstr(text, "\nsluice_task_grants_total"),
                                "\nsluice_task_grants_total %llu", &a), 1);
        assert_int_equal(sscanf(strstr(text, "\nsluice_task_results_total"),
                                "\nsluice_task_results_total %llu", &b), 1);
        assert_true(a == b || a == 41);
    }
    pthread_join(t, NULL);
    for (int i = 0; i < 8; i++)
        close(idle[i]);
    sl_metrics_close(m);
}

static void refused(const char *address, bool remote, int rc, const char *why)
{
    struct sl_metrics_opts o = usual;
    struct sl_metrics *m;
    struct sl_error e = {0};
    int got;

    o.address = address;
    o.remote = remote;
    got = sl_metrics_open(&o, &m, &e);
    if (got != rc || (rc && !strstr(e.text, why)))
        fail_msg("%s gave %d '%s', not %d '%s'", address, got, e.text, rc, why);
    sl_metrics_close(m);
}

static void test_addresses(void **state)
{
    struct sl_metrics *m;
    struct sl_error e;

    (void)state;
    refused("127.9.9.9:0", false, 0, "");
    refused("0.0.0.0:0", false, SL_EUSAGE, "is not loopback; daemon.metrics_remote = yes");
    refused("0.0.0.0:0", true, 0, "");
    refused("[::]:0", false, SL_EUSAGE, "is not loopback");
    refused("[::ffff:10.0.0.1]:0", false, SL_EUSAGE, "is not loopback");
    refused("10.0.0.1:9560", false, SL_EUSAGE, "is not loopback");
    refused("localhost:9560", false, SL_EUSAGE, "expected an address in digits");
    refused("::1:9560", false, SL_EUSAGE, "expected an address in digits");
    refused("[]:9560", false, SL_EUSAGE, "expected an address in digits");
    refused("127.0.0.1", false, SL_EUSAGE, "expected ADDRESS:PORT");
    refused("127.0.0.1:", false, SL_EUSAGE, "expected ADDRESS:PORT");
    refused("127.0.0.1:65536", false, SL_EUSAGE, "expected ADDRESS:PORT");
    refused("127.0.0.1:http", false, SL_EUSAGE, "expected ADDRESS:PORT");
    refused(":9560", false, SL_EUSAGE, "expected ADDRESS:PORT");
    assert_int_equal(sl_metrics_open(&usual, &m, &e), 0);
    refused(sl_metrics_address(m), false, SL_EEXISTS, "cannot listen on 127.0.0.1");
    sl_metrics_close(m);
}

static char *page(void)
{
    const struct sl_process_figures p = {.version = "1\"\\\n", .bytes_version = "b",
                                         .start_seconds = 1.5e9, .has_state = true};
    struct sl_metrics_figures f;
    struct sl_error e;
    char *text;
    size_t n;

    figures(&f);
    assert_int_equal(sl_metrics_text(&f, &p, &text, &n, &e), 0);
    assert_int_equal(strlen(text), n);
    return text;
}

/* HELP and TYPE before each metric, once; counters alone end in _total. */
static void test_form(void **state)
{
    char *text = page(), *save = NULL, name[128] = "", type[32] = "";

    (void)state;
    assert_non_null(strstr(text, "version=\"1\\\"\\\\ \""));
    for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
        char helped[128], typed[128];
        size_t n = strcspn(s, "{ ");

        if (strncmp(s, "# HELP ", 7) == 0) {
            assert_int_equal(sscanf(s, "# HELP %127s", helped), 1);
            s = strtok_r(NULL, "\n", &save);
            assert_non_null(s);
            assert_int_equal(sscanf(s, "# TYPE %127s %31s", typed, type), 2);
            assert_string_equal(helped, typed);
            assert_string_not_equal(helped, name);
            strcpy(name, helped);
            n = strlen(name);
            assert_int_equal(n > 6 && strcmp(name + n - 6, "_total") == 0,
                             strcmp(type, "counter") == 0);
            continue;
        }
        assert_int_equal(n, strlen(name));
        assert_int_equal(strncmp(s, name, n), 0);
        assert_int_equal(strncmp(s, "sluice_", 7), 0);
    }
    free(text);
}

/* Returns how many names "sluice_..." the file has that /metrics has not. */
static int unknown_names(const char *file, int *known)
{
    char *text = page(), *s, want[160];
    static char buf[262144];
    FILE *f = fopen(file, "r");
    int unknown = 0;

    if (!f)
        fail_msg("%s is not there", file);
    buf[fread(buf, 1, sizeof buf - 1, f)] = '\0';
    fclose(f);
    *known = 0;
    for (s = buf; (s = strstr(s, "sluice_")); ) {
        size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz_0123456789");

        snprintf(want, sizeof want, "# TYPE %.*s ", (int)n, s);
        if (s == buf || (!isalnum((unsigned char)s[-1]) && s[-1] != '_' && s[-1] != '-')) {
            if (strstr(text, want))
                ++*known;
            else
                unknown++;
        }
        s += n;
    }
    free(text);
    return unknown;
}

static void test_names(void **state)
{
    char path[] = "/tmp/sluice-names-XXXXXX";
    int known, fd = mkstemp(path);

    (void)state;
    assert_int_equal(write(fd, "rate(sluice_nothing_total[5m]) + sluice_workers", 47), 47);
    close(fd);
    assert_int_equal(unknown_names(path, &known), 1);
    assert_int_equal(known, 1);
    unlink(path);
    assert_int_equal(unknown_names("systemd/grafana-dashboard.json", &known), 0);
    assert_true(known >= 10);
    assert_int_equal(unknown_names("systemd/alerts.rules.yml", &known), 0);
    assert_true(known >= 6);
}

static void test_tally(void **state)
{
    static const char *const events[][2] = {
        {"submitted", ""}, {"submitted", ""}, {"state", "failed: no space"}, {"state", "failed"},
        {"state", "succeeded"}, {"state", "running"}, {"state", "failedly"}, {"worker_silent", ""},
        {"worker_joined", "x"}, {"quarantined", "y"}, {"unheard_of", "failed"},
    };
    struct sl_event_tally t = {0};

    (void)state;
    for (unsigned i = 0; i < sizeof events / sizeof events[0]; i++)
        sl_event_count(&t, &(struct sl_event){.kind = events[i][0], .text = events[i][1],
                                              .task = -1, .worker = ""});
    assert_int_equal(t.submitted, 2);
    assert_int_equal(t.ended[SL_JOB_FAILED], 2);
    assert_int_equal(t.ended[SL_JOB_SUCCEEDED], 1);
    assert_int_equal(t.ended[SL_JOB_RUNNING], 0);
    assert_int_equal(t.worker_silent + t.worker_joined + t.quarantined, 3);
    assert_int_equal(t.worker_left, 0);
}

static void test_levels(void **state)
{
    static const struct {
        const char *kind, *text;
        enum sl_log_level level;
    } events[] = {
        {"quarantined", "x", SL_LOG_ERROR}, {"state", "failed: no space", SL_LOG_ERROR},
        {"lease_lost", "", SL_LOG_WARNING}, {"worker_silent", "", SL_LOG_WARNING},
        {"state", "succeeded", SL_LOG_NOTICE}, {"submitted", "", SL_LOG_NOTICE},
        {"state", "running", SL_LOG_INFO}, {"planned", "failed", SL_LOG_INFO},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof events / sizeof events[0]; i++)
        assert_int_equal(sl_event_level(&(struct sl_event){.kind = events[i].kind,
                                                           .text = events[i].text}),
                         events[i].level);
}

/* The kinds that log and metrics know are those of the protocol. */
static void test_kinds(void **state)
{
    static const char *const known[] = {
        "submitted", "quarantined", "worker_joined", "worker_left", "worker_silent", "state",
        "lease_lost", "task_failed", "revoked", "set",
    };
    static char text[262144];
    FILE *f = fopen("proto/PROTOCOL.md", "r");
    char *line;

    (void)state;
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    line = strstr(text, "| `kind` | string |");
    assert_non_null(line);
    *strchr(line, '\n') = '\0';
    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strstr(line, known[i]))
            fail_msg("PROTOCOL.md knows no event %s", known[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers), cmocka_unit_test(test_stands_still),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_form), cmocka_unit_test(test_names), cmocka_unit_test(test_tally),
        cmocka_unit_test(test_levels), cmocka_unit_test(test_kinds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
