/* What the coordinator does while a commit is under way, by a disk that ends one when the
 * test says so: this program's committer takes the place of the thread's. */
#include "coord_world.h"

#include "daemon/committer.h"

#include <sys/syscall.h>

static unsigned syncs;

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fsync, fd);
}

static struct disk {
    struct sl_queue *q;
    bool busy, over, broken;
} disk;

int sl_committer_open(struct sl_queue *q, int wake_fd, struct sl_committer **out, struct sl_error *e)
{
    (void)wake_fd;
    (void)e;
    disk = (struct disk){.q = q};
    *out = (struct sl_committer *)(void *)&disk;
    return 0;
}

void sl_committer_close(struct sl_committer *c)
{
    (void)c;
}

void sl_committer_begin(struct sl_committer *c)
{
    (void)c;
    assert_false(disk.busy);
    disk.busy = true;
}

int sl_committer_end(struct sl_committer *c, bool wait, struct sl_error *e)
{
    (void)c;
    assert_true(disk.busy);
    if (!wait && !disk.over)
        return 1;
    disk.busy = disk.over = false;
    return disk.broken ? sl_fail(e, SL_ENOSPACE, "the disk is full") : sl_queue_commit(disk.q, e);
}

/* The commit under way ends well; what waited for it may begin another. */
static void commit_ends(struct world *w)
{
    assert_true(sl_coord_committing(w->c));
    disk.over = true;
    deliver(w);
}

static void restart(struct world *w)
{
    world_stop(w);
    w->slow = false;
    world_start(w);
}

static void submit_slowly(struct world *w, const char *key)
{
    char spec[400];

    snprintf(spec, sizeof spec, world_spec, "m", key);
    say(w, C, "{\"v\":3,\"m\":\"submit\",\"id\":\"s\",\"key\":\"%s\",\"specs\":[%s]}", key, spec);
    assert_true(sl_coord_committing(w->c));
    assert_null(heard(w, C, SL_M_SUBMITTED));
}

/* A job of 6 tasks, workers 1 and 2, and the commit of another job's submission under way. */
static void begin(struct world *w)
{
    world_stop(w);
    w->background = true;
    world_start(w);
    client(w, C);
    worker(w, 1);
    worker(w, 2);
    assert_int_equal(ready_job(w, C, 1, "a", 6, 3), 1);
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0);
    w->slow = true;
    submit_slowly(w, "b");
}

static void grants_leave_and_results_wait(void **state)
{
    struct world *w = *state;
    struct got g[8] = {{0}};
    unsigned left = 0;

    begin(w);
    takes(w, 1, 2, g, 2);
    result(w, 1, g[0]);
    assert_null(heard(w, 1, SL_M_ACK));
    commit_ends(w);
    expect(w, C, SL_M_SUBMITTED);
    assert_null(heard(w, 1, SL_M_ACK)); /* written now, and not on disk before the next end */
    commit_ends(w);
    expect(w, 1, SL_M_ACK);
    /* One task done and one leased are on disk: four are left. */
    restart(w);
    worker(w, 2);
    pull(w, 2, 8);
    for (unsigned i = 2, n = 2 + granted(w, 2, g + 2, 6); i < n; i++) {
        assert_true(g[i].job == 2 || (g[i].task != g[0].task && g[i].task != g[1].task));
        left += g[i].job == 1;
    }
    assert_int_equal(left, 4);
}

/* A task that went back in a commit is granted by the next one, on disk with its lease. */
static void a_grant_waits_for_what_it_rests_on(void **state)
{
    struct world *w = *state;
    struct got g = {0}, again[8];

    begin(w);
    commit_ends(w);
    expect(w, C, SL_M_SUBMITTED);
    takes(w, 1, 1, &g, 1);
    say(w, 1, "{\"v\":3,\"m\":\"giveback\",\"job\":1,\"task\":%u,\"epoch\":%llu}", (unsigned)g.task,
        (unsigned long long)g.epoch);
    takes(w, 2, 6, again, 5);
    commit_ends(w);
    expect(w, 1, SL_M_ACK);
    assert_int_equal(granted(w, 2, again, 8), 0);
    commit_ends(w);
    assert_int_equal(granted(w, 2, again, 8), 1);
    assert_true(again[0].task == g.task && again[0].epoch > g.epoch);
}

