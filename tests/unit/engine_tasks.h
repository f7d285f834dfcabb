/* An engine with three small tensors, and what becomes of their tasks. */
#ifndef SLUICE_TESTS_ENGINE_TASKS_H
#define SLUICE_TESTS_ENGINE_TASKS_H

#include "tests/unit/engine_world.h"
#include "tests/unit/io_ways.h"

/* Two FP8 tensors of 64 x 1024 to q4_k, one to F32; a task each. */
static inline void make(struct world *w)
{
    uint32_t s;

    world_open(w);
    world_file(w, "a.safetensors");
    for (uint32_t i = 0; i < 3; i++) {
        char name[16];

        snprintf(name, sizeof name, "t%u", i);
        s = world_source(w, 0, name, SL_DTYPE_F8_E4M3, 64, 1024, SL_DTYPE_F32, 32, 128);
        snprintf(name, sizeof name, "out%u", i);
        world_out(w, name, i < 2 ? SL_TYPE_Q4_K : SL_TYPE_F32, SL_COPY, 1024, 64, 0, s, 1);
        world_task(w, i, 0);
    }
}

static inline struct sl_engine_opts options(struct world *w, enum sl_io_mode io)
{
    return (struct sl_engine_opts){.threads = 2, .mem_bytes = 64u << 20, .io = io,
                                   .segment_paths = w->segment_paths, .slab_bytes = 1u << 17};
}

static inline struct sl_engine *open_engine(struct world *w, const struct sl_engine_opts *o)
{
    struct sl_engine *en = NULL;
    struct sl_error e = {0, ""};

    if (world_engine(w, o, &en, &e) < 0)
        fail_msg("%s", e.text);
    return en;
}

static inline struct sl_task_result do_task(struct sl_engine *en, uint32_t task)
{
    struct sl_error e;

    assert_int_equal(sl_engine_submit(en, task, 1, &e), 0);
    return world_wait(en);
}

static inline void expect(struct sl_task_result r, int code, const char *a, const char *b)
{
    if (r.code != code || !strstr(r.error.text, a) || !strstr(r.error.text, b))
        fail_msg("code %d, \"%s\"; expected code %d, \"%s\" and \"%s\"", r.code, r.error.text, code, a, b);
}

/* The task is right: code, checksum, bytes. */
static inline void expect_good(struct world *w, struct sl_task_result r)
{
    uint8_t *want, *got;

    if (r.code < 0)
        fail_msg("%s", r.error.text);
    want = world_expected(w, r.task, false);
    got = world_output(w, r.task);
    assert_int_equal(r.checksum, world_task_sum(w, r.task, want));
    assert_memory_equal(got, want, w->pt[r.task].bytes);
    free(want);
    free(got);
}

#endif
