/* A worker's side of the protocol, message by message and with a clock of the
 * test's own: what it says when, what it keeps, what it repeats. */
#include "proto/wire.h"
#include "worker/worker_state.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct world {
    struct sl_worker *w;
    uint64_t now;
    struct sl_work *work[64];
    unsigned n_work, n_dropped, n_over;
};

static void on_work(void *user, struct sl_work *work)
{
    struct world *w = user;

    assert_true(w->n_work < 64);
    w->work[w->n_work++] = work;
}

static void on_drop(void *user, uint64_t job, uint32_t task, uint64_t epoch)
{
    struct world *w = user;

    assert_int_equal(job, 7);
    assert_true(epoch > 0 && task <= SL_TASK_LAST);
    w->n_dropped++;
}

static void on_over(void *user, uint64_t job)
{
    assert_int_equal(job, 7);
    ((struct world *)user)->n_over++;
}

static int setup_ahead(void **state, unsigned ahead)
{
    struct world *w = calloc(1, sizeof *w);
    struct sl_worker_opts o = {.instance = "00112233445566778899aabbccddeeff", .name = "a-cpu",
                               .host = "a", .device = "cpu", .pid = 5, .threads = 2,
                               .mem_bytes = 1 << 30, .ahead = ahead, .work = on_work, .drop = on_drop, .over = on_over,
                               .user = w};
    struct sl_error e;

    w->now = 1000000;
    assert_int_equal(sl_worker_new(&o, w->now, &w->w, &e), 0);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return setup_ahead(state, 3);
}

static int setup_none_ahead(void **state)
{
    return setup_ahead(state, 0);
}

static int teardown(void **state)
{
    struct world *w = *state;

    sl_worker_free(w->w);
    for (unsigned i = 0; i < w->n_work; i++)
        sl_work_free(w->work[i]);
    free(w);
    return 0;
}

static int tick(struct world *w, uint64_t ms, uint64_t bytes)
{
    const struct sl_worker_progress p = {.bytes = bytes, .tensor = ""};

    w->now += ms;
    return sl_worker_tick(w->w, &p, w->now);
}

/* The message that is to be sent next; it is held against the table as the daemon does. NULL: none. */
static cJSON *to_send(struct world *w, struct sl_msg *m)
{
    char re[65], name[33];
    struct sl_error e;
    const uint8_t *bytes;
    size_t n;

    m->tree = NULL;
    if (sl_worker_next(w->w, &bytes, &n) && sl_wire_decode(bytes, n, SL_FROM_WORKER, m, re, name, &e) < 0)
        fail_msg("%s", e.text);
    return m->tree;
}

/* The same, and it is sent. */
static cJSON *heard(struct world *w, struct sl_msg *m)
{
    if (to_send(w, m))
        sl_worker_sent(w->w);
    return m->tree;
}

static void hears(struct world *w, enum sl_message_id id)
{
    struct sl_msg m;

    if (!heard(w, &m))
        fail_msg("no message; %s was expected", sl_message(id)->name);
    if (m.id != id)
        fail_msg("%s; %s was expected", sl_message(m.id)->name, sl_message(id)->name);
    sl_msg_free(&m);
}

static void hears_nothing(struct world *w)
{
    struct sl_msg m;

    if (heard(w, &m))
        fail_msg("%s was not expected", sl_message(m.id)->name);
}

static void tell(struct world *w, const char *json)
{
    sl_worker_receive(w->w, (const uint8_t *)json, strlen(json), w->now);
}

static void connect_worker(struct world *w)
{
    assert_int_equal(tick(w, 0, 0), 0);
    hears(w, SL_M_HELLO);
    tell(w, "{\"v\":3,\"m\":\"welcome\",\"daemon\":\"00000000000000000000000000000001\",\"version\":\"1\","
            "\"role\":\"worker\",\"heartbeat_ms\":1000,\"lease_ms\":9000}");
    assert_true(sl_worker_connected(w->w));
    tick(w, 0, 0);
}

#define SPEC "\"spec\":{\"source\":\"/s\",\"output\":\"/o\",\"prefix\":\"x\",\"recipe\":\"r\",\"recipe_text\":\"t\"},"
#define PRINT "\"fingerprint\":\"0123456789abcdef0123456789abcdef\""

