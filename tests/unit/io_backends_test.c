/* Both I/O backends: whole transfers whatever the kernel moves at a time, and
 * every way in which they can fail. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

#include "tests/unit/io_ways.h"
#include "worker/io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLAB 65536u
#define SLABS 4u
#define FILE_BYTES (5 * 4096u + 123u)

struct fixture {
    char path[64];
    int fd;
    uint8_t *arena, *content;
    struct sl_io *io;
    struct sl_faults faults;
};

static void begin(struct fixture *f, enum sl_io_mode mode, const struct sl_fault *rule)
{
    struct sl_io_conf c = {.depth = 3, .slab_bytes = SLAB, .slabs = SLABS, .faults = &f->faults};
    struct sl_error e = {0, ""};

    memset(f, 0, sizeof *f);
    strcpy(f->path, "/tmp/sluice-io-XXXXXX");
    f->fd = mkstemp(f->path);
    assert_true(f->fd >= 0);
    f->arena = aligned_alloc(4096, SLAB * SLABS);
    memset(f->arena, 0, SLAB * SLABS);
    f->content = malloc(FILE_BYTES);
    for (uint32_t i = 0; i < FILE_BYTES; i++)
        f->content[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    assert_int_equal(pwrite(f->fd, f->content, FILE_BYTES, 0), FILE_BYTES);
    assert_int_equal(fsync(f->fd), 0);
    if (rule) {
        f->faults.rule[0] = *rule;
        f->faults.n = 1;
    }
    c.arena = f->arena;
    if (sl_io_open(mode, &c, &f->io, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(sl_io_name(f->io), mode == SL_IO_PREAD ? "pread" : "io_uring");
}

static void end(struct fixture *f)
{
    sl_io_close(f->io);
    close(f->fd);
    unlink(f->path);
    free(f->arena);
    free(f->content);
}

/* Waits until n operations are finished. */
static void wait_for(struct fixture *f, unsigned n)
{
    while (n) {
        struct sl_io_op *done = NULL;
        struct sl_error e;

        assert_int_equal(sl_io_wait(f->io, &done, &e), 0);
        for (; done; done = done->next) {
            assert_true(n > 0);
            n--;
        }
    }
}

static void one(struct fixture *f, struct sl_io_op *op)
{
    sl_io_submit(f->io, op);
    wait_for(f, 1);
}

static struct sl_io_op reading(const struct fixture *f, int fd, uint64_t off, uint32_t len)
{
    return (struct sl_io_op){.kind = SL_IO_READ, .fd = fd, .buf = f->arena, .off = off, .len = len,
                             .need = len};
}

/* More operations than the depth, into registered and other memory. */
static void test_many(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op[40];
        uint8_t *own = malloc(40 * 512);
        struct fixture f;

        begin(&f, io_way(b), NULL);
        for (unsigned i = 0; i < 40; i++) {
            op[i] = reading(&f, f.fd, i * 500u + 3, 512);
            op[i].buf = i % 2 ? own + i * 512 : f.arena + i * 4096;
            sl_io_submit(f.io, &op[i]);
        }
        wait_for(&f, 40);
        for (unsigned i = 0; i < 40; i++) {
            assert_int_equal(op[i].err, 0);
            assert_int_equal(op[i].got, 512);
            assert_memory_equal(op[i].buf, f.content + i * 500u + 3, 512);
        }
        end(&f);
        free(own);
    }
}

/* Transfers cut short by the system go on where they stopped. */
static void test_short(void **state)
{
    const struct sl_fault read_half = {SL_SYS_READ, 0, 1, 0}, write_half = {SL_SYS_WRITE, 0, 1, 0};

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op;
        struct fixture f;
        uint8_t back[9999];

        begin(&f, io_way(b), &read_half);
        op = reading(&f, f.fd, 100, 9999);
        one(&f, &op);
        assert_int_equal(op.err, 0);
        assert_int_equal(op.got, 9999);
        assert_memory_equal(f.arena, f.content + 100, 9999);
        assert_true(atomic_load(&f.faults.calls[SL_SYS_READ]) > 10);
        end(&f);

        for (unsigned k = 0; k < 2; k++) { /* from registered memory, and from other */
            uint8_t own[9999], *from;

            begin(&f, io_way(b), &write_half);
            from = k ? own : f.arena + SLAB;
            memset(from, 0x5a, 9999);
            op = (struct sl_io_op){.kind = SL_IO_WRITE, .fd = f.fd, .buf = from, .off = 50, .len = 9999};
            one(&f, &op);
            assert_int_equal(op.err, 0);
            assert_true(atomic_load(&f.faults.calls[SL_SYS_WRITE]) > 10);
            assert_int_equal(pread(f.fd, back, 9999, 50), 9999);
            assert_memory_equal(back, from, 9999);
            end(&f);
        }
    }
}

