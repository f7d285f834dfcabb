/* A small checkpoint, model and plan made by hand, and what the engine has to
 * make of them, computed element by element. */
#ifndef SLUICE_TESTS_ENGINE_WORLD_H
#define SLUICE_TESTS_ENGINE_WORLD_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>

#include <cmocka.h>

#include "kernels/half.h"
#include "proto/tensor_hash.h"
#include "worker/engine.h"
#include "worker/sysio.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORLD_MAX 64
#define WORLD_IDS 7 /* all integers are below it */

struct world {
    char dir[64];
    struct sl_checkpoint ck;
    struct sl_model model;
    struct sl_plan plan;
    struct sl_src_file file[WORLD_MAX];
    int fd[WORLD_MAX];
    struct sl_src_tensor tensor[WORLD_MAX];
    uint8_t *data[WORLD_MAX];
    struct sl_model_src src[WORLD_MAX];
    struct sl_out_tensor out[WORLD_MAX];
    struct sl_plan_tensor pt[WORLD_MAX];
    float *weights[WORLD_MAX];
    uint64_t n_weights[WORLD_MAX];
    struct sl_plan_item item[4 * WORLD_MAX];
    struct sl_plan_task task[WORLD_MAX];
    struct sl_plan_segment segment;
    char segment_path[96];
    const char *segment_paths[1];
    uint64_t seed;
    int (*retype)(int type);  /* another recipe: other types of the same block; NULL: as said */
};

static inline uint32_t world_random(struct world *w)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->seed >> 33);
}

static inline void world_open(struct world *w)
{
    memset(w, 0, sizeof *w);
    strcpy(w->dir, "/tmp/sluice-engine-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->seed = 42;
    w->ck.files = w->file;
    w->ck.tensors = w->tensor;
    w->model.tensors = w->out;
    w->model.src = w->src;
    w->plan.model = &w->model;
    w->plan.tensors = w->pt;
    w->plan.segments = &w->segment;
    w->plan.n_segments = 1;
    w->plan.items = w->item;
    w->plan.tasks = w->task;
    snprintf(w->segment_path, sizeof w->segment_path, "%s/out.gguf", w->dir);
    w->segment_paths[0] = w->segment_path;
}

static inline void world_file(struct world *w, const char *name)
{
    char path[128];
    uint32_t i = w->ck.n_files++;

    snprintf(path, sizeof path, "%s/%s", w->dir, name);
    w->file[i].path = strdup(path);
    w->file[i].name = strdup(name);
    w->file[i].size = 8 * 13; /* tensors begin off every boundary */
    w->fd[i] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(w->fd[i] >= 0);
    assert_int_equal(ftruncate(w->fd[i], (off_t)w->file[i].size), 0);
}

/* Writes the tensor's bytes behind the last one of the file; takes data over. */
static inline uint32_t world_tensor(struct world *w, uint32_t file, const char *name,
                                    enum sl_dtype dtype, uint64_t rows, uint64_t cols, void *data)
{
    uint32_t i = w->ck.n_tensors++;
    const struct sl_dtype_info *d = sl_dtype_info((int)dtype);
    struct sl_src_tensor *t = &w->tensor[i];

    assert_true(i < WORLD_MAX);
    *t = (struct sl_src_tensor){.name = strdup(name), .dtype = dtype, .n_dims = 2,
                                .shape = {rows, cols}, .elems = rows * cols, .file = file,
                                .offset = w->file[file].size,
                                .bytes = rows * cols / d->block * d->bytes};
    w->data[i] = data;
    assert_int_equal(pwrite(w->fd[file], data, t->bytes, (off_t)t->offset), (ssize_t)t->bytes);
    w->file[file].size += (t->bytes + 7) / 8 * 8;
    assert_int_equal(ftruncate(w->fd[file], (off_t)w->file[file].size), 0);
    return i;
}

static inline uint16_t world_bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, 4);
    return (uint16_t)(u >> 16);
}

