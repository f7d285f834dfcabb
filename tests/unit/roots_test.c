/* Folders below which a program acts for others: what lies outside, or leads
 * outside by "..", symlinks or a rename, is not opened. */
#include "proto/checkpoint.h"
#include "proto/roots.h"
#include "worker/source_rows.h"
#include "worker/srcfile.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* So often openat2 says that something was renamed meanwhile. */
static unsigned renamed;

long syscall(long number, ...)
{
    long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (unsigned i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_openat2 && renamed) {
        renamed--;
        errno = EAGAIN;
        return -1;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

struct world {
    char top[64], root[96], other[96];
    struct sl_roots *r;
};

static void make_file(const char *dir, const char *name)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("x", f);
    fclose(f);
}

static void make_link(const char *dir, const char *name, const char *to)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(symlink(to, path), 0);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct sl_error e;
    char sub[128];
    const char *roots[1];

    snprintf(w->top, sizeof w->top, "/tmp/sluice_roots_XXXXXX");
    assert_non_null(mkdtemp(w->top));
    snprintf(w->root, sizeof w->root, "%s/root", w->top);
    snprintf(w->other, sizeof w->other, "%s/other", w->top);
    snprintf(sub, sizeof sub, "%s/sub", w->root);
    assert_int_equal(mkdir(w->root, 0700) | mkdir(w->other, 0700) | mkdir(sub, 0700), 0);
    make_file(w->root, "a");
    make_file(sub, "b");
    make_file(w->other, "secret");
    make_link(w->root, "inside", "sub/b");
    make_link(w->root, "out", "../other/secret");
    make_link(w->root, "dir_out", "../other");
    roots[0] = w->root;
    assert_int_equal(sl_roots_open(roots, 1, &w->r, &e), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    sl_roots_close(w->r);
    snprintf(command, sizeof command, "rm -rf %s", w->top);
    assert_int_equal(system(command), 0);
    free(w);
    return 0;
}

static int try_open(struct world *w, const char *sep, const char *name, struct sl_error *e)
{
    char path[256];
    int fd;

    snprintf(path, sizeof path, "%s%s%s", w->root, sep, name);
    fd = sl_roots_open_path(w->r, path, O_RDONLY, e);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? fd : 0;
}

static void what_lies_below_opens(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char to[128];

    assert_int_equal(try_open(w, "/", "a", &e), 0);
    assert_int_equal(try_open(w, "/", "sub/b", &e), 0);
    assert_int_equal(try_open(w, "//", "sub/../a", &e), 0);
    assert_int_equal(try_open(w, "/", "inside", &e), 0);
    assert_int_equal(try_open(w, "", "", &e), 0);
    snprintf(to, sizeof to, "%s/sub/b", w->root);
    make_link(w->root, "absolute", to);
    assert_int_equal(try_open(w, "/", "absolute", &e), 0);
    snprintf(to, sizeof to, "%s/secret", w->other);
    make_link(w->root, "absolute_out", to);
    assert_int_equal(try_open(w, "/", "absolute_out", &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "leads outside"));
}

static void what_leads_out_does_not(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char names[128];

    assert_int_equal(try_open(w, "/", "../other/secret", &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "leads outside"));
    assert_int_equal(try_open(w, "/", "out", &e), SL_EUSAGE);
    assert_int_equal(try_open(w, "/", "dir_out/secret", &e), SL_EUSAGE);
    assert_int_equal(try_open(w, "/", "sub/../../other/secret", &e), SL_EUSAGE);
    assert_int_equal(try_open(w, "", "2/a", &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "lies outside"));
    snprintf(names, sizeof names, "its workers: %s)", w->root);
    assert_non_null(strstr(e.text, names));
    assert_int_equal(try_open(w, "/", "none", &e), SL_ESOURCE);
    assert_int_equal(sl_roots_open_path(w->r, "/etc/passwd", O_RDONLY, &e), SL_EUSAGE);
    assert_int_equal(sl_roots_open_path(w->r, "a", O_RDONLY, &e), SL_EUSAGE);
}

/* A link with an absolute text to what is not there now, below the root: a folder that is not mounted. */
static void what_is_missing_behind_a_link_is_missing(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char to[128];

    snprintf(to, sizeof to, "%s/sub/disk", w->root);
    make_link(w->root, "link", to);
    assert_int_equal(try_open(w, "/", "link", &e), SL_ESOURCE);
    assert_int_equal(try_open(w, "/", "link/out", &e), SL_ESOURCE);
    assert_non_null(strstr(e.text, "link/out: No such file or directory"));
    assert_int_equal(mkdir(to, 0700), 0);
    assert_int_equal(try_open(w, "/", "link", &e), 0);
    assert_int_equal(try_open(w, "/", "link/out", &e), SL_ESOURCE);
    snprintf(to, sizeof to, "%s/none", w->other);
    make_link(w->root, "link_out", to);
    assert_int_equal(try_open(w, "/", "link_out", &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "leads outside"));
}

/* The kernel does not follow ".." while something is renamed, wherever that is. */
static void a_rename_elsewhere_is_waited_for(void **state)
{
    struct world *w = *state;
    struct sl_error e;

    renamed = 20;
    assert_int_equal(try_open(w, "/", "sub/../a", &e), 0);
    renamed = UINT32_MAX;
    assert_int_equal(try_open(w, "/", "sub/../a", &e), SL_EFAIL);
    renamed = 0;
}

static void an_open_file_is_known_by_its_place(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char path[128];
    int in, out;

    snprintf(path, sizeof path, "%s/a", w->root);
    in = open(path, O_RDONLY);
    snprintf(path, sizeof path, "%s/out", w->root);
    out = open(path, O_RDONLY);
    assert_int_equal(sl_roots_check_fd(w->r, in, "a", &e), 0);
    assert_int_equal(sl_roots_check_fd(w->r, out, "out", &e), SL_EUSAGE);
    close(in);
    close(out);
}

/* A source's file that becomes a link to something outside of the same size and time. */
static void a_source_is_looked_at_again(void **state)
{
    struct world *w = *state;
    char path[128], secret[128];
    char name[] = "a";
    struct sl_src_file file = {.name = name, .path = path};
    const struct sl_checkpoint ck = {.files = &file, .n_files = 1, .roots = w->r};
    struct sl_srcfiles *s;
    struct sl_srcfile *f;
    struct sl_error e;
    struct stat st;

    snprintf(path, sizeof path, "%s/a", w->root);
    snprintf(secret, sizeof secret, "%s/secret", w->other);
    assert_int_equal(stat(path, &st), 0);
    file.size = (uint64_t)st.st_size;
    file.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    for (int there = 0; there < 2; there++) {
        assert_int_equal(sl_srcfiles_open(&ck, SL_DIRECT_AUTO, NULL, &s, &e), 0);
        if (there)
            assert_int_equal(unlink(path) | symlink(secret, path) |
                             utimensat(AT_FDCWD, secret, (struct timespec[]){st.st_atim, st.st_mtim}, 0), 0);
        assert_int_equal(sl_srcfile_get(s, 0, &f, &e), there ? SL_EUSAGE : 0);
        if (!there)
            sl_srcfile_put(s, 0);
        sl_srcfiles_close(s);
    }
    assert_non_null(strstr(e.text, "lies outside"));
    /* Nor does a FIFO keep a worker waiting. */
    assert_int_equal(unlink(path) | mkfifo(path, 0600), 0);
    assert_int_equal(sl_srcfiles_open(&ck, SL_DIRECT_AUTO, NULL, &s, &e), 0);
    assert_int_equal(sl_srcfile_get(s, 0, &f, &e), SL_ESOURCE);
    sl_srcfiles_close(s);
}

/* A row's file that is not the one that was planned, or lies outside, is not read, and no
 * other file's rows are taken from it. */
static void rows_are_of_the_files_planned(void **state)
{
    struct world *w = *state;
    static const char *const dir[3] = {"root", "root", "other"}, *const name[3] = {"zero", "one", "two"};
    struct sl_src_file files[3] = {0};
    struct sl_src_tensor tensors[3] = {0};
    struct sl_model_src src[3] = {0};
    char path[3][128];
    const struct sl_checkpoint ck = {.files = files, .n_files = 3, .tensors = tensors, .n_tensors = 3, .roots = w->r};
    const struct sl_model m = {.src = src, .n_src = 3};
    struct source_rows *rows;
    struct sl_error e;

    for (uint32_t i = 0; i < 3; i++) {
        float x = (float)i + 1;
        struct stat st;
        int fd;

        snprintf(path[i], sizeof path[i], "%s/%s/%s", w->top, dir[i], name[i]);
        fd = open(path[i], O_WRONLY | O_CREAT, 0600);
        assert_true(fd >= 0 && write(fd, &x, sizeof x) == sizeof x && fstat(fd, &st) == 0);
        close(fd);
        files[i] = (struct sl_src_file){.path = path[i], .size = sizeof x,
                                        .mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
        tensors[i] = (struct sl_src_tensor){.name = name[i], .dtype = SL_DTYPE_F32, .elems = 1, .file = i, .bytes = 4};
        src[i] = (struct sl_model_src){.tensor = i, .scale.tensor = SL_NO_TENSOR, .dtype = SL_DTYPE_F32, .rows = 1, .cols = 1};
    }
    files[1].mtime_ns++;
    assert_int_equal(source_rows_open(&ck, &m, &rows, &e), 0);
    for (uint32_t i = 3; i-- > 0;) {
        const struct sl_out_tensor t = {.n_dims = 1, .ne = {1, 1, 1, 1}, .elems = 1, .first_src = i, .n_src = 1};
        float x = 0;

        assert_int_equal(source_row(rows, &t, 0, &x, &e), i == 0 ? 0 : i == 1 ? SL_ESOURCE : SL_EUSAGE);
        assert_true(i > 0 || x == 1);
    }
    source_rows_close(rows);
}

static void a_pinned_folder_stays_itself(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    char path[128], moved[128], pin[32], file[64];
    int fd;

    snprintf(path, sizeof path, "%s/sub", w->root);
    snprintf(moved, sizeof moved, "%s/moved", w->root);
    fd = sl_roots_open_path(w->r, path, O_PATH | O_DIRECTORY, &e);
    assert_true(fd >= 0);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink(w->other, path), 0);
    sl_roots_pin(fd, pin);
    snprintf(file, sizeof file, "%s/b", pin);
    assert_int_equal(access(file, F_OK), 0);
    snprintf(file, sizeof file, "%s/secret", pin);
    assert_int_not_equal(access(file, F_OK), 0);
    close(fd);
}

static void roots_are_folders_with_absolute_names(void **state)
{
    struct world *w = *state;
    struct sl_error e;
    struct sl_roots *r;
    const char *relative = "tmp", *none = "/nonexistent/x";
    const char *many[SL_ROOTS_MAX + 1];

    for (unsigned i = 0; i <= SL_ROOTS_MAX; i++)
        many[i] = w->root;
    assert_int_equal(sl_roots_open(&relative, 1, &r, &e), SL_EUSAGE);
    assert_int_equal(sl_roots_open(&none, 1, &r, &e), SL_EUSAGE);
    assert_int_equal(sl_roots_open(many, SL_ROOTS_MAX + 1, &r, &e), SL_EUSAGE);
    assert_int_equal(sl_roots_open(NULL, 0, &r, &e), 0);
    assert_int_equal(sl_roots_open_path(r, w->root, O_PATH, &e), SL_EUSAGE);
    sl_roots_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_lies_below_opens, setup, teardown),
        cmocka_unit_test_setup_teardown(what_leads_out_does_not, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_missing_behind_a_link_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_rename_elsewhere_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(an_open_file_is_known_by_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(a_source_is_looked_at_again, setup, teardown),
        cmocka_unit_test_setup_teardown(rows_are_of_the_files_planned, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pinned_folder_stays_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(roots_are_folders_with_absolute_names, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
