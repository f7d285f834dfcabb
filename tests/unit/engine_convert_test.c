/* The engine's bytes against an element-by-element computation, for every
 * transform, on both backends, with large and tiny slabs and 1 to 3 threads. */
#include "tests/unit/engine_worlds.h"
#include "tests/unit/io_ways.h"
#include "worker/measure.h"
#include "worker/source_element.h"
#include "worker/source_rows.h"

#include <sys/syscall.h>
#include <time.h>

static void run(struct world *w, const struct sl_engine_opts *o, uint8_t **expected)
{
    struct sl_engine *en = NULL;
    struct sl_engine_stats st;
    struct sl_error e = {0, ""};
    uint64_t src = 0;

    world_seal(w);
    if (world_engine(w, o, &en, &e) < 0)
        fail_msg("%s", e.text);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++)
        assert_int_equal(sl_engine_submit(en, i, 1, &e), 0);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++) {
        struct sl_task_result r = world_wait(en);
        const struct sl_plan_tensor *pt = &w->pt[r.task]; /* one task for each tensor */

        if (r.code < 0)
            fail_msg("%s: %s", pt->t->name, r.error.text);
        if (r.checksum != world_task_sum(w, r.task, expected[r.task])) {
            uint8_t *got = world_output(w, r.task);
            uint64_t at = 0;

            while (at < pt->bytes && got[at] == expected[r.task][at])
                at++;
            fail_msg("%s: checksum differs; byte %llu of %llu", pt->t->name, (unsigned long long)at,
                     (unsigned long long)pt->bytes);
        }
    }
    assert_int_equal(sl_engine_sync(en, 0, &e), 0);
    sl_engine_stats(en, &st);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++)
        src += w->task[i].src_bytes;
    assert_int_equal(st.source_bytes, src);
    assert_string_equal(st.io_name, o->io == SL_IO_PREAD ? "pread" : "io_uring");
    assert_int_equal(st.threads, o->threads);
    assert_true(st.slabs * st.slab_bytes <= o->mem_bytes);
    sl_engine_close(en);
    for (uint32_t i = 0; i < w->plan.n_tensors; i++) {
        uint8_t *got = world_output(w, i);

        assert_memory_equal(got, expected[i], w->pt[i].bytes);
        free(got);
    }
}

static void all_ways(struct world *w, bool round)
{
    uint8_t *expected[WORLD_MAX] = {NULL};
    const uint64_t slabs[] = {1u << 17, 3u << 16, 0};

    for (uint32_t i = 0; i < w->plan.n_tensors; i++)
        expected[i] = world_expected(w, i, round);
    for (unsigned i = 0; i < 12; i++) {
        struct sl_engine_opts o = {.threads = 1 + i % 3, .mem_bytes = 64u << 20, .io = io_way(i),
                                   .direct = i % 4 < 2 ? SL_DIRECT_ON : SL_DIRECT_OFF,
                                   .round_bf16 = round, .segment_paths = w->segment_paths,
                                   .weights = world_weights(w),
                                   .slab_bytes = slabs[i / 4]};

        run(w, &o, expected);
    }
    for (uint32_t i = 0; i < w->plan.n_tensors; i++)
        free(expected[i]);
}

static void convert(void (*what)(struct world *), bool round)
{
    struct world w;

    world_open(&w);
    world_file(&w, "a.safetensors");
    world_file(&w, "b.safetensors");
    what(&w);
    all_ways(&w, round);
    world_close(&w);
}

static void test_copies(void **state)
{
    (void)state;
    convert(add_copies, false);
    convert(add_copies, true);
    convert(add_made, false);
    convert(add_made, true);
}

static void test_scaled(void **state)
{
    (void)state;
    convert(add_scaled, false);
    convert(add_scaled, true);
}

static void test_packed(void **state)
{
    (void)state;
    convert(add_packed, false);
    convert(add_packed, true);
    convert(add_unordered, false);
    convert(add_unordered, true);
    convert(add_side_by_side, false);
    convert(add_side_by_side, true);
    convert(add_long_packed, false);
    convert(add_fp4, false);
    convert(add_fp4, true);
}

static void test_heads(void **state)
{
    (void)state;
    convert(add_heads, false);
}