static void test_end_of_file(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op;
        struct fixture f;

        begin(&f, io_way(b), NULL);
        op = reading(&f, f.fd, FILE_BYTES - 100, 101);
        one(&f, &op);
        assert_int_equal(op.err, SL_IO_END_OF_FILE);
        assert_int_equal(op.got, 100);
        op = reading(&f, f.fd, FILE_BYTES - 100, 4096);
        op.need = 100;
        one(&f, &op);
        assert_int_equal(op.err, 0);
        assert_memory_equal(f.arena, f.content + FILE_BYTES - 100, 100);
        /* The file is cut while it is open. */
        assert_int_equal(ftruncate(f.fd, 1000), 0);
        op = reading(&f, f.fd, 900, 200);
        one(&f, &op);
        assert_int_equal(op.err, SL_IO_END_OF_FILE);
        end(&f);
    }
}

/* Direct reads: whole pages, the file's tail, and an end that comes too early. */
static void test_direct(void **state)
{
    const struct sl_fault half = {SL_SYS_READ, 0, 1, 0};

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op;
        struct fixture f;
        int fd;

        begin(&f, io_way(b), &half);
        fd = open(f.path, O_RDONLY | O_DIRECT);
        if (fd < 0) {
            end(&f);
            print_message("no O_DIRECT on this filesystem\n");
            skip();
        }
        op = reading(&f, fd, 4096, 5 * 4096);
        op.direct = true;
        op.need = FILE_BYTES - 4096;
        one(&f, &op);
        assert_int_equal(op.err, 0);
        assert_int_equal(op.got, FILE_BYTES - 4096);
        assert_memory_equal(f.arena, f.content + 4096, FILE_BYTES - 4096);
        op.need++;
        one(&f, &op);
        assert_int_equal(op.err, SL_IO_END_OF_FILE);
        close(fd);
        end(&f);
    }
}

/* The n-th call fails: that operation does, and no other. */
static void test_errors(void **state)
{
    const struct sl_fault eio = {SL_SYS_READ, EIO, 2, 1}, full = {SL_SYS_WRITE, ENOSPC, 2, 1};

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op[3];
        struct fixture f;

        begin(&f, io_way(b), &eio);
        for (unsigned i = 0; i < 3; i++) {
            op[i] = reading(&f, f.fd, 0, 64);
            one(&f, &op[i]);
            assert_int_equal(op[i].err, i == 1 ? EIO : 0);
        }
        end(&f);
        begin(&f, io_way(b), &full);
        for (unsigned i = 0; i < 3; i++) {
            op[i] = reading(&f, f.fd, 0, 64);
            op[i].kind = SL_IO_WRITE;
            one(&f, &op[i]);
            assert_int_equal(op[i].err, i == 1 ? ENOSPC : 0);
        }
        end(&f);
    }
}

/* What io_uring has no thread for is done all the same. */
static void test_cancelled(void **state)
{
    const struct sl_fault reads = {SL_SYS_READ, ECANCELED, 1, 1}, writes = {SL_SYS_WRITE, ECANCELED, 1, 1};
    struct sl_io_op op;
    struct fixture f;
    uint8_t back[64];

    (void)state;
    begin(&f, SL_IO_URING, &reads);
    op = reading(&f, f.fd, 100, 9999);
    one(&f, &op);
    assert_int_equal(op.err, 0);
    assert_memory_equal(f.arena, f.content + 100, 9999);
    end(&f);
    begin(&f, SL_IO_URING, &writes);
    memset(f.arena, 0x5a, 64);
    op = (struct sl_io_op){.kind = SL_IO_WRITE, .fd = f.fd, .buf = f.arena, .off = 50, .len = 64};
    one(&f, &op);
    assert_int_equal(op.err, 0);
    assert_int_equal(pread(f.fd, back, 64, 50), 64);
    assert_memory_equal(back, f.arena, 64);
    end(&f);
}

/* Failures that the kernel itself reports. */
static void test_real_errors(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op;
        struct fixture f;
        int fd = open("/dev/full", O_WRONLY);

        assert_true(fd >= 0);
        begin(&f, io_way(b), NULL);
        op = (struct sl_io_op){.kind = SL_IO_WRITE, .fd = fd, .buf = f.arena, .len = 4096};
        one(&f, &op);
        assert_int_equal(op.err, ENOSPC);
        op = reading(&f, -1, 0, 64);
        one(&f, &op);
        assert_int_equal(op.err, EBADF);
        close(fd);
        end(&f);
    }
}