static void grant(struct world *w, const char *spec, const char *tasks)
{
    char json[1024];

    snprintf(json, sizeof json, "{\"v\":3,\"m\":\"grant\",\"job\":7,\"lease_ms\":9000,%s" PRINT ",\"tasks\":[%s]}",
             spec, tasks);
    tell(w, json);
}

static void finish(struct world *w, uint32_t task, uint64_t epoch, enum sl_outcome_kind kind)
{
    struct sl_outcome *o = calloc(1, sizeof *o);

    *o = (struct sl_outcome){.job = 7, .task = task, .epoch = epoch, .kind = kind, .bytes = 5,
                             .checksum = 0xabc, .has_checksum = true,
                             .error = {SL_EFAIL, "it broke"}};
    sl_worker_outcome(w->w, o, w->now);
}

static void answer(struct world *w, const char *name, uint32_t task, uint64_t epoch)
{
    char json[256];

    snprintf(json, sizeof json, "{\"v\":3,\"m\":\"%s\",\"job\":7,\"task\":%u,\"epoch\":%llu%s}", name, task,
             (unsigned long long)epoch, strcmp(name, "nack") ? "" : ",\"code\":1,\"text\":\"stale\"");
    tell(w, json);
}

static void *no_memory(size_t n)
{
    (void)n;
    return NULL;
}

/* The daemon waits for it, and nobody else would say it: such a worker ends. */
static void an_answer_that_memory_lacks_for_ends_the_worker(void **state)
{
    struct sl_outcome *o = calloc(1, sizeof *o);
    struct world *w = *state;
    struct sl_error e;

    connect_worker(w);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9}");
    *o = (struct sl_outcome){.job = 7, .task = 3, .epoch = 9, .bytes = 1};
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = no_memory, .free_fn = free});
    sl_worker_outcome(w->w, o, w->now);
    cJSON_InitHooks(NULL);
    assert_int_equal(sl_worker_refused(w->w, &e), SL_EFAIL);
    assert_string_equal(e.text, "out of memory");
}

static void one_that_holds_none_ahead_asks_for_one(void **state)
{
    struct world *w = *state;
    struct sl_msg m;

    connect_worker(w);
    assert_int_equal(sl_get_uint(heard(w, &m), "want", 0), 1);
    sl_msg_free(&m);
}

static void a_task_from_pull_to_ack(void **state)
{
    struct world *w = *state;
    struct sl_msg m;
    uint64_t want;

    connect_worker(w);
    assert_int_equal(sl_get_uint(heard(w, &m), "want", 0), 4);
    sl_msg_free(&m);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9},{\"task\":4,\"epoch\":1}");
    assert_int_equal(w->n_work, 2);
    assert_string_equal(w->work[0]->fingerprint, "0123456789abcdef0123456789abcdef");
    assert_string_equal(sl_get_str(w->work[1]->spec, "source"), "/s");
    grant(w, "", "{\"task\":5,\"epoch\":1}"); /* the specification is known */
    assert_string_equal(sl_get_str(w->work[2]->spec, "source"), "/s");
    finish(w, 3, 9, SL_OUTCOME_RESULT);
    assert_string_equal(sl_get_str(heard(w, &m), "checksum"), "0000000000000abc");
    assert_int_equal(m.id, SL_M_RESULT);
    assert_int_equal(sl_get_uint(m.tree, "epoch", 0), 9);
    sl_msg_free(&m);
    finish(w, 4, 1, SL_OUTCOME_FAIL);
    assert_string_equal(sl_get_str(heard(w, &m), "text"), "it broke");
    assert_int_equal(m.id, SL_M_FAIL);
    assert_int_equal(sl_get_uint(m.tree, "code", 0), 1);
    sl_msg_free(&m);
    assert_int_equal(sl_worker_held(w->w), 3);
    answer(w, "ack", 3, 9);
    answer(w, "nack", 4, 1);
    answer(w, "ack", 5, 2); /* another epoch */
    assert_int_equal(sl_worker_held(w->w), 1);
    assert_int_equal(w->n_dropped, 0);
    tick(w, 100, 0);
    want = sl_get_uint(heard(w, &m), "want", 0);
    assert_true(want >= 3 && want <= 4);
    sl_msg_free(&m);
    hears(w, SL_M_PROGRESS);
    tick(w, 100, 0);
    hears_nothing(w);
}

