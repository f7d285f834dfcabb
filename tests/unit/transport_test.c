/* The two ends of the transport against each other: who is let in and as what,
 * who is not, whose path is whose, what is too large. */
#include "daemon/router.h"
#include "worker/dealer.h"

#include "proto/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "two_ends.h"

struct place {
    char dir[64], ipc[100], key[4][100], pub[4][110], allow[100];
};

static void key_pair(struct place *p, int i, struct sl_key *k)
{
    char dir[sizeof p->dir]; /* the compiler must see that the texts do not overlap */

    memcpy(dir, p->dir, sizeof dir);
    snprintf(p->key[i], sizeof p->key[i], "%s/key%d", dir, i);
    snprintf(p->pub[i], sizeof p->pub[i], "%s/key%d.pub", dir, i);
    assert_int_equal(sl_key_make(k, &e), 0);
    assert_int_equal(sl_key_save(p->key[i], k, &e), 0);
}

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);

    strcpy(p->dir, "/tmp/sluice-transport-XXXXXX");
    if (!mkdtemp(p->dir))
        return -1;
    snprintf(p->ipc, sizeof p->ipc, "ipc://%s/run/sock", p->dir);
    snprintf(p->allow, sizeof p->allow, "%s/allow", p->dir);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    char cmd[100];
    int rc;

    snprintf(cmd, sizeof cmd, "rm -rf %s", p->dir);
    rc = system(cmd);
    free(p);
    return rc;
}

static int open_router(struct place *p, const char *endpoint, const struct sl_router_opts *more,
                       struct sl_router **r)
{
    struct sl_router_opts o = more ? *more : (struct sl_router_opts){0};

    (void)p;
    o.endpoints = &endpoint;
    o.n_endpoints = 1;
    return sl_router_open(&o, r, &e);
}

