/* The verbs that change jobs: what is refused changes nothing, what is
 * acknowledged outlives the daemon, and what a retry finds published stays. What
 * workers say that cannot be changes nothing either. */
#include "tests/unit/coord_world.h"

static cJSON *shown(struct world *w, uint64_t id)
{
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    return sl_get(expect(w, C, SL_M_JOB), "job");
}

static void ask(struct world *w, const char *verb, uint64_t id, const char *more, enum sl_message_id answer)
{
    say(w, C, "{\"v\":3,\"m\":\"%s\",\"jobs\":[%llu]%s}", verb, (unsigned long long)id, more);
    expect(w, C, answer);
}

static void restart(struct world *w)
{
    world_stop(w);
    world_start(w);
    client(w, C);
    worker(w, 1);
}

/* Worker 1 fails what it is granted of this task until it is quarantined. */
static void fail_for_good(struct world *w, uint32_t task, int code)
{
    struct got g[8];

    for (int round = 0; round < 8; round++) {
        unsigned n;

        pull(w, 1, 8);
        n = granted(w, 1, g, 8);
        for (unsigned i = 0; i < n; i++) {
            if (g[i].task == task) {
                failed(w, 1, g[i], code, "");
            } else {
                result(w, 1, g[i]);
                expect(w, 1, SL_M_ACK);
            }
        }
        later(w, 9000, (unsigned[]){1, C}, 2);
    }
}

static void a_refused_set_changes_nothing(void **state)
{
    struct world *w = *state;
    uint64_t id;
    char many[600] = "";

    client(w, C);
    id = submit(w, C, "a", ",\"labels\":[\"x\",\"y\"]");
    ask(w, "set", id, ",\"priority\":7,\"add_labels\":[\"ok\",\"\"]", SL_M_ERROR);
    assert_int_equal(sl_get_uint(shown(w, id), "priority", 0), 50);
    assert_int_equal(cJSON_GetArraySize(sl_get(shown(w, id), "labels")), 2);
    for (int i = 0; i < 31; i++)
        sprintf(many + strlen(many), "%s\"l%d\"", i ? "," : "", i);
    say(w, C, "{\"v\":3,\"m\":\"set\",\"jobs\":[1],\"add_labels\":[%s]}", many);
    expect(w, C, SL_M_ERROR);
    assert_int_equal(cJSON_GetArraySize(sl_get(shown(w, id), "labels")), 2);
    say(w, C, "{\"v\":3,\"m\":\"set\",\"jobs\":[1],\"priority\":7,\"remove_labels\":[\"x\"],\"add_labels\":[%s]}", many);
    expect(w, C, SL_M_DONE);
    assert_int_equal(cJSON_GetArraySize(sl_get(shown(w, id), "labels")), 32);
    assert_int_equal(sl_get_uint(shown(w, id), "priority", 0), 7);
}

/* Nor does one of which a later job is refused; what one job's change does to another is told. */
static void a_refused_request_changes_nothing(void **state)
{
    struct world *w = *state;
    uint64_t one, two;
    char spec[400];

    client(w, C);
    one = submit(w, C, "a", "");
    two = submit(w, C, "b", "");
    ask(w, "cancel", two, "", SL_M_DONE);
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[%llu,%llu]}", (unsigned long long)one, (unsigned long long)two);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "none of 2 jobs changed: "));
    assert_string_equal(sl_get_str(shown(w, one), "state"), "queued");
    say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[%llu,%llu]}", (unsigned long long)two, (unsigned long long)two);
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_DONE), "jobs")), 1);
    ask(w, "cancel", one, "", SL_M_DONE);
    snprintf(spec, sizeof spec, world_spec, "m", "a\\nb");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"odd\",\"specs\":[%s]}", spec);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "prefix 'a?b'"));
    snprintf(spec, sizeof spec, world_spec, "m", "a");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"again\",\"specs\":[%s]}", spec);
    two = (uint64_t)sl_get(expect(w, C, SL_M_SUBMITTED), "jobs")->child->valuedouble;
    ask(w, "cancel", two, "", SL_M_DONE);
    say(w, C, "{\"v\":3,\"m\":\"retry\",\"jobs\":[%llu,%llu]}", (unsigned long long)one, (unsigned long long)two);
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "1 of 2 jobs changed, then: job 1 writes to"));
    assert_string_equal(sl_get_str(shown(w, one), "state"), "queued");
    assert_string_equal(sl_get_str(shown(w, two), "state"), "cancelled");
}

