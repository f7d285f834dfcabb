/* Speaks to sluiced in raw messages, as a client or as a worker of a test's own.
 *
 * usage: wire_peer [-w] [-n ANSWERS] [-u NAME] [-t SECONDS] [-p MS] [-r] ENDPOINT [MESSAGE...]
 *   -w  says hello as a worker     -r  says no hello at all
 *   -n  messages to wait for (default: one for each MESSAGE)
 *   -u  wait until a message of this name came
 *   -t  for at most so long (default 10 s); exit 1 when it was in vain
 *   -p  so many milliseconds between two messages
 *   MESSAGE is sent as it is; @FILE sends a file's bytes
 *
 * Received messages are printed one a line, but welcome, ping and pong. */
#include "proto/plan.h"
#include "proto/wire.h"
#include "worker/dealer.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

struct peer {
    struct sl_dealer *d;
    bool worker, silent, open, until_came;
    int wanted, came;
    const char *until;
    char instance[33];
    double end;
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int stop(const char *what)
{
    fprintf(stderr, "wire_peer: %s\n", what);
    exit(2);
}

static void send_bytes(struct peer *p, const void *bytes, size_t n)
{
    struct sl_error e;

    while (now() < p->end) {
        int rc = sl_dealer_send(p->d, bytes, n, &e);

        if (rc < 0)
            stop(e.text);
        if (rc == 1)
            return;
        usleep(20000);
    }
    stop("nobody is there");
}

static void say_hello(struct peer *p)
{
    char text[512];
    int n = snprintf(text, sizeof text, "{\"v\":3,\"m\":\"hello\",\"role\":\"%s\",\"version\":\"test\","
                     "\"instance\":\"%s\",\"name\":\"peer\",\"host\":\"test\"%s}",
                     p->worker ? "worker" : "client", p->instance,
                     p->worker ? ",\"bytes\":\"" SL_BYTES_VERSION "\",\"device\":\"cpu\"" : "");

    send_bytes(p, text, (size_t)n);
}

static void take(struct peer *p, const uint8_t *bytes, size_t n)
{
    char re[65], name[33];
    struct sl_error e;
    struct sl_msg m;
    char *text;

    if (sl_wire_decode(bytes, n, SL_FROM_DAEMON, &m, re, name, &e) < 0)
        stop(e.text);
    if (m.id == SL_M_WELCOME)
        p->open = true;
    if (m.id == SL_M_REHELLO && !p->silent)
        say_hello(p);
    if (m.id == SL_M_PING) {
        char pong[64];
        int len = snprintf(pong, sizeof pong, "{\"v\":3,\"m\":\"pong\",\"n\":%llu}",
                           (unsigned long long)sl_get_uint(m.tree, "n", 0));

        send_bytes(p, pong, (size_t)len);
    }
    if (m.id != SL_M_WELCOME && m.id != SL_M_PING && m.id != SL_M_PONG) {
        text = cJSON_PrintUnformatted(m.tree);
        puts(text ? text : "");
        fflush(stdout);
        cJSON_free(text);
        p->came++;
        if (p->until && strcmp(p->until, sl_message(m.id)->name) == 0)
            p->until_came = true;
    }
    sl_msg_free(&m);
}

static void receive(struct peer *p)
{
    struct sl_error e;
    uint8_t *bytes;
    size_t n;
    int rc;

    if (sl_dealer_wait(p->d, -1, 50, &e) < 0)
        stop(e.text);
    while ((rc = sl_dealer_receive(p->d, &bytes, &n, &e)) == 1) {
        take(p, bytes, n);
        free(bytes);
    }
    if (rc < 0)
        stop(e.text);
}

static void send_argument(struct peer *p, const char *arg)
{
    char *bytes;
    size_t n;
    FILE *f;

    if (arg[0] != '@') {
        send_bytes(p, arg, strlen(arg));
        return;
    }
    f = fopen(arg + 1, "rb");
    bytes = malloc(64u << 20);
    if (!f || !bytes)
        stop(arg);
    n = fread(bytes, 1, 64u << 20, f);
    fclose(f);
    send_bytes(p, bytes, n);
    free(bytes);
}

int main(int argc, char **argv)
{
    struct peer p = {.wanted = -1};
    double seconds = 10, pause = 0;
    struct sl_error e;
    uint64_t random[2];
    int opt;

    while ((opt = getopt(argc, argv, "wrn:u:t:p:")) >= 0) {
        switch (opt) {
        case 'w': p.worker = true; break;
        case 'r': p.silent = true; break;
        case 'n': p.wanted = atoi(optarg); break;
        case 'u': p.until = optarg; break;
        case 't': seconds = atof(optarg); break;
        case 'p': pause = atof(optarg) / 1000; break;
        default: return 2;
        }
    }
    if (optind == argc)
        return stop("an endpoint is expected");
    if (p.wanted < 0)
        p.wanted = argc - optind - 1;
    p.end = now() + seconds;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return stop("no random bytes");
    snprintf(p.instance, sizeof p.instance, "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    if (sl_dealer_open(&(struct sl_dealer_opts){.endpoint = argv[optind]}, &p.d, &e) < 0)
        return stop(e.text);
    if (!p.silent)
        say_hello(&p);
    while (!p.silent && !p.open && now() < p.end)
        receive(&p);
    for (int i = optind + 1; i < argc; i++) {
        double until = i > optind + 1 ? now() + pause : 0;

        while (now() < until)
            receive(&p);
        send_argument(&p, argv[i]);
    }
    while ((p.until ? !p.until_came : p.came < p.wanted) && now() < p.end)
        receive(&p);
    sl_dealer_close(p.d);
    return (p.until ? p.until_came : p.came >= p.wanted) ? 0 : 1;
}
