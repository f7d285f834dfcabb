/* What the engine does when something is wrong: with the source, the disk, the
 * system or its caller. */
#include "tests/tools/no_uring.h"
#include "tests/unit/engine_world.h"

#include <sys/resource.h>
#include <sys/wait.h>

static const enum sl_io_mode ways[] = {SL_IO_URING, SL_IO_PREAD};

/* Two FP8 tensors of 64 x 1024 to q4_k, one to F32; a task each. */
static void make(struct world *w)
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

static struct sl_engine_opts options(struct world *w, enum sl_io_mode io)
{
    return (struct sl_engine_opts){.threads = 2, .mem_bytes = 64u << 20, .io = io,
                                   .segment_paths = w->segment_paths, .slab_bytes = 1u << 17};
}

static struct sl_engine *open_engine(struct world *w, const struct sl_engine_opts *o)
{
    struct sl_engine *en = NULL;
    struct sl_error e = {0, ""};

    if (world_engine(w, o, &en, &e) < 0)
        fail_msg("%s", e.text);
    return en;
}

static struct sl_task_result do_task(struct sl_engine *en, uint32_t task)
{
    struct sl_error e;

    assert_int_equal(sl_engine_submit(en, task, 1, &e), 0);
    return world_wait(en);
}

static void expect(struct sl_task_result r, int code, const char *a, const char *b)
{
    if (r.code != code || !strstr(r.error.text, a) || !strstr(r.error.text, b))
        fail_msg("code %d, \"%s\"; expected code %d, \"%s\" and \"%s\"", r.code, r.error.text, code, a, b);
}

/* The task is right: code, checksum, bytes. */
static void expect_good(struct world *w, struct sl_task_result r)
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
        {1, 4 * 9, 0x00000000, 4, "scale [1, 1]"},
        {1, 4 * 9, 0xbf800000, 4, "is -1"},
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
        o = options(&w, ways[i % 2]);
        en = open_engine(&w, &o);
        expect(do_task(en, 0), SL_ESOURCE, "'t0'", bad[i / 2].say);
        expect_good(&w, do_task(en, 1)); /* the engine goes on */
        sl_engine_close(en);
        world_close(&w);
    }
}