/* Random bytes of a dtype: finite weights, or (positive) scales near 1/64, some of them 0 and -0. */
static inline void *world_values(struct world *w, enum sl_dtype dtype, uint64_t n, bool positive)
{
    uint8_t *p = calloc(n + 1, 8);

    for (uint64_t i = 0; i < n; i++) {
        uint32_t r = world_random(w);
        float x = (float)(r & 0xffff) / 65536.0f + 1.0f / 1024;
        uint16_t h;

        x = positive ? x / 64 * (i % 37 == 5 ? 0 : i % 211 == 100 ? -0.f : 1) : (r & 0x10000 ? -x : x);
        h = world_bf16(x);
        switch (dtype) {
        case SL_DTYPE_F8_E4M3:
            p[i] = (uint8_t)r;
            p[i] = (p[i] & 0x7f) == 0x7f ? 0x31 : p[i];
            break;
        case SL_DTYPE_F4: case SL_DTYPE_I2: case SL_DTYPE_I4: case SL_DTYPE_INT8: case SL_DTYPE_UINT8: /* of the first three more bytes than needed */
            p[i] = (uint8_t)r;
            break;
        case SL_DTYPE_I64: /* little-endian: of small numbers the first byte */
        case SL_DTYPE_I32:
            p[(dtype == SL_DTYPE_I64 ? 8 : 4) * i] = (uint8_t)(r % WORLD_IDS);
            break;
        case SL_DTYPE_F8_E8M0:
        case SL_DTYPE_U8:
            p[i] = (uint8_t)(110 + r % 16);
            break;
        case SL_DTYPE_BF16:
            memcpy(p + 2 * i, &h, 2);
            break;
        case SL_DTYPE_F16:
            h = (uint16_t)(0x2000 + (r & 0x1fff) + (positive ? 0 : (r & 0x10000) >> 1));
            memcpy(p + 2 * i, &h, 2);
            break;
        default:
            memcpy(p + 4 * i, &x, 4);
        }
    }
    return p;
}

/* A source matrix with random contents and, when br > 0, scales on br x bc blocks, of integers of either sign. */
static inline uint32_t world_source(struct world *w, uint32_t file, const char *name,
                                    enum sl_dtype dtype, uint64_t rows, uint64_t cols,
                                    enum sl_dtype scale_dtype, uint64_t br, uint64_t bc)
{
    uint32_t i = w->model.n_src++;
    struct sl_model_src *s = &w->src[i];
    char scale_name[64];

    *s = (struct sl_model_src){.dtype = dtype, .rows = rows, .cols = cols,
                               .scale = {.tensor = SL_NO_TENSOR}};
    s->tensor = world_tensor(w, file, name, dtype, rows, cols, world_values(w, dtype, rows * cols, false));
    if (br) {
        uint64_t sr = (rows + br - 1) / br, sc = (cols + bc - 1) / bc;

        snprintf(scale_name, sizeof scale_name, "%s_scale_inv", name);
        s->scale = (struct sl_scale){.rows = sr, .cols = sc, .block_rows = br, .block_cols = bc,
                                     .any_sign = sl_packed_bits(dtype) || dtype == SL_DTYPE_INT8};
        s->scale.tensor = world_tensor(w, w->ck.n_files - 1, scale_name, scale_dtype, sr, sc,
                                       world_values(w, scale_dtype, sr * sc, !s->scale.any_sign));
    }
    return i;
}

/* Gives a source of packed integers random zero points, and its columns groups in no order; and tells how they are packed. */
static inline void world_pack(struct world *w, uint32_t src, bool zeros, bool order, enum sl_packing packing)
{
    struct sl_model_src *s = &w->src[src];
    uint64_t in_word = 32 / sl_packed_bits(s->dtype), rows = (s->rows + in_word - 1) / in_word;
    uint32_t *group = calloc(s->cols, sizeof *group), file = w->ck.n_files - 1;

    s->scale.packing = packing;
    s->scale.zero_plus = packing == SL_PACKED_GPTQ && src % 2;
    for (uint64_t i = 0; i < s->cols; i++)
        group[i] = i % 5 ? (uint32_t)(i / s->scale.block_cols) : (uint32_t)(world_random(w) % s->scale.cols);
    if (zeros)
        s->scale.zeros = 1 + world_tensor(w, file, "zeros", SL_DTYPE_I32, rows, s->scale.cols,
                                          world_values(w, SL_DTYPE_UINT8, 4 * rows * s->scale.cols, false));
    if (order)
        s->scale.order = 1 + world_tensor(w, file, "order", SL_DTYPE_I32, 1, s->cols, group);
    else
        free(group);
}