/* A worker of months has read more bytes than the field holds: they begin again at 0. */
static void progress_goes_on_beyond_the_field(void **state)
{
    struct world *w = *state;
    struct sl_msg m;

    connect_worker(w);
    hears(w, SL_M_PULL);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9}");
    tick(w, 100, 0);
    hears(w, SL_M_PROGRESS);
    tick(w, 1000, SL_WIRE_UINT_MAX);
    assert_true(sl_get_uint(heard(w, &m), "bytes", 0) == SL_WIRE_UINT_MAX);
    sl_msg_free(&m);
    tick(w, 1000, SL_WIRE_UINT_MAX + 6);
    assert_int_equal(sl_get_uint(heard(w, &m), "bytes", 0), 5);
    assert_int_equal(m.id, SL_M_PROGRESS);
    assert_int_equal(sl_get_uint(m.tree, "rate", 0), 6);
    sl_msg_free(&m);
}

/* After an hour without work the first megabytes are not those of an hour. */
static void time_without_work_is_in_no_rate(void **state)
{
    struct world *w = *state;
    struct sl_msg m;

    connect_worker(w);
    hears(w, SL_M_PULL);
    tick(w, 900, 1000);
    hears_nothing(w);
    tick(w, 900, 1000);
    hears(w, SL_M_PING);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9}");
    tick(w, 100, 1050);
    assert_int_equal(sl_get_uint(heard(w, &m), "rate", 1), 0);
    assert_int_equal(m.id, SL_M_PROGRESS);
    sl_msg_free(&m);
    tick(w, 1000, 2100);
    assert_int_equal(sl_get_uint(heard(w, &m), "rate", 0), 1000);
    sl_msg_free(&m);
}

/* A moment between two short tasks, with none ahead, is no time without work. */
static void short_tasks_have_a_rate(void **state)
{
    struct world *w = *state;
    struct sl_msg m;
    uint64_t rate = 0;

    connect_worker(w);
    for (unsigned n = 1; n <= 8; n++) {
        grant(w, SPEC, "{\"task\":3,\"epoch\":9}");
        tick(w, 400, n * 400);
        finish(w, 3, 9, SL_OUTCOME_RESULT);
        while (heard(w, &m)) {
            rate = m.id == SL_M_PROGRESS ? sl_get_uint(m.tree, "rate", 0) : rate;
            sl_msg_free(&m);
        }
        answer(w, "ack", 3, 9);
        tick(w, 10, n * 400);
    }
    assert_true(rate >= 900 && rate <= 1000);
}

/* What a worker that dies was at is told before the next heartbeat. */
static void another_tensor_in_hand_is_told_sooner(void **state)
{
    struct world *w = *state;
    struct sl_worker_progress p = {.tensor = ""};
    struct sl_msg m;

    connect_worker(w);
    hears(w, SL_M_PULL);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9}");
    tick(w, 100, 0);
    hears(w, SL_M_PROGRESS);
    p.tensor = "a.weight";
    w->now += 199;
    sl_worker_tick(w->w, &p, w->now);
    hears_nothing(w);
    sl_worker_tick(w->w, &p, ++w->now);
    assert_string_equal(sl_get_str(heard(w, &m), "tensor"), "a.weight");
    assert_int_equal(m.id, SL_M_PROGRESS);
    sl_msg_free(&m);
    w->now += 999;
    sl_worker_tick(w->w, &p, w->now);
    hears_nothing(w);
}

static void a_result_is_repeated_until_acknowledged(void **state)
{
    struct world *w = *state;
    struct sl_msg m;

    connect_worker(w);
    hears(w, SL_M_PULL);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9},{\"task\":4,\"epoch\":1}");
    finish(w, 3, 9, SL_OUTCOME_RESULT);
    hears(w, SL_M_RESULT);
    tell(w, "{\"v\":3,\"m\":\"rehello\"}");
    assert_int_equal(cJSON_GetArraySize(sl_get(heard(w, &m), "held")), 2);
    assert_int_equal(m.id, SL_M_HELLO);
    sl_msg_free(&m);
    finish(w, 4, 1, SL_OUTCOME_RESULT); /* not said before the welcome */
    hears_nothing(w);
    tell(w, "{\"v\":3,\"m\":\"welcome\",\"daemon\":\"00000000000000000000000000000002\",\"version\":\"1\","
            "\"role\":\"worker\",\"heartbeat_ms\":1000,\"lease_ms\":9000,"
            "\"dropped\":[{\"job\":7,\"task\":3,\"epoch\":9}]}");
    hears(w, SL_M_RESULT);
    tick(w, 0, 0);
    hears(w, SL_M_PULL);
    hears(w, SL_M_PROGRESS);
    assert_int_equal(sl_worker_held(w->w), 1);
    /* The daemon's disk was full: no answer came. */
    for (unsigned i = 0; i < 12; i++) {
        tell(w, "{\"v\":3,\"m\":\"pong\",\"n\":1}");
        tick(w, 990, 0);
    }
    for (m.id = SL_M_COUNT; m.id != SL_M_RESULT; sl_msg_free(&m))
        assert_non_null(heard(w, &m));
}

