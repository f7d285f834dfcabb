/* A daemon's name in an endpoint: which of its addresses is taken, when it is asked for again, and by whom. */
#include "daemon/router.h"
#include "worker/dealer.h"
#include "worker/lookup.h"

#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "two_ends.h"

static _Atomic bool six_alone; /* localhost's IPv4 address is one to which there is no way */
static _Atomic bool moved, joined, no_threads; /* it is another one by now; or goes after that one; none can be started */
static _Atomic unsigned asked, asked_six, slow_ms, slow_four_ms; /* for localhost; how long that takes */

static void pause_ms(unsigned n)
{
    nanosleep(&(struct timespec){.tv_sec = n / 1000, .tv_nsec = n % 1000 * 1000000}, NULL);
}

/* localhost has an address of each family, as on most machines. libzmq asks here too. */
int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");

    if (name && strcmp(name, "localhost") == 0 && !(hints->ai_flags & AI_NUMERICHOST)) {
        asked++;
        asked_six += hints->ai_family == AF_INET6;
        pause_ms(hints->ai_family == AF_INET ? slow_ms + slow_four_ms : slow_ms);
        name = hints->ai_family == AF_INET6 ? "::1" : six_alone ? "255.255.255.255" : moved ? "127.0.0.2" : "127.0.0.1";
    }
    if (joined && name && strcmp(name, "127.0.0.1") == 0) {
        int rc = real("127.0.0.2", port, hints, out);

        return rc ? rc : real(name, port, hints, &(*out)->ai_next);
    }
    return real(name, port, hints, out);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");

    return no_threads ? EAGAIN : real(thread, attr, start, arg);
}

static int open_router(const char *endpoint, struct sl_router **r)
{
    const struct sl_router_opts o = {.endpoints = &endpoint, .n_endpoints = 1, .plain_tcp = true};

    return sl_router_open(&o, r, &e);
}

/* By further attempts. */
static void reach(struct sl_router *r, struct sl_dealer *d, struct sl_received *m)
{
    for (unsigned n = 0; n < 20 && !m->bytes; n++) {
        assert_int_equal(sl_dealer_reconnect(d, &e), 0);
        assert_true(pass(r, d, "ping", 4, m, 2000) >= 0);
    }
    assert_non_null(m->bytes);
}

/* A name with two addresses leads to a daemon that listens on either, at once on IPv4, otherwise with the next attempt;
 * at once on IPv6 where there is no way to the other. */
static void a_name_of_both_families_leads_there(void **state)
{
    static const char *const at[] = {"tcp://127.0.0.1:*", "tcp://[::1]:*", "tcp://[::1]:*"};
    FILE *ipv6 = fopen("/proc/net/if_inet6", "r");
    unsigned cases = ipv6 && fgetc(ipv6) != EOF ? 3 : 1;

    (void)state;
    for (unsigned i = 0; i < cases; i++) {
        struct sl_received m = {0};
        struct sl_router *r;
        struct sl_dealer *d;
        char name[64];

        six_alone = i == 2;
        assert_int_equal(open_router(at[i], &r), 0);
        snprintf(name, sizeof name, "tcp://localhost%s", strrchr(sl_router_endpoint(r, 0), ':'));
        assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = name, .plain_tcp = true}, &d, &e), 0);
        assert_int_equal(pass(r, d, "ping", 4, &m, i == 1 ? 300 : 60000), i != 1);
        reach(r, d, &m);
        free(m.bytes);
        sl_dealer_close(d);
        sl_router_close(r);
    }
    six_alone = false;
    if (ipv6)
        fclose(ipv6);
}

/* A name whose server is slow: a connection to its address is not given up for the next question at once, and while that
 * is under way nobody says that the name has no address. */
