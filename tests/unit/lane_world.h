/* A lane with a job's spec: what a daemon would grant it, and what becomes of it. */
#ifndef SLUICE_TESTS_LANE_WORLD_H
#define SLUICE_TESTS_LANE_WORLD_H

#include "proto/wire.h"
#include "worker/lane.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cjson/cJSON.h>
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
    uint64_t job, group, epoch;
    char *sums;
};

static inline void open_lane_of(struct world *w, const struct sl_job_cache_opts *o)
{
    struct sl_error e;

    w->wake = eventfd(0, EFD_NONBLOCK);
    assert_int_equal(sl_lane_open(o, w->wake, &w->lane, &e), 0);
}

static inline void open_lane(struct world *w, uint64_t mem_bytes)
{
    open_lane_of(w, &(struct sl_job_cache_opts){.roots = w->roots, .threads = 2, .mem_bytes = mem_bytes});
}

static inline void close_lane(struct world *w)
{
    sl_lane_close(w->lane);
    close(w->wake);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline void push(struct world *w, uint32_t task)
{
    struct sl_work *work = calloc(1, sizeof *work);

    assert_non_null(work);
    work->job = w->job;
    work->task = task;
    work->epoch = ++w->epoch;
    work->with = w->with;
    work->group = w->group;
    work->spec = cJSON_Duplicate(w->spec, 1);
    if (task != SL_TASK_PREPARE)
        strcpy(work->fingerprint, w->fingerprint);
    if (task == SL_TASK_STITCH)
        work->sums = strdup(w->sums);
    sl_lane_push(w->lane, work);
}

static inline struct sl_outcome *wait_outcome(struct world *w)
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

static inline struct sl_outcome *does(struct world *w, uint32_t task)
{
    push(w, task);
    return wait_outcome(w);
}

static inline struct sl_outcome *good(struct sl_outcome *o)
{
    if (o->kind != SL_OUTCOME_RESULT)
        fail_msg("job %d, task %u: %s", (int)o->job, o->task, o->error.text);
    return o;
}

static inline void succeeds(struct world *w, uint32_t task)
{
    sl_outcome_free(good(does(w, task)));
}

static inline void fails(struct world *w, uint32_t task, int code, const char *text)
{
    struct sl_outcome *o = does(w, task);

    assert_int_equal(o->kind, SL_OUTCOME_FAIL);
    assert_int_equal(o->error.code, code);
    if (!strstr(o->error.text, text))
        fail_msg("'%s' is not in '%s'", text, o->error.text);
    assert_null(strstr(o->error.text, "/proc/"));
    sl_outcome_free(o);
}

static inline void prepare(struct world *w)
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

/* Of the next task done; jobs have numbers from the first one's on. */
static inline void take_sum(struct world *w, struct world *first)
{
    struct sl_outcome *o = good(wait_outcome(w));
    struct world *of = first + (o->job - first->job);
    char digits[17];

    assert_true(o->has_checksum);
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)o->checksum);
    memcpy(of->sums + 16 * (size_t)o->task, digits, 16);
    sl_outcome_free(o);
}

static inline void convert(struct world *w)
{
    for (uint32_t t = 0; t < w->n_tasks; t++)
        push(w, t);
    for (uint32_t t = 0; t < w->n_tasks; t++)
        take_sum(w, w);
}

/* Until the next call. */
static inline const char *path_of(const struct world *w, const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    return path;
}

static inline int exists(struct world *w, const char *name)
{
    return access(path_of(w, name), F_OK) == 0;
}

static inline void flip(struct world *w, const char *name, long at)
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

#endif
