/* Importance matrices written: from each format to each, and what must not be written over. */
#include "tests/unit/imatrix_maker.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static size_t at_most; /* bytes that one write takes; 0: any */

ssize_t write(int fd, const void *bytes, size_t n)
{
    return syscall(SYS_write, fd, bytes, at_most && n > at_most ? at_most : n);
}

/* The same entries and weights, bit by bit. */
static void same(const struct sl_imatrix *a, const struct sl_imatrix *b)
{
    struct sl_error e;

    assert_int_equal(a->n_entries, b->n_entries);
    for (uint32_t i = 0; i < a->n_entries; i++) {
        int64_t k = sl_imatrix_find(b, a->entries[i].name);
        uint64_t n = a->entries[i].n;
        float *x = malloc(n * 4), *y = malloc(n * 4);

        assert_true(k >= 0);
        assert_int_equal(b->entries[k].n, n);
        assert_int_equal(sl_imatrix_values(a, i, 0, n, x, &e), 0);
        assert_int_equal(sl_imatrix_values(b, (uint32_t)k, 0, n, y, &e), 0);
        assert_memory_equal(x, y, n * 4);
        free(x);
        free(y);
    }
}

static void through(const struct sl_imatrix *im, enum sl_imatrix_format format)
{
    struct sl_imatrix *other;
    struct sl_error e;

    unlink(path2);
    assert_int_equal(sl_imatrix_write(im, format, path2, &e), 0);
    assert_int_equal(sl_imatrix_write(im, format, path2, &e), SL_EEXISTS);
    if (sl_imatrix_open(path2, &other, &e) < 0)
        fail_msg("%s", e.text);
    assert_int_equal(other->format, format);
    assert_int_equal(other->n_chunks, im->n_chunks);
    assert_string_equal(other->datasets[0], im->datasets[0]);
    for (uint32_t i = 1; i < other->n_entries; i++)
        assert_true(strcmp(other->entries[i - 1].name, other->entries[i].name) < 0);
    same(im, other);
    sl_imatrix_close(other);
}

static void test_write(void **state)
{
    struct gguf_file g = {.n = 0};
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;

    (void)state;
    assert_int_equal(sl_imatrix_open(TINY_DAT, &im, &e), 0);
    through(im, SL_IMATRIX_DAT);
    at_most = 1000;
    through(im, SL_IMATRIX_GGUF);
    at_most = 0;
    sl_imatrix_close(im);
    good_dat(&b); /* an entry without calls */
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    through(im, SL_IMATRIX_GGUF);
    sl_imatrix_close(im);
    g_add(&g, "blk.0.ffn_up_exps.weight.in_sum2", 2, 4, sums);
    g_add(&g, "blk.0.ffn_up_exps.weight.counts", 1, 4, counts);
    g_add(&g, "none.in_sum2", 2, 1, sums);
    g_add(&g, "none.counts", 1, 1, &counts[1]);
    assert_int_equal(open_bytes(g_bytes(&g), &im, &e), 0);
    through(im, SL_IMATRIX_DAT);
    through(im, SL_IMATRIX_GGUF);
    sl_imatrix_close(im);
    b.n = 0;
    i32(&b, 1);
    dat_entry(&b, "a.name.that.is.too.long.for.a.tensor.of.sums.in.gguf.weight", 1, 2, 1);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    unlink(path2);
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "too long for GGUF"));
    assert_int_equal(access(path2, F_OK), -1);
    sl_imatrix_close(im);
    free(b.p);
    free(g.b.p);
    free(g.data.p);
}

/* A list of files as the data set: read, and through both formats. */
static void test_long_dataset(void **state)
{
    char name[5000];
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;

    (void)state;
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = 0;
    good_dat(&b);
    b.n -= 7;
    i32(&b, sizeof name - 1);
    b_put(&b, name, sizeof name - 1);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_string_equal(im->datasets[0], name);
    through(im, SL_IMATRIX_DAT);
    through(im, SL_IMATRIX_GGUF);
    sl_imatrix_close(im);
    b.n -= 1;
    refuses(&b, "the data set's name");
    put_i32(&b, b.n - sizeof name + 2 - 4, (1 << 20) + 1);
    for (unsigned i = 0; i < 300; i++)
        b_put(&b, name, sizeof name - 1);
    refuses(&b, "1048577 bytes, more than 1048576");
    free(b.p);
}