/* What a peer says after its hello is not taken before it. */
static void a_hello_keeps_its_place(void **state)
{
    struct world *w = *state;

    begin(w);
    hello(w, 1, "worker", NULL);
    pull(w, 1, 1);
    hello(w, 3, "worker", NULL);
    pull(w, 3, 1);
    assert_true(w->peer[1].n == 0 && w->peer[3].n == 0);
    commit_ends(w);
    w->slow = false;
    deliver(w);
    for (unsigned p = 1; p <= 3; p += 2) {
        assert_int_equal(w->peer[p].n, 2);
        assert_int_equal(w->peer[p].in[0].id, SL_M_WELCOME);
        assert_int_equal(w->peer[p].in[1].id, SL_M_GRANT);
        assert_non_null(sl_get(w->peer[p].in[1].tree, "spec")); /* what it had before does not count */
    }
    /* After that its requests are taken at once again. */
    expect(w, C, SL_M_SUBMITTED);
    w->slow = true;
    submit_slowly(w, "c");
    takes(w, 1, 1, (struct got[2]){{0}}, 2);
}

static void time_passes_after_the_commit(void **state)
{
    struct world *w = *state;
    struct got g = {0};

    begin(w);
    takes(w, 1, 1, &g, 1);
    w->now.run_ms += 11000;
    say(w, 1, "{\"v\":3,\"m\":\"pong\",\"n\":0}");
    assert_int_equal(sl_coord_tick(w->c, w->now, &w->e), 0);
    commit_ends(w);
    assert_null(heard(w, 1, SL_M_REVOKE));
    commit_ends(w);
    expect(w, 1, SL_M_REVOKE);
}

static void a_commit_that_fails_is_as_if_nothing_was_said(void **state)
{
    struct world *w = *state;
    struct sl_outgoing out;
    struct got g[2] = {{0}};
    unsigned rehello = 0;
    char held[300];

    begin(w);
    takes(w, 1, 2, g, 2);
    result(w, 1, g[0]);
    disk.over = disk.broken = true;
    assert_int_equal(sl_coord_flush(w->c, w->now, &w->e), SL_ENOSPACE);
    while (sl_coord_next(w->c, &out)) {
        rehello += memmem(out.bytes, out.n, "\"rehello\"", 9) != NULL;
        assert_null(memmem(out.bytes, out.n, "\"ack\"", 5));
        assert_null(memmem(out.bytes, out.n, "\"submitted\"", 11));
        free(out.bytes);
    }
    assert_int_equal(rehello, 3);
    assert_int_equal(sl_coord_committing(w->c), 0);
    /* The grants have left: their holder names them, and nobody else gets them before. */
    disk.broken = w->slow = false;
    w->now.run_ms += 1000;
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu},{\"job\":1,\"task\":%u,\"epoch\":%llu}]",
             (unsigned)g[0].task, (unsigned long long)g[0].epoch, (unsigned)g[1].task, (unsigned long long)g[1].epoch);
    hello(w, 1, "worker", held);
    assert_null(sl_get(expect(w, 1, SL_M_WELCOME), "dropped"));
    for (unsigned i = 0; i < 2; i++) {
        result(w, 1, g[i]);
        expect(w, 1, SL_M_ACK);
    }
    run_all(w, 1);
    client(w, C);
    assert_string_equal(state_of(w, C, 1), "succeeded");
    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":2}");
    assert_int_equal(sl_get_uint(expect(w, C, SL_M_ERROR), "code", 0), 5);
    assert_int_equal(submit(w, C, "b", ""), 2);
}

/* The disk is full from here on: what the client asks for fails, and it says hello again. */
static void disk_fills(struct world *w)
{
    room_for_files(false);
    say_quietly(w, C, "{\"v\":3,\"m\":\"hold\",\"jobs\":[1]}");
    assert_true(sl_coord_flush(w->c, w->now, &w->e) < 0);
    deliver(w);
    expect(w, C, SL_M_REHELLO);
    client(w, C);
}

/* A second later: the disk is tried, in vain. What is sent goes to the inboxes. */
static void still_full(struct world *w)
{
    w->now.run_ms += 1000;
    assert_true(sl_coord_tick(w->c, w->now, &w->e) == 0 && sl_coord_flush(w->c, w->now, &w->e) < 0);
    assert_true(sl_coord_failing(w->c) && sl_coord_readable(w->c));
    deliver(w); /* not tried again so soon */
}

