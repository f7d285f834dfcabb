/* Workers whose process is gone from the daemon's machine: their leases are over at once. */
#include "lost_world.h"

#define DEAD 4000 /* processes from here on are no more */
static bool all_live;

static bool no_process(void *user, uint64_t pid)
{
    (void)user;
    return pid >= DEAD && !all_live;
}

/* Says hello as process `pid`, which the transport says is `proved`. */
static void process(struct world *w, unsigned p, uint64_t pid, uint64_t proved)
{
    w->pid[p] = proved;
    say(w, p, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"t\",\"instance\":\"000000000000000000000000000000%02u\","
        "\"name\":\"n\",\"host\":\"h\",\"bytes\":\"1\",\"pid\":%llu}", p, (unsigned long long)pid);
    expect(w, p, SL_M_WELCOME);
}

static void tick(struct world *w)
{
    w->now.run_ms += 200;
    assert_int_equal(sl_coord_tick(w->c, w->now, &w->e), 0);
    deliver(w);
}

static void begin(struct world *w)
{
    w->no_process = no_process;
    again(w);
}

/* Worker p is given one task, after so long and no sooner. */
static void takes_after(struct world *w, unsigned p, unsigned ms, struct got *g)
{
    w->now.run_ms += ms - 200;
    pull(w, p, 8);
    assert_int_equal(granted(w, p, g, 1), 0);
    all_live = true;
    tick(w);
    all_live = false;
    assert_int_equal(granted(w, p, g, 1), 1);
}

static void its_tasks_go_to_the_next(void **state)
{
    struct world *w = *state;
    struct got g[8], then[8];

    begin(w);
    worker(w, 1);
    assert_int_equal(ready_job(w, C, 1, "a", 6, 6), 1);
    process(w, 2, DEAD, DEAD);
    takes(w, 2, 4, g, 4);
    tick(w);
    process(w, 3, 3000, 3000); /* of the same name and host */
    takes(w, 3, 2, then, 2);
    takes_after(w, 1, 1000, then); /* what was lost goes alone */
    assert_true(then[0].epoch > g[0].epoch);
    result(w, 2, g[0]); /* it speaks all the same: of another namespace, perhaps */
    assert_null(heard(w, 2, SL_M_ACK));
}

static void who_lives_or_is_elsewhere_keeps_them(void **state)
{
    static const uint64_t pids[][2] = {{3000, 3000}, {DEAD, 0}, {DEAD, DEAD + 1}, {0, DEAD}};
    struct world *w = *state;
    struct got g;

    begin(w);
    worker(w, 1);
    ready_job(w, C, 1, "a", 6, 6);
    for (unsigned i = 0; i < 4; i++) {
        process(w, 2 + i, pids[i][0], pids[i][1]);
        takes(w, 2 + i, 1, &g, 1);
        tick(w);
        tick(w);
        result(w, 2 + i, g);
        expect(w, 2 + i, SL_M_ACK);
    }
}

static void one_that_left_is_not_missed(void **state)
{
    struct world *w = *state;
    const cJSON *events, *x;

    begin(w);
    process(w, 1, DEAD, DEAD);
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    tick(w);
    process(w, 2, DEAD, DEAD);
    tick(w);
    tick(w);
    say(w, C, "{\"v\":3,\"m\":\"logs\"}");
    events = sl_get(expect(w, C, SL_M_LOG), "events");
    assert_int_equal(cJSON_GetArraySize(events), 4);
    x = cJSON_GetArrayItem(events, 1);
    assert_string_equal(sl_get_str(x, "kind"), "worker_left");
    x = cJSON_GetArrayItem(events, 3);
    assert_string_equal(sl_get_str(x, "kind"), "worker_silent");
    assert_string_equal(sl_get_str(x, "text"), "its process 4000 is gone; 0 leases go back");
}

static void it_counts_as_one_that_went_away(void **state)
{
    struct world *w = *state;
    struct got g;

    begin(w);
    worker(w, 1);
    ready_job(w, C, 1, "a", 1, 1);
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    for (unsigned n = 0; n < LOSSES; n++) {
        assert_null(strstr(state_of(w, C, 1), "failed"));
        process(w, 2 + n, DEAD, DEAD);
        if (n == 0)
            takes(w, 2, 1, &g, 1);
        else
            takes_after(w, 2 + n, 1000u << (n - 1), &g);
        tick(w);
    }
    assert_string_equal(state_of(w, C, 1), "failed");
    assert_non_null(strstr(error_of(w, 1), "task 0: 3 workers in a row went away while they had it, n the last"));
}

/* Where losses are not counted a worker may go that way for ever. */
static void no_rest_is_longer_than_a_lease(void **state)
{
    static const unsigned rest[] = {1000, 2000, 4000, 8000, 10000, 10000};
    struct world *w = *state;
    struct got g;

    w->no_process = no_process;
    world_stop(w);
    world_start(w);
    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 1, 1);
    say(w, 1, "{\"v\":3,\"m\":\"bye\"}");
    process(w, 2, DEAD, DEAD);
    takes(w, 2, 1, &g, 1);
    for (unsigned n = 0; n < sizeof rest / sizeof *rest; n++) {
        tick(w);
        process(w, 2, DEAD, DEAD);
        takes_after(w, 2, rest[n], &g);
    }
}

static void a_connection_that_ends_is_told(void **state)
{
    struct world *w = *state;
    const cJSON *events, *x;
    struct got g;

    begin(w);
    worker(w, 1);
    ready_job(w, C, 1, "a", 2, 2);
    takes(w, 1, 1, &g, 1);
    sl_coord_gone(w->c, 1);
    pull(w, 1, 8); /* it had said that before */
    assert_int_equal(granted(w, 1, &g, 1), 0);
    tick(w);
    say(w, C, "{\"v\":3,\"m\":\"logs\"}");
    events = sl_get(expect(w, C, SL_M_LOG), "events");
    x = cJSON_GetArrayItem(events, cJSON_GetArraySize(events) - 1);
    assert_string_equal(sl_get_str(x, "kind"), "worker_silent");
    assert_string_equal(sl_get_str(x, "text"), "its connection is gone; 1 leases run on");
    worker(w, 2); /* it comes back over another one in time, or not */
    pull(w, 2, 8);
    assert_int_equal(granted(w, 2, &g, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(its_tasks_go_to_the_next),
        TEST(who_lives_or_is_elsewhere_keeps_them),
        TEST(one_that_left_is_not_missed),
        TEST(it_counts_as_one_that_went_away),
        TEST(no_rest_is_longer_than_a_lease),
        TEST(a_connection_that_ends_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
