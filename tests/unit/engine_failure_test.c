/* What the engine does when something is wrong: with the source, the disk, the
 * system or its caller. */
#include "proto/roots.h"
#include "tests/unit/engine_tasks.h"

/* Bytes of tensor i at `at` replaced by others. */
static void damage(struct world *w, uint32_t tensor, uint64_t at, const void *bytes, size_t n)
{
    memcpy(w->data[tensor] + at, bytes, n);
    assert_int_equal(pwrite(w->fd[0], bytes, n, (off_t)(w->tensor[tensor].offset + at)), (ssize_t)n);
}

static void test_bad_values(void **state)
{
    static const struct { uint32_t tensor; uint64_t at; uint32_t bits; size_t n; const char *say; } bad[] = {
        {0, 5 * 1024 + 700, 0x7f, 1, "row 5, column 700"},
        {0, 63 * 1024 + 1023, 0xff, 1, "row 63, column 1023"},
        {1, 4 * 9, 0x80000001, 4, "scale [1, 1]"},
        {1, 4 * 9, 0xbf800000, 4, "is -1, expected a finite number, 0 or above"},
        {1, 4 * 15, 0x7fc00000, 4, "scale [1, 7]"},
        {1, 0, 0x7f800000, 4, "scale [0, 0]"},
    };

    (void)state;
    for (unsigned i = 0; i < 2 * sizeof bad / sizeof bad[0]; i++) {
        struct sl_engine_opts o;
        struct sl_engine *en;
        struct world w;

        make(&w);
        damage(&w, bad[i / 2].tensor, bad[i / 2].at, &bad[i / 2].bits, bad[i / 2].n);
        world_seal(&w);
        o = options(&w, io_way(i));
        en = open_engine(&w, &o);
        expect(do_task(en, 0), SL_ESOURCE, "'t0'", bad[i / 2].say);
        expect_good(&w, do_task(en, 1)); /* the engine goes on */
        sl_engine_close(en);
        world_close(&w);
    }
}

/* A world of one task: a matrix of n times n. */
static void open_square(struct world *w, const char *name, enum sl_dtype dtype, int type, uint64_t n)
{
    uint32_t s;

    world_open(w);
    world_file(w, "a.safetensors");
    s = world_source(w, 0, name, dtype, n, n, 0, 0, 0);
    world_out(w, name, type, SL_COPY, n, n, 0, s, 1);
    world_task(w, 0, 0);
}

/* Of several bad weights in many units, the first one is told, whatever ends first. */
static void test_lowest_error(void **state)
{
    const float nan = NAN;
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;

    (void)state;
    open_square(&w, "long", SL_DTYPE_F32, SL_TYPE_Q4_0, 1024);
    for (uint32_t row = 100; row < 1024; row += 50)
        damage(&w, 0, (row * 1024 + 3) * 4, &nan, 4);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.threads = 3;
    en = open_engine(&w, &o);
    for (int i = 0; i < 5; i++)
        expect(do_task(en, 0), SL_ESOURCE, "'long'", "row 100, column 3");
    sl_engine_close(en);
    world_close(&w);
}

static void test_changed_files(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct sl_engine_opts o;
        struct sl_engine *en;
        struct world w;

        make(&w);
        world_seal(&w);
        o = options(&w, io_way(i));
        w.file[0].mtime_ns--;
        en = open_engine(&w, &o);
        expect(do_task(en, 0), SL_ESOURCE, "a.safetensors", "changed since the plan was made; begin anew");
        sl_engine_close(en);
        w.file[0].mtime_ns++;

        /* Written to, then cut, while the engine has it open. */
        en = open_engine(&w, &o);
        expect_good(&w, do_task(en, 0));
        assert_int_equal(futimens(w.fd[0], (struct timespec[]){{0, UTIME_OMIT}, {1, 0}}), 0);
        expect(do_task(en, 1), SL_ESOURCE, "a.safetensors", "changed since the plan was made");
        assert_int_equal(ftruncate(w.fd[0], (off_t)w.tensor[2].offset + 10), 0);
        expect(do_task(en, 1), SL_ESOURCE, "a.safetensors", "shorter");
        expect(do_task(en, 1), SL_ESOURCE, "a.safetensors", "shorter");
        sl_engine_close(en);
        unlink(w.file[0].path);
        en = open_engine(&w, &o);
        expect(do_task(en, 1), SL_ESOURCE, "a.safetensors", "No such file");
        sl_engine_close(en);
        world_close(&w);
    }
}