/* The plan of discarded files is no more: a prepare that does not end may have made files by another one, since the
 * source was changed, and their discard must not look for those of the first. */
static void a_discarded_plan_is_forgotten(void **state)
{
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 8, 4);
    ask(w, "cancel", 1, ",\"discard\":true", SL_M_DONE);
    for (unsigned i = 0; i < 2; i++) {
        cJSON *m;

        pull(w, 1, 1);
        m = expect(w, 1, SL_M_GRANT);
        assert_true((sl_get_str(m, "fingerprint") != NULL) == (i == 0));
        g = (struct got){1, SL_TASK_DISCARD, sl_get_uint(sl_get(m, "tasks")->child, "epoch", 0)};
        assert_int_equal(sl_get_uint(sl_get(m, "tasks")->child, "task", 0), SL_TASK_DISCARD);
        if (i == 1)
            break;
        result(w, 1, g);
        expect(w, 1, SL_M_ACK);
        ask(w, "retry", 1, "", SL_M_DONE);
        assert_int_equal(sl_get_uint(shown(w, 1), "tasks", 9), 0);
        pull(w, 1, 1);
        m = expect(w, 1, SL_M_GRANT);
        assert_int_equal(sl_get_uint(sl_get(m, "tasks")->child, "task", 0), SL_TASK_PREPARE);
        assert_null(sl_get(m, "fingerprint"));
        say(w, 1, "{\"v\":3,\"m\":\"giveback\",\"job\":1,\"task\":65536,\"epoch\":%llu}",
            (unsigned long long)sl_get_uint(sl_get(m, "tasks")->child, "epoch", 0));
        expect(w, 1, SL_M_ACK);
        ask(w, "cancel", 1, ",\"discard\":true", SL_M_DONE);
    }
}

/* Who is no admin changes what is their own alone. */
static void a_job_is_its_owners(void **state)
{
    static const char *const verbs[] = {"hold", "set", "release", "cancel", "forget"};
    struct world *w = *state;
    uint64_t id;

    w->role[C] = w->role[8] = SL_ROLE_SUBMITTER;
    w->user[8] = "v";
    client(w, C);
    client(w, 8);
    id = submit(w, C, "a", "");
    for (unsigned i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        say(w, 8, "{\"v\":3,\"m\":\"%s\",\"jobs\":[%llu]}", verbs[i], (unsigned long long)id);
        assert_non_null(strstr(sl_get_str(expect(w, 8, SL_M_ERROR), "text"), "job 1 belongs to u"));
        ask(w, verbs[i], id, "", SL_M_DONE);
    }
}

/* The number of attempts that `set` gives holds at once, and after a restart. */
static void attempts_are_those_set_last(void **state)
{
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t id = submit(w, C, i ? "b" : "a", ",\"attempts\":5");

        ask(w, "set", id, ",\"attempts\":1", SL_M_DONE);
        if (i)
            restart(w);
        takes(w, 1, 1, &g, 1);
        failed(w, 1, g, 7, "");
        assert_string_equal(state_of(w, C, id), "failed");
    }
}

/* A job whose files were all made, and could not be sealed: `stitch` tries that again, as `retry` does. */
static void a_failed_stitch_is_asked_for(void **state)
{
    struct world *w = *state;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 3, 3);
    fail_for_good(w, SL_TASK_STITCH, 1);
    assert_string_equal(state_of(w, C, id), "failed");
    say(w, C, "{\"v\":3,\"m\":\"stitch\",\"job\":%llu}", (unsigned long long)id);
    expect(w, C, SL_M_DONE);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

