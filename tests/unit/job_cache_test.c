/* What a worker keeps of many jobs is bounded by its memory; jobs of one source share what
 * they can; and a model's plan counts as a part of the memory that an engine may use. */
#include "proto/wire.h"
#include "worker/claim.h"
#include "worker/job_cache.h"
#include "worker/slab.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
    char dir[64], source[72];
    struct sl_roots *roots;
    uint64_t one;            /* bytes of one job that shares nothing */
    uint64_t now;
};

static struct sl_job_cache *open_cache(struct world *w, uint64_t mem)
{
    struct sl_job_cache_opts o = {.roots = w->roots, .threads = 1, .mem_bytes = mem};
    struct sl_job_cache *c;
    struct sl_error e;

    assert_int_equal(sl_job_cache_open(&o, &c, &e), 0);
    return c;
}

static cJSON *spec_of(struct world *w, uint64_t id, const char *layout)
{
    cJSON *spec = cJSON_CreateObject(), *o;
    char prefix[32];

    snprintf(prefix, sizeof prefix, "x%llu", (unsigned long long)id);
    sl_put_str(spec, "source", w->source);
    sl_put_str(spec, "output", w->dir);
    sl_put_str(spec, "prefix", prefix);
    sl_put_str(spec, "recipe", "all");
    sl_put_str(spec, "recipe_text", "default q4_k\n");
    o = cJSON_AddObjectToObject(spec, "options");
    sl_put_str(o, "layout", layout);
    return spec;
}

static int get_as(struct world *w, struct sl_job_cache *c, uint64_t id, const char *layout,
                  const char *fingerprint, struct sl_cached_job **j)
{
    cJSON *spec = spec_of(w, id, layout);
    struct sl_error e;
    int rc = sl_job_cache_get(c, id, spec, fingerprint, ++w->now, j, &e);

    if (rc < 0)
        fail_msg("%s", e.text);
    cJSON_Delete(spec);
    return rc;
}

static int get(struct world *w, struct sl_job_cache *c, uint64_t id, struct sl_cached_job **j)
{
    return get_as(w, c, id, "mla", NULL, j);
}

/* The fingerprint that this job gets from what the files say now. */
static void fingerprint_of(struct world *w, uint64_t id, const char *layout, char out[33])
{
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    struct sl_cached_job *j;

    assert_int_equal(get_as(w, c, id, layout, NULL, &j), 0);
    strcpy(out, j->j.plan->fingerprint);
    sl_job_cache_close(c);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct sl_job_cache *c;
    struct sl_cached_job *j;
    const char *root = w->dir;
    char command[400];
    struct sl_error e;

    snprintf(w->dir, sizeof w->dir, "/tmp/sluice_jobs_XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->source, sizeof w->source, "%.60s/src", w->dir);
    snprintf(command, sizeof command, "mkdir %s && cp tests/tiny-v3/*.json tests/tiny-v3/*.safetensors %s", w->source,
             w->source);
    assert_int_equal(system(command), 0);
    assert_int_equal(sl_roots_open(&root, 1, &w->roots, &e), 0);
    c = open_cache(w, UINT64_C(1) << 30);
    assert_int_equal(get(w, c, 1, &j), 0);
    w->one = sl_job_cache_bytes(c);
    sl_job_cache_close(c);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    sl_roots_close(w->roots);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    free(w);
    return 0;
}

static unsigned count(struct sl_job_cache *c)
{
    unsigned n = 0;

    for (struct sl_cached_job *j = sl_job_cache_first(c); j; j = j->next)
        n++;
    return n;
}

/* Room for three and a half jobs that share nothing, as jobs that are being prepared. */
static void plans_are_bounded_by_bytes(void **state)
{
    struct world *w = *state;
    uint64_t bound = w->one * 7 / 2;
    struct sl_job_cache *c = open_cache(w, bound * 16);
    struct sl_cached_job *j, *extra;

    for (uint64_t id = 1; id <= 10; id++) {
        assert_int_equal(get(w, c, id, &j), 0);
        assert_true(sl_job_cache_bytes(c) <= bound);
    }
    assert_int_equal(count(c), 3);
    for (j = sl_job_cache_first(c); j; j = j->next) {
        assert_true(j->id >= 8);
        j->busy = 1;
    }
    /* What is in use stays: one more, and no further one before something is idle. */
    assert_int_equal(get(w, c, 11, &extra), 0);
    extra->busy = 1;
    assert_int_equal(get(w, c, 12, &j), 1);
    assert_int_equal(count(c), 4);
    extra->busy = 0;
    assert_int_equal(get(w, c, 12, &j), 0);
    assert_int_equal(count(c), 4);
    for (j = sl_job_cache_first(c); j; j = j->next)
        j->busy = 0;
    sl_job_cache_close(c);

    c = open_cache(w, 1); /* one may always be kept */
    assert_int_equal(get(w, c, 1, &j), 0);
    assert_int_equal(get(w, c, 2, &j), 0);
    assert_int_equal(count(c), 1);
    assert_int_equal(j->id, 2);
    sl_job_cache_close(c);
}

/* Two jobs that wait for one engine must not push out each other's plans. */
static void no_plan_is_made_before_an_engine_is_free(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, 128 * SL_MIB);
    struct sl_cached_job *j;

    assert_true(sl_job_cache_ready(c, 1));
    assert_int_equal(get(w, c, 1, &j), 0);
    assert_true(sl_job_cache_ready(c, 2));
    j->engine = (struct sl_engine *)w; /* nobody looks into it here */
    j->busy = 1;
    assert_true(sl_job_cache_ready(c, 1));
    assert_false(sl_job_cache_ready(c, 2));
    j->busy = 0;
    assert_true(sl_job_cache_ready(c, 2));
    j->engine = NULL;
    sl_job_cache_close(c);
}