/* The same file, by a link that leads out of the folders allowed. */
static void test_left_roots(void **state)
{
    char outside[] = "/tmp/sluice-outside-XXXXXX", path[96];
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct sl_roots *roots;
    struct sl_error e;
    struct world w;

    (void)state;
    make(&w);
    world_seal(&w);
    assert_int_equal(sl_roots_open((const char *const[]){w.dir}, 1, &roots, &e), 0);
    w.ck.roots = roots;
    o = options(&w, SL_IO_AUTO);
    en = open_engine(&w, &o);
    expect_good(&w, do_task(en, 0));
    sl_engine_close(en);
    assert_non_null(mkdtemp(outside));
    snprintf(path, sizeof path, "%s/a.safetensors", outside);
    assert_int_equal(rename(w.file[0].path, path), 0);
    assert_int_equal(symlink(path, w.file[0].path), 0);
    en = open_engine(&w, &o);
    expect(do_task(en, 0), SL_EUSAGE, "a.safetensors", "outside the folders allowed");
    sl_engine_close(en);
    sl_roots_close(roots);
    unlink(path);
    rmdir(outside);
    world_close(&w);
}

static int f16_as_bf16(int type)
{
    return type == SL_TYPE_F16 ? SL_TYPE_BF16 : type;
}

/* Of two recipes that share what is read, one has no number for a weight: the other one is made. */
static void test_one_recipe_fails(void **state)
{
    const float huge = 1e38f;

    (void)state;
    for (uint32_t bad = 0; bad < 2; bad++) {
        struct sl_engine_opts o[2];
        const struct sl_plan *plans[2];
        struct sl_engine *en = NULL;
        struct sl_error e = {0, ""};
        struct world w[2];

        for (uint32_t m = 0; m < 2; m++) {
            uint32_t s;

            world_open(&w[m]);
            w[m].retype = m == bad ? NULL : f16_as_bf16;
            world_file(&w[m], "a.safetensors");
            s = world_source(&w[m], 0, "t", SL_DTYPE_F32, 256, 1024, 0, 0, 0);
            world_out(&w[m], "t", SL_TYPE_F16, SL_COPY, 1024, 256, 0, s, 1);
            world_task(&w[m], 0, 0);
            damage(&w[m], 0, (100 * 1024 + 3) * 4, &huge, 4);
            world_seal(&w[m]);
            o[m] = options(&w[m], SL_IO_AUTO);
            plans[m] = &w[m].plan;
        }
        assert_int_equal(sl_engine_open(&w[0].ck, plans, o, 2, &en, &e), 0);
        assert_int_equal(sl_engine_submit(en, 0, 3, &e), 0);
        for (uint32_t i = 0; i < 2; i++) {
            struct sl_task_result r = world_wait(en);

            if (r.member == bad)
                expect(r, SL_EUNSUPPORTED, "'t'", "row 100, column 3 on are too large for f16");
            else
                expect_good(&w[r.member], r);
        }
        sl_engine_close(en);
        world_close(&w[0]);
        world_close(&w[1]);
    }
}

