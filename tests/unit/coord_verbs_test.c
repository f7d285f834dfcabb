/* Which verbs a job takes in which state: what is refused says why, and changes nothing. */
#include "tests/unit/coord_world.h"

static void refused(struct world *w, uint64_t id, const char *verb, const char *more, const char *said)
{
    char before[400];
    const char *text;

    snprintf(before, sizeof before, "%s", state_of(w, C, id));
    say(w, C, strcmp(verb, "stitch") == 0 || strcmp(verb, "verify") == 0 ? "{\"v\":3,\"m\":\"%s\",\"job\":%llu%s}"
                                                                        : "{\"v\":3,\"m\":\"%s\",\"jobs\":[%llu]%s}",
        verb, (unsigned long long)id, more);
    text = sl_get_str(expect(w, C, SL_M_ERROR), "text");
    if (!strstr(text, said))
        fail_msg("%s, %s: '%s' is not '%s'", before, verb, text, said);
    assert_string_equal(state_of(w, C, id), before);
}

static void verbs_go_by_the_state(void **state)
{
    static const char ended[] = "; it has ended", stitch[] = "; it can be stitched when all its tasks are done";
    static const char verify[] = "; it can be verified when it has succeeded";
    struct world *w = *state;
    struct got g[2] = {{0}};
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = submit(w, C, "a", "");
    refused(w, id, "stitch", "", stitch);
    refused(w, id, "verify", "", verify);
    changes(w, C, "hold", id);
    refused(w, id, "retry", "", "job 1 is held; 'sluice release' lets it go on");
    refused(w, id, "stitch", "", stitch);
    refused(w, id, "verify", "", verify);
    changes(w, C, "release", id);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "succeeded");
    refused(w, id, "hold", "", "job 1 has succeeded; it has ended");
    refused(w, id, "release", "", ended);
    refused(w, id, "cancel", "", ended);
    refused(w, id, "cancel", ",\"discard\":true", ended);
    refused(w, id, "retry", "", "; there is nothing to do again");
    refused(w, id, "stitch", "", "; it is stitched already");
    id = submit(w, C, "b", "");
    changes(w, C, "cancel", id);
    refused(w, id, "hold", "", "job 2 is cancelled; it has ended");
    refused(w, id, "release", "", ended);
    refused(w, id, "stitch", "", stitch);
    refused(w, id, "verify", "", verify);
    id = submit(w, C, "c", ",\"attempts\":1");
    assert_int_equal(granted(w, 1, g, 2), 2); /* it had asked for work, and was granted what was cancelled */
    failed(w, 1, g[1], 1, "");
    refused(w, id, "hold", "", "job 3 has failed; it has ended");
    refused(w, id, "release", "", ended);
    refused(w, id, "cancel", "", ended);
    refused(w, id, "stitch", "", stitch);
    refused(w, id, "verify", "", "; 'sluice retry' tries again what failed, a verification too");
    changes(w, C, "retry", id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(verbs_go_by_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
