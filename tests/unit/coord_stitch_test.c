/* The last steps of a job: what the stitch is told, and where a job goes on that was held at one of them. */
#include "coord_world.h"

/* Every task's checksum in order, those of before a restart too, and the plan's fingerprint. */
static void a_stitch_is_told_all_checksums(void **state)
{
    struct world *w = *state;
    struct got g = {0};
    char sums[4 * 16 + 1];
    cJSON *t;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 4, 4);
    for (unsigned i = 0; i < 4; i++) {
        takes(w, 1, 1, &g, 1);
        assert_true(g.task < 4);
        snprintf(sums, sizeof sums, "%016llx", 0xfedcba9876543210ull + g.task);
        say(w, 1, "{\"v\":3,\"m\":\"result\",\"job\":1,\"task\":%u,\"epoch\":%llu,\"bytes\":100,\"checksum\":\"%s\"}",
            (unsigned)g.task, (unsigned long long)g.epoch, sums);
        expect(w, 1, SL_M_ACK);
        if (i == 1) {
            assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
            world_stop(w);
            world_start(w);
            worker(w, 1);
        }
    }
    pull(w, 1, 1);
    t = expect(w, 1, SL_M_GRANT);
    assert_int_equal(sl_get_uint(sl_get(t, "tasks")->child, "task", 0), SL_TASK_STITCH);
    assert_string_equal(sl_get_str(t, "fingerprint"), "000102030405060708090a0b0c0d0e0f");
    for (unsigned i = 0; i < 4; i++)
        snprintf(sums + 16 * i, 17, "%016llx", 0xfedcba9876543210ull + i);
    assert_string_equal(sl_get_str(t, "sums"), sums);
}

static void a_release_goes_on_at_the_same_step(void **state)
{
    static const uint64_t steps[] = {SL_TASK_PREPARE, 0, SL_TASK_STITCH, SL_TASK_PUBLISH, SL_TASK_VERIFY};
    struct world *w = *state;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = submit(w, C, "a", ",\"verify\":true");
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct got g = {0}, again = {0};

        takes(w, 1, 1, &g, 1);
        assert_true(g.task == steps[i]);
        changes(w, C, "hold", id);
        pull(w, 1, 1);
        assert_int_equal(granted(w, 1, &again, 1), 0);
        changes(w, C, "release", id);
        takes(w, 1, 1, &again, 1);
        assert_true(again.task == steps[i] && again.epoch > g.epoch);
        if (again.task == SL_TASK_PREPARE) {
            prepared(w, 1, again, 1, 1);
        } else {
            result(w, 1, again);
            expect(w, 1, SL_M_ACK);
        }
    }
    assert_string_equal(state_of(w, C, id), "succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stitch_is_told_all_checksums),
        TEST(a_release_goes_on_at_the_same_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