/* In the file's place when its engine was opened: no end of it is waited for, nothing goes into it. */
static void test_pipe(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct sl_engine_opts o;
        struct sl_engine *en;
        struct world w;
        int fd = -1;

        make(&w);
        world_seal(&w);
        o = options(&w, io_way(i));
        en = open_engine(&w, &o);
        assert_int_equal(unlink(w.segment_path) | mkfifo(w.segment_path, 0600), 0);
        if (i)
            assert_true((fd = open(w.segment_path, O_RDONLY | O_NONBLOCK)) >= 0);
        expect(do_task(en, 0), SL_EFAIL, "cannot write", "out.gguf");
        if (i)
            assert_int_equal(read(fd, &o, 1), 0);
        sl_engine_close(en);
        if (fd >= 0)
            close(fd);
        unlink(w.segment_path);
        world_seal(&w);
        en = open_engine(&w, &o);
        expect_good(&w, do_task(en, 0));
        sl_engine_close(en);
        world_close(&w);
    }
}

/* Every call in turn fails once, or is cut short: the task fails with the right
 * code or is right, and the next try is right. */
static void test_every_call(void **state)
{
    static const struct { enum sl_sys_call call; int err, code; const char *say; } f[] = {
        {SL_SYS_READ, EIO, SL_ESOURCE, "cannot read tensor"},
        {SL_SYS_READ, 0, 0, ""},
        {SL_SYS_WRITE, ENOSPC, SL_ENOSPACE, "no room left"},
        {SL_SYS_WRITE, EDQUOT, SL_ENOSPACE, "no room left"},
        {SL_SYS_WRITE, EIO, SL_EFAIL, "cannot write"},
        {SL_SYS_WRITE, 0, 0, ""},
        {SL_SYS_OPEN, EMFILE, -1, ""},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof f / sizeof f[0]; i++) {
        for (unsigned nth = 1, hit = 1; hit; nth++) {
            struct sl_faults faults = {.rule = {{f[i].call, f[i].err, nth, 1}}, .n = 1};
            struct sl_engine_opts o;
            struct sl_engine *en;
            struct sl_task_result r;
            struct world w;

            make(&w);
            world_seal(&w);
            o = options(&w, io_way(nth));
            o.faults = &faults;
            en = open_engine(&w, &o);
            r = do_task(en, 2);
            hit = atomic_load(&faults.calls[f[i].call]) >= nth;
            if (hit && f[i].call == SL_SYS_OPEN)
                assert_true(r.code < 0);
            else if (hit && f[i].err)
                expect(r, f[i].code, f[i].say, f[i].call == SL_SYS_READ ? "a.safetensors" : "out.gguf");
            else
                expect_good(&w, r);
            faults.n = 0;
            expect_good(&w, do_task(en, 2));
            sl_engine_close(en);
            world_close(&w);
            assert_true(nth < 100);
        }
    }
}

/* A filesystem that takes O_DIRECT when a file is opened, but no direct reads or writes, or that makes no
 * holes: the same bytes another way. */
static void test_refused_ways(void **state)
{
    static const struct { enum sl_sys_call call; int err, code; uint32_t nth; } f[] = {
        {SL_SYS_READ, EINVAL, 0, 1}, {SL_SYS_WRITE, EINVAL, 0, 2 /* the first is of a part of a page */},
        {SL_SYS_PUNCH, EOPNOTSUPP, 0, 1}, {SL_SYS_PUNCH, ENOSPC, SL_ENOSPACE, 1},
    };
    static const uint8_t zeros[64 * 1024];

    (void)state;
    for (unsigned i = 0; i < sizeof f / sizeof f[0]; i++) {
        struct sl_faults faults = {.n = 0};
        struct sl_engine_opts o;
        struct sl_engine *en;
        struct sl_task_result r;
        struct world w;
        uint32_t before;
        int fd;

        make(&w);
        world_seal(&w);
        fd = open(w.segment_path, O_WRONLY | O_DIRECT); /* an old tmpfs has none */
        if (fd < 0 && f[i].err == EINVAL) {
            world_close(&w);
            continue;
        }
        close(fd);
        o = options(&w, uring_here());
        o.slab_bytes = 1u << 20;
        o.direct = SL_DIRECT_ON;
        o.sparse = true;
        o.faults = &faults;
        en = open_engine(&w, &o);
        expect_good(&w, do_task(en, 2));
        if (f[i].call == SL_SYS_PUNCH) {
            damage(&w, w.src[w.out[2].first_src].tensor, 0, zeros, sizeof zeros);
            world_seal(&w);
        }
        before = atomic_load(&faults.calls[f[i].call]);
        faults.rule[0] = (struct sl_fault){f[i].call, f[i].err, before + f[i].nth, 1};
        faults.n = 1;
        r = do_task(en, 2);
        assert_true(atomic_load(&faults.calls[f[i].call]) >= before + f[i].nth);
        if (f[i].code)
            expect(r, f[i].code, "no room left", "out.gguf");
        else
            expect_good(&w, r);
        sl_engine_close(en);
        world_close(&w);
    }
}

