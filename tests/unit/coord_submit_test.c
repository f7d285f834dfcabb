/* What is submitted: sweeps, whose tasks go out together, and an output that is refused. */
#include "tests/unit/coord_world.h"

static void a_sweep_reads_its_source_once(void **state)
{
    struct world *w = *state;
    char one[400], two[400];
    struct got g[4] = {{0}};
    cJSON *t;

    client(w, C);
    worker(w, 1);
    snprintf(one, sizeof one, world_spec, "m", "x");
    snprintf(two, sizeof two, world_spec, "m", "y");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[%s,%s]}", one, two);
    t = sl_get(expect(w, C, SL_M_SUBMITTED), "jobs");
    assert_int_equal(cJSON_GetArraySize(t), 2);
    takes(w, 1, 4, g, 2);
    prepared(w, 1, g[0], 8, 4);
    pull(w, 1, 4); /* nothing before both are planned */
    assert_int_equal(granted(w, 1, g + 2, 2), 0);
    prepared(w, 1, g[1], 8, 4);
    for (unsigned done = 0; done < 16;) {
        struct got h[16];
        unsigned n = granted(w, 1, h, 16);

        if (n == 0) {
            pull(w, 1, 4);
            n = granted(w, 1, h, 16);
        }
        /* A message for each job, of the same tasks. */
        assert_true(n > 0 && n % 2 == 0);
        for (unsigned k = 0; k < n; k++) {
            assert_true(h[k].job == 1 + k / (n / 2) && h[k].task == h[k % (n / 2)].task);
            result(w, 1, h[k]);
        }
        done += n;
    }
    snprintf(two, sizeof two, world_spec, "other", "z");
    snprintf(one, sizeof one, world_spec, "m", "v");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"k2\",\"specs\":[%s,%s]}", one, two);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "one source"));
}

/* What a worker is to hold is bounded, though a sweep's tasks of one number count as one of what it asks for. */
static void a_large_sweep_does_not_flood_a_worker(void **state)
{
    struct world *w = *state;
    char *text = malloc(60000), *s = text;
    struct got g[SL_HELD_MAX];
    unsigned n, messages = 0;
    cJSON *m;

    client(w, C);
    worker(w, 1);
    s += sprintf(s, "{\"v\":3,\"m\":\"submit\",\"key\":\"k\",\"specs\":[");
    for (unsigned i = 0; i < SL_SWEEP_MAX; i++) {
        char prefix[8];

        snprintf(prefix, sizeof prefix, "p%u", i);
        s += sprintf(s, i ? "," : "");
        s += sprintf(s, world_spec, "m", prefix);
    }
    strcpy(s, "]}");
    say(w, C, "%s", text);
    expect(w, C, SL_M_SUBMITTED);
    pull(w, 1, SL_SWEEP_MAX);
    n = granted(w, 1, g, SL_HELD_MAX);
    assert_int_equal(n, SL_SWEEP_MAX);
    for (unsigned i = 0; i < n; i++)
        prepared(w, 1, g[i], 40, 40);
    pull(w, 1, 40);
    for (n = 0; (m = heard(w, 1, SL_M_GRANT)) != NULL; messages++)
        n += (unsigned)cJSON_GetArraySize(sl_get(m, "tasks"));
    assert_int_equal(messages, SL_SWEEP_MAX);
    assert_true(n <= SL_HELD_MAX && n % SL_SWEEP_MAX == 0 && n >= 4 * SL_SWEEP_MAX);
    free(text);
}

static void a_sweep_has_one_source_and_many_outputs(void **state)
{
    static const struct { const char *source, *prefix, *said; } second[] = {
        {"m", "a", "two jobs of the sweep have the output /out/a"},
        {"n", "b", "the jobs of a sweep have one source"},
        {"m", "b", NULL},
    };
    struct world *w = *state;

    client(w, C);
    for (unsigned i = 0; i < sizeof second / sizeof second[0]; i++) {
        char one[400], two[400];

        snprintf(one, sizeof one, world_spec, "m", "a");
        snprintf(two, sizeof two, world_spec, second[i].source, second[i].prefix);
        say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"%u\",\"specs\":[%s,%s]}", i, one, two);
        if (second[i].said)
            assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), second[i].said));
        else
            expect(w, C, SL_M_SUBMITTED);
    }
}

/* A file whose path has no room in a message: its publish could never be told. */
static void a_path_too_long_to_tell_is_refused(void **state)
{
    struct world *w = *state;

    client(w, C);
    for (int n = 4072; n <= 4073; n++) {
        say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"%d\",\"specs\":[{\"source\":\"/s\",\"output\":\"/%0*d\",\"prefix\":\"a\","
            "\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}", n, n, 0);
        if (n == 4072)
            expect(w, C, SL_M_SUBMITTED);
        else
            assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "choose a folder with a shorter one"));
    }
}