/* How long until the next hello, and that it goes over a new connection. nobody: what is
 * said cannot be sent. */
static uint64_t until_hello(struct world *w, bool nobody)
{
    uint64_t waited = 0;
    struct sl_msg m = {.tree = NULL};

    do
        waited += 100; /* a connection is given up, then there is another, with a hello */
    while ((tick(w, 100, 10) == 0 || !to_send(w, &m)) && waited < 60000);
    assert_true(m.tree && m.id == SL_M_HELLO);
    sl_msg_free(&m);
    if (!nobody)
        sl_worker_sent(w->w);
    return waited;
}

static void an_idle_worker_backs_off(void **state)
{
    struct world *w = *state;
    uint64_t waited = 0;

    connect_worker(w);
    hears(w, SL_M_PULL);
    assert_int_equal(tick(w, 4100, 10), 1);
    /* Ever more seldom, never less than every 37 seconds. */
    for (unsigned hellos = 0; hellos < 10; hellos++) {
        waited = until_hello(w, false);
        assert_true(waited >= 500 && waited <= 38000);
    }
    assert_true(waited > 30000);
}

static void silence_ends_a_connection(void **state)
{
    struct world *w = *state;
    uint64_t waited = 0;

    connect_worker(w);
    hears(w, SL_M_PULL);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9}");
    assert_int_equal(tick(w, 1000, 10), 0);
    hears(w, SL_M_PROGRESS);
    assert_int_equal(tick(w, 3100, 10), 1);
    assert_false(sl_worker_connected(w->w));
    finish(w, 3, 9, SL_OUTCOME_RESULT); /* kept */
    hears_nothing(w);
    /* Hello again and again; it holds a task, so in less than its lease of 9 s every time,
     * and in half of that when nobody even takes the hello. */
    for (unsigned hellos = 0; hellos < 9; hellos++) {
        waited = until_hello(w, hellos % 2);
        assert_true(waited >= 500 && waited <= (hellos % 2 ? 7100 : 4900));
    }
    tell(w, "{\"v\":3,\"m\":\"welcome\",\"daemon\":\"00000000000000000000000000000002\",\"version\":\"1\","
            "\"role\":\"worker\",\"heartbeat_ms\":1000,\"lease_ms\":9000}");
    hears(w, SL_M_RESULT);
}

static void revoked_tasks_are_dropped(void **state)
{
    struct world *w = *state;

    connect_worker(w);
    hears(w, SL_M_PULL);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9},{\"task\":4,\"epoch\":1}");
    tell(w, "{\"v\":3,\"m\":\"revoke\",\"job\":7,\"tasks\":[3,77],\"text\":\"held\"}");
    assert_int_equal(w->n_dropped, 1);
    finish(w, 3, 9, SL_OUTCOME_RESULT); /* it was under way: nobody asks for it */
    hears_nothing(w);
    assert_int_equal(sl_worker_held(w->w), 1);
    tell(w, "{\"v\":3,\"m\":\"revoke\",\"job\":7,\"tasks\":[],\"text\":\"over\"}");
    assert_int_equal(w->n_over, 0); /* the other one is being done */
    finish(w, 4, 1, SL_OUTCOME_RESULT);
    tell(w, "{\"v\":3,\"m\":\"revoke\",\"job\":7,\"tasks\":[],\"text\":\"over\"}");
    assert_int_equal(w->n_over, 1);
    hears(w, SL_M_RESULT);
    assert_int_equal(sl_worker_held(w->w), 1);
}

