/* Who says hello as what, and which of the leases that a worker names when it comes back are still its own. */
#include "coord_world.h"

/* A worker that was away while the job's files were removed and planned anew held a task of the plan before: not even
 * a daemon that was started since, and remembers no epoch of that plan's tasks, takes it for one of this plan. */
static void a_lease_of_an_earlier_plan_is_dropped(void **state)
{
    struct world *w = *state;
    struct got old = {0}, g = {0};
    char held[100];
    cJSON *t;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    ready_job(w, C, 1, "a", 8, 4);
    takes(w, 1, 1, &old, 1);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
    expect(w, C, SL_M_DONE);
    takes(w, 2, 1, &g, 1);
    assert_int_equal(g.task, SL_TASK_DISCARD);
    result(w, 2, g);
    changes(w, C, "retry", 1);
    takes(w, 2, 1, &g, 1);
    assert_int_equal(g.task, SL_TASK_PREPARE);
    prepared(w, 2, g, 8, 4);
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    world_stop(w);
    world_start(w);
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu}]", (unsigned)old.task, (unsigned long long)old.epoch);
    hello(w, 1, "worker", held);
    t = sl_get(expect(w, 1, SL_M_WELCOME), "dropped");
    assert_int_equal(cJSON_GetArraySize(t), 1);
    assert_int_equal(sl_get_uint(t->child, "epoch", 0), old.epoch);
    result(w, 1, old);
    expect(w, 1, SL_M_NACK);
}

/* A worker that comes over another connection is gone from the one before. */
static void one_connection_for_each_worker(void **state)
{
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    hello(w, 1, "boss", NULL);
    assert_non_null(strstr(sl_get_str(expect(w, 1, SL_M_ERROR), "text"), "role 'boss'; worker or client is expected"));
    worker(w, 1);
    ready_job(w, C, 1, "a", 8, 4);
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    hello(w, 11, "worker", NULL); /* of the same instance */
    expect(w, 11, SL_M_WELCOME);
    say(w, C, "{\"v\":3,\"m\":\"workers\"}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_WORKER_LIST), "workers")), 1);
    say(w, 1, "{\"v\":3,\"m\":\"pull\",\"want\":1}");
    expect(w, 1, SL_M_REHELLO);
    pull(w, 11, 1);
    assert_int_equal(granted(w, 11, &g, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_lease_of_an_earlier_plan_is_dropped),
        TEST(one_connection_for_each_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