static void a_refused_stitch_changes_nothing(void **state)
{
    struct world *w = *state;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 3, 3);
    fail_for_good(w, 1, 7);
    assert_string_equal(sl_get_str(shown(w, id), "state"), "failed");
    say(w, C, "{\"v\":3,\"m\":\"stitch\",\"job\":1}");
    expect(w, C, SL_M_ERROR);
    assert_string_equal(sl_get_str(shown(w, id), "state"), "failed");
    ask(w, "forget", id, "", SL_M_DONE);
}

static void a_stitch_asked_for_outlives_the_daemon(void **state)
{
    struct world *w = *state;
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = submit(w, C, "a", ",\"manual_stitch\":true");
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "stitching: waits for 'sluice stitch 1'");
    say(w, C, "{\"v\":3,\"m\":\"stitch\",\"job\":1}");
    expect(w, C, SL_M_DONE);
    restart(w);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

/* The next task that the worker is granted must be this one. */
static struct got next_is(struct world *w, uint32_t task)
{
    struct got g = {0};

    takes(w, 1, 1, &g, 1);
    assert_int_equal(g.task, task);
    return g;
}

/* Files that were checked are not checked again, unless one of them is missing. */
static void a_retry_publishes(void **state)
{
    struct world *w = *state;
    uint64_t id;
    struct got g[8];

    client(w, C);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 3, 3);
    takes(w, 1, 3, g, 3);
    for (int i = 0; i < 3; i++)
        result(w, 1, g[i]);
    result(w, 1, next_is(w, SL_TASK_STITCH));
    failed(w, 1, next_is(w, SL_TASK_PUBLISH), 13, "");
    assert_string_equal(sl_get_str(shown(w, id), "state"), "failed");
    restart(w);
    ask(w, "retry", id, "", SL_M_DONE);
    assert_string_equal(state_of(w, C, id), "stitching: waits until a worker asks for work");
    failed(w, 1, next_is(w, SL_TASK_PUBLISH), 8, "");
    failed(w, 1, next_is(w, SL_TASK_STITCH), 8, ",\"bad\":[1]");
    result(w, 1, next_is(w, 1));
    result(w, 1, next_is(w, SL_TASK_STITCH));
    restart(w);
    result(w, 1, next_is(w, SL_TASK_PUBLISH));
    assert_string_equal(state_of(w, C, id), "succeeded");
}

static void ended_jobs_are_discarded(void **state)
{
    struct world *w = *state;
    uint64_t id, other;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    id = ready_job(w, C, 1, "a", 3, 3);
    ask(w, "cancel", id, "", SL_M_DONE);
    other = submit(w, C, "other", "");
    ask(w, "hold", other, "", SL_M_DONE);
    ask(w, "cancel", id, ",\"discard\":true", SL_M_DONE);
    takes(w, 1, 1, &g, 1);
    assert_true(g.job == id && g.task == SL_TASK_DISCARD);
    result(w, 1, g);
    expect(w, 1, SL_M_ACK);
    ask(w, "forget", id, "", SL_M_DONE);
    /* One that failed, but not while somebody writes there again. */
    ask(w, "release", other, "", SL_M_DONE);
    takes(w, 1, 1, &g, 1);
    failed(w, 1, g, 6, "");
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"o2\",\"specs\":[{\"source\":\"/src/m\",\"output\":\"/out\",\"prefix\":"
        "\"other\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}],\"hold\":true}");
    expect(w, C, SL_M_SUBMITTED);
    ask(w, "cancel", other, ",\"discard\":true", SL_M_ERROR);
    ask(w, "cancel", other + 1, "", SL_M_DONE);
    ask(w, "cancel", other, ",\"discard\":true", SL_M_DONE);
    assert_string_equal(sl_get_str(shown(w, other), "state"), "cancelled");
}

static void what_succeeded_and_is_forgotten_is_no_obstacle(void **state)
{
    struct world *w = *state;
    uint64_t first, next;

    client(w, C);
    worker(w, 1);
    first = submit(w, C, "a", "");
    next = submit(w, C, "b", ",\"after\":[1],\"hold\":true");
    run_all(w, 1);
    assert_string_equal(state_of(w, C, first), "succeeded");
    ask(w, "forget", first, "", SL_M_DONE);
    restart(w);
    ask(w, "release", next, "", SL_M_DONE);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, next), "succeeded");
}

