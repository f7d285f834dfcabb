/* A lane does a whole job by its tasks, as a daemon would grant them: prepare, the
 * plan's tasks, stitch, publish, verify; and what goes wrong is told. */
#include "tests/unit/lane_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static atomic_int held; /* 1: the next reservation waits, and makes it 2; until it is 0 */

int fallocate(int fd, int mode, off_t at, off_t n)
{
    int yes = 1;

    if (atomic_compare_exchange_strong(&held, &yes, 2))
        while (atomic_load(&held))
            usleep(1000);
    return (int)syscall(SYS_fallocate, fd, mode, at, n);
}

static void a_job_by_its_tasks(void **state)
{
    struct world *w = *state;
    struct sl_lane_state s;

    prepare(w);
    assert_true(w->n_tasks > 5);
    assert_true(exists(w, "x.sluice-job"));
    convert(w);
    succeeds(w, SL_TASK_STITCH);
    succeeds(w, SL_TASK_PUBLISH);
    assert_true(exists(w, "x-00001-of-00002.gguf"));
    assert_false(exists(w, "x-00001-of-00002.gguf.partial") || exists(w, "x.sluice-job"));
    succeeds(w, SL_TASK_PUBLISH); /* once more changes nothing */
    succeeds(w, SL_TASK_VERIFY);
    sl_lane_state(w->lane, &s);
    assert_true(s.bytes > 0 && s.unfinished == 0);
    flip(w, "x-00002-of-00002.gguf", -1000);
    fails(w, SL_TASK_VERIFY, SL_EVERIFY, "x-00002-of-00002.gguf");
}

static void bytes_that_went_bad_are_made_again(void **state)
{
    struct world *w = *state;
    struct sl_outcome *o;
    uint32_t bad;
    char digits[17];

    prepare(w);
    convert(w);
    flip(w, "x-00002-of-00002.gguf.partial", -1000);
    o = does(w, SL_TASK_STITCH);
    assert_int_equal(o->kind, SL_OUTCOME_FAIL);
    assert_int_equal(o->error.code, SL_EVERIFY);
    assert_int_equal(o->n_bad, 1);
    bad = (uint32_t)o->bad[0];
    sl_outcome_free(o);
    o = good(does(w, bad));
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)o->checksum);
    assert_memory_equal(digits, w->sums + 16 * (size_t)bad, 16);
    sl_outcome_free(o);
    succeeds(w, SL_TASK_STITCH);
}

static void a_lost_file_costs_its_tasks_alone(void **state)
{
    struct world *w = *state;
    struct sl_outcome *o;
    uint32_t n;

    prepare(w);
    convert(w);
    assert_int_equal(unlink(path_of(w, "x-00002-of-00002.gguf.partial")), 0);
    o = does(w, SL_TASK_STITCH);
    assert_int_equal(o->kind, SL_OUTCOME_FAIL);
    n = o->n_bad;
    assert_true(n > 0 && n < w->n_tasks);
    for (uint32_t i = 0; i < n; i++) {
        /* The engine that still has the old file open must not count. */
        for (int kind = SL_OUTCOME_FAIL; kind != SL_OUTCOME_RESULT;) {
            struct sl_outcome *again = does(w, (uint32_t)o->bad[i]);

            kind = (int)again->kind;
            sl_outcome_free(again);
        }
    }
    sl_outcome_free(o);
    succeeds(w, SL_TASK_STITCH);
}

/* The descriptor of the only ring, or -1. */
static int ring_fd(void)
{
    char path[64], what[64] = "";

    for (int fd = 0; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, what, sizeof what - 1) > 0 && strncmp(what, "anon_inode:[io_uring]", 21) == 0)
            return fd;
    }
    return -1;
}

static void nothing(int sig)
{
    (void)sig;
}

/* Interrupts all other threads. Returns how many there are. */
static int interrupt_others(void)
{
    DIR *d = opendir("/proc/self/task");
    const struct dirent *ent;
    int n = 0;

    assert_non_null(d);
    while ((ent = readdir(d)) != NULL)
        if (ent->d_name[0] != '.' && atoi(ent->d_name) != gettid()) {
            syscall(SYS_tgkill, getpid(), atoi(ent->d_name), SIGUSR1);
            n++;
        }
    closedir(d);
    return n;
}