/* An output tensor of n_src sources from first_src on; behind the last one in the segment. */
static inline struct sl_out_tensor *world_out(struct world *w, const char *name, int type,
                                              enum sl_transform tr, uint64_t ne0, uint64_t ne1,
                                              uint64_t ne2, uint32_t first_src, uint32_t n_src)
{
    uint32_t i = w->model.n_tensors++;
    struct sl_out_tensor *t = &w->out[i];

    if (w->retype)
        type = w->retype(type);
    w->plan.n_tensors = w->model.n_tensors;
    *t = (struct sl_out_tensor){.n_dims = ne2 ? 3 : ne1 ? 2 : 1, .ne = {ne0, ne1 ? ne1 : 1, ne2 ? ne2 : 1, 1},
                                .transform = tr, .src_type = -1, .first_src = first_src, .n_src = n_src};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->elems = t->ne[0] * t->ne[1] * t->ne[2];
    if (!w->segment.file_bytes)
        w->segment.file_bytes = 4096 + 32;
    w->pt[i] = (struct sl_plan_tensor){.t = t, .type = type, .bytes = sl_type_bytes(type, t->elems),
                                       .file_offset = w->segment.file_bytes};
    w->segment.file_bytes += (w->pt[i].bytes + 31) / 32 * 32;
    return t;
}

/* A task of one tensor, in items of at most `elems` elements (0: one item). */
static inline void world_task(struct world *w, uint32_t tensor, uint64_t elems)
{
    struct sl_plan_task *task = &w->task[w->plan.n_tasks++];
    uint64_t all = w->out[tensor].elems;

    *task = (struct sl_plan_task){.first_item = w->plan.n_items, .src_bytes = all,
                                  .out_bytes = w->pt[tensor].bytes};
    elems = elems ? elems : all;
    for (uint64_t at = 0; at < all; at += elems) {
        w->item[w->plan.n_items++] = (struct sl_plan_item){
            .tensor = tensor, .elem0 = at, .elems = all - at < elems ? all - at : elems};
        task->n_items++;
    }
}

/* Fixes the files' sizes and times as a plan would have seen them. */
static inline void world_seal(struct world *w)
{
    int fd = open(w->segment_path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)w->segment.file_bytes), 0);
    close(fd);
    for (uint32_t i = 0; i < w->ck.n_files; i++) {
        struct stat st;

        assert_int_equal(fsync(w->fd[i]), 0);
        assert_int_equal(fstat(w->fd[i], &st), 0);
        assert_int_equal(st.st_size, w->file[i].size);
        w->file[i].mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    }
}

static inline void world_close(struct world *w)
{
    for (uint32_t i = 0; i < w->ck.n_files; i++) {
        if (w->fd[i] >= 0)
            close(w->fd[i]);
        unlink(w->file[i].path);
        free(w->file[i].path);
        free(w->file[i].name);
    }
    for (uint32_t i = 0; i < w->ck.n_tensors; i++) {
        free((void *)(uintptr_t)w->tensor[i].name);
        free(w->data[i]);
    }
    for (uint32_t i = 0; i < WORLD_MAX; i++)
        free(w->weights[i]);
    unlink(w->segment_path);
    rmdir(w->dir);
}

/* Importance weights for a tensor: 0.5 to 1.5. */
static inline void world_weigh(struct world *w, uint32_t tensor)
{
    uint64_t n = w->out[tensor].ne[0] * w->out[tensor].ne[2];

    w->weights[tensor] = malloc(n * sizeof(float));
    w->n_weights[tensor] = n;
    for (uint64_t i = 0; i < n; i++)
        w->weights[tensor][i] = 0.5f + (float)(world_random(w) & 0xffff) / 65536.0f;
}

static inline bool world_has_weights(void *user, uint32_t tensor)
{
    return ((struct world *)user)->weights[tensor] != NULL;
}