static void test_views(void **state)
{
    (void)state;
    convert(add_views, false);
    convert(add_views, true);
}

static void test_parts(void **state)
{
    (void)state;
    convert(add_parts, false);
    convert(add_parts, true);
}

static void test_alike(void **state)
{
    (void)state;
    convert(add_alike, false);
}

/* What a reader keeps of packed tensors this small is all of the largest of each kind. */
static void windows_are_counted(void **state)
{
    uint64_t most[3] = {0};
    struct world w;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    world_file(&w, "b.safetensors");
    add_copies(&w);
    assert_int_equal(source_rows_kept(&w.ck, &w.model), 0);
    add_side_by_side(&w);
    for (uint64_t i = 0; i < w.model.n_src; i++) {
        const struct sl_model_src *s = &w.model.src[i];
        const uint32_t tensor[3] = {s->tensor, s->scale.tensor, s->scale.zeros - 1};

        for (int k = 0; k < 3 && s->scale.packing != SL_PACKED_ALONG; k++)
            if (w.ck.tensors[tensor[k]].bytes > most[k])
                most[k] = w.ck.tensors[tensor[k]].bytes;
    }
    assert_true(most[0] && most[1] && most[2]);
    assert_int_equal(source_rows_kept(&w.ck, &w.model), most[0] + most[1] + most[2] + 128 * 256 * sizeof(float)); /* and a head */
    world_close(&w);
}

/* One row, by those who sample and by those who verify; tensors take turns, so that
 * what is kept of one is not taken for another's. */
static void rows_of(struct world *w)
{
    struct sl_error e = {0, ""};
    struct source_rows *rows;
    struct source_reader *reader;
    float *x = malloc(2 * (sizeof *x << 17)), *y = x + (1 << 17);

    world_seal(w);
    assert_int_equal(source_rows_open(&w->ck, &w->model, &rows, &e), 0);
    assert_int_equal(source_reader_open(&w->ck, &w->model, &reader, &e), 0);
    for (uint64_t turn = 0; turn < 40; turn++)
        for (uint32_t i = 0; i < w->model.n_tensors; i++) {
            const struct sl_out_tensor *t = &w->out[i];
            uint64_t n = t->ne[0], row = turn * 7 % (t->elems / n);

            if (t->transform != SL_IDS && source_values(reader, t, row * n, n, y, &e) < 0)
                fail_msg("%s, row %llu: %s", t->name, (unsigned long long)row, e.text);
            if (t->transform == SL_IDS || t->transform == SL_PRODUCT || t->transform == SL_FIRST || (t->transform == SL_PERMUTE && t->n_dims == 1)) {
                assert_int_equal(source_row(rows, t, row, x, &e), SL_EUNSUPPORTED);
                continue;
            }
            if (source_row(rows, t, row, x, &e) < 0)
                fail_msg("%s, row %llu: %s", t->name, (unsigned long long)row, e.text);
            for (uint64_t c = 0; c < n; c++)
                if (x[c] != world_value(w, t, row * n + c) || y[c] != x[c])
                    fail_msg("%s, row %llu, column %llu", t->name, (unsigned long long)row, (unsigned long long)c);
        }
    source_rows_close(rows);
    source_reader_close(reader);
    free(x);
}

static void test_single_rows(void **state)
{
    void (*const what[])(struct world *) = {add_copies, add_scaled, add_heads, add_packed, add_unordered, add_side_by_side, add_views, add_parts};

    (void)state;
    for (size_t k = 0; k < sizeof what / sizeof *what; k++) {
        struct world w;

        world_open(&w);
        world_file(&w, "a.safetensors");
        world_file(&w, "b.safetensors");
        what[k](&w);
        rows_of(&w);
        world_close(&w);
    }
}