static void test_sync(void **state)
{
    struct sl_faults faults = {.rule = {{SL_SYS_FDATASYNC, EIO, 1, 1}}, .n = 1};
    struct sl_error e = {0, ""};
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;

    (void)state;
    make(&w);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.faults = &faults;
    en = open_engine(&w, &o);
    assert_int_equal(sl_engine_sync(en, 0, &e), 0); /* nothing written, nothing synced */
    expect_good(&w, do_task(en, 0));
    assert_int_equal(sl_engine_sync(en, 0, &e), SL_EFAIL);
    assert_non_null(strstr(e.text, "out.gguf"));
    assert_int_equal(sl_engine_sync(en, 0, &e), 0);
    assert_int_equal(atomic_load(&faults.calls[SL_SYS_FDATASYNC]), 1); /* not tried again */
    expect_good(&w, do_task(en, 0));
    assert_int_equal(sl_engine_sync(en, 0, &e), 0);
    assert_int_equal(atomic_load(&faults.calls[SL_SYS_FDATASYNC]), 2);
    sl_engine_close(en);
    world_close(&w);
}

/* Of two segments, the second one's sync fails. */
static void test_sync_of_each(void **state)
{
    struct sl_faults faults = {.rule = {{SL_SYS_FDATASYNC, EIO, 2, 1}}, .n = 1};
    struct sl_plan_segment segment[2];
    struct sl_error e = {0, ""};
    struct sl_engine_opts o;
    const char *paths[2];
    struct sl_engine *en;
    char second[128];
    struct world w;

    (void)state;
    make(&w);
    world_seal(&w);
    segment[0] = segment[1] = w.segment;
    w.plan.segments = segment;
    w.plan.n_segments = 2;
    w.pt[1].segment = 1;
    snprintf(second, sizeof second, "%s/second.gguf", w.dir);
    close(open(second, O_RDWR | O_CREAT, 0600));
    paths[0] = w.segment_path;
    paths[1] = second;
    o = options(&w, SL_IO_AUTO);
    o.segment_paths = paths;
    o.faults = &faults;
    en = open_engine(&w, &o);
    assert_int_equal(do_task(en, 0).code, 0);
    assert_int_equal(do_task(en, 1).code, 0);
    assert_int_equal(sl_engine_sync(en, 0, &e), SL_EFAIL);
    assert_non_null(strstr(e.text, "second.gguf"));
    sl_engine_close(en);
    unlink(second);
    world_close(&w);
}

/* Holes alone are synced too. */
static void test_sync_of_holes(void **state)
{
    static const uint8_t zeros[64 * 1024];
    struct sl_faults faults = {.n = 0};
    struct sl_engine_stats st;
    struct sl_error e = {0, ""};
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;

    (void)state;
    make(&w);
    damage(&w, 4, 0, zeros, w.tensor[4].bytes);
    damage(&w, 5, 0, zeros, w.tensor[5].bytes); /* a scale of -0 makes other zeros */
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.faults = &faults;
    o.sparse = true;
    en = open_engine(&w, &o);
    expect_good(&w, do_task(en, 2));
    sl_engine_stats(en, &st);
    assert_int_equal(st.hole_bytes, w.pt[2].bytes);
    assert_int_equal(sl_engine_sync(en, 0, &e), 0);
    assert_int_equal(atomic_load(&faults.calls[SL_SYS_FDATASYNC]), 1);
    sl_engine_close(en);
    world_close(&w);
}