static inline int world_load_weights(void *user, uint32_t tensor, uint64_t slice, float *out,
                                     struct sl_error *e)
{
    const struct world *w = user;
    uint64_t row = w->out[tensor].ne[0];

    if ((slice + 1) * row > w->n_weights[tensor])
        return sl_fail(e, SL_EFAIL, "no such matrix");
    memcpy(out, w->weights[tensor] + slice * row, row * sizeof *out);
    return 0;
}

static inline struct sl_engine_weights world_weights(struct world *w)
{
    return (struct sl_engine_weights){.has = world_has_weights, .load = world_load_weights, .user = w};
}

/* One stored value, by the formats' definitions. */
static inline float world_decode(enum sl_dtype dtype, const uint8_t *p, uint64_t i)
{
    uint16_t h;
    uint32_t u;
    float x;

    switch (dtype) {
    case SL_DTYPE_F8_E4M3:
        x = p[i] >> 3 & 15 ? ldexpf(1 + (float)(p[i] & 7) / 8, (p[i] >> 3 & 15) - 7)
                           : ldexpf((float)(p[i] & 7) / 8, -6);
        return p[i] & 0x80 ? -x : x;
    case SL_DTYPE_INT8:
        return (float)(p[i] < 128 ? p[i] : p[i] - 256);
    case SL_DTYPE_F4: {
        int c = i % 2 ? p[i / 2] / 16 : p[i / 2] % 16, m = c & 1, e = c >> 1 & 3;

        x = e ? ldexpf((float)(2 + m), e - 2) : (float)m / 2;
        return c & 8 && x > 0 ? -x : x;
    }
    case SL_DTYPE_F8_E8M0:
    case SL_DTYPE_U8:
        return ldexpf(1, p[i] - 127);
    case SL_DTYPE_BF16:
        memcpy(&h, p + 2 * i, 2);
        u = (uint32_t)h << 16;
        memcpy(&x, &u, 4);
        return x;
    case SL_DTYPE_F16:
        memcpy(&h, p + 2 * i, 2);
        x = h >> 10 & 31 ? ldexpf(1 + (float)(h & 1023) / 1024, (h >> 10 & 31) - 15)
                         : ldexpf((float)(h & 1023) / 1024, -14);
        return h & 0x8000 ? -x : x;
    default:
        memcpy(&x, p + 4 * i, 4);
        return x;
    }
}

/* Number `slot`, the lowest first, of a word. */
static inline int world_slot(const uint8_t *words, uint64_t word, uint64_t slot, unsigned bits)
{
    return words[4 * word + slot * bits / 8] >> slot * bits % 8 & ((1 << bits) - 1);
}