static void a_drain_ends_in_order(void **state)
{
    struct world *w = *state;
    struct sl_msg m;

    connect_worker(w);
    hears(w, SL_M_PULL);
    grant(w, SPEC, "{\"task\":3,\"epoch\":9},{\"task\":4,\"epoch\":1}");
    tell(w, "{\"v\":3,\"m\":\"drain\"}");
    assert_int_equal(sl_get_uint(heard(w, &m), "want", 9), 0);
    sl_msg_free(&m);
    grant(w, "", "{\"task\":5,\"epoch\":1}"); /* was on its way */
    hears(w, SL_M_GIVEBACK);
    finish(w, 3, 9, SL_OUTCOME_RESULT);
    finish(w, 4, 1, SL_OUTCOME_GIVEBACK);
    hears(w, SL_M_RESULT);
    hears(w, SL_M_GIVEBACK);
    answer(w, "ack", 3, 9);
    tick(w, 10, 0);
    hears(w, SL_M_PROGRESS);
    hears_nothing(w);
    assert_false(sl_worker_done(w->w));
    answer(w, "ack", 4, 1);
    tick(w, 10, 0);
    hears(w, SL_M_BYE);
    assert_true(sl_worker_done(w->w));
}

static void a_refused_hello_is_told(void **state)
{
    struct world *w = *state;
    struct sl_error e;

    tick(w, 0, 0);
    hears(w, SL_M_HELLO);
    assert_int_equal(tick(w, 4900, 0), 0); /* an answer is waited for */
    hears_nothing(w);
    assert_int_equal(sl_worker_refused(w->w, &e), 0);
    tell(w, "{\"v\":3,\"m\":\"error\",\"code\":2,\"text\":\"bytes of version 2\",\"message\":\"hello\"}");
    assert_int_equal(sl_worker_refused(w->w, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "bytes of version 2"));
}

static void nonsense_does_nothing(void **state)
{
    struct world *w = *state;

    connect_worker(w);
    hears(w, SL_M_PULL);
    tell(w, "{\"v\":1,\"m\":\"drain\"}");
    tell(w, "{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":1,\"epoch\":1,\"bytes\":1}");
    tell(w, "{\"v\":3,\"m\":\"grant\",\"job\":7}");
    tell(w, "\x28\xb5\x2f\xfd");
    tell(w, "");
    hears_nothing(w);
    assert_true(sl_worker_connected(w->w));
    /* A grant of an unknown job: given back, and hello makes the daemon say more. */
    grant(w, "", "{\"task\":5,\"epoch\":1}");
    hears(w, SL_M_GIVEBACK);
    hears(w, SL_M_HELLO);
}

static void what_was_not_sent_goes_first(void **state)
{
    struct world *w = *state;
    struct sl_msg m;

    tick(w, 0, 0);
    assert_non_null(to_send(w, &m));
    sl_msg_free(&m);
    hears(w, SL_M_HELLO);
    hears_nothing(w);
}

static void short_tasks_are_held_in_greater_number(void **state)
{
    struct world *w = *state;
    struct sl_msg m;
    uint64_t want = 0;

    connect_worker(w);
    hears(w, SL_M_PULL);
    for (uint32_t i = 0; i < 20; i++) {
        char task[64];

        snprintf(task, sizeof task, "{\"task\":%u,\"epoch\":1}", i);
        grant(w, i ? "" : SPEC, task);
        finish(w, i, 1, SL_OUTCOME_RESULT);
        answer(w, "ack", i, 1);
    }
    tick(w, 500, 0);
    while (heard(w, &m)) {
        want = m.id == SL_M_PULL ? sl_get_uint(m.tree, "want", 0) : want;
        sl_msg_free(&m);
    }
    assert_true(want >= 30 && want <= 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_task_from_pull_to_ack, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_holds_none_ahead_asks_for_one, setup_none_ahead, teardown),
        cmocka_unit_test_setup_teardown(progress_goes_on_beyond_the_field, setup, teardown),
        cmocka_unit_test_setup_teardown(time_without_work_is_in_no_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(short_tasks_have_a_rate, setup, teardown),
        cmocka_unit_test_setup_teardown(another_tensor_in_hand_is_told_sooner, setup, teardown),
        cmocka_unit_test_setup_teardown(a_result_is_repeated_until_acknowledged, setup, teardown),
        cmocka_unit_test_setup_teardown(an_idle_worker_backs_off, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_ends_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(revoked_tasks_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_ends_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_hello_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_that_memory_lacks_for_ends_the_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(nonsense_does_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_not_sent_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(short_tasks_are_held_in_greater_number, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