/* Zeros but for the last byte of all are no hole. */
static void test_last_byte(void **state)
{
    static const uint8_t zeros[64 * 64 * 2], half[] = {0x00, 0x3f};
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;

    (void)state;
    open_square(&w, "last", SL_DTYPE_BF16, SL_TYPE_BF16, 64);
    damage(&w, 0, 0, zeros, sizeof zeros);
    damage(&w, 0, sizeof zeros - sizeof half, half, sizeof half);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.sparse = true;
    en = open_engine(&w, &o);
    expect_good(&w, do_task(en, 0));
    sl_engine_close(en);
    world_close(&w);
}

static void test_full_disk(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct sl_engine_opts o;
        struct sl_engine *en;
        struct world w;

        make(&w);
        world_seal(&w);
        w.segment_paths[0] = "/dev/full";
        o = options(&w, io_way(i));
        en = open_engine(&w, &o);
        expect(do_task(en, 0), SL_ENOSPACE, "/dev/full", "no room");
        sl_engine_close(en);
        world_close(&w);
    }
}

/* A plan and headers that lie about sizes are refused before anything is read. */
static void test_hostile_plan(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct sl_engine_opts o;
        struct sl_task_result r;
        struct sl_engine *en;
        struct world w;

        make(&w);
        world_seal(&w);
        o = options(&w, SL_IO_AUTO);
        switch (i) {
        case 0: w.tensor[0].offset = UINT64_MAX - 10; break;
        case 1: w.tensor[0].offset = w.file[0].size - 100; break;
        case 2: w.tensor[0].file = 7; break;
        case 3: w.src[0].rows = 65; break;
        case 4: w.src[0].scale.block_rows = 0; break;
        case 5: w.src[0].scale.block_rows = 16; break;
        case 6: w.item[0].elems += 256; break;
        case 7: w.item[0].elem0 = 100; break;
        default: w.item[0].tensor = 99; break;
        }
        en = open_engine(&w, &o);
        r = do_task(en, 0);
        assert_true(r.code < 0 && r.error.text[0]);
        expect_good(&w, do_task(en, 1));
        sl_engine_close(en);
        world_close(&w);
    }
}

static bool any_weights(void *user, uint32_t tensor)
{
    (void)user;
    (void)tensor;
    return true;
}

static int no_weights(void *user, uint32_t tensor, uint64_t slice, float *out, struct sl_error *e)
{
    (void)user;
    (void)tensor;
    (void)slice;
    (void)out;
    return sl_fail(e, SL_ESOURCE, "the imatrix was changed");
}

static void test_usage(void **state)
{
    struct sl_error e = {0, ""};
    struct sl_engine *en = NULL;
    struct sl_engine_opts o;
    struct sl_task_result r;
    struct world w;

    (void)state;
    make(&w);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.mem_bytes = 63000000;
    assert_int_equal(world_engine(&w, &o, &en, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "64.0 MB"));
    o = options(&w, SL_IO_AUTO);
    o.weights = (struct sl_engine_weights){.has = any_weights, .load = no_weights};
    en = open_engine(&w, &o);
    expect(do_task(en, 0), SL_ESOURCE, "imatrix", "changed");
    expect_good(&w, do_task(en, 2)); /* F32 asks for no weights */
    assert_int_equal(sl_engine_submit(en, 3, 1, &e), SL_EFAIL);
    assert_int_equal(sl_engine_wait(en, &r, 1000, &e), 0); /* nothing under way: at once */
    sl_engine_close(en);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_lowest_error),
        cmocka_unit_test(test_changed_files),
        cmocka_unit_test(test_left_roots),
        cmocka_unit_test(test_one_recipe_fails),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_every_call),
        cmocka_unit_test(test_refused_ways),
        cmocka_unit_test(test_sync),
        cmocka_unit_test(test_sync_of_each),
        cmocka_unit_test(test_sync_of_holes),
        cmocka_unit_test(test_last_byte),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_hostile_plan),
        cmocka_unit_test(test_usage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
