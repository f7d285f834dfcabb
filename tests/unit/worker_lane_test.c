/* A lane does a whole job by its tasks, as a daemon would grant them: prepare, the
 * plan's tasks, stitch, publish, verify; and what goes wrong is told. */
#include "proto/wire.h"
#include "worker/claim.h"
#include "worker/lane.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_MS 60000

struct world {
    char dir[64], source[4096];
    struct sl_roots *roots;
    struct sl_lane *lane;
    int wake;
    cJSON *spec;
    char fingerprint[33];
    uint32_t n_tasks, with;
    uint64_t job, epoch;
    char *sums;
};

static void open_lane_of(struct world *w, const struct sl_job_cache_opts *o)
{
    struct sl_error e;

    w->wake = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(sl_lane_open(o, w->wake, &w->lane, &e), 0);
}

static void open_lane(struct world *w, uint64_t mem_bytes)
{
    open_lane_of(w, &(struct sl_job_cache_opts){.roots = w->roots, .threads = 2, .mem_bytes = mem_bytes});
}

static void close_lane(struct world *w)
{
    sl_lane_close(w->lane);
    close(w->wake);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    const char *roots[2];
    struct sl_error e;
    cJSON *o;

    snprintf(w->dir, sizeof w->dir, "/tmp/sluice_lane_XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_non_null(realpath("tests/tiny-v3", w->source));
    roots[0] = w->dir;
    roots[1] = w->source;
    assert_int_equal(sl_roots_open(roots, 2, &w->roots, &e), 0);
    w->spec = cJSON_CreateObject();
    sl_put_str(w->spec, "source", w->source);
    sl_put_str(w->spec, "output", w->dir);
    sl_put_str(w->spec, "prefix", "x");
    sl_put_str(w->spec, "recipe", "all");
    sl_put_str(w->spec, "recipe_text", "default q4_k\n");
    o = cJSON_AddObjectToObject(w->spec, "options");
    sl_put_uint(o, "task_bytes", 1000000);
    sl_put_uint(o, "split_max_bytes", 7000000);
    assert_int_equal(sl_record_check("spec", w->spec, &e), 0);
    w->job = 7;
    open_lane(w, 128 << 20);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    close_lane(w);
    sl_roots_close(w->roots);
    cJSON_Delete(w->spec);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    free(w->sums);
    free(w);
    return 0;
}

static void push(struct world *w, uint32_t task)
{
    struct sl_work *work = calloc(1, sizeof *work);

    assert_non_null(work);
    work->job = w->job;
    work->task = task;
    work->epoch = ++w->epoch;
    work->with = w->with;
    work->spec = cJSON_Duplicate(w->spec, 1);
    if (task != SL_TASK_PREPARE)
        strcpy(work->fingerprint, w->fingerprint);
    if (task == SL_TASK_STITCH)
        work->sums = strdup(w->sums);
    sl_lane_push(w->lane, work);
}

static struct sl_outcome *wait_outcome(struct world *w)
{
    struct pollfd p = {.fd = w->wake, .events = POLLIN};
    struct sl_outcome *o;
    uint64_t n;

    while ((o = sl_lane_collect(w->lane)) == NULL) {
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
        assert_int_equal(read(w->wake, &n, sizeof n), sizeof n);
    }
    return o;
}

static struct sl_outcome *does(struct world *w, uint32_t task)
{
    push(w, task);
    return wait_outcome(w);
}

static struct sl_outcome *good(struct sl_outcome *o)
{
    if (o->kind != SL_OUTCOME_RESULT)
        fail_msg("job %d, task %u: %s", (int)o->job, o->task, o->error.text);
    return o;
}

static void succeeds(struct world *w, uint32_t task)
{
    sl_outcome_free(good(does(w, task)));
}

static void fails(struct world *w, uint32_t task, int code, const char *text)
{
    struct sl_outcome *o = does(w, task);

    assert_int_equal(o->kind, SL_OUTCOME_FAIL);
    assert_int_equal(o->error.code, code);
    if (!strstr(o->error.text, text))
        fail_msg("'%s' is not in '%s'", text, o->error.text);
    assert_null(strstr(o->error.text, "/proc/"));
    sl_outcome_free(o);
}

static void prepare(struct world *w)
{
    struct sl_outcome *o = good(does(w, SL_TASK_PREPARE));
    struct sl_error e;

    assert_int_equal(sl_record_check("plan", o->plan, &e), 0);
    strcpy(w->fingerprint, sl_get_str(o->plan, "fingerprint"));
    w->n_tasks = (uint32_t)cJSON_GetArraySize(sl_get(o->plan, "src_bytes"));
    sl_outcome_free(o);
    free(w->sums);
    w->sums = calloc(w->n_tasks, 17);
    assert_non_null(w->sums);
}

static void convert(struct world *w)
{
    for (uint32_t t = 0; t < w->n_tasks; t++)
        push(w, t);
    for (uint32_t t = 0; t < w->n_tasks; t++) {
        struct sl_outcome *o = good(wait_outcome(w));
        char digits[17];

        assert_true(o->has_checksum);
        snprintf(digits, sizeof digits, "%016llx", (unsigned long long)o->checksum);
        memcpy(w->sums + 16 * (size_t)o->task, digits, 16);
        sl_outcome_free(o);
    }
}

/* Until the next call. */
static const char *path_of(const struct world *w, const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    return path;
}

static int exists(struct world *w, const char *name)
{
    return access(path_of(w, name), F_OK) == 0;
}

static void flip(struct world *w, const char *name, long at)
{
    FILE *f = fopen(path_of(w, name), "r+");
    int c;

    assert_non_null(f);
    fseek(f, at, SEEK_END);
    c = fgetc(f);
    fseek(f, at, SEEK_END);
    fputc(c ^ 1, f);
    fclose(f);
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

static void another_plan_is_refused(void **state)
{
    struct world *w = *state;

    prepare(w);
    memset(w->fingerprint, '0', 32);
    fails(w, 0, SL_ESOURCE, "fingerprint");
    fails(w, SL_TASK_STITCH, SL_ESOURCE, "fingerprint");
}

static void an_output_that_is_taken_is_refused(void **state)
{
    struct world *w = *state;

    prepare(w);
    prepare(w); /* the same plan goes on */
    cJSON_ReplaceItemInObject(w->spec, "recipe_text", cJSON_CreateString("default q2_k\n"));
    fails(w, SL_TASK_PREPARE, SL_EEXISTS, "another job");
    w->fingerprint[0] ^= 1;
    succeeds(w, SL_TASK_DISCARD);
    /* That was not its own: still there. */
    assert_true(exists(w, "x.sluice-job"));
    w->fingerprint[0] ^= 1;
    cJSON_ReplaceItemInObject(w->spec, "recipe_text", cJSON_CreateString("default q4_k\n"));
    succeeds(w, SL_TASK_DISCARD);
    assert_false(exists(w, "x.sluice-job") || exists(w, "x-00001-of-00002.gguf.partial"));
    close(open(path_of(w, "x-00001-of-00002.gguf"), O_CREAT | O_WRONLY, 0600));
    fails(w, SL_TASK_PREPARE, SL_EEXISTS, "exists already");
    cJSON_AddTrueToObject(sl_get(w->spec, "options"), "force");
    prepare(w);
}

static void what_lies_outside_the_roots_is_refused(void **state)
{
    struct world *w = *state;

    cJSON_ReplaceItemInObject(w->spec, "output", cJSON_CreateString("/var/tmp"));
    fails(w, SL_TASK_PREPARE, SL_EUSAGE, "outside");
    cJSON_ReplaceItemInObject(w->spec, "output", cJSON_CreateString(w->dir));
    cJSON_ReplaceItemInObject(w->spec, "source", cJSON_CreateString("/etc/ssl"));
    fails(w, SL_TASK_PREPARE, SL_EUSAGE, "outside");
    cJSON_ReplaceItemInObject(w->spec, "source", cJSON_CreateString(w->source));
    cJSON_ReplaceItemInObject(w->spec, "prefix", cJSON_CreateString("../x"));
    fails(w, SL_TASK_PREPARE, SL_EUSAGE, "prefix");
}

/* tests/tiny-v3 as a folder of links into a Hugging Face cache at `hub`; the names
 * in `only` (all: NULL) are linked, the rest copied. */
static void make_links(struct world *w, const char *hub, const char *only)
{
    char command[16384];

    snprintf(command, sizeof command,
             "b='%s/models--a--b/blobs'; mkdir -p \"$b\" '%s/ck'; for f in '%s'/*.json '%s'/*.safetensors; do"
             " n=${f##*/}; h=$(printf %%s $n | sha1sum | cut -c1-40); case \"%s\" in ''|*$n*)"
             " cp \"$f\" \"$b/$h\" && ln -sfn \"$b/$h\" '%s/ck'/$n;; *) cp --remove-destination \"$f\" '%s/ck'/$n;;"
             " esac || exit 1; done", hub, w->dir, w->source, w->source, only ? only : "", w->dir,
             w->dir);
    assert_int_equal(system(command), 0);
}

/* A user may follow such links; a worker only where they stay below its roots. */
static void links_out_of_the_roots_are_refused(void **state)
{
    static const char *const files[] = {"tokenizer.json", "config.json",
                                        "model-00002-of-00003.safetensors",
                                        "model.safetensors.index.json"};
    char hub[] = "/tmp/sluice_hub_XXXXXX", inside[128], command[64];
    struct world *w = *state;
    struct sl_checkpoint *ck;
    struct sl_error e;

    assert_non_null(mkdtemp(hub));
    snprintf(inside, sizeof inside, "%s/ck", w->dir);
    cJSON_ReplaceItemInObject(w->spec, "source", cJSON_CreateString(inside));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        make_links(w, hub, files[i]);
        assert_int_equal(sl_checkpoint_open(inside, &ck, &e), 0);
        sl_checkpoint_close(ck);
        fails(w, SL_TASK_PREPARE, SL_EUSAGE, "outside the folders allowed");
        fails(w, SL_TASK_PREPARE, SL_EUSAGE, files[i]);
    }
    snprintf(inside, sizeof inside, "%s/hub", w->dir);
    make_links(w, inside, NULL);
    prepare(w);
    snprintf(command, sizeof command, "rm -rf %s", hub);
    assert_int_equal(system(command), 0);
}

static void a_claim_names_its_job(void **state)
{
    struct world *w = *state;
    struct output o = {.dir = w->dir, .prefix = (char[]){"x"}};
    struct sl_error e;

    assert_int_equal(claim_absent(&o, &e), 0);
    prepare(w);
    assert_int_equal(claim_absent(&o, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, "job 7 of the service"));
    succeeds(w, SL_TASK_DISCARD);
    assert_int_equal(claim_absent(&o, &e), 0);
}

/* A prepare of which nothing is known, and whose plan cannot be made any more. */
static void what_cannot_be_planned_is_named(void **state)
{
    struct world *w = *state;

    prepare(w);
    *w->fingerprint = '\0';
    cJSON_ReplaceItemInObject(w->spec, "source", cJSON_CreateString(path_of(w, "gone")));
    fails(w, SL_TASK_DISCARD, SL_ESOURCE, path_of(w, "gone: No such file"));
    fails(w, SL_TASK_DISCARD, SL_ESOURCE, "the .partial files of 'x' in /");
    assert_true(exists(w, "x-00001-of-00002.gguf.partial"));
    unlink(path_of(w, "x.sluice-job"));
    succeeds(w, SL_TASK_DISCARD); /* nobody's */
}

static ino_t inode(struct world *w, const char *name)
{
    struct stat st;

    assert_int_equal(stat(path_of(w, name), &st), 0);
    return st.st_ino;
}

/* Prepare and discard of an older lease, however late they come, leave the later one's files. */
static void who_is_late_gives_way(void **state)
{
    struct world *w = *state;
    const char *const file = "x-00002-of-00002.gguf.partial";
    uint64_t before;
    ino_t was;

    w->epoch = 1000000;
    prepare(w);
    convert(w);
    before = w->epoch;
    was = inode(w, file);
    for (unsigned i = 0; i < 2; i++) {
        w->epoch = 1000;
        fails(w, SL_TASK_PREPARE, SL_EEXISTS, "a later lease of job 7 has this output");
        fails(w, SL_TASK_DISCARD, SL_EEXISTS, "a later lease of job 7 has this output");
        fails(w, SL_TASK_PUBLISH, SL_EEXISTS, "a later lease of job 7 has this output");
        cJSON_AddTrueToObject(sl_get(w->spec, "options"), "force");
    }
    assert_true(was == inode(w, file));
    assert_false(exists(w, "x.sluice-job-ending") || exists(w, "x-00001-of-00002.gguf"));
    w->epoch = before;
    succeeds(w, SL_TASK_STITCH);
    succeeds(w, SL_TASK_PUBLISH);
}

/* Files that another job has taken over are not removed with the first one. */
static void what_another_job_took_over_stays(void **state)
{
    struct world *w = *state;

    prepare(w);
    w->job = 8;
    prepare(w);
    w->job = 7;
    succeeds(w, SL_TASK_DISCARD);
    assert_true(exists(w, "x.sluice-job") && exists(w, "x-00001-of-00002.gguf.partial"));
    w->job = 8;
    succeeds(w, SL_TASK_DISCARD);
    assert_false(exists(w, "x.sluice-job") || exists(w, "x-00001-of-00002.gguf.partial"));
}

static void parts_of_a_former_set_are_refused(void **state)
{
    struct world *w = *state;
    cJSON *options = sl_get(w->spec, "options");

    prepare(w);
    convert(w);
    succeeds(w, SL_TASK_STITCH);
    succeeds(w, SL_TASK_PUBLISH);
    cJSON_ReplaceItemInObject(options, "split_max_bytes", cJSON_CreateNumber(0));
    fails(w, SL_TASK_PREPARE, SL_EEXISTS, "x-00002-of-00002.gguf: parts of another set");
    cJSON_AddTrueToObject(options, "force");
    prepare(w);
    convert(w);
    succeeds(w, SL_TASK_STITCH);
    assert_true(exists(w, "x-00001-of-00002.gguf"));
    succeeds(w, SL_TASK_PUBLISH);
    assert_true(exists(w, "x.gguf"));
    assert_false(exists(w, "x-00001-of-00002.gguf") || exists(w, "x-00002-of-00002.gguf.xxh64"));
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

    prepare(w);
    w->with = 1;
    push(w, 0);
    w->with = 0;
    push(w, SL_TASK_PREPARE);
    while (s.n_tasks == 0 && s.finished < 2)
        sl_lane_state(w->lane, &s);
    sl_lane_drop(w->lane, 7, 0, w->epoch - 1);
    sl_outcome_free(good(wait_outcome(w)));
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
        cmocka_unit_test_setup_teardown(another_plan_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_output_that_is_taken_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_lies_outside_the_roots_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(links_out_of_the_roots_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_claim_names_its_job, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_planned_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_late_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(what_another_job_took_over_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_of_a_former_set_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_has_not_begun_is_handed_back, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_wants_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_put_off_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(two_jobs_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(a_set_of_many_files_is_told, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