static void a_ring_that_broke_idle_costs_one_task(void **state)
{
    const struct sigaction ignore = {.sa_handler = nothing};
    struct world *w = *state;
    int fd, null = open("/dev/null", O_RDWR), n;

    prepare(w);
    succeeds(w, 0);
    fd = ring_fd();
    if (fd < 0)
        skip(); /* no io_uring here */
    assert_int_equal(sigaction(SIGUSR1, &ignore, NULL), 0);
    assert_int_equal(dup2(null, fd), fd);
    close(null);
    for (n = interrupt_others(); interrupt_others() == n;)
        usleep(1000); /* until the engine's thread is gone */
    fails(w, 1, SL_EFAIL, "; --io pread does without io_uring");
    succeeds(w, 1);
}

static void what_has_not_begun_is_handed_back(void **state)
{
    struct world *w = *state;
    unsigned back = 0, done = 0;

    prepare(w);
    for (uint32_t t = 0; t < w->n_tasks; t++)
        push(w, t);
    sl_lane_hand_back(w->lane);
    while (back + done < w->n_tasks) {
        struct sl_outcome *o = wait_outcome(w);

        back += o->kind == SL_OUTCOME_GIVEBACK;
        done += o->kind == SL_OUTCOME_RESULT;
        sl_outcome_free(o);
    }
    assert_true(back > 0);
}

/* A special task whose first reservation waits until `held` is 0. */
static void push_held(struct world *w)
{
    atomic_store(&held, 1);
    push(w, SL_TASK_PREPARE);
    while (atomic_load(&held) != 2)
        usleep(1000);
}

static void what_waits_goes_with_its_lease(void **state)
{
    struct world *w = *state;

    prepare(w);
    succeeds(w, SL_TASK_DISCARD);
    push_held(w);
    for (uint32_t t = 0; t < 3; t++)
        push(w, t);
    sl_lane_drop(w->lane, 7, 1, w->epoch - 1);
    atomic_store(&held, 0);
    sl_outcome_free(good(wait_outcome(w)));
    for (unsigned done = 0; done != 5;) { /* tasks 0 and 2 */
        struct sl_outcome *o = good(wait_outcome(w));

        assert_int_equal(done >> o->task & 1, 0);
        assert_int_not_equal(o->task, 1);
        done |= 1u << o->task;
        sl_outcome_free(o);
    }
}

/* Of a special task under way: another lease's end leaves it alone, its own one's and the worker's stop it. */
static void a_special_task_is_stopped(void **state)
{
    struct world *w = *state;

    for (unsigned how = 0; how < 3; how++) {
        struct sl_outcome *o;

        push_held(w);
        if (how < 2)
            sl_lane_drop(w->lane, 7, SL_TASK_PREPARE, w->epoch - !how);
        else
            sl_lane_hand_back(w->lane);
        atomic_store(&held, 0);
        o = wait_outcome(w);
        assert_int_equal(o->kind, how ? SL_OUTCOME_GIVEBACK : SL_OUTCOME_RESULT);
        sl_outcome_free(o);
        succeeds(w, SL_TASK_DISCARD);
    }
}

/* A task in an engine, which would take a second or more, goes with its lease. */
static void what_nobody_wants_is_given_up(void **state)
{
    struct world *w = *state;
    struct sl_lane_state s = {0};

    close_lane(w);
    open_lane_of(w, &(struct sl_job_cache_opts){.roots = w->roots, .threads = 1, .backend = SL_BACKEND_SCALAR});
    cJSON_ReplaceItemInObject(w->spec, "recipe_text", cJSON_CreateString("default iq2_xs\n"));
    cJSON_ReplaceItemInObject(sl_get(w->spec, "options"), "task_bytes", cJSON_CreateNumber(0)); /* large tasks */
    cJSON_AddTrueToObject(sl_get(w->spec, "options"), "synthetic_imatrix");
    prepare(w);
    push(w, 0);
    while (s.n_tasks == 0)
        sl_lane_state(w->lane, &s);
    sl_lane_drop(w->lane, 7, 0, w->epoch + 1);
    sl_lane_drop(w->lane, 7, 0, w->epoch);
    while (s.n_tasks > 0)
        sl_lane_state(w->lane, &s);
    assert_null(sl_lane_collect(w->lane));
}