/* A worker's two lanes: what one plan takes while it is made is there once. */
static void one_plan_is_made_at_a_time(void **state)
{
    struct world *w = *state;
    pthread_mutex_t planning = PTHREAD_MUTEX_INITIALIZER;
    struct sl_job_cache_opts o = {.roots = w->roots, .threads = 1, .mem_bytes = UINT64_C(1) << 30, .planning = &planning};
    struct sl_job_cache *c;
    struct sl_cached_job *j;
    struct sl_error e;
    char fingerprint[33];

    fingerprint_of(w, 1, "mla", fingerprint);
    assert_int_equal(sl_job_cache_open(&o, &c, &e), 0);
    pthread_mutex_lock(&planning);
    assert_int_equal(get_as(w, c, 1, "mla", fingerprint, &j), 1);
    pthread_mutex_unlock(&planning);
    assert_int_equal(get_as(w, c, 1, "mla", fingerprint, &j), 0);
    assert_int_equal(pthread_mutex_trylock(&planning), 0); /* it was let go of */
    assert_int_equal(get_as(w, c, 1, "mla", fingerprint, &j), 0); /* none is made */
    pthread_mutex_unlock(&planning);
    sl_job_cache_close(c);
}

/* A disk can be unmounted soon after its last job. */
static void folders_are_let_go_of(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    struct sl_cached_job *j;
    char fingerprint[33];

    fingerprint_of(w, 1, "mla", fingerprint);
    assert_int_equal(get(w, c, 1, &j), 0);
    sl_job_cache_let_go(c, 1);
    assert_int_equal(get_as(w, c, 1, "mla", fingerprint, &j), 0); /* it goes on */
    sl_job_cache_idle(c, w->now);
    assert_int_equal(count(c), 1);
    sl_job_cache_let_go(c, 1);
    j->busy = 1;
    sl_job_cache_idle(c, w->now);
    assert_int_equal(count(c), 1);
    j->busy = 0;
    sl_job_cache_idle(c, w->now);
    assert_int_equal(count(c), 0);
    /* Without a word, a while later. */
    assert_int_equal(get(w, c, 1, &j), 0);
    sl_job_cache_idle(c, w->now + 10000);
    assert_int_equal(count(c), 1);
    sl_job_cache_idle(c, w->now + 10001);
    assert_int_equal(count(c), 0);
    sl_job_cache_close(c);
}

/* An imatrix' values stay in its file; names and counts do not. */
static void an_imatrix_counts(void **state)
{
    struct sl_imatrix im = {.n_entries = 3, .n_counts = 1000};
    struct sl_plan p = {.n_tensors = 2};
    struct sl_job_plan j = {.plan = &p};
    uint64_t without = sl_job_plan_bytes(&j);

    (void)state;
    j.imatrix = &im;
    assert_true(sl_job_plan_bytes(&j) >= without + 3 * sizeof *im.entries + 4000);
}

