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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_fit_their_slabs),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