static void a_failed_verification_alone_is_tried_again(void **state)
{
    struct world *w = *state;
    struct got g = {0};
    uint64_t id;

    client(w, C);
    worker(w, 1);
    id = submit(w, C, "a", ",\"verify\":true");
    takes(w, 1, 1, &g, 1);
    prepared(w, 1, g, 2, 2);
    fail_for_good(w, SL_TASK_VERIFY, 7);
    assert_string_equal(sl_get_str(shown(w, id), "state"), "failed");
    ask(w, "retry", id, "", SL_M_DONE);
    assert_string_equal(sl_get_str(shown(w, id), "state"), "verifying");
    takes(w, 1, 1, &g, 1);
    assert_true(g.task == SL_TASK_VERIFY);
    result(w, 1, g);
    expect(w, 1, SL_M_ACK);
    assert_string_equal(state_of(w, C, id), "succeeded");
}

/* Somebody else under the same connection id has no part in its session. */
static void a_session_is_its_users(void **state)
{
    struct world *w = *state;

    client(w, C);
    w->role[C] = SL_ROLE_SUBMITTER;
    w->user[C] = "mallory";
    say(w, C, "{\"v\":3,\"m\":\"about\"}");
    expect(w, C, SL_M_REHELLO);
}

/* Events and reasons are cut to their lengths; what is sent stays readable. */
static void long_names_are_cut_between_characters(void **state)
{
    struct world *w = *state;
    char path[900];

    client(w, C);
    for (unsigned odd = 0; odd < 2; odd++) {
        char *s = path + sprintf(path, "/%s", odd ? "x" : "");

        for (unsigned i = 0; i < 400; i++)
            s += sprintf(s, "\xc3\xbc");
        say(w, C, "{\"v\":3,\"m\":\"submit\",\"key\":\"%u\",\"specs\":[{\"source\":\"%s\",\"output\":\"/out\",\"prefix\":"
            "\"p%u\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}]}", odd, path, odd);
        expect(w, C, SL_M_SUBMITTED);
    }
    say(w, C, "{\"v\":3,\"m\":\"logs\"}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_LOG), "events")), 2);
}

/* With each job its files; where their names are long, in several answers. */
static void a_list_names_the_files(void **state)
{
    static const char *const keys[] = {"one", "two", "three"};
    struct world *w = *state;
    char name[3500], *names;
    cJSON *list = cJSON_CreateArray();
    uint64_t id = 0;

    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    for (unsigned i = 0; i < 350; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
    names = cJSON_PrintUnformatted(list);
    cJSON_Delete(list);
    client(w, C);
    for (unsigned i = 0; i < 3; i++) {
        id = submit(w, C, keys[i], "");
        assert_int_equal(sl_queue_set_files(w->q, id, i == 2 ? "[\"/out/m.gguf\"]" : names, &w->e), 0);
        changes(w, C, "cancel", id);
    }
    for (unsigned i = 0; i < 2; i++) {
        cJSON *t, *jobs;

        say(w, C, "{\"v\":3,\"m\":\"history\",\"before\":%llu}", (unsigned long long)id + 1);
        t = expect(w, C, SL_M_JOBS);
        jobs = sl_get(t, "jobs");
        assert_int_equal(cJSON_GetArraySize(jobs), 2 - i);
        assert_int_equal(sl_get_bool(t, "more"), i == 0);
        if (i == 0)
            assert_string_equal(sl_get(jobs->child, "files")->child->valuestring, "/out/m.gguf");
        id -= 2;
    }
    cJSON_free(names);
}

/* Workers hear which of their tasks a cancelled job takes back, and keep the others. */
static void cancelling_takes_tasks_back(void **state)
{
    struct world *w = *state;
    struct got g[3] = {{0}}, other = {0};
    cJSON *t;

    client(w, C);
    worker(w, 1);
    worker(w, 2);
    ready_job(w, C, 1, "a", 8, 4);
    takes(w, 1, 2, g, 2);
    submit(w, C, "b", ",\"priority\":60");
    takes(w, 1, 1, &other, 1);
    assert_int_equal(other.job, 2);
    changes(w, C, "cancel", 1);
    t = expect(w, 1, SL_M_REVOKE);
    assert_int_equal(sl_get_uint(t, "job", 0), 1);
    assert_int_equal(cJSON_GetArraySize(sl_get(t, "tasks")), 2);
    for (unsigned i = 0; i < 2; i++)
        assert_true(cJSON_GetArrayItem(sl_get(t, "tasks"), 0)->valuedouble == (double)g[i].task ||
                    cJSON_GetArrayItem(sl_get(t, "tasks"), 1)->valuedouble == (double)g[i].task);
    /* Then that the job needs nothing more: who was granted some of it, and nobody else. */
    t = expect(w, 1, SL_M_REVOKE);
    assert_int_equal(sl_get_uint(t, "job", 0), 1);
    assert_int_equal(cJSON_GetArraySize(sl_get(t, "tasks")), 0);
    assert_null(heard(w, 1, SL_M_REVOKE));
    assert_null(heard(w, 2, SL_M_REVOKE));
    result(w, 1, g[0]);
    expect(w, 1, SL_M_NACK);
    prepared(w, 1, other, 6, 3);
    /* So it is when its files are to go, and with a prepare when they are to stay. */
    takes(w, 1, 1, g, 1);
    submit(w, C, "c", ",\"priority\":70");
    takes(w, 2, 1, &other, 1);
    assert_true(other.job == 3 && other.task == SL_TASK_PREPARE);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[2],\"discard\":true}");
    assert_int_equal(sl_get_uint(expect(w, 1, SL_M_REVOKE), "job", 0), 2);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[3]}");
    assert_int_equal(sl_get_uint(expect(w, 2, SL_M_REVOKE), "job", 0), 3);
}