/* A task that the lane's thread has in hand, as it waits for one that was to come with it, while another is done. */
static void what_was_put_off_is_given_up(void **state)
{
    struct world *w = *state;
    struct sl_lane_state s = {0};
    struct sl_outcome *o;

    prepare(w);
    w->with = 1;
    push(w, 0);
    push(w, 3);
    w->with = 0;
    push(w, SL_TASK_PREPARE);
    while (s.n_tasks == 0 && s.finished < 2)
        sl_lane_state(w->lane, &s);
    sl_lane_drop(w->lane, 7, 0, w->epoch - 2);
    sl_outcome_free(good(wait_outcome(w)));
    o = good(wait_outcome(w)); /* the other one that was put off */
    assert_int_equal(o->task, 3);
    sl_outcome_free(o);
    succeeds(w, 1);
    succeeds(w, 2); /* the next turn of the thread */
    sl_lane_hand_back(w->lane);
    assert_null(sl_lane_collect(w->lane));
}

/* Tasks of two jobs in their engines: what is asked of one's plan is asked by its own tasks alone. */
static void two_jobs_take_turns(void **state)
{
    struct world *w = *state, other;
    uint32_t n;

    close_lane(w);
    open_lane(w, 512 << 20); /* with room for two engines */
    prepare(w);
    other = *w;
    other.job = 8;
    other.sums = NULL;
    other.spec = cJSON_Duplicate(w->spec, 1);
    cJSON_ReplaceItemInObject(other.spec, "prefix", cJSON_CreateString("y"));
    cJSON_ReplaceItemInObject(sl_get(other.spec, "options"), "task_bytes", cJSON_CreateNumber(4096));
    prepare(&other);
    assert_true(other.n_tasks > 50 * w->n_tasks);
    for (n = 0; n < w->n_tasks; n++) {
        push(w, n);
        push(&other, other.n_tasks - 1 - n);
    }
    for (n *= 2; n > 0; n--)
        sl_outcome_free(good(wait_outcome(w)));
    cJSON_Delete(other.spec);
    free(other.sums);
}

/* A sweep's tasks of one number that read other places of the source, since one of its plans is cut differently: those
 * that are cut alike go together, the other by itself, and each job gets the bytes that it has alone. */
static void plans_cut_differently_are_done_apart(void **state)
{
    static const char *const recipes[] = {"default q4_k\n", "default q5_k\n", "default q4_k\n"};
    struct world *w = *state, job[3];
    uint32_t most = 0;
    char *alone[3];

    close_lane(w);
    open_lane(w, 512 << 20);
    for (unsigned i = 0; i < 3; i++) {
        char prefix[2] = {(char)('a' + i), 0};

        job[i] = *w;
        job[i].job = 7 + i;
        job[i].spec = cJSON_Duplicate(w->spec, 1);
        cJSON_ReplaceItemInObject(job[i].spec, "prefix", cJSON_CreateString(prefix));
        cJSON_ReplaceItemInObject(job[i].spec, "recipe_text", cJSON_CreateString(recipes[i]));
        if (i == 2)
            cJSON_ReplaceItemInObject(sl_get(job[i].spec, "options"), "task_bytes", cJSON_CreateNumber(700000));
        prepare(&job[i]);
        convert(&job[i]);
        alone[i] = strdup(job[i].sums);
        memset(job[i].sums, 0, 16 * (size_t)job[i].n_tasks);
        most = job[i].n_tasks > most ? job[i].n_tasks : most;
    }
    assert_int_equal(job[0].n_tasks, job[1].n_tasks);
    assert_true(job[2].n_tasks > job[0].n_tasks);
    for (uint32_t t = 0; t < most; t++) {
        for (unsigned i = 0; i < 3; i++) {
            job[i].group = t < job[0].n_tasks ? 7 : 0;
            job[i].with = t < job[0].n_tasks ? 2 : 0;
            if (t < job[i].n_tasks)
                push(&job[i], t);
        }
        for (unsigned i = 0; i < 3; i++)
            if (t < job[i].n_tasks)
                take_sum(&job[0], job);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_string_equal(job[i].sums, alone[i]);
        job[i].group = job[i].with = 0;
        succeeds(&job[i], SL_TASK_STITCH);
        cJSON_Delete(job[i].spec);
        free(job[i].sums);
        free(alone[i]);
    }
}

/* Of two jobs that are read together the one whose partial file is not its own any more fails alone: before an engine
 * has it open (task 0), and while one writes to it (2). */