static void a_slow_name_server_is_not_asked_in_vain(void **state)
{
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    char name[64];
    unsigned before;

    (void)state;
    assert_int_equal(open_router("tcp://127.0.0.1:*", &r), 0);
    snprintf(name, sizeof name, "tcp://localhost%s", strrchr(sl_router_endpoint(r, 0), ':'));
    slow_ms = 700;
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = name, .plain_tcp = true}, &d, &e), 0);
    assert_non_null(sl_dealer_nowhere(d));
    while (sl_dealer_nowhere(d))
        assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
    before = asked;
    assert_int_equal(sl_dealer_reconnect(d, &e), 0);
    assert_true(sl_dealer_wait(d, -1, 50, &e) >= 0);
    assert_int_equal(asked, before);
    for (unsigned n = 0; n < 600 && asked == before; n++) {
        assert_int_equal(sl_dealer_reconnect(d, &e), 0);
        pause_ms(20);
    }
    assert_true(asked > before);
    assert_null(sl_dealer_nowhere(d));
    reach(r, d, &m);
    free(m.bytes);
    slow_ms = 0;
    sl_dealer_close(d);
    sl_router_close(r);
}

/* The router answers what it got, and goes. */
static void answer_and_go(struct sl_router *r, struct sl_dealer *d, struct sl_received *m)
{
    uint8_t *bytes;
    size_t n;

    assert_int_equal(sl_router_send(r, m->peer, (const uint8_t *)"x", 1, &e), 1);
    free(m->bytes);
    m->bytes = NULL;
    assert_int_equal(sl_dealer_wait(d, -1, 60000, &e), 1);
    assert_int_equal(sl_dealer_receive(d, &bytes, &n, &e), 1);
    free(bytes);
    sl_router_close(r);
}

/* The address where the daemon answered is not left for one of the other family whose answer comes first. */
static void the_other_family_is_not_taken_for_a_move(void **state)
{
    static const char *const at[] = {"tcp://127.0.0.1:*", "tcp://[::1]:*"};
    FILE *ipv6 = fopen("/proc/net/if_inet6", "r");
    unsigned cases = ipv6 && fgetc(ipv6) != EOF ? 2 : 1;

    (void)state;
    for (unsigned i = 0; i < cases; i++) {
        uint64_t end = ms() + 60000;
        struct sl_received m = {0};
        struct sl_router *r;
        struct sl_dealer *d;
        char name[64], was[64];
        const char *port;

        six_alone = i == 1;
        assert_int_equal(open_router(at[i], &r), 0);
        port = strrchr(sl_router_endpoint(r, 0), ':');
        snprintf(name, sizeof name, "tcp://localhost%s", port);
        snprintf(was, sizeof was, "%.*s%s", (int)strlen(at[i]) - 2, at[i], port);
        assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = name, .plain_tcp = true}, &d, &e), 0);
        assert_int_equal(pass(r, d, "ping", 4, &m, 60000), 1);
        answer_and_go(r, d, &m);
        six_alone = false;
        slow_four_ms = i == 0 ? 1500 : 0;
        asked = 0;
        for (uint64_t until = ms() + 1200; (asked < 2 || ms() < until) && ms() < end;)
            assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
        assert_int_equal(open_router(was, &r), 0);
        while (pass(r, d, "ping", 4, &m, 20) == 0 && ms() < end)
            assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
        assert_non_null(m.bytes);
        free(m.bytes);
        slow_four_ms = 0;
        sl_dealer_close(d);
        sl_router_close(r);
    }
    if (ipv6)
        fclose(ipv6);
}

/* One that is started anew at the other address alone, while the name has both: the connection to the former is dropped for
 * want of an answer, and the next one leads there. */
static void an_address_that_answers_no_more_is_left(void **state)
{
    FILE *ipv6 = fopen("/proc/net/if_inet6", "r");
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    char name[64], other[64];

    (void)state;
    if (!ipv6 || fgetc(ipv6) == EOF) {
        print_message("no IPv6 here\n");
        skip();
    }
    fclose(ipv6);
    assert_int_equal(open_router("tcp://127.0.0.1:*", &r), 0);
    snprintf(name, sizeof name, "tcp://localhost%s", strrchr(sl_router_endpoint(r, 0), ':'));
    snprintf(other, sizeof other, "tcp://[::1]%s", strrchr(name, ':'));
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = name, .plain_tcp = true}, &d, &e), 0);
    assert_int_equal(pass(r, d, "ping", 4, &m, 60000), 1);
    answer_and_go(r, d, &m);
    assert_int_equal(open_router(other, &r), 0);
    reach(r, d, &m);
    free(m.bytes);
    sl_dealer_close(d);
    sl_router_close(r);
}