static void there_and_back(void **state)
{
    struct place *p = *state;
    struct sl_dealer_opts o = {.endpoint = p->ipc};
    struct sl_received m = {0};
    struct sl_router *r, *second;
    struct sl_dealer *d;
    struct stat st;
    uint8_t *bytes;
    char want[40], lock[300];
    size_t n;

    if (open_router(p, p->ipc, NULL, &r) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(stat(p->ipc + 6, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    /* A live daemon's path is not stolen, by this process or another. */
    assert_int_equal(open_router(p, p->ipc, NULL, &second), SL_EEXISTS);
    assert_non_null(strstr(e.text, "another sluiced listens there"));
    snprintf(lock, sizeof lock, "%s.lock", p->ipc + 6);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(open_router(p, p->ipc, NULL, &second), SL_EEXISTS);
    assert_non_null(strstr(e.text, "listens there without holding"));
    assert_int_equal(sl_dealer_open(&o, &d, &e), 0);
    assert_int_equal(pass(r, d, "ping", 4, &m, 60000), 1);
    assert_memory_equal(m.bytes, "ping", 4);
    assert_int_equal(m.role, SL_ROLE_ADMIN);
    snprintf(want, sizeof want, "uid:%u", (unsigned)geteuid());
    assert_string_equal(m.user, want);
    free(m.bytes);
    assert_int_equal(sl_router_send(r, m.peer, (const uint8_t *)"pong", 4, &e), 1);
    assert_int_equal(sl_dealer_wait(d, -1, 60000, &e), 1);
    assert_int_equal(sl_dealer_receive(d, &bytes, &n, &e), 1);
    assert_int_equal(n, 4);
    assert_memory_equal(bytes, "pong", 4);
    free(bytes);
    /* Nobody of that name: it is said, not swallowed. */
    assert_int_equal(sl_router_send(r, m.peer + 1, (const uint8_t *)"pong", 4, &e), 0);
    assert_int_equal(sl_router_send(r, 0, (const uint8_t *)"pong", 4, &e), 0);
    sl_dealer_close(d);
    sl_router_close(r);
    assert_int_equal(stat(p->ipc + 6, &st), -1);
    assert_int_equal(open_router(p, p->ipc, NULL, &r), 0); /* free again */
    sl_router_close(r);
}

static void what_is_too_large_is_cut_off(void **state)
{
    struct place *p = *state;
    struct sl_dealer_opts o = {.endpoint = p->ipc};
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    uint8_t *big = calloc(1, SL_WIRE_MAX + 1);

    assert_int_equal(open_router(p, p->ipc, NULL, &r), 0);
    assert_int_equal(sl_dealer_open(&o, &d, &e), 0);
    assert_int_equal(pass(r, d, big, SL_WIRE_MAX, &m, 60000), 1);
    assert_int_equal(m.n, SL_WIRE_MAX);
    free(m.bytes);
    assert_int_equal(pass(r, d, big, SL_WIRE_MAX + 1, &m, 1000), 0);
    sl_dealer_close(d);
    /* The daemon serves on. */
    assert_int_equal(sl_dealer_open(&o, &d, &e), 0);
    assert_int_equal(pass(r, d, "x", 1, &m, 60000), 1);
    free(m.bytes);
    free(big);
    sl_dealer_close(d);
    sl_router_close(r);
}

/* The folder that is made lets in those whom the allow-list names, whatever the umask. */
static void the_folder_lets_users_pass(void **state)
{
    struct place *p = *state;
    const struct sl_router_opts listed = {.allow_path = p->allow};
    struct sl_router *r;
    struct stat st;
    char dir[100], ipc[120];
    mode_t old = umask(077);
    FILE *f = fopen(p->allow, "w");

    assert_non_null(f);
    fprintf(f, "submitter uid 4242 alice\n");
    fclose(f);
    for (int users = 0; users < 2; users++) {
        snprintf(dir, sizeof dir, "%s/pass%d", p->dir, users);
        snprintf(ipc, sizeof ipc, "ipc://%s/sock", dir);
        if (open_router(p, ipc, users ? &listed : NULL, &r) != 0)
            fail_msg("%s", e.text);
        assert_int_equal(stat(dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, users ? 0711 : 0700);
        assert_int_equal(stat(ipc + 6, &st), 0);
        assert_int_equal(st.st_mode & 0777, users ? 0666 : 0700);
        sl_router_close(r);
    }
    umask(old);
}

static void open_folders_are_refused(void **state)
{
    struct place *p = *state;
    char dir[100], ipc[120];
    struct sl_router *r;

    snprintf(dir, sizeof dir, "%s/open", p->dir);
    snprintf(ipc, sizeof ipc, "ipc://%s/sock", dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(open_router(p, ipc, NULL, &r), SL_EUSAGE);
    assert_non_null(strstr(e.text, "closed to others' writing"));
    assert_int_equal(open_router(p, "ipc://relative", NULL, &r), SL_EUSAGE);
    assert_int_equal(open_router(p, "udp://1", NULL, &r), SL_EUSAGE);
}

static void plain_tcp_is_for_loopback(void **state)
{
    struct place *p = *state;
    const struct sl_router_opts plain = {.plain_tcp = true};
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;

    assert_int_equal(open_router(p, "tcp://127.0.0.1:*", NULL, &r), SL_EUSAGE);
    assert_non_null(strstr(e.text, "needs --key"));
    assert_int_equal(open_router(p, "tcp://0.0.0.0:*", &plain, &r), SL_EUSAGE);
    assert_non_null(strstr(e.text, "loopback address alone"));
    assert_int_equal(open_router(p, "tcp://*:*", &plain, &r), SL_EUSAGE);
    if (open_router(p, "tcp://localhost:*", &plain, &r) == 0) /* libzmq 4.3.5 finds the name's address */
        sl_router_close(r);
    else
        assert_non_null(strstr(e.text, "expected an address in digits"));
    assert_int_equal(open_router(p, "tcp://127.0.0.1:*", &plain, &r), 0);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = sl_router_endpoint(r, 0),
                                                             .plain_tcp = true}, &d, &e), 0);
    assert_int_equal(pass(r, d, "x", 1, &m, 60000), 1);
    assert_string_equal(m.user, "local");
    free(m.bytes);
    sl_dealer_close(d);
    sl_router_close(r);
}

static void only_keys_of_the_list_come_in(void **state)
{
    struct place *p = *state;
    struct sl_key key[3];
    struct sl_router_opts o = {.key_path = p->key[0]};
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    FILE *f;

    for (int i = 0; i < 3; i++)
        key_pair(p, i, &key[i]);
    assert_int_equal(open_router(p, "tcp://127.0.0.1:*", &o, &r), SL_EUSAGE);
    assert_non_null(strstr(e.text, "needs --allow"));
    f = fopen(p->allow, "w");
    fprintf(f, "worker key %s gpu-a\n", key[1].public_key);
    fclose(f);
    chmod(p->allow, 0600);
    o.allow_path = p->allow;
    if (open_router(p, "tcp://127.0.0.1:*", &o, &r) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = sl_router_endpoint(r, 0),
                     .key_path = p->key[1], .server_key_path = p->pub[0]}, &d, &e), 0);
    assert_int_equal(pass(r, d, "x", 1, &m, 60000), 1);
    assert_int_equal(m.role, SL_ROLE_WORKER);
    assert_string_equal(m.user, "gpu-a");
    assert_false(sl_dealer_refused(d));
    free(m.bytes);
    sl_dealer_close(d);
    /* A key that is not on the list. */
    assert_int_equal(sl_router_refused(r), 0);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = sl_router_endpoint(r, 0),
                     .key_path = p->key[2], .server_key_path = p->pub[0]}, &d, &e), 0);
    for (unsigned i = 0; i < 40 && sl_router_refused(r) == 0; i++)
        assert_int_equal(pass(r, d, "x", 1, &m, 1500), 0);
    assert_true(sl_router_refused(r) > 0);
    for (unsigned i = 0; i < 40 && !sl_dealer_refused(d); i++)
        assert_int_equal(pass(r, d, "x", 1, &m, 250), 0);
    assert_true(sl_dealer_refused(d)); /* is told so */
    sl_dealer_close(d);
    /* No key at all, and the wrong daemon's. */
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = sl_router_endpoint(r, 0),
                                                             .plain_tcp = true}, &d, &e), 0);
    assert_int_equal(pass(r, d, "x", 1, &m, 500), 0);
    sl_dealer_close(d);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = sl_router_endpoint(r, 0),
                     .key_path = p->key[1], .server_key_path = p->pub[2]}, &d, &e), 0);
    assert_int_equal(pass(r, d, "x", 1, &m, 500), 0);
    sl_dealer_close(d);
    sl_router_close(r);
}