/* Several tensors in one task: the checksum covers their checksums in order. */
static void test_many_in_one_task(void **state)
{
    struct sl_engine_opts o = {.threads = 2, .mem_bytes = 64u << 20, .slab_bytes = 1u << 17, .backend = SL_BACKEND_SCALAR};
    struct sl_engine_stats st;
    struct sl_engine *en = NULL;
    struct sl_error e = {0, ""};
    struct sl_task_result r;
    struct sl_hash *h = sl_hash_new(false);
    uint64_t sum = 0;
    struct world w;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    world_file(&w, "b.safetensors");
    add_heads(&w);
    w.task[0].n_items = w.plan.n_items;
    w.plan.n_tasks = 1;
    o.weights = world_weights(&w);
    o.segment_paths = w.segment_paths;
    world_seal(&w);
    for (uint32_t i = 0; i < w.plan.n_items; i++) {
        const struct sl_plan_item *it = &w.item[i];
        int type = w.pt[it->tensor].type;
        uint8_t *x = world_expected(&w, it->tensor, false);

        sum = sl_xxh64(x + (it->elem0 ? sl_type_bytes(type, it->elem0) : 0),
                       sl_type_bytes(type, it->elems));
        assert_int_equal(sl_hash_update(h, &sum, sizeof sum), 0);
        free(x);
    }
    assert_int_equal(sl_hash_final(h, &sum, NULL), 0);
    sl_hash_free(h);
    assert_int_equal(world_engine(&w, &o, &en, &e), 0);
    sl_engine_stats(en, &st);
    assert_string_equal(st.backend_name, "scalar");
    assert_int_equal(sl_engine_submit(en, 0, 1, &e), 0);
    r = world_wait(en);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.checksum, sum);
    sl_engine_close(en);
    world_close(&w);
}

/* Types of the same block size, each recipe's own. */
static int turn_types(int type, unsigned by)
{
    static const int kinds[3][3] = {{SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_BF16},
                                    {SL_TYPE_Q8_0, SL_TYPE_MXFP4, SL_TYPE_IQ4_NL},
                                    {SL_TYPE_Q4_K, SL_TYPE_Q6_K, SL_TYPE_Q3_K}};

    for (unsigned k = 0; k < 3; k++)
        for (unsigned i = 0; i < 3; i++)
            if (kinds[k][i] == type)
                return kinds[k][(i + by) % 3];
    return type;
}

static int second(int type)
{
    return turn_types(type, 1);
}

static int third(int type)
{
    return turn_types(type, 2);
}

/* Bytes read for all tasks of these members; what they write is checked. */
static uint64_t read_together(struct world *w, unsigned n, uint64_t slab)
{
    const struct sl_plan *plans[3];
    struct sl_engine_opts o[3];
    struct sl_engine *en = NULL;
    struct sl_engine_stats st;
    struct sl_error e = {0, ""};

    for (unsigned m = 0; m < n; m++) {
        world_seal(&w[m]);
        plans[m] = &w[m].plan;
        o[m] = (struct sl_engine_opts){.threads = 2, .mem_bytes = 64u << 20,
                                       .direct = slab < 1u << 20 ? SL_DIRECT_OFF : SL_DIRECT_ON,
                                       .slab_bytes = slab, .segment_paths = w[m].segment_paths,
                                       .round_bf16 = m == 1};
        if (m != 2)
            o[m].weights = world_weights(&w[m]);
    }
    if (sl_engine_open(&w->ck, plans, o, n, &en, &e) < 0)
        fail_msg("%s", e.text);
    for (uint32_t i = 0; i < w->plan.n_tasks; i++)
        assert_int_equal(sl_engine_submit(en, i, (1u << n) - 1, &e), 0);
    for (uint32_t i = 0; i < n * w->plan.n_tasks; i++) {
        struct sl_task_result r = world_wait(en);
        uint8_t *bytes, *got;

        if (r.code < 0)
            fail_msg("%s", r.error.text);
        assert_true(r.member < n);
        bytes = world_expected(&w[r.member], r.task, r.member == 1);
        got = world_output(&w[r.member], r.task);
        assert_memory_equal(got, bytes, w[r.member].pt[r.task].bytes);
        assert_true(r.checksum == world_task_sum(&w[r.member], r.task, bytes));
        free(bytes);
        free(got);
    }
    for (uint32_t m = 0; m < n; m++)
        assert_int_equal(sl_engine_sync(en, m, &e), 0);
    sl_engine_stats(en, &st);
    assert_true(st.source_bytes == n * sl_engine_member_bytes(en, 0));
    sl_engine_close(en);
    return st.read_bytes;
}