/* A daemon that is started anew at another address, which its name has by then, is found without a heartbeat's help; while
 * the name has the former one, too, that is kept. */
static void a_name_that_moves_is_followed(void **state)
{
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    char name[64], other[64], was[64];
    uint64_t end = ms() + 60000;

    (void)state;
    assert_int_equal(open_router("tcp://127.0.0.1:*", &r), 0);
    snprintf(name, sizeof name, "tcp://localhost%s", strrchr(sl_router_endpoint(r, 0), ':'));
    snprintf(other, sizeof other, "tcp://127.0.0.2%s", strrchr(name, ':'));
    snprintf(was, sizeof was, "tcp://127.0.0.1%s", strrchr(name, ':'));
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = name, .plain_tcp = true}, &d, &e), 0);
    assert_int_equal(pass(r, d, "ping", 4, &m, 60000), 1);
    answer_and_go(r, d, &m);
    joined = true;
    for (asked = 0; asked < 2 && ms() < end;) /* another address goes first: this one is kept */
        assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
    assert_int_equal(open_router(was, &r), 0);
    while (pass(r, d, "ping", 4, &m, 20) == 0 && ms() < end)
        assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
    answer_and_go(r, d, &m);
    joined = false;
    assert_int_equal(open_router(other, &r), 0);
    assert_int_equal(pass(r, d, "ping", 4, &m, 300), 0);
    moved = true;
    while (pass(r, d, "ping", 4, &m, 20) == 0 && ms() < end)
        assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
    assert_non_null(m.bytes);
    free(m.bytes);
    moved = false;
    sl_dealer_close(d);
    sl_router_close(r);
}

/* Where no thread can be started to ask for a name a client says so; a worker says so and asks again. */
static void without_threads_the_patient_ask_again(void **state)
{
    struct sl_dealer_opts o = {.endpoint = "tcp://localhost:9", .plain_tcp = true};
    struct sl_dealer *d;
    uint64_t end = ms() + 60000;

    (void)state;
    no_threads = true;
    assert_int_equal(sl_dealer_open(&o, &d, &e), SL_EFAIL);
    o.patient = true;
    assert_int_equal(sl_dealer_open(&o, &d, &e), 0);
    assert_non_null(strstr(sl_dealer_nowhere(d), "threads"));
    no_threads = false;
    while (sl_dealer_nowhere(d) && ms() < end)
        assert_int_equal(sl_dealer_wait(d, -1, 20, &e), 0);
    assert_null(sl_dealer_nowhere(d));
    sl_dealer_close(d);
}

/* Of a name with an IPv4 address to which there is a way the other is not asked for. */
static void one_address_is_enough(void **state)
{
    char address[SL_ADDRESS_CHARS];
    struct sl_lookup *l;

    (void)state;
    assert_int_equal(sl_lookup_begin("localhost", &l, &e), 0);
    pause_ms(500);
    asked_six = 0;
    assert_int_equal(sl_lookup_answer(l, 0, address), SL_LOOKUP_FOUND);
    assert_string_equal(address, "127.0.0.1");
    pause_ms(100);
    assert_int_equal(asked_six, 0);
    sl_lookup_leave(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_of_both_families_leads_there),
        cmocka_unit_test(one_address_is_enough),
        cmocka_unit_test(a_slow_name_server_is_not_asked_in_vain),
        cmocka_unit_test(the_other_family_is_not_taken_for_a_move),
        cmocka_unit_test(an_address_that_answers_no_more_is_left),
        cmocka_unit_test(a_name_that_moves_is_followed),
        cmocka_unit_test(without_threads_the_patient_ask_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
