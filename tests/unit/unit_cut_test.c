/* Tasks cut into units of every transform: in slabs of any size a unit lies within its slab, and the units are the task; or
 * it is told that no slab of that size will do, and then no smaller one does. */
#include "tests/unit/engine_worlds.h"
#include "worker/unit.h"

static struct sl_unit unit;

/* What is read, and scales in F32, lie before the output, which ends with the slab. */
static void unit_fits(const struct sl_unit_env *env, const struct sl_out_tensor *t)
{
    uint64_t end = unit.raw ? env->slab_bytes : unit.out_at;
    struct sl_unit_read r;

    if (end > env->slab_bytes || (!unit.raw && end + unit.out_bytes > env->slab_bytes))
        fail_msg("%s: output outside a slab of %llu bytes", t->name, (unsigned long long)env->slab_bytes);
    for (uint64_t i = 0; i < unit.n_reads; i++) {
        sl_unit_read(env, &unit, i, &r);
        if (r.place + r.bytes + (r.big ? 4096 : 0) > end)
            fail_msg("%s: read %llu ends behind byte %llu of a slab of %llu", t->name, (unsigned long long)i,
                     (unsigned long long)end, (unsigned long long)env->slab_bytes);
    }
    for (uint32_t i = 0; i < unit.n_runs; i++)
        if (unit.run[i].scale_f32 + 4 * unit.run[i].n_scales > end)
            fail_msg("%s: scales behind byte %llu of a slab of %llu", t->name, (unsigned long long)end,
                     (unsigned long long)env->slab_bytes);
}

/* Returns whether the task could be cut. */
static bool cut(const struct sl_unit_env *env, const struct sl_plan_task *task, const struct sl_out_tensor *t)
{
    uint64_t elems = 0;
    struct sl_error e;
    struct sl_cut c;
    int rc;

    sl_cut_begin(&c, task);
    while ((rc = sl_cut_next(env, &c, &unit, &e)) == 1) {
        assert_true(unit.elems > 0);
        elems += unit.elems;
        unit_fits(env, t);
    }
    if (rc == 0)
        assert_int_equal(elems, t->elems);
    else if (rc != SL_EUNSUPPORTED || !strstr(e.text, t->name) || !strstr(e.text, "does not fit a buffer of"))
        fail_msg("%s: %s", t->name, e.text);
    return rc == 0;
}

static void units_fit_their_slabs(void **state)
{
    static void (*const worlds[])(struct world *) = {
        add_copies, add_made, add_scaled, add_packed, add_unordered, add_side_by_side, add_long_packed, add_fp4, add_columns,
        add_heads, add_views, add_parts, add_alike, add_ids,
    };
    unsigned small = 0;

    (void)state;
    for (size_t k = 0; k < sizeof worlds / sizeof *worlds; k++) {
        bool could[WORLD_MAX] = {false};
        struct world w;

        world_open(&w);
        world_file(&w, "a.safetensors");
        world_file(&w, "b.safetensors");
        worlds[k](&w);
        for (uint64_t slab = 4096; slab < 64u << 20; slab += slab / 3 & ~UINT64_C(63)) {
            struct sl_unit_env env = {.ck = &w.ck, .plan = &w.plan, .slab_bytes = slab, .weights = world_weights(&w)};

            for (uint32_t i = 0; i < w.plan.n_tasks; i++) {
                bool done = cut(&env, &w.task[i], w.pt[i].t);

                if (could[i] && !done)
                    fail_msg("%s: not in a slab of %llu bytes, but in a smaller one", w.pt[i].t->name, (unsigned long long)slab);
                could[i] = done;
                small += !done;
            }
        }
        for (uint32_t i = 0; i < w.plan.n_tasks; i++)
            assert_true(could[i]);
        world_close(&w);
    }
    assert_true(small > 100);
}

/* Two sources that lie in one tensor are not in a slab at once. */
static void needs_are_those_of_one_row(void **state)
{
    struct sl_needs both, each[2];
    struct world w;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    for (uint32_t i = 0; i < 2; i++)
        world_pack(&w, world_source(&w, 0, i ? "fine" : "coarse", SL_DTYPE_I4, 16, 1024, SL_DTYPE_F16, 1, i ? 32 : 128), true, false, SL_PACKED_GPTQ);
    add(&w, world_out(&w, "both", SL_TYPE_Q8_0, SL_COPY, 1024, 16, 2, 0, 2), 0);
    for (uint32_t i = 0; i < 2; i++)
        add(&w, world_out(&w, i ? "second" : "first", SL_TYPE_Q8_0, SL_COPY, 1024, 16, 0, i, 1), 0);
    for (uint32_t i = 0; i < 3; i++) {
        struct sl_plan p = w.plan;

        p.tensors += i;
        p.n_tensors = 1;
        sl_unit_needs(&(struct sl_unit_env){.ck = &w.ck, .plan = &p, .slab_bytes = 1 << 20}, i ? &each[i - 1] : &both);
    }
    assert_true(each[0].slab < each[1].slab);
    assert_int_equal(both.slab, each[1].slab);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_fit_their_slabs),
        cmocka_unit_test(needs_are_those_of_one_row),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
