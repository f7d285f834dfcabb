/* Importance matrices as bytes, good ones and such as lie, and a folder for them. */
#ifndef SLUICE_TESTS_IMATRIX_MAKER_H
#define SLUICE_TESTS_IMATRIX_MAKER_H

#include "proto/imatrix_parts.h"
#include "tests/unit/gguf_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY_DAT "tests/tiny-v3/imatrix.legacy-layout.dat"

static char dir[] = "/tmp/imatrix_test_XXXXXX";
static char path[64], path2[64];

static inline int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof path, "%s/a", dir);
    snprintf(path2, sizeof path2, "%s/b", dir);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    unlink(path);
    unlink(path2);
    return rmdir(dir);
}

static inline void i32(struct bytes *b, int32_t v) { b_put(b, &v, 4); }
static inline void f32(struct bytes *b, float v) { b_put(b, &v, 4); }

static inline void dat_entry(struct bytes *b, const char *name, int32_t ncall, uint32_t n, float v)
{
    i32(b, (int32_t)strlen(name));
    b_put(b, name, strlen(name));
    i32(b, ncall);
    i32(b, (int32_t)n);
    for (uint32_t i = 0; i < n; i++)
        f32(b, v + (float)i);
}

/* Two entries, chunks, data set. */
static inline void good_dat(struct bytes *b)
{
    b->n = 0;
    i32(b, 2);
    dat_entry(b, "blk.0.ffn_up.weight", 3, 4, 7);
    dat_entry(b, "blk.1.ffn_up_exps.weight", 0, 6, 1);
    i32(b, 12);
    i32(b, 3);
    b_put(b, "set", 3);
}

static inline int open_bytes(const struct bytes *b, struct sl_imatrix **im, struct sl_error *e)
{
    memset(e, 0, sizeof *e);
    assert_int_equal(b_write(b, path), 0);
    return sl_imatrix_open(path, im, e);
}

static inline void refuses(const struct bytes *b, const char *what)
{
    struct sl_imatrix *im = NULL;
    struct sl_error e;

    if (open_bytes(b, &im, &e) != SL_ESOURCE || !strstr(e.text, what) || !strstr(e.text, path) || im)
        fail_msg("expected '%s', got '%s'", what, e.text);
}

static inline void put_i32(struct bytes *b, size_t at, int32_t v)
{
    memcpy(b->p + at, &v, 4);
}

/* An imatrix in GGUF: keys, then tensors of F32 that lie one after another. */
struct gguf_file {
    struct bytes b, data;
    const char *name[6];
    uint64_t ne[6][2];
    uint32_t type[6];
    int n;
    bool no_size, chunks_as_text;
};

static inline void g_add(struct gguf_file *g, const char *name, uint64_t ne0, uint64_t ne1, const float *v)
{
    g->name[g->n] = name;
    g->ne[g->n][0] = ne0;
    g->ne[g->n][1] = ne1;
    g->n++;
    b_pad(&g->data, 32);
    b_put(&g->data, v, ne0 * ne1 * 4);
}

static inline void g_keys(struct gguf_file *g, uint64_t n_tensors)
{
    b_start(&g->b, 3, n_tensors, g->no_size ? 3 : 4);
    b_key(&g->b, "general.type", 8);
    b_str(&g->b, "imatrix");
    b_key(&g->b, "imatrix.datasets", 9);
    b_u32(&g->b, 8);
    b_u64(&g->b, 2);
    b_str(&g->b, "one");
    b_str(&g->b, "two");
    b_key(&g->b, "imatrix.chunk_count", g->chunks_as_text ? 8 : 4);
    if (g->chunks_as_text)
        b_str(&g->b, "9");
    else
        b_u32(&g->b, 9);
    if (!g->no_size) {
        b_key(&g->b, "imatrix.chunk_size", 4);
        b_u32(&g->b, 100);
    }
}

static inline const struct bytes *g_bytes(struct gguf_file *g)
{
    uint64_t at = 0;

    g_keys(g, (uint64_t)g->n);
    for (int i = 0; i < g->n; i++) {
        b_tensor(&g->b, g->name[i], 2, g->ne[i], g->type[i], at);
        at += (g->ne[i][0] * g->ne[i][1] * 4 + 31) / 32 * 32;
    }
    b_pad(&g->b, 32);
    b_put(&g->b, g->data.p, g->data.n);
    b_pad(&g->b, 32);
    g->data.n = 0;
    g->n = 0;
    return &g->b;
}

static const float sums[] = {2, 4, 6, 8, 10, 12, 14, 16}, counts[] = {2, 0, 4, 700};

#endif