/* cancel, then cancel --discard: the files go then; once more nothing is done. */
static void what_was_cancelled_is_discarded_later(void **state)
{
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 8, 4);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1]}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_DONE), "jobs")), 1);
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1]}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_DONE), "jobs")), 0);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
    assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_DONE), "jobs")), 1);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    assert_true(g.job == 1 && g.task == SL_TASK_DISCARD);
    assert_string_equal(state_of(w, C, 1), "cancelled");
    say(w, C, "{\"v\":3,\"m\":\"about\"}");
    assert_int_equal(sl_get_uint(expect(w, C, SL_M_DAEMON), "jobs", 9), 0);
    /* While it is under way, over a restart of the daemon, and after it: nothing more to do. */
    for (unsigned i = 0; i < 4; i++) {
        say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
        assert_int_equal(cJSON_GetArraySize(sl_get(expect(w, C, SL_M_DONE), "jobs")), 0);
        if (i < 3) { /* and it is not forgotten before */
            say(w, C, "{\"v\":3,\"m\":\"forget\",\"jobs\":[1]}");
            assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "still to remove its files"));
        }
        if (i == 1) {
            assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
            world_stop(w);
            world_start(w);
            client(w, C);
            worker(w, 1);
            takes(w, 1, 1, &g, 1);
            assert_true(g.task == SL_TASK_DISCARD);
        }
        if (i == 2)
            result(w, 1, g);
    }
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 0);
    changes(w, C, "retry", 1);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    assert_true(g.task == SL_TASK_PREPARE); /* from the beginning */
    prepared(w, 1, g, 8, 4);
    run_all(w, 1);
    assert_string_equal(state_of(w, C, 1), "succeeded");
    say(w, C, "{\"v\":3,\"m\":\"cancel\",\"jobs\":[1],\"discard\":true}");
    assert_non_null(strstr(sl_get_str(expect(w, C, SL_M_ERROR), "text"), "it has ended"));
}

