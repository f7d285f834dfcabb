/* A lane asked to write or to read where it may not: outside its roots, where another job's files are, or a later lease's. */
#include "tests/unit/lane_world.h"
#include "worker/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static int unreserved; /* what a reservation says; 0: the truth */

int fallocate(int fd, int mode, off_t at, off_t n)
{
    if (!unreserved)
        return (int)syscall(SYS_fallocate, fd, mode, at, n);
    errno = unreserved;
    return -1;
}

static int unremoved; /* what the next removal of a finished file says; 0: the truth */

int unlink(const char *path)
{
    size_t n = strlen(path);

    if (!unremoved || n < 5 || strcmp(path + n - 5, ".gguf") != 0)
        return (int)syscall(SYS_unlink, path);
    errno = unremoved;
    unremoved = 0;
    return -1;
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
    for (unsigned i = 0; i < 3; i++) {
        const char *name = (const char *[]){"x-00002-of-00002.gguf.xxh64.partial", "x-00002-of-00002.gguf.partial", "x-00002-of-00002.gguf"}[i];

        assert_int_equal(mkdir(path_of(w, name), 0700), 0);
        fails(w, SL_TASK_PREPARE, SL_EEXISTS, "a folder has the name of the output");
        assert_int_equal(rmdir(path_of(w, name)), 0);
    }
    close(open(path_of(w, "x-00001-of-00002.gguf"), O_CREAT | O_WRONLY, 0600));
    fails(w, SL_TASK_PREPARE, SL_EEXISTS, "exists already");
    cJSON_AddTrueToObject(sl_get(w->spec, "options"), "force");
    prepare(w);
}

static void what_lies_outside_the_roots_is_refused(void **state)
{
    struct world *w = *state;

    cJSON_ReplaceItemInObject(w->spec, "output", cJSON_CreateString("/var/tmp"));
    fails(w, SL_TASK_PREPARE, SL_ELACKS, "outside");
    cJSON_ReplaceItemInObject(w->spec, "output", cJSON_CreateString(w->dir));
    cJSON_ReplaceItemInObject(w->spec, "source", cJSON_CreateString("/etc/ssl"));
    fails(w, SL_TASK_PREPARE, SL_ELACKS, "outside");
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
             "b='%s/models--a--b/blobs'; mkdir -p \"$b\" '%s/ck'; for f in \"$S\"/*.json \"$S\"/*.safetensors; do"
             " n=${f##*/}; h=$(printf %%s $n | sha1sum | cut -c1-40); case \"%s\" in ''|*$n*)"
             " cp \"$f\" \"$b/$h\" && ln -sfn \"$b/$h\" '%s/ck'/$n;; *) cp --remove-destination \"$f\" '%s/ck'/$n;;"
             " esac || exit 1; done", hub, w->dir, only ? only : "", w->dir, w->dir);
    assert_int_equal(setenv("S", w->source, 1), 0); /* a path of any characters */
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
    fails(w, SL_TASK_DISCARD, SL_ENOSOURCE, path_of(w, "gone: No such file"));
    fails(w, SL_TASK_DISCARD, SL_ENOSOURCE, "the .partial files of 'x' in /");
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
    unremoved = EIO;
    fails(w, SL_TASK_PUBLISH, SL_EFAIL, "this file of the former set cannot be removed");
    succeeds(w, SL_TASK_PUBLISH);
    assert_true(exists(w, "x.gguf"));
    assert_false(exists(w, "x-00001-of-00002.gguf") || exists(w, "x-00002-of-00002.gguf.xxh64"));
}

/* On a filesystem that has no reservation all goes on without; one that is full is told. */
static void space_is_reserved_where_it_can_be(void **state)
{
    struct world *w = *state;

    unreserved = ENOSPC;
    fails(w, SL_TASK_PREPARE, SL_ENOSPACE, "cannot reserve");
    unreserved = EOPNOTSUPP;
    prepare(w);
    unreserved = 0;
    convert(w);
    succeeds(w, SL_TASK_STITCH);
    succeeds(w, SL_TASK_PUBLISH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(another_plan_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_output_that_is_taken_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_lies_outside_the_roots_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(links_out_of_the_roots_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_claim_names_its_job, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_planned_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_late_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(what_another_job_took_over_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_of_a_former_set_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(space_is_reserved_where_it_can_be, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