/* Three recipes: each one's own bytes, and the source read once for all of them. */
static void test_recipes_share_their_reads(void **state)
{
    void (*const what[])(struct world *) = {add_copies, add_scaled, add_heads, add_views};
    /* In the largest, outputs lie as their pages do and are written with O_DIRECT. */
    const uint64_t slabs[] = {1u << 18, 0, 2u << 20};

    (void)state;
    for (unsigned k = 0; k < 12; k++) {
        struct world w[3];
        uint64_t one, three;

        for (unsigned m = 0; m < 3; m++) {
            world_open(&w[m]);
            w[m].retype = m == 0 ? NULL : m == 1 ? second : third;
            world_file(&w[m], "a.safetensors");
            world_file(&w[m], "b.safetensors");
            what[k % 4](&w[m]);
            for (uint32_t i = 0; m == 1 && i < WORLD_MAX; i++) /* each recipe's own weights, too */
                for (uint64_t v = 0; v < w[m].n_weights[i]; v++)
                    w[m].weights[i][v] = 2.0f - w[m].weights[i][v];
            for (uint32_t i = 0; m == 2 && i < WORLD_MAX; i++) {
                free(w[m].weights[i]);
                w[m].weights[i] = NULL;
            }
        }
        one = read_together(w, 1, slabs[k / 4]);
        three = read_together(w, 3, slabs[k / 4]);
        /* Units may be shorter, and then read a row of scales once more. */
        assert_true(one > 0 && three <= one + one / 10);
        /* Plans that are cut differently are refused. */
        assert_true(sl_engine_same_cuts(&w[0].plan, &w[1].plan));
        w[1].src[0].cols++;
        assert_false(sl_engine_same_cuts(&w[0].plan, &w[1].plan));
        w[1].src[0].cols--;
        w[1].out[0].heads++;
        assert_false(sl_engine_same_cuts(&w[0].plan, &w[1].plan));
        w[1].out[0].heads--;
        w[1].item[0].elems--;
        assert_false(sl_engine_same_cuts(&w[0].plan, &w[1].plan));
        for (unsigned m = 0; m < 3; m++)
            world_close(&w[m]);
    }
}

/* In place of libc's: the time of day was set, so many seconds ahead. */
static int64_t ahead;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    long rc = syscall(SYS_clock_gettime, clock, t);

    t->tv_sec += clock == CLOCK_REALTIME ? ahead : 0;
    return (int)rc;
}

static void count_call(void *user, uint64_t done, uint64_t total, uint64_t read)
{
    assert_true(done <= total);
    (void)read;
    ++*(unsigned *)user;
}

/* Whoever waits for a measurement is asked while it lasts, not at its end alone. */
static void test_measuring_goes_by_no_time_of_day(void **state)
{
    const uint64_t types = 1u << SL_TYPE_IQ3_S | 1u << SL_TYPE_IQ3_XXS | 1u << SL_TYPE_IQ2_S | 1u << SL_TYPE_IQ1_M;
    struct measure_opts o = {.threads = 1, .backend = SL_BACKEND_SCALAR, .progress = count_call};
    double error[SL_TYPE_LIMIT];
    struct measure_stats st;
    struct sl_job_plan job;
    struct sl_error e;
    struct world w;
    unsigned calls = 0;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    world_out(&w, "a", SL_TYPE_Q4_K, SL_COPY, 1024, 1024, 0, world_source(&w, 0, "a", SL_DTYPE_BF16, 1024, 1024, 0, 0, 0), 1);
    world_seal(&w);
    job = (struct sl_job_plan){.ck = &w.ck, .model = &w.model, .plan = &w.plan};
    o.user = &calls;
    ahead = 365 * 86400;
    for (o.weights = 1 << 16; calls < 2 && o.weights <= 1 << 20; o.weights *= 2) { /* until one takes long enough */
        calls = 0;
        assert_int_equal(measure_errors(&job, &types, &o, error, &st, &e), 0);
    }
    ahead = 0;
    assert_true(calls >= 2);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_scaled),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(windows_are_counted),
        cmocka_unit_test(test_alike),
        cmocka_unit_test(test_single_rows),
        cmocka_unit_test(test_many_in_one_task),
        cmocka_unit_test(test_recipes_share_their_reads),
        cmocka_unit_test(test_measuring_goes_by_no_time_of_day),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