static void a_bad_file_is_no_fault_of_the_sweep(void **state)
{
    struct world *w = *state, job[2];

    for (unsigned i = 0; i < 2; i++) {
        job[i] = *w;
        job[i].job = 7 + i;
        job[i].group = 7;
        job[i].sums = NULL;
        job[i].spec = cJSON_Duplicate(w->spec, 1);
        cJSON_ReplaceItemInObject(job[i].spec, "prefix", cJSON_CreateString(i ? "b" : "a"));
        prepare(&job[i]);
        job[i].with = 1;
    }
    for (uint32_t t = 0; t < 3; t++) {
        if (t == 0)
            assert_int_equal(truncate(path_of(w, "a-00002-of-00002.gguf.partial"), 1), 0);
        if (t == 2)
            assert_int_equal(unlink(path_of(w, "a-00002-of-00002.gguf.partial")), 0);
        push(&job[0], t);
        push(&job[1], t);
        for (unsigned i = 0; i < 2; i++) {
            struct sl_outcome *o = wait_outcome(w);

            if (o->job == 8 || t == 1)
                good(o);
            else if (o->kind != SL_OUTCOME_FAIL || !strstr(o->error.text, "a-00002-of-00002.gguf.partial: "))
                fail_msg("kind %d: %s", (int)o->kind, o->error.text);
            assert_null(strstr(o->error.text, "/proc/"));
            sl_outcome_free(o);
        }
        job[0].with = 0;
        if (t == 0)
            prepare(&job[0]);
        job[0].with = 1;
    }
    for (unsigned i = 0; i < 2; i++) {
        cJSON_Delete(job[i].spec);
        free(job[i].sums);
    }
}

#define MANY (SL_FILES_MAX + 1)

/* Their result must be one that can be sent. */
static void a_set_of_many_files_is_told(void **state)
{
    static struct sl_plan_segment segments[MANY];
    static char names[MANY][32];
    struct world *w = *state;
    struct sl_plan plan = {.fingerprint = "f", .segments = segments, .n_segments = MANY};
    struct sl_checkpoint ck = {.n_files = 0};
    struct sl_model model = {.n_src = 0};
    struct sl_job_plan j = {.ck = &ck, .model = &model, .plan = &plan};
    struct output out = {.dir = strdup(w->dir)};
    const struct sl_given_job given = {.j = &j, .out = &out};
    struct sl_outcome *o;
    struct sl_error e;
    struct sl_msg m;
    uint8_t *bytes;
    size_t n;

    close_lane(w);
    for (uint32_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "x-%05u-of-%05u.gguf", i + 1, MANY);
        segments[i] = (struct sl_plan_segment){.name = names[i], .file_bytes = 1};
    }
    assert_int_equal(output_attach(&out, &plan, &e), 0);
    for (uint32_t i = 0; i < MANY; i++) {
        int fd = open(out.partial[i], O_WRONLY | O_CREAT | O_EXCL, 0600);

        assert_int_equal(write(fd, "x", 1), 1);
        close(fd);
    }
    strcpy(w->fingerprint, plan.fingerprint);
    open_lane_of(w, &(struct sl_job_cache_opts){.given = &given});
    o = good(does(w, SL_TASK_PUBLISH));
    assert_true(exists(w, names[MANY - 1]));
    assert_int_equal(sl_msg_new(SL_M_RESULT, NULL, &m, &e), 0);
    sl_put_uint(m.tree, "job", o->job);
    sl_put_uint(m.tree, "task", o->task);
    sl_put_uint(m.tree, "epoch", o->epoch);
    sl_put_uint(m.tree, "bytes", o->bytes);
    sl_put_texts(m.tree, "files", o->files);
    if (sl_wire_encode(&m, &bytes, &n, &e) < 0)
        fail_msg("%s", e.text);
    free(bytes);
    sl_msg_free(&m);
    sl_outcome_free(o);
    close_lane(w);
    output_free(&out);
    open_lane(w, 128 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_by_its_tasks, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_that_went_bad_are_made_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_file_costs_its_tasks_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_ring_that_broke_idle_costs_one_task, setup, teardown),
        cmocka_unit_test_setup_teardown(what_has_not_begun_is_handed_back, setup, teardown),
        cmocka_unit_test_setup_teardown(what_waits_goes_with_its_lease, setup, teardown),
        cmocka_unit_test_setup_teardown(a_special_task_is_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_wants_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_put_off_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(two_jobs_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(plans_cut_differently_are_done_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_file_is_no_fault_of_the_sweep, setup, teardown),
        cmocka_unit_test_setup_teardown(a_set_of_many_files_is_told, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