/* Of several bad weights in many units, the first one is told, whatever ends first. */
static void test_lowest_error(void **state)
{
    const float nan = NAN;
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;
    uint32_t s;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    s = world_source(&w, 0, "long", SL_DTYPE_F32, 1024, 1024, 0, 0, 0);
    world_out(&w, "long", SL_TYPE_Q4_0, SL_COPY, 1024, 1024, 0, s, 1);
    world_task(&w, 0, 0);
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
        o = options(&w, ways[i]);
        w.file[0].mtime_ns--;
        en = open_engine(&w, &o);
        expect(do_task(en, 0), SL_ESOURCE, "a.safetensors", "changed since the plan was made; begin anew");
        sl_engine_close(en);
        w.file[0].mtime_ns++;

        en = open_engine(&w, &o);
        expect_good(&w, do_task(en, 0));
        /* Cut while the engine has it open. */
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
        o = options(&w, ways[i]);
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
            o = options(&w, ways[nth % 2]);
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
        o = options(&w, SL_IO_URING);
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
        o = options(&w, ways[i]);
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

/* Many shards, few descriptors: files are closed again. */
static void test_few_descriptors(void **state)
{
    struct rlimit old, low;
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;
    uint32_t s = 0;

    (void)state;
    world_open(&w);
    for (uint32_t i = 0; i < 60; i++) {
        char name[24];

        snprintf(name, sizeof name, "%02u.safetensors", i);
        world_file(&w, name);
        s = world_source(&w, i, "t", SL_DTYPE_BF16, 4, 256, 0, 0, 0);
        world_out(&w, name, SL_TYPE_Q4_K, SL_COPY, 256, 4, 0, s, 1);
        world_task(&w, i, 0);
    }
    world_seal(&w);
    for (uint32_t i = 0; i < 60; i++) {
        close(w.fd[i]);
        w.fd[i] = -1;
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = 45;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    o = options(&w, SL_IO_AUTO);
    o.direct = SL_DIRECT_ON;
    en = open_engine(&w, &o);
    for (uint32_t i = 0; i < 60; i++)
        expect_good(&w, do_task(en, i));
    sl_engine_close(en);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    world_close(&w);
}

/* A head whose block scales are larger than a buffer is refused, not read. */
static void test_no_room(void **state)
{
    struct sl_out_tensor *t;
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;
    uint32_t s;

    (void)state;
    make(&w);
    s = world_source(&w, 0, "kv_b", SL_DTYPE_F8_E4M3, 2 * (32 + 32), 32768, SL_DTYPE_F32, 1, 1);
    t = world_out(&w, "k_b", SL_TYPE_Q8_0, SL_K_B, 32, 32768, 2, s, 1);
    t->heads = 2, t->nope = 32, t->v_dim = 32, t->lora = 32768;
    world_task(&w, 3, 0);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    en = open_engine(&w, &o);
    expect(do_task(en, 3), SL_EUNSUPPORTED, "'k_b'", "does not fit a buffer");
    expect_good(&w, do_task(en, 0));
    sl_engine_close(en);
    o.slab_bytes = 16u << 20;
    o.mem_bytes = 256u << 20;
    en = open_engine(&w, &o);
    expect_good(&w, do_task(en, 3));
    sl_engine_close(en);
    world_close(&w);
}

/* Closing at any time ends at once and loses nothing (the sanitizers look). */
static void test_close(void **state)
{
    struct sl_error e;

    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct sl_engine_opts o;
        struct sl_engine *en;
        struct world w;

        make(&w);
        world_seal(&w);
        o = options(&w, ways[i % 2]);
        en = open_engine(&w, &o);
        for (uint32_t t = 0; t < 60; t++)
            assert_int_equal(sl_engine_submit(en, t % 3, 1, &e), 0);
        usleep(i * 300);
        sl_engine_close(en);
        world_close(&w);
    }
}

/* A tensor of 160 MiB through 64 MiB: every row is checked against its place. */
static void test_larger_than_memory(void **state)
{
    const uint64_t rows = 40960, cols = 1024;
    struct sl_engine_stats st;
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;
    float row[1024];
    uint16_t half[1024];
    int fd;

    (void)state;
    world_open(&w);
    world_file(&w, "a.safetensors");
    w.ck.n_tensors = 1;
    w.model.n_src = 1;
    w.tensor[0] = (struct sl_src_tensor){.name = strdup("huge"), .dtype = SL_DTYPE_F32, .n_dims = 2,
                                         .shape = {rows, cols}, .elems = rows * cols,
                                         .offset = w.file[0].size, .bytes = rows * cols * 4};
    w.src[0] = (struct sl_model_src){.dtype = SL_DTYPE_F32, .rows = rows, .cols = cols,
                                     .scale = {.tensor = SL_NO_TENSOR}};
    w.file[0].size += rows * cols * 4;
    assert_int_equal(ftruncate(w.fd[0], (off_t)w.file[0].size), 0);
    for (uint32_t r = 0; r < rows; r += 64) { /* the rest is zero */
        for (uint32_t c = 0; c < cols; c++)
            row[c] = (float)(r / 64 + c);
        assert_int_equal(pwrite(w.fd[0], row, sizeof row, (off_t)(w.tensor[0].offset + r * sizeof row)),
                         (ssize_t)sizeof row);
    }
    world_out(&w, "huge", SL_TYPE_BF16, SL_COPY, cols, rows, 0, 0, 1);
    world_task(&w, 0, 0);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.slab_bytes = 0;
    en = open_engine(&w, &o);
    assert_int_equal(do_task(en, 0).code, 0);
    sl_engine_stats(en, &st);
    assert_true(st.slabs * st.slab_bytes <= 64u << 20);
    assert_true(st.read_bytes >= rows * cols * 4);
    assert_int_equal(st.written_bytes, rows * cols * 2);
    sl_engine_close(en);
    fd = open(w.segment_path, O_RDONLY);
    for (uint32_t r = 0; r < rows; r += 32) {
        assert_int_equal(pread(fd, half, sizeof half, (off_t)(w.pt[0].file_offset + r * sizeof half)),
                         (ssize_t)sizeof half);
        for (uint32_t c = 0; c < cols; c++) {
            float x = r % 64 ? 0 : (float)(r / 64 + c);

            sl_round_bf16(&x, 1);
            assert_int_equal(half[c], world_bf16(x));
        }
    }
    close(fd);
    world_close(&w);
}

/* In a child. */
static int without_uring(void)
{
    struct sl_error e = {0, ""};
    struct sl_engine *en = NULL;
    struct sl_engine_opts o;
    struct sl_engine_stats st;
    struct sl_task_result r;
    struct world w;
    int rc;

    make(&w);
    world_seal(&w);
    if (forbid_uring())
        return 77;
    o = options(&w, SL_IO_URING);
    rc = world_engine(&w, &o, &en, &e);
    if (rc != SL_EUNSUPPORTED || !strstr(e.text, "io_uring is refused"))
        return 2;
    o.io = SL_IO_AUTO;
    if (world_engine(&w, &o, &en, &e) < 0)
        return 3;
    sl_engine_stats(en, &st);
    if (strcmp(st.io_name, "pread") || sl_engine_submit(en, 0, 1, &e) < 0 ||
        sl_engine_wait(en, &r, 60000, &e) != 1 || r.code < 0)
        return 4;
    sl_engine_close(en);
    world_close(&w);
    return 0;
}

static void test_forbidden_uring(void **state)
{
    int status = 0;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(without_uring());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no seccomp filter can be set here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden_uring), /* first: it forks */
        cmocka_unit_test(test_bad_values),      cmocka_unit_test(test_lowest_error),
        cmocka_unit_test(test_changed_files),   cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_every_call),      cmocka_unit_test(test_refused_ways),
        cmocka_unit_test(test_sync),            cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_hostile_plan),    cmocka_unit_test(test_usage),
        cmocka_unit_test(test_few_descriptors), cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_close),           cmocka_unit_test(test_larger_than_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