/* Of packed integers: the code, less its zero point, and times its scale. */
static inline float world_integer(const struct world *w, const struct sl_model_src *s, uint64_t row, uint64_t col)
{
    static const uint8_t of_awq[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const struct sl_scale *sc = &s->scale;
    bool along = sc->packing == SL_PACKED_ALONG, awq = sc->packing == SL_PACKED_AWQ;
    unsigned bits = sl_packed_bits(s->dtype), n = 32 / bits;
    uint64_t group = sc->order ? w->data[sc->order - 1][4 * col] : col / sc->block_cols;
    uint64_t word = along ? (row * s->cols + col) / n : awq ? col * (s->rows / n) + row / n : col / n * s->rows + row;
    uint64_t zero = along ? row / n * sc->cols + group : group * (s->rows / n) + row / n;
    int code = world_slot(w->data[s->tensor], word, awq ? of_awq[row % 8] : col % n, bits);

    if (sc->zeros)
        code -= world_slot(w->data[sc->zeros - 1], zero, awq ? of_awq[row % 8] : row % n, bits) + sc->zero_plus;
    else
        code -= 1 << (bits - 1);
    return (float)code * world_decode(w->tensor[sc->tensor].dtype, w->data[sc->tensor], along ? row * sc->cols + group : group * s->rows + row);
}

static inline float world_element(const struct world *w, uint32_t src, uint64_t row, uint64_t col)
{
    const struct sl_model_src *s = &w->src[src];
    float x;

    if (sl_packed_bits(s->dtype))
        return world_integer(w, s, row, col);
    x = world_decode(s->dtype, w->data[s->tensor], row * s->cols + col);
    if (s->scale.tensor != SL_NO_TENSOR) {
        uint64_t part = s->scale.part_rows ? row / s->scale.part_rows : 0, in = row - part * s->scale.part_rows;

        x *= world_decode(w->tensor[s->scale.tensor].dtype, w->data[s->scale.tensor],
                          (part * s->scale.part_blocks + in / s->scale.block_rows) * s->scale.cols + col / s->scale.block_cols);
    }
    return x;
}

/* Element i of a view, in its source. */
static inline uint64_t world_place(const struct sl_view_part *p, uint64_t i)
{
    uint64_t j = 0, k = 0, l = 0;

    for (; i >= p->elems; p++)
        i -= p->elems;
    for (; i >= p->run; i -= p->run)
        if (++j == p->n[0]) {
            j = 0;
            if (++k == p->n[1])
                k = 0, l++;
        }
    return p->first + j * p->step[0] + k * p->step[1] + l * p->step[2] + i;
}

static inline float world_stored(const struct world *w, const struct sl_out_tensor *t, uint64_t i);

/* Output element i of a tensor, before it is rounded or quantized. */
static inline float world_value(const struct world *w, const struct sl_out_tensor *t, uint64_t i)
{
    float x = world_stored(w, t, i);

    x = t->change == SL_PLUS_ONE ? 1 + x : t->change == SL_MINUS_EXP ? -(float)exp((double)x) : x;
    return t->change && w->src[t->first_src].dtype == SL_DTYPE_F16 ? sl_f32_from_f16(sl_f16_from_f32(x)) : x;
}

/* As it is in the source, by the transforms' definitions. */
static inline float world_stored(const struct world *w, const struct sl_out_tensor *t, uint64_t i)
{
    uint64_t ne0 = t->ne[0], a = i / ne0, b = i % ne0, d, j, h;

    switch (t->transform) {
    case SL_INLINE:
        return t->values[i];
    case SL_PERMUTE:
        if (t->n_dims == 1) {
            a = i;
            d = t->elems / t->heads;
        } else {
            d = t->ne[1] / t->heads;
        }
        j = a % d;
        a = a / d * d + j % 2 * (d / 2) + j / 2;
        return t->n_dims == 1 ? world_element(w, t->first_src, 0, a) : world_element(w, t->first_src, a, b);
    case SL_K_B: /* out[h][c][r] */
        h = a / t->lora;
        return world_element(w, t->first_src, h * (t->nope + t->v_dim) + b, t->col0 + a % t->lora);
    case SL_V_B:
        h = a / t->v_dim;
        return world_element(w, t->first_src, h * (t->nope + t->v_dim) + t->nope + a % t->v_dim, b);
    case SL_PRODUCT:
        return world_element(w, t->first_src, 0, i) * world_element(w, t->first_src + 1, 0, i);
    case SL_VIEW:
        j = world_place(t->view->part, i);
        return world_element(w, t->first_src, j / w->src[t->first_src].cols, j % w->src[t->first_src].cols);
    case SL_COPY:
    case SL_FIRST:
    case SL_IDS: /* not weights */
        break;
    }
    h = i / (t->elems / t->n_src);
    j = i % (t->elems / t->n_src);
    return world_element(w, t->first_src + (uint32_t)h, j / w->src[t->first_src + h].cols,
                         j % w->src[t->first_src + h].cols);
}

/* Integers of 8 bytes or 4 as such of 4. */
static inline uint8_t *world_ids(const struct world *w, const struct sl_out_tensor *t)
{
    const struct sl_model_src *s = &w->src[t->first_src];
    uint64_t width = sl_dtype_info((int)s->dtype)->bytes;
    uint8_t *out = malloc(t->elems * 4);

    for (uint64_t i = 0; i < t->elems; i++)
        memcpy(out + 4 * i, w->data[s->tensor] + width * i, 4);
    return out;
}

/* A row of blocks of MXFP4 of a source of F4: its exponents and codes. */
static inline void world_mxfp4_row(const struct world *w, uint32_t src, uint64_t row, uint8_t *out)
{
    const struct sl_model_src *s = &w->src[src];
    const uint8_t *codes = w->data[s->tensor];

    for (uint64_t c = 0; c < s->cols; c++) {
        uint8_t *block = out + c / 32 * 17, byte = codes[(row * s->cols + c) / 2];

        if (c % 32 == 0) {
            memset(block, 0, 17);
            *block = ((const uint8_t *)w->data[s->scale.tensor])[row * s->scale.cols + c / 32];
        }
        block[1 + c % 16] |= (uint8_t)((c % 2 ? byte / 16 : byte % 16) << c % 32 / 16 * 4);
    }
}

/* What the tensor's bytes have to be; the caller frees them. */
static inline uint8_t *world_expected(const struct world *w, uint32_t tensor, bool round)
{
    const struct sl_plan_tensor *pt = &w->pt[tensor];
    const struct sl_out_tensor *t = pt->t;
    uint8_t *out = malloc(pt->bytes);
    float *x = malloc(t->ne[0] * sizeof *x);
    uint64_t bad, row = sl_type_bytes(pt->type, t->ne[0]);

    if (t->transform == SL_IDS) {
        free(out);
        free(x);
        return world_ids(w, t);
    }
    for (uint64_t r = 0; r < t->elems / t->ne[0]; r++) {
        uint64_t of_src = t->n_src ? t->elems / t->n_src / t->ne[0] : 1;
        const float *iw = w->weights[tensor]
                              ? w->weights[tensor] + r / t->ne[1] * t->ne[0] : NULL;

        if (pt->type == SL_TYPE_MXFP4 && sl_model_is_mxfp4(w->plan.model, t)) {
            world_mxfp4_row(w, t->first_src + (uint32_t)(r / of_src), r % of_src, out + r * row);
            continue;
        }
        for (uint64_t c = 0; c < t->ne[0]; c++)
            x[c] = world_value(w, t, r * t->ne[0] + c);
        if (round && !t->keep_f32 && t->transform != SL_INLINE)
            sl_round_bf16(x, t->ne[0]);
        assert_int_equal(sl_quantize_on(SL_BACKEND_SCALAR, pt->type, x, iw, t->ne[0], t->ne[0],
                                        out + r * row, &bad), 0);
    }
    free(x);
    return out;
}

/* An engine of one member. */
static inline int world_engine(const struct world *w, const struct sl_engine_opts *o, struct sl_engine **out,
                               struct sl_error *e)
{
    const struct sl_plan *plan = &w->plan;

    return sl_engine_open(&w->ck, &plan, o, 1, out, e);
}

/* Waits for one result; fails the test after a minute. */
static inline struct sl_task_result world_wait(struct sl_engine *en)
{
    struct sl_task_result r;
    struct sl_error e;

    memset(&r, 0, sizeof r);
    assert_int_equal(sl_engine_wait(en, &r, 60000, &e), 1);
    return r;
}

static inline uint8_t *world_output(const struct world *w, uint32_t tensor)
{
    uint8_t *p = malloc(w->pt[tensor].bytes + 1);
    int fd = open(w->segment_path, O_RDONLY);

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, p, w->pt[tensor].bytes, (off_t)w->pt[tensor].file_offset),
                     (ssize_t)w->pt[tensor].bytes);
    close(fd);
    return p;
}

/* The checksum of a task over one tensor with these bytes (engine.h). */
static inline uint64_t world_task_sum(const struct world *w, uint32_t task, const uint8_t *bytes)
{
    const struct sl_plan_task *t = &w->task[task];
    uint64_t sums[4096];

    for (uint32_t i = 0; i < t->n_items; i++) {
        const struct sl_plan_item *it = &w->item[t->first_item + i];
        int type = w->pt[it->tensor].type;

        sums[i] = sl_xxh64(bytes + (it->elem0 ? sl_type_bytes(type, it->elem0) : 0),
                           sl_type_bytes(type, it->elems));
    }
    return sl_xxh64(sums, 8 * (uint64_t)t->n_items);
}

#endif
