/* Small checkpoints for tests, made on the spot. Data is a hole in the file:
 * nothing but headers is ever read. */
#ifndef SLUICE_TESTS_SOURCE_MAKER_H
#define SLUICE_TESTS_SOURCE_MAKER_H

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- folders ---- */

static inline int maker_remove_one(const char *path, const struct stat *st, int kind,
                                   struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline int maker_remove(const char *dir)
{
    return nftw(dir, maker_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void maker_write(const char *dir, const char *name, const char *text)
{
    char path[4096];
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

/* ---- growing text ---- */

struct maker_text {
    char *s;
    size_t len, cap;
};

static inline void maker_add(struct maker_text *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static inline void maker_add(struct maker_text *t, const char *fmt, ...)
{
    va_list ap;

    if (t->cap - t->len < 2048) {
        t->cap = t->cap * 2 + 4096;
        t->s = realloc(t->s, t->cap);
        assert_non_null(t->s);
    }
    va_start(ap, fmt);
    t->len += (size_t)vsnprintf(t->s + t->len, t->cap - t->len, fmt, ap);
    va_end(ap);
}

/* ---- safetensors files ---- */

struct maker_file {
    struct maker_text json;
    uint64_t end;
};

/* shape is JSON: "[2, 3]". */
static inline void maker_tensor(struct maker_file *f, const char *name, const char *dtype,
                                const char *shape, uint64_t bytes)
{
    maker_add(&f->json, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
              f->json.len ? "," : "{", name, dtype, shape, (unsigned long long)f->end,
              (unsigned long long)(f->end + bytes));
    f->end += bytes;
}

/* Writes the file and forgets its tensors. `lose` bytes are cut off its end. */
static inline void maker_finish(struct maker_file *f, const char *dir, const char *name,
                                uint64_t lose)
{
    uint8_t len[8];
    char path[4096];
    int fd;

    maker_add(&f->json, "%s", f->json.len ? "}" : "{}");
    for (int i = 0; i < 8; i++)
        len[i] = (uint8_t)((uint64_t)f->json.len >> (8 * i));
    snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, len, 8), 8);
    assert_int_equal(write(fd, f->json.s, f->json.len), (ssize_t)f->json.len);
    assert_int_equal(ftruncate(fd, (off_t)(8 + f->json.len + f->end - lose)), 0);
    assert_int_equal(close(fd), 0);
    free(f->json.s);
    memset(f, 0, sizeof *f);
}

#endif