/* The files of one job have never the names of another's: "a-00001-of-00002" would be the first of two of "a". */
static void a_part_is_no_prefix(void **state)
{
    static const char *const refused[] = {"a-00001-of-00002", "a.gguf", "a-00001-of-00002.gguf", "a/b", ".a", ""};
    struct world *w = *state;

    client(w, C);
    for (unsigned i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"%u\",\"specs\":[{\"source\":\"/s\",\"output\":\"/o\",\"prefix\":\"%s\","
            "\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}", i, refused[i]);
        assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "base name"));
    }
    submit(w, C, "a-1-of-2", "");
}

/* A specification that fills a message leaves a grant no room beside it. */
static void a_specification_without_room_is_refused(void **state)
{
    const struct sl_peer from = {.id = C, .role = SL_ROLE_ADMIN, .user = "u"};
    struct world *w = *state;
    char *text = malloc(SL_WIRE_MAX), *end = text, quotes[2 * 4095 + 1] = "";
    size_t n;

    for (unsigned i = 0; i < 4095; i++)
        memcpy(&quotes[2 * i], "\\\"", 3);
    client(w, C);
    for (unsigned lists = 1; lists <= 3; lists++) {
        static const char *const name[] = {"override_kv", "include_weights", "exclude_weights"};

        end = text + sprintf(text, "{\"v\":3,\"m\":\"submit\",\"key\":\"%u\",\"specs\":[{\"source\":\"/s\",\"output\":\"/o\",\"prefix\":"
                             "\"p%u\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\",\"options\":{", lists, lists);
        for (unsigned l = 0; l < lists; l++) {
            end += sprintf(end, "%s\"%s\":[", l ? "," : "", name[l]);
            for (unsigned i = 0; i < 256; i++)
                end += sprintf(end, "%s\"%s\"", i ? "," : "", quotes);
            end += sprintf(end, "]");
        }
        end += sprintf(end, "}}]}");
        n = (size_t)(end - text);
        assert_true(n < SL_WIRE_MAX);
        assert_int_equal(sl_coord_receive(w->c, &from, (const uint8_t *)text, n, w->now, &w->e), 0);
        deliver(w);
        if (n < SL_SPEC_BYTES)
            expect(w, C, SL_M_SUBMITTED);
        else
            assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "; 6291456 are possible"));
    }
    assert_true(n > SL_SPEC_BYTES);
    free(text);
}

static int below_data(void *user, const char *path, bool output, struct sl_error *e)
{
    (void)user;
    (void)output;
    return strncmp(path, "/data/", 6) == 0 ? 0 : sl_fail(e, SL_EUSAGE, "%s: not below /data", path);
}

/* Each path is asked about, and where all may be named the rest is looked at too. */
static void what_may_not_be_named_is_refused(void **state)
{
    static const struct { const char *source, *output, *imatrix, *text, *said; } asked[] = {
        {"/x/m", "/data/o", "/data/i", "default q4_k\\n", "/x/m: not below"},
        {"/data/m", "/x/o", "/data/i", "default q4_k\\n", "/x/o: not below"},
        {"/data/m", "/data/o", "/x/i", "default q4_k\\n", "/x/i: not below"},
        {"/data/m", "/data/o", "/data/i", "default q4_z\\n", "q4_z"},
        {"/data/m", "/data/o", "/data/i", "default q4_k\\n", NULL},
        {"/data/m", "/data/o", "/data/i", "default q4_k\\n", "writes to /data/o/a already"},
        {"/data/m", "/data/o//", "/data/i", "default q4_k\\n", "writes to /data/o///a already"},
        {"/data/m", "/data/p//", "/data/i", "default q4_k\\n", NULL},
        {"/data/m", "/data/p", "/data/i", "default q4_k\\n", "writes to /data/p/a already"},
    };
    struct world *w = *state;

    world_stop(w);
    w->check_path = below_data;
    world_start(w);
    client(w, C);
    for (unsigned i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"%u\",\"specs\":[{\"source\":\"%s\",\"output\":\"%s\",\"prefix\":\"a\","
            "\"recipe\":\"r\",\"recipe_text\":\"%s\",\"options\":{\"imatrix\":\"%s\"}}]}", i, asked[i].source, asked[i].output,
            asked[i].text, asked[i].imatrix);
        if (!asked[i].said)
            expect(w, C, SL_M_SUBMITTED);
        else if (!strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), asked[i].said))
            fail_msg("%u: not %s", i, asked[i].said);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sweep_reads_its_source_once),
        TEST(a_large_sweep_does_not_flood_a_worker),
        TEST(a_sweep_has_one_source_and_many_outputs),
        TEST(a_path_too_long_to_tell_is_refused),
        TEST(a_part_is_no_prefix),
        TEST(a_specification_without_room_is_refused),
        TEST(what_may_not_be_named_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
