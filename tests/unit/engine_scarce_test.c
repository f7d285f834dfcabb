/* What the engine does with little: descriptors, buffers, memory, no io_uring, no time. */
#include "tests/tools/no_uring.h"
#include "tests/unit/engine_tasks.h"

#include <sys/resource.h>
#include <sys/wait.h>

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

/* What the weights keep is not the slabs'. */
static void weights_have_their_room(void **state)
{
    struct sl_engine_stats st;
    struct sl_engine_opts o;
    struct sl_engine *en;
    struct world w;

    (void)state;
    make(&w);
    world_seal(&w);
    o = options(&w, SL_IO_AUTO);
    o.slab_bytes = 16u << 20;
    o.mem_bytes = 160u << 20;
    o.weights.bytes = 60u << 20;
    en = open_engine(&w, &o);
    sl_engine_stats(en, &st);
    assert_true(st.slabs * st.slab_bytes + o.weights.bytes <= o.mem_bytes / 5 * 4);
    expect_good(&w, do_task(en, 0));
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
        o = options(&w, io_way(i));
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
        cmocka_unit_test(test_few_descriptors),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(weights_have_their_room),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_larger_than_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