/* EINTR and EAGAIN are tried again, but not for ever. */
static void test_again(void **state)
{
    const struct sl_fault some = {SL_SYS_READ, EAGAIN, 1, 5}, always = {SL_SYS_READ, EINTR, 1, 0};

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op op;
        struct fixture f;

        begin(&f, io_way(b), &some);
        op = reading(&f, f.fd, 0, 64);
        one(&f, &op);
        assert_int_equal(op.err, 0);
        end(&f);
        begin(&f, io_way(b), &always);
        op = reading(&f, f.fd, 0, 64);
        one(&f, &op);
        assert_int_equal(op.err, EINTR);
        end(&f);
    }
}

static void *wake_later(void *arg)
{
    usleep(20000);
    sl_io_wake(arg);
    return NULL;
}

static void test_wake(void **state)
{
    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        struct sl_io_op *done = NULL;
        struct sl_error e;
        struct fixture f;
        pthread_t t;

        begin(&f, io_way(b), NULL);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(pthread_create(&t, NULL, wake_later, f.io), 0);
            assert_int_equal(sl_io_wait(f.io, &done, &e), 0);
            assert_null(done);
            pthread_join(t, NULL);
        }
        sl_io_wake(f.io); /* before the wait: not lost */
        assert_int_equal(sl_io_wait(f.io, &done, &e), 0);
        end(&f);
    }
}

static void *write_later(void *arg)
{
    usleep(20000);
    assert_int_equal(write(*(int *)arg, "late", 4), 4);
    return NULL;
}

/* What the ring wakes up by, replaced by what cannot be read. */
static void break_wake(void)
{
    char link[64], name[64];

    for (int fd = 0; fd < 64; fd++) {
        ssize_t n;
        int bad;

        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        n = readlink(link, name, sizeof name - 1);
        if (n < 0 || strncmp(name, "anon_inode:[eventfd]", 20) != 0)
            continue;
        bad = open("/", O_RDONLY);
        assert_int_equal(dup2(bad, fd), fd);
        close(bad);
    }
}

/* A ring that breaks while the kernel reads: its buffers are the kernel's until that has ended. */
static void test_broken(void **state)
{
    struct sl_io_op *done = NULL, op;
    struct fixture f;
    struct sl_error e;
    pthread_t t;
    int p[2];

    (void)state;
    if (uring_here() != SL_IO_URING) {
        print_message("io_uring is refused here: nothing is tested of it\n");
        skip();
    }
    begin(&f, SL_IO_URING, NULL);
    break_wake();
    assert_int_equal(pipe(p), 0);
    op = reading(&f, p[0], 0, 4);
    sl_io_submit(f.io, &op);
    assert_int_equal(sl_io_wait(f.io, &done, &e), SL_EFAIL);
    assert_int_equal(pthread_create(&t, NULL, write_later, &p[1]), 0);
    sl_io_close(f.io);
    f.io = NULL;
    assert_memory_equal(f.arena, "late", 4);
    pthread_join(t, NULL);
    close(p[0]);
    close(p[1]);
    end(&f);
}

/* A direct read goes on at a boundary, also when the device stopped between two. */
static void test_advance(void **state)
{
    struct sl_io_op op = {.kind = SL_IO_READ, .direct = true, .len = 16384, .need = 16000};

    (void)state;
    assert_false(sl_io_advance(&op, 4096 + 512));
    assert_int_equal(op.got, 4096);
    assert_false(sl_io_advance(&op, 512));
    assert_false(sl_io_advance(&op, 512));
    assert_int_equal(op.got, 4096);
    assert_true(sl_io_advance(&op, 512));
    assert_int_equal(op.err, SL_IO_END_OF_FILE);
    op = (struct sl_io_op){.kind = SL_IO_READ, .direct = true, .len = 16384, .need = 16000};
    assert_true(sl_io_advance(&op, 16000));
    assert_int_equal(op.err, 0);
    op = (struct sl_io_op){.kind = SL_IO_READ, .len = 100, .need = 100};
    assert_true(sl_io_advance(&op, 101)); /* more than asked for */
    assert_int_equal(op.err, EIO);
    op = (struct sl_io_op){.kind = SL_IO_WRITE, .len = 100, .need = 100};
    assert_true(sl_io_advance(&op, 0)); /* a write that moves nothing */
    assert_int_equal(op.err, EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),        cmocka_unit_test(test_short),
        cmocka_unit_test(test_end_of_file), cmocka_unit_test(test_direct),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_real_errors),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_again),       cmocka_unit_test(test_wake),
        cmocka_unit_test(test_advance),     cmocka_unit_test(test_broken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