static void a_full_disk_answers_questions(void **state)
{
    struct world *w = *state;
    struct got g = {0}, again[3];
    char held[160];
    cJSON *t;

    client(w, C);
    worker(w, 1);
    ready_job(w, C, 1, "a", 3, 3);
    pull(w, 1, 1);
    assert_int_equal(granted(w, 1, &g, 1), 1);
    deliver(w);
    snprintf(held, sizeof held, "[{\"job\":1,\"task\":%u,\"epoch\":%llu}]", (unsigned)g.task, (unsigned long long)g.epoch);
    disk_fills(w);
    expect(w, 1, SL_M_REHELLO);
    /* For longer than a lease. Workers wait, and a client's changes for five seconds. */
    for (unsigned i = 0; i < 12; i++) {
        if (i % 4 == 0)
            hello(w, 1, "worker", held);
        still_full(w);
        if (i == 4) { /* what waited until now */
            t = expect(w, C, SL_M_ERROR);
            assert_string_equal(sl_get_str(t, "re"), "0");
            assert_non_null(strstr(sl_get_str(t, "text"), "; nothing was changed"));
        }
        assert_null(heard(w, 1, SL_M_WELCOME));
        assert_non_null(strstr(state_of(w, C, 1), "running: the daemon's queue failed: "));
        say(w, C, "{\"v\":3,\"m\":\"workers\"}");
        expect(w, C, SL_M_WORKER_LIST);
        say(w, C, "{\"v\":3,\"m\":\"set\",\"id\":\"%u\",\"jobs\":[1],\"priority\":%u}", i, i);
        t = expect(w, C, SL_M_ERROR);
        assert_true((sl_get(t, "re") != NULL) == (i >= 4));
        assert_non_null(strstr(sl_get_str(t, "text"), i >= 4 ? "; nothing was changed" : "; what was asked waits for it"));
    }
    w->now.run_ms += 1000;
    assert_int_equal(sl_coord_settle(w->c, w->now, &w->e), 0); /* a daemon that stops can say so */
    room_for_files(true);
    assert_int_equal(sl_coord_tick(w->c, w->now, &w->e), 0);
    deliver(w);
    assert_int_equal(sl_coord_failing(w->c), 0);
    assert_null(heard(w, C, SL_M_DONE));
    assert_null(sl_get(expect(w, 1, SL_M_WELCOME), "dropped"));
    result(w, 1, g);
    expect(w, 1, SL_M_ACK);
    pull(w, 1, 3);
    assert_int_equal(granted(w, 1, again, 3), 2);
}

/* The worker with this number for an instance says hello, and names so many leases. */
static void hello_of(struct world *w, unsigned instance, unsigned leases)
{
    char held[40000], *s = held;

    for (unsigned i = 0; i < leases; i++)
        s += sprintf(s, "%s{\"job\":1,\"task\":%u,\"epoch\":1}", i ? "," : "", i);
    *s = '\0';
    say_quietly(w, 1, "{\"v\":3,\"m\":\"hello\",\"role\":\"worker\",\"version\":\"t\",\"instance\":\"%032u\",\"name\":\"n1\","
                "\"host\":\"h\",\"bytes\":\"1\",\"held\":[%s]}", instance, held);
}

/* How many hellos were held back: they are answered when the disk has room again. */
static unsigned held_back(struct world *w)
{
    unsigned n = 0;

    room_for_files(true);
    w->now.run_ms += 1000;
    assert_int_equal(sl_coord_flush(w->c, w->now, &w->e), 0);
    for (struct sl_outgoing out; sl_coord_next(w->c, &out); free(out.bytes))
        n += memmem(out.bytes, out.n, "\"welcome\"", 9) != NULL;
    return n;
}

/* Peers that repeat themselves while the disk is full do not fill the memory. */
static void only_so_much_is_held_back(void **state)
{
    struct world *w = *state;

    client(w, C);
    submit(w, C, "a", "");
    disk_fills(w);
    for (unsigned i = 0; i < 1100; i++)
        hello_of(w, 100 + i, 0);
    assert_false(sl_coord_full(w->c));
    assert_non_null(strstr(state_of(w, C, 1), "the daemon's queue failed: "));
    say(w, C, "{\"v\":3,\"m\":\"hold\",\"id\":\"h\",\"jobs\":[1]}"); /* nobody repeats this one */
    assert_string_equal(sl_get_str(expect(w, C, SL_M_ERROR), "re"), "h");
    assert_int_equal(held_back(w), 1024);
}

static void large_messages_are_held_back_by_their_size(void **state)
{
    struct world *w = *state;
    unsigned n;

    client(w, C);
    submit(w, C, "a", "");
    disk_fills(w);
    for (unsigned i = 0; i < 1024; i++)
        hello_of(w, 100 + i, SL_HELD_MAX);
    n = held_back(w);
    assert_true(n >= 100 && n <= 300);
}