static void jobs_of_one_source_share_its_model(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    struct sl_cached_job *j[5], *other;
    char fingerprint[33];

    for (unsigned i = 0; i < 5; i++) {
        fingerprint_of(w, i + 1, "mla", fingerprint);
        assert_int_equal(get_as(w, c, i + 1, "mla", fingerprint, &j[i]), 0);
        assert_ptr_equal(j[i]->j.model, j[0]->j.model);
    }
    assert_true(sl_job_cache_bytes(c) < 2 * w->one);
    fingerprint_of(w, 6, "legacy", fingerprint);
    assert_int_equal(get_as(w, c, 6, "legacy", fingerprint, &other), 0);
    assert_ptr_not_equal(other->j.model, j[0]->j.model);

    /* The model and the hold on its folder go with the last job. */
    sl_job_cache_drop(c, j[0]);
    sl_job_cache_drop(c, j[4]);
    for (unsigned i = 1; i < 4; i++) {
        uint8_t *header;

        assert_int_equal(access(j[i]->j.ck->files[0].path, R_OK), 0);
        assert_int_equal(sl_plan_header(j[i]->j.plan, 0, &header), 0);
        free(header);
        sl_job_cache_drop(c, j[i]);
    }
    sl_job_cache_close(c);
}

static void a_changed_source_is_read_again(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    struct sl_cached_job *before, *after;
    char fingerprint[33], path[256];

    fingerprint_of(w, 1, "mla", fingerprint);
    assert_int_equal(get_as(w, c, 1, "mla", fingerprint, &before), 0);
    snprintf(path, sizeof path, "%s/model-00001-of-00003.safetensors", w->source);
    assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[2]){{1, 0}, {1, 0}}, 0), 0);
    fingerprint_of(w, 2, "mla", fingerprint);
    assert_int_equal(get_as(w, c, 2, "mla", fingerprint, &after), 0);
    assert_ptr_not_equal(after->j.model, before->j.model);
    assert_int_equal(get_as(w, c, 3, "mla", NULL, &after), 0); /* as prepare has it */
    assert_ptr_not_equal(after->j.model, before->j.model);
    sl_job_cache_close(c);
}

/* The estimate against what the allocator says. */
static void the_estimate_is_about_right(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    struct mallinfo2 before = mallinfo2(), after;
    struct sl_cached_job *j;
    uint64_t really;

    assert_int_equal(get(w, c, 1, &j), 0);
    after = mallinfo2();
    really = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    print_message("%llu bytes, estimated %llu\n", (unsigned long long)really, (unsigned long long)w->one);
    if (after.uordblks == 0) { /* a sanitizer's allocator tells nothing */
        sl_job_cache_close(c);
        skip();
    }
    assert_true(w->one > really / 2 && w->one < really * 2);
    sl_job_cache_close(c);
}

static void an_engine_leaves_room_for_the_plan(void **state)
{
    const uint64_t mem = 128 * SL_MIB, plan = 60 * SL_MIB;
    struct sl_slabs s;
    struct sl_error e;

    (void)state;
    assert_int_equal(sl_slabs_choose(mem, 64, 0, 0, false, plan, 0, 0, &s, &e), 0);
    assert_true(s.n * s.slab_bytes + plan <= mem);
    assert_int_equal(sl_slabs_choose(mem, 64, 0, 0, false, mem, 0, 0, &s, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "130 MiB are needed")); /* three of 512 KiB, and a plan of 128 MiB */
}

/* In place of libc's: the disk is full, and a later lease has just ended this one's claim. */
static const char *claim_that_goes, *part_that_goes;
static int n_made;

int ftruncate(int fd, off_t n)
{
    n_made++;
    if (!claim_that_goes || part_that_goes)
        return (int)syscall(SYS_ftruncate, fd, n);
    assert_int_equal(unlink(claim_that_goes), 0);
    claim_that_goes = NULL;
    errno = ENOSPC;
    return -1;
}