/* What a worker of another mind says is no plan, and no end of a task. */
static void results_that_cannot_be_are_refused(void **state)
{
#define PLAN(version, src, out, shard)                                                                         \
    ",\"plan\":{\"fingerprint\":\"000102030405060708090a0b0c0d0e0f\",\"source\":\"s\",\"recipe\":\"r\",\"options\":\"o\"," \
    "\"file_bytes\":7,\"version\":\"" version "\",\"src_bytes\":" src ",\"out_bytes\":" out ",\"shard\":" shard "}"
    static const struct { const char *key, *more, *why; } bad[] = {
        {"a", "", "field 'plan' is missing"},
        {"b", PLAN("1", "[]", "[]", "[]"), "of one length, at least 1"},
        {"c", PLAN("1", "[1,2]", "[1]", "[0,0]"), "of one length"},
        {"d", PLAN("2", "[1]", "[1]", "[0]"), "bytes of version 2, 1 is expected"},
        {"e", PLAN("1", "[1,2]", "[1,2]", "[1,0]"), "shard must not fall"},
        {"f", PLAN("1", "[999999999999999,1]", "[1,2]", "[0,0]"), "too many bytes"},
    };
    struct world *w = *state;
    struct got g = {0};

    client(w, C);
    worker(w, 1);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t id = submit(w, C, bad[i].key, ",\"attempts\":1");

        takes(w, 1, 1, &g, 1);
        say(w, 1, "{\"v\":3,\"m\":\"result\",\"job\":%llu,\"task\":65536,\"epoch\":%llu,\"bytes\":0%s}", (unsigned long long)g.job,
            (unsigned long long)g.epoch, bad[i].more);
        assert_non_null(strstr(sl_get_str(expect(w, 1, SL_M_NACK), "text"), bad[i].why));
        assert_string_equal(state_of(w, C, id), "failed");
    }
    ready_job(w, C, 1, "g", 1, 1);
    takes(w, 1, 1, &g, 1);
    say(w, 1, "{\"v\":3,\"m\":\"result\",\"job\":%llu,\"task\":0,\"epoch\":%llu,\"bytes\":100}", (unsigned long long)g.job,
        (unsigned long long)g.epoch);
    assert_non_null(strstr(sl_get_str(expect(w, 1, SL_M_NACK), "text"), "field 'checksum' is missing"));
#undef PLAN
}

static void who_asked_is_named(void **state)
{
    static const char *const verbs[] = {"release", "cancel", "retry", "stitch", "verify"};
    static const char *const said[] = {"by alice release", "cancelled by alice", "by alice retry", "by alice stitch", "by alice verify"};
    struct world *w = *state;
    char *log;

    w->user[C] = "alice";
    client(w, C);
    worker(w, 1);
    submit(w, C, "a", ",\"hold\":true,\"manual_stitch\":true");
    for (unsigned i = 0; i < 5; i++) {
        say(w, C, "{\"v\":3,\"m\":\"%s\",%s}", verbs[i], i < 3 ? "\"jobs\":[1]" : "\"job\":1");
        run_all(w, 1);
    }
    say(w, C, "{\"v\":3,\"m\":\"logs\",\"job\":1}");
    log = cJSON_PrintUnformatted(expect(w, C, SL_M_LOG));
    for (unsigned i = 0; i < 5; i++)
        assert_non_null(strstr(log, said[i]));
    free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_discarded_plan_is_forgotten),
        TEST(cancelling_takes_tasks_back),
        TEST(what_was_cancelled_is_discarded_later),
        TEST(a_refused_set_changes_nothing),
        TEST(a_refused_request_changes_nothing),
        TEST(a_job_is_its_owners),
        TEST(attempts_are_those_set_last),
        TEST(a_failed_stitch_is_asked_for),
        TEST(a_refused_stitch_changes_nothing),
        TEST(a_stitch_asked_for_outlives_the_daemon),
        TEST(a_retry_publishes),
        TEST(ended_jobs_are_discarded),
        TEST(what_succeeded_and_is_forgotten_is_no_obstacle),
        TEST(a_failed_verification_alone_is_tried_again),
        TEST(a_session_is_its_users),
        TEST(long_names_are_cut_between_characters),
        TEST(a_list_names_the_files),
        TEST(results_that_cannot_be_are_refused),
        TEST(who_asked_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