/* What one request asks for is queued whole, though its peer reads nothing meanwhile: it is dropped otherwise, and asks again. */
static void all_answers_to_a_request_are_queued(void **state)
{
    static const uint8_t answer[4096];
    struct place *p = *state;
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;

    assert_int_equal(open_router(p, p->ipc, NULL, &r), 0);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = p->ipc}, &d, &e), 0);
    assert_int_equal(pass(r, d, "wait", 4, &m, 60000), 1);
    free(m.bytes);
    for (unsigned i = 0; i < 3 * SL_ASK_MAX; i++)
        assert_int_equal(sl_router_send(r, m.peer, answer, sizeof answer, &e), 1);
    sl_dealer_close(d);
    sl_router_close(r);
}

/* What it sent is not read yet: libzmq ends the program when a heartbeat is due on such a connection. */
static void who_floods_and_goes_harms_nobody(void **state)
{
    static const uint8_t message[4096];
    struct place *p = *state;
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    int in_a_row = 0;

    assert_int_equal(open_router(p, p->ipc, NULL, &r), 0);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = p->ipc}, &d, &e), 0);
    assert_int_equal(pass(r, d, "hello", 5, &m, 60000), 1);
    free(m.bytes);
    while (in_a_row < 20) { /* until all queues are full, the router's too */
        int rc = sl_dealer_send(d, message, sizeof message, &e);

        assert_true(rc >= 0);
        in_a_row = rc ? 0 : in_a_row + 1;
        if (!rc)
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    sl_dealer_close(d);
    nanosleep(&(struct timespec){.tv_sec = 3}, NULL);
    assert_int_equal(sl_router_receive(r, &m, &e), 1);
    free(m.bytes);
    sl_router_close(r);
}

/* The same at the other end: a client that is stopped or writes to a full pipe, while the daemon goes. */
static void a_daemon_that_goes_harms_no_slow_reader(void **state)
{
    static const uint8_t message[4096];
    struct place *p = *state;
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d;
    uint8_t *bytes;
    unsigned in_a_row = 0, n_sent = 0, n_read = 0;
    size_t n;

    assert_int_equal(open_router(p, p->ipc, NULL, &r), 0);
    assert_int_equal(sl_dealer_open(&(struct sl_dealer_opts){.endpoint = p->ipc}, &d, &e), 0);
    assert_int_equal(pass(r, d, "hello", 5, &m, 60000), 1);
    free(m.bytes);
    while (in_a_row < 20) { /* until all queues are full, the dealer's too */
        int rc = sl_router_send(r, m.peer, message, sizeof message, &e);

        assert_true(rc >= 0);
        in_a_row = rc ? 0 : in_a_row + 1;
        n_sent += rc == 1;
        if (!rc)
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    assert_true(n_sent > SL_WIRE_HWM);
    sl_router_close(r);
    nanosleep(&(struct timespec){.tv_sec = 3}, NULL);
    while (sl_dealer_receive(d, &bytes, &n, &e) == 1) {
        free(bytes);
        n_read++;
    }
    assert_true(n_read > 0); /* a connection that ends may lose some */
    sl_dealer_close(d);
}

static void threads_speak_inproc(void **state)
{
    struct place *p = *state;
    struct sl_dealer_opts o = {.endpoint = "inproc://convert"};
    struct sl_received m = {0};
    struct sl_router *r;
    struct sl_dealer *d, *late;

    assert_int_equal(sl_router_context_new(&o.context, &e), 0);
    assert_int_equal(open_router(p, o.endpoint, &(struct sl_router_opts){.context = o.context}, &r), 0);
    assert_int_equal(sl_dealer_open(&o, &d, &e), 0);
    assert_int_equal(pass(r, d, "x", 1, &m, 60000), 1);
    assert_int_equal(m.role, SL_ROLE_ADMIN);
    assert_string_equal(m.user, "local");
    free(m.bytes);
    sl_router_close(r);
    /* The sockets that are left, and new ones, say so. */
    assert_int_equal(sl_dealer_wait(d, -1, 60000, &e), SL_EFAIL);
    assert_int_equal(sl_dealer_open(&o, &late, &e), SL_EFAIL);
    sl_dealer_close(d);
    sl_router_context_free(o.context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(there_and_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_too_large_is_cut_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_folder_lets_users_pass, set_up, tear_down),
        cmocka_unit_test_setup_teardown(open_folders_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(plain_tcp_is_for_loopback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_keys_of_the_list_come_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(all_answers_to_a_request_are_queued, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_floods_and_goes_harms_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_daemon_that_goes_harms_no_slow_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(threads_speak_inproc, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