/* In place of libc's: the job is published when its part is looked at. */
int lstat(const char *path, struct stat *st)
{
    if (part_that_goes && strcmp(path, part_that_goes) == 0) {
        assert_int_equal(unlink(claim_that_goes), 0);
        assert_int_equal(unlink(part_that_goes), 0);
        claim_that_goes = part_that_goes = NULL;
    }
    return fstatat(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

/* A job whose files are reserved, and where its claim is. */
static struct sl_cached_job *prepared(struct world *w, struct sl_job_cache *c, cJSON *spec, char claim[OUTPUT_PATH_BYTES + 16])
{
    struct claim_hold hold;
    struct sl_cached_job *j;
    struct sl_error e;
    bool kept[64];

    sl_put_uint(sl_get(spec, "options"), "split_max_bytes", 4000000);
    assert_int_equal(sl_job_cache_get(c, 1, spec, NULL, ++w->now, &j, &e), 0);
    assert_true(j->j.plan->n_segments >= 2 && j->j.plan->n_segments <= 64);
    assert_int_equal(claim_make(&j->out, &(struct claim_lease){.fingerprint = j->j.plan->fingerprint, .job = 1, .epoch = 1},
                                false, &hold, &e), 0);
    claim_release(&hold);
    assert_int_equal(output_reserve(&j->out, true, kept, NULL, &e), 0);
    snprintf(claim, OUTPUT_PATH_BYTES + 16, "%s/%s.sluice-job", j->out.dir, j->out.prefix);
    return j;
}

/* Of files that are made anew what was there stays, whoever has the claim by then. */
static void only_what_was_made_goes_with_the_claim(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    cJSON *spec = spec_of(w, 1, "mla");
    char claim[OUTPUT_PATH_BYTES + 16];
    struct sl_cached_job *j = prepared(w, c, spec, claim);
    struct sl_error e;
    unsigned whose = 1;

    assert_int_equal(unlink(j->out.partial[0]), 0);
    claim_that_goes = claim;
    assert_int_equal(sl_job_cache_engine(c, &j, 1, &whose, &e), SL_ENOSPACE);
    assert_int_equal(whose, 0);
    assert_null(claim_that_goes);
    assert_int_not_equal(access(j->out.partial[0], F_OK), 0);
    for (uint32_t i = 1; i < j->j.plan->n_segments; i++)
        assert_int_equal(access(j->out.partial[i], F_OK), 0);
    sl_job_cache_close(c);
    cJSON_Delete(spec);
}

/* A number given again, by a queue that was restored: what was kept of the other job is not taken for it. */
static void a_number_given_again_is_another_job(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    cJSON *spec = spec_of(w, 1, "mla");
    char other[96], fingerprint[33];
    struct sl_cached_job *j;
    struct sl_error e;

    assert_int_equal(get(w, c, 1, &j), 0);
    strcpy(fingerprint, j->j.plan->fingerprint);
    snprintf(other, sizeof other, "%.60s/other", w->dir);
    assert_int_equal(mkdir(other, 0700), 0);
    cJSON_ReplaceItemInObject(spec, "output", cJSON_CreateString(other));
    assert_int_equal(sl_job_cache_get(c, 1, spec, fingerprint, ++w->now, &j, &e), 0);
    assert_string_equal(j->output, other);
    assert_false(j->j.force);
    cJSON_AddTrueToObject(sl_get(spec, "options"), "force");
    assert_int_equal(sl_job_cache_get(c, 1, spec, fingerprint, ++w->now, &j, &e), 0);
    assert_true(j->j.force);
    sl_job_cache_close(c);
    cJSON_Delete(spec);
}

/* What has gone with the claim is not made anew, not even for a moment. */
static void what_is_published_is_not_missed(void **state)
{
    struct world *w = *state;
    struct sl_job_cache *c = open_cache(w, UINT64_C(1) << 30);
    cJSON *spec = spec_of(w, 1, "mla");
    char claim[OUTPUT_PATH_BYTES + 16];
    struct sl_cached_job *j = prepared(w, c, spec, claim);
    struct sl_error e;
    unsigned whose = 1;
    int made = n_made;

    claim_that_goes = claim;
    part_that_goes = j->out.partial[0];
    assert_int_equal(sl_job_cache_engine(c, &j, 1, &whose, &e), SL_ELACKS);
    assert_int_equal(whose, 0);
    assert_null(part_that_goes);
    assert_int_equal(n_made, made);
    sl_job_cache_close(c);
    cJSON_Delete(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plans_are_bounded_by_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(no_plan_is_made_before_an_engine_is_free, setup, teardown),
        cmocka_unit_test_setup_teardown(one_plan_is_made_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(folders_are_let_go_of, setup, teardown),
        cmocka_unit_test(an_imatrix_counts),
        cmocka_unit_test_setup_teardown(jobs_of_one_source_share_its_model, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_source_is_read_again, setup, teardown),
        cmocka_unit_test_setup_teardown(the_estimate_is_about_right, setup, teardown),
        cmocka_unit_test(an_engine_leaves_room_for_the_plan),
        cmocka_unit_test_setup_teardown(only_what_was_made_goes_with_the_claim, setup, teardown),
        cmocka_unit_test_setup_teardown(a_number_given_again_is_another_job, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_published_is_not_missed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