/* Weights whose product with ncall is infinite: no file, not one with infinities. */
static void test_write_too_large(void **state)
{
    static const float large[] = {3e38f, 1, 1, 1}, one_and_many[] = {1, 1e6f};
    struct gguf_file g = {.n = 0};
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;

    (void)state;
    g_add(&g, "a.in_sum2", 2, 2, large);
    g_add(&g, "a.counts", 1, 2, one_and_many);
    assert_int_equal(open_bytes(g_bytes(&g), &im, &e), 0);
    unlink(path2);
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_DAT, path2, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "entry 'a' is too large for the dat format"));
    assert_int_equal(access(path2, F_OK), -1);
    free(im->datasets[0]);
    im->datasets[0] = malloc((1 << 20) + 2);
    memset(im->datasets[0], 'd', (1 << 20) + 1);
    im->datasets[0][(1 << 20) + 1] = 0;
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_DAT, path2, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "the data set's name has 1048577 bytes; at most 1048576 are read"));
    assert_int_equal(access(path2, F_OK), -1);
    sl_imatrix_close(im);
    i32(&b, 1);
    dat_entry(&b, "a", 1, 2, 3e38f);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "entry 'a' is too large for sums"));
    assert_int_equal(access(path2, F_OK), -1);
    sl_imatrix_close(im);
    free(b.p);
    free(g.b.p);
    free(g.data.p);
}

static uint64_t size_of(const char *p)
{
    struct stat st;

    return lstat(p, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* A link in the place of the unfinished file, or of the file: nothing is written through it. */
static void test_write_links(void **state)
{
    char part[80], victim[80];
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;

    (void)state;
    snprintf(part, sizeof part, "%s.partial", path2);
    snprintf(victim, sizeof victim, "%s/victim", dir);
    good_dat(&b);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(b_write(&b, victim), 0);
    unlink(path2);
    assert_int_equal(symlink(victim, part), 0);
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), 0);
    assert_int_equal(size_of(victim), b.n);
    assert_true(size_of(path2) > b.n);
    assert_int_equal(access(part, F_OK), -1);
    unlink(path2);
    unlink(victim);
    assert_int_equal(symlink(victim, path2), 0); /* to nothing */
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), SL_EEXISTS);
    assert_int_equal(access(victim, F_OK), -1);
    unlink(path2);
    sl_imatrix_close(im);
    free(b.p);
}

/* Two runs for one file: the second leaves the first's work alone. What a killed one left goes. */
static void test_write_at_once(void **state)
{
    char part[80];
    struct bytes b = {0};
    struct sl_imatrix *im;
    struct sl_error e;
    int fd;

    (void)state;
    snprintf(part, sizeof part, "%s.partial", path2);
    good_dat(&b);
    assert_int_equal(open_bytes(&b, &im, &e), 0);
    assert_int_equal(b_write(&b, part), 0);
    fd = open(part, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), SL_EEXISTS);
    assert_non_null(strstr(e.text, ".partial: another run is writing this file"));
    assert_int_equal(size_of(part), b.n);
    assert_int_equal(access(path2, F_OK), -1);
    /* Another user's, which this one may not write to. */
    assert_int_equal(chmod(part, 0444) + chmod(dir, 0777), 0);
    if (geteuid() != 0 || seteuid(65534) == 0) {
        assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), SL_EEXISTS);
        assert_int_equal(getuid() == 0 ? seteuid(0) : 0, 0);
        assert_int_equal(size_of(part), b.n);
    }
    close(fd);
    assert_int_equal(sl_imatrix_write(im, SL_IMATRIX_GGUF, path2, &e), 0);
    assert_true(size_of(path2) > b.n);
    assert_int_equal(access(part, F_OK), -1);
    unlink(path2);
    sl_imatrix_close(im);
    free(b.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_long_dataset),
        cmocka_unit_test(test_write_too_large),
        cmocka_unit_test(test_write_links),
        cmocka_unit_test(test_write_at_once),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