static void a_hello_takes_the_place_of_the_one_before(void **state)
{
    struct world *w = *state;

    client(w, C);
    submit(w, C, "a", "");
    disk_fills(w);
    hello_of(w, 7, 0);
    w->user[1] = "somebody else";
    hello_of(w, 7, 0);
    w->user[1] = NULL;
    for (unsigned i = 0; i < 2000; i++)
        hello_of(w, 7 + i % 2, i % 3);
    assert_int_equal(held_back(w), 2);
}

/* There is room for what is tried, and none for what a client wants: it is told all the same. */
static void what_never_fits_is_refused(void **state)
{
    struct world *w = *state;
    char spec[400];
    unsigned told = 0, tries = 0;
    const cJSON *t;

    snprintf(spec, sizeof spec, world_spec, "m", "c");
    begin(w);
    disk.broken = true;
    while (!told && ++tries < 20) {
        disk.over = disk.busy;
        assert_true(sl_coord_flush(w->c, w->now, &w->e) <= 0);
        w->now.run_ms += 500;
        if (sl_coord_committing(w->c))
            continue;
        assert_true(sl_coord_failing(w->c) && sl_coord_readable(w->c));
        say_quietly(w, C, "{\"v\":3,\"m\":\"hello\",\"role\":\"client\",\"version\":\"t\",\"instance\":"
                    "\"00000000000000000000000000000009\",\"name\":\"n\",\"host\":\"h\"}");
        say_quietly(w, C, "{\"v\":3,\"m\":\"submit\",\"id\":\"s\",\"key\":\"c\",\"specs\":[%s]}", spec);
        deliver(w);
        while ((t = heard(w, C, SL_M_ERROR)) != NULL)
            told |= sl_get_str(t, "re") != NULL;
    }
    assert_int_equal(told, 1);
    assert_true(tries >= 8 && tries <= 16);
}

/* Who watches sees that the disk failed, and that it does no more. */
static void watchers_see_the_end_of_it(void **state)
{
    struct world *w = *state;
    const cJSON *jobs;

    client(w, C);
    submit(w, C, "a", "");
    disk_fills(w);
    say(w, C, "{\"v\":3,\"m\":\"watch\",\"every_ms\":100}");
    still_full(w);
    jobs = sl_get(expect(w, C, SL_M_STATUS), "jobs");
    assert_non_null(strstr(sl_get_str(cJSON_GetArrayItem(jobs, 0), "reason"), "the daemon's queue failed: "));
    room_for_files(true);
    w->now.run_ms += 1000;
    deliver(w);
    assert_int_equal(sl_coord_tick(w->c, w->now, &w->e), 0);
    deliver(w);
    jobs = sl_get(expect(w, C, SL_M_STATUS), "jobs");
    assert_string_equal(sl_get_str(cJSON_GetArrayItem(jobs, 0), "reason"), "no worker is connected");
}

static void only_so_much_waits(void **state)
{
    struct world *w = *state;

    begin(w);
    for (unsigned i = 0; i < 1024; i++) {
        assert_false(sl_coord_full(w->c));
        say_quietly(w, C, "{\"v\":3,\"m\":\"list\"}");
    }
    assert_true(sl_coord_full(w->c));
}

static void large_messages_wait_by_their_size(void **state)
{
    struct world *w = *state;
    unsigned n = 0;

    begin(w);
    for (; n < 1024 && !sl_coord_full(w->c); n++)
        hello_of(w, 100 + n, SL_HELD_MAX);
    assert_true(n >= 100 && n <= 300);
}

/* Each time, not only when the log has grown. */
static void what_is_acknowledged_is_synced(void **state)
{
    struct world *w = *state;

    client(w, C);
    for (unsigned i = 0; i < 3; i++) {
        syncs = 0;
        submit(w, C, (const char *[]){"a", "b", "c"}[i], "");
        assert_true(syncs > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_acknowledged_is_synced),
        TEST(grants_leave_and_results_wait),
        TEST(a_grant_waits_for_what_it_rests_on),
        TEST(a_hello_keeps_its_place),
        TEST(time_passes_after_the_commit),
        TEST(a_commit_that_fails_is_as_if_nothing_was_said),
        TEST(a_full_disk_answers_questions),
        TEST(only_so_much_is_held_back),
        TEST(large_messages_are_held_back_by_their_size),
        TEST(a_hello_takes_the_place_of_the_one_before),
        TEST(what_never_fits_is_refused),
        TEST(watchers_see_the_end_of_it),
        TEST(only_so_much_waits),
        TEST(large_messages_wait_by_their_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
