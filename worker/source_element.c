#include "worker/source_element.h"

#include "kernels/kernels.h"
#include "proto/source_file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE 4096u
#define LINES_LOG 14 /* a column of each row of an expert's matrix, one line each */
#define LINES (1u << LINES_LOG)
#define FILES_OPEN 16u     /* at a time */
#define BLOCK_BYTES 256u   /* the largest block has 210, */
#define BLOCK_WEIGHTS 256u /* and this many weights */

struct source_reader {
    const struct sl_checkpoint *ck;
    const struct sl_model *m;
    int *fds; /* -1: not open */
    uint32_t n_open;
    struct {
        uint32_t file;
        uint64_t number; /* offset / LINE */
        uint32_t n;      /* valid bytes; 0: empty */
    } tag[LINES];
    uint8_t (*line)[LINE];
    float e4m3[256], e5m2[256];
    uint32_t scale_tensor; /* the scale read last */
    uint64_t scale_index;
    float scale;
    uint32_t zero_tensor, zero_word; /* the same of zero points */
    uint64_t zero_index;
};

/* The value of a small float code: sign, exponent, mantissa; no infinities. */
static float minifloat(unsigned code, int mantissa_bits, int bias)
{
    unsigned m = code & ((1u << mantissa_bits) - 1), x = (code & 0x7f) >> mantissa_bits;
    float v = x ? ldexpf((float)((1u << mantissa_bits) + m), (int)x - bias - mantissa_bits)
                : ldexpf((float)m, 1 - bias - mantissa_bits);

    return code & 0x80 ? -v : v;
}

/* Two bits of exponent, one of mantissa; of a zero the sign is lost, as in ggml. */
static float e2m1(unsigned code)
{
    unsigned m = code & 1, x = code >> 1 & 3;
    float v = x ? ldexpf((float)(2 + m), (int)x - 2) : ldexpf((float)m, -1);

    return code & 8 ? 0 - v : v;
}

static void fill_tables(struct source_reader *r)
{
    for (unsigned i = 0; i < 256; i++) {
        r->e4m3[i] = (i & 0x7f) == 0x7f ? NAN : minifloat(i, 3, 7);
        r->e5m2[i] = (i & 0x7c) == 0x7c ? NAN : minifloat(i, 2, 15);
    }
}

int source_reader_open(const struct sl_checkpoint *ck, const struct sl_model *m,
                       struct source_reader **out, struct sl_error *e)
{
    struct source_reader *r = calloc(1, sizeof *r);

    if (r) {
        r->ck = ck;
        r->m = m;
        r->scale_tensor = r->zero_tensor = SL_NO_TENSOR;
        r->line = malloc((size_t)LINES * LINE);
        r->fds = malloc((ck->n_files + 1) * sizeof *r->fds);
    }
    if (!r || !r->line || !r->fds) {
        if (r)
            free(r->line), free(r->fds);
        free(r);
        return sl_no_memory(e);
    }
    for (uint32_t i = 0; i < ck->n_files; i++)
        r->fds[i] = -1;
    fill_tables(r);
    *out = r;
    return 0;
}

static void close_files(struct source_reader *r)
{
    for (uint32_t i = 0; i < r->ck->n_files; i++) {
        if (r->fds[i] >= 0)
            close(r->fds[i]);
        r->fds[i] = -1;
    }
    r->n_open = 0;
}

void source_reader_close(struct source_reader *r)
{
    if (!r)
        return;
    close_files(r);
    free(r->fds);
    free(r->line);
    free(r);
}

/* The cache maps each line of a file to one slot, neighbours and those at any distance to others: rows that are read column by
 * column stay in it. */
static uint32_t slot_of(uint64_t number)
{
    return (uint32_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> (64 - LINES_LOG));
}

static int load_line(struct source_reader *r, uint32_t file, uint64_t number, struct sl_error *e)
{
    const struct sl_src_file *f = &r->ck->files[file];
    uint32_t at = slot_of(number), have = 0;
    struct sl_source_stat st;

    if (r->fds[file] < 0) {
        if (r->n_open == FILES_OPEN)
            close_files(r);
        SL_TRY(sl_source_open_path(f->path, r->ck->roots, &r->fds[file], &st, e));
        r->n_open++;
    }
    r->tag[at].n = 0;
    while (have < LINE) {
        ssize_t got = pread(r->fds[file], r->line[at] + have, LINE - have,
                            (off_t)(number * LINE + have));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return sl_fail(e, SL_ESOURCE, "%s: read error: %s", f->path, strerror(errno));
        if (got == 0)
            break;
        have += (uint32_t)got;
    }
    r->tag[at].file = file;
    r->tag[at].number = number;
    r->tag[at].n = have;
    return 0;
}

static int fetch(struct source_reader *r, uint32_t file, uint64_t off, uint32_t n, uint8_t *to,
                 struct sl_error *e)
{
    while (n) {
        uint64_t number = off / LINE;
        uint32_t at = slot_of(number), in = (uint32_t)(off % LINE);
        uint32_t part = LINE - in < n ? LINE - in : n;

        if (r->tag[at].n == 0 || r->tag[at].number != number || r->tag[at].file != file)
            SL_TRY(load_line(r, file, number, e));
        if (r->tag[at].n < in + part)
            return sl_fail(e, SL_ESOURCE, "%s: ends before byte %llu", r->ck->files[file].path,
                           (unsigned long long)(off + part));
        memcpy(to, r->line[at] + in, part);
        to += part;
        off += part;
        n -= part;
    }
    return 0;
}

static float half_value(uint16_t h)
{
    unsigned m = h & 0x3ff, x = h >> 10 & 0x1f;
    float v = x == 31 ? (m ? NAN : INFINITY)
              : x     ? ldexpf((float)(1024 + m), (int)x - 25)
                      : ldexpf((float)m, -24);

    return h & 0x8000 ? -v : v;
}

static float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, 4);
    return f;
}

float source_round_bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, 4);
    return float_of((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u);
}

/* Element `index` of a checkpoint tensor; of packed integers the code. */
static int stored(struct source_reader *r, uint32_t tensor, uint64_t index, float *v,
                  struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[tensor];
    const struct sl_dtype_info *d = sl_dtype_info(t->dtype);
    uint64_t at = t->offset + index * d->bytes;
    uint8_t b[8] = {0};
    double f64;

    if (index >= t->elems)
        return sl_fail(e, SL_ESOURCE, "%s: has no element %llu", t->name, (unsigned long long)index);
    if (t->dtype == SL_DTYPE_I4) {
        SL_TRY(fetch(r, t->file, t->offset + index / 2, 1, b, e));
        *v = (float)(index % 2 ? b[0] >> 4 : b[0] % 16);
        return 0;
    }
    if (t->dtype == SL_DTYPE_F4) {
        SL_TRY(fetch(r, t->file, t->offset + index / 2, 1, b, e));
        *v = e2m1(index % 2 ? b[0] >> 4 : b[0] % 16);
        return 0;
    }
    if (d->block > 1) {
        uint8_t block[BLOCK_BYTES];
        float values[BLOCK_WEIGHTS];

        SL_TRY(fetch(r, t->file, t->offset + index / d->block * d->bytes, d->bytes, block, e));
        SL_TRY(sl_dequantize(sl_type_of_dtype((int)t->dtype), block, d->block, values));
        *v = values[index % d->block];
        return 0;
    }
    SL_TRY(fetch(r, t->file, at, d->bytes, b, e));
    switch (t->dtype) {
    case SL_DTYPE_F8_E4M3: *v = r->e4m3[b[0]]; return 0;
    case SL_DTYPE_F8_E5M2: *v = r->e5m2[b[0]]; return 0;
    case SL_DTYPE_INT8: *v = (float)b[0] - (b[0] < 128 ? 0 : 256); return 0;
    case SL_DTYPE_UINT8: *v = (float)b[0]; return 0;
    case SL_DTYPE_F8_E8M0: case SL_DTYPE_U8: *v = b[0] == 255 ? NAN : ldexpf(1, (int)b[0] - 127); return 0;
    case SL_DTYPE_BF16: *v = float_of((uint32_t)b[1] << 24 | (uint32_t)b[0] << 16); return 0;
    case SL_DTYPE_F16: *v = half_value((uint16_t)(b[0] | b[1] << 8)); return 0;
    case SL_DTYPE_F32: memcpy(v, b, 4); return 0;
    case SL_DTYPE_F64: memcpy(&f64, b, 8); *v = (float)f64; return 0;
    default:
        return sl_fail(e, SL_EUNSUPPORTED, "%s: dtype %s holds no weights", t->name, d->name);
    }
}

static int word_at(struct source_reader *r, uint32_t tensor, uint64_t index, uint32_t *v, struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[tensor];
    uint8_t b[4];

    if (index >= t->elems)
        return sl_fail(e, SL_ESOURCE, "%s: has no element %llu", t->name, (unsigned long long)index);
    SL_TRY(fetch(r, t->file, t->offset + 4 * index, 4, b, e));
    *v = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return 0;
}

/* Codes of so many bits, without a division: it is asked for each element. */
static unsigned in_a_word(unsigned bits)
{
    return bits == 2 ? 16 : bits == 4 ? 8 : 4;
}

/* Where a row's number is in a word that has those of several, the lowest first. */
static unsigned slot(const struct sl_model_src *s, unsigned in_word, uint64_t row)
{
    static const uint8_t awq[8] = {0, 4, 1, 5, 2, 6, 3, 7};

    return s->scale.packing == SL_PACKED_AWQ ? awq[row % 8] : (unsigned)(row % in_word);
}

/* *v: of packed integers the code, becomes that less its zero point, whose word neighbours share. */
static int less_zero(struct source_reader *r, const struct sl_model_src *s, uint64_t row, uint64_t group, float *v, struct sl_error *e)
{
    unsigned bits = sl_packed_bits(s->dtype), in_word = in_a_word(bits);
    uint32_t tensor = s->scale.zeros - 1;
    uint64_t index;

    if (!bits)
        return 0;
    if (!s->scale.zeros) {
        *v -= bits == 4 ? 8 : 128;
        return 0;
    }
    index = s->scale.packing == SL_PACKED_ALONG ? row / in_word * s->scale.cols + group : group * (s->rows / in_word) + row / in_word;
    if (tensor != r->zero_tensor || index != r->zero_index) {
        r->zero_tensor = SL_NO_TENSOR;
        SL_TRY(word_at(r, tensor, index, &r->zero_word, e));
        r->zero_tensor = tensor;
        r->zero_index = index;
    }
    *v -= (float)((r->zero_word >> slot(s, in_word, row) * bits & ((1u << bits) - 1)) + s->scale.zero_plus);
    return 0;
}

/* Of a matrix whose rows lie side by side. */
static int code_by_column(struct source_reader *r, const struct sl_model_src *s, uint64_t row, uint64_t col, float *v, struct sl_error *e)
{
    const struct sl_src_tensor *t = &r->ck->tensors[s->tensor];
    unsigned bits = sl_packed_bits(s->dtype), in_word = in_a_word(bits);
    uint32_t word;
    uint8_t b;

    if (s->scale.packing == SL_PACKED_AWQ) {
        SL_TRY(word_at(r, s->tensor, col * (s->rows / 8) + row / 8, &word, e));
        *v = (float)(word >> 4 * slot(s, in_word, row) & 15);
        return 0;
    }
    SL_TRY(fetch(r, t->file, t->offset + 4 * (col / in_word * s->rows + row) + col % in_word * bits / 8, 1, &b, e));
    *v = (float)(b >> col * bits % 8 & ((1u << bits) - 1));
    return 0;
}

/* Which scale of its row an element of a column has. */
static int group_of(struct source_reader *r, const struct sl_scale *s, uint64_t col, uint64_t *group, struct sl_error *e)
{
    uint32_t word;

    *group = col / s->block_cols;
    if (!s->order)
        return 0;
    SL_TRY(word_at(r, s->order - 1, col, &word, e));
    *group = word;
    return word < s->cols ? 0 : sl_fail(e, SL_ESOURCE, "tensor '%.160s': column %llu is of group %d, expected 0 to %llu: the source is damaged",
                                        r->ck->tensors[s->order - 1].name, (unsigned long long)col, (int)word, (unsigned long long)s->cols - 1);
}

/* The scale of an element of a row, in a group; neighbours share it. */
static int scale_of(struct source_reader *r, const struct sl_scale *s, uint64_t row, uint64_t group,
                    float *v, struct sl_error *e)
{
    uint64_t index = s->packing == SL_PACKED_ALONG ? sl_scale_row(s, row) * s->cols + group : group * s->rows + row;

    if (s->tensor != r->scale_tensor || index != r->scale_index) {
        SL_TRY(stored(r, s->tensor, index, &r->scale, e));
        if (s->no_sign)
            r->scale = fabsf(r->scale);
        r->scale_tensor = s->tensor;
        r->scale_index = index;
    }
    *v = r->scale;
    return 0;
}

/* Where element j of one source's run lies in that source's matrix. */
static void source_place(const struct sl_out_tensor *t, const struct sl_model_src *s, uint64_t j,
                         uint64_t *row, uint64_t *col)
{
    uint64_t cols = s->cols, head, in;

    switch (t->transform) {
    case SL_PERMUTE: {
        uint64_t rows = s->rows, d, q;

        if (t->n_dims == 1) { /* a bias: one value for each row */
            rows = t->elems / t->n_src;
            cols = 1;
        }
        d = rows / t->heads;
        q = j / cols % d;
        *row = j / cols / d * d + q % 2 * (d / 2) + q / 2;
        *col = j % cols;
        if (t->n_dims == 1 && s->rows == 1) {
            *col = *row;
            *row = 0;
        }
        return;
    }
    case SL_K_B: /* [head][c][r] */
        head = j / (t->nope * t->lora);
        in = j % (t->nope * t->lora);
        *row = head * (t->nope + t->v_dim) + in % t->nope;
        *col = t->col0 + in / t->nope;
        return;
    case SL_V_B: /* [head][r][c] */
        head = j / (t->v_dim * t->lora);
        in = j % (t->v_dim * t->lora);
        *row = head * (t->nope + t->v_dim) + t->nope + in / t->lora;
        *col = in % t->lora;
        return;
    case SL_VIEW:
        in = sl_view_place(t->view, j, &head);
        *row = in / cols;
        *col = in % cols;
        return;
    default:
        *row = j / cols;
        *col = j % cols;
    }
}

/* Element j of source s, as t orders them. */
static int element_of(struct source_reader *r, const struct sl_out_tensor *t, const struct sl_model_src *s, uint64_t j,
                      float *v, struct sl_error *e)
{
    uint64_t row, col, group;
    float scale;

    source_place(t, s, j, &row, &col);
    if (s->scale.packing == SL_PACKED_ALONG)
        SL_TRY(stored(r, s->tensor, row * s->cols + col, v, e));
    else
        SL_TRY(code_by_column(r, s, row, col, v, e));
    if (s->scale.tensor != SL_NO_TENSOR) {
        SL_TRY(group_of(r, &s->scale, col, &group, e));
        SL_TRY(less_zero(r, s, row, group, v, e));
        SL_TRY(scale_of(r, &s->scale, row, group, &scale, e));
        *v = *v * scale;
    }
    if (!isfinite(*v) || sl_change_values(t->change, s->dtype, v, 1, &(uint64_t){0}) < 0)
        return sl_fail(e, SL_ESOURCE, "tensor '%.160s' in '%s': row %llu, column %llu is NaN or infinite; the source is damaged",
                       r->ck->tensors[s->tensor].name, r->ck->files[r->ck->tensors[s->tensor].file].path,
                       (unsigned long long)row, (unsigned long long)col);
    return 0;
}

static int element(struct source_reader *r, const struct sl_out_tensor *t, uint64_t i, float *v, struct sl_error *e)
{
    const struct sl_model_src *s = &r->m->src[t->first_src];
    uint64_t run = t->elems / t->n_src;
    float factor;

    if (t->transform != SL_PRODUCT)
        return element_of(r, t, s + i / run, i % run, v, e);
    SL_TRY(element_of(r, t, s, i, v, e));
    SL_TRY(element_of(r, t, s + 1, i, &factor, e));
    *v *= factor;
    return isfinite(*v) ? 0 : sl_fail(e, SL_ESOURCE, "tensor '%.160s': element %llu would be infinite; the source is damaged",
                                      t->name, (unsigned long long)i);
}

/* What the formulas divide by. */
static bool usable(const struct sl_out_tensor *t)
{
    if (t->transform == SL_PRODUCT)
        return t->n_src == 2;
    if (t->n_src == 0 || t->elems % t->n_src)
        return false;
    if (t->transform == SL_PERMUTE)
        return t->heads && t->elems / t->n_src >= 2 * (uint64_t)t->heads;
    if (t->transform == SL_K_B || t->transform == SL_V_B)
        return t->lora && (t->transform == SL_K_B ? t->nope : t->v_dim);
    return true;
}

int source_values(struct source_reader *r, const struct sl_out_tensor *t, uint64_t first,
                  uint64_t n, float *out, struct sl_error *e)
{
    if (first > t->elems || n > t->elems - first || (t->transform != SL_INLINE && !usable(t)))
        return sl_fail(e, SL_EFAIL, "tensor %s: no such elements", t->name);
    if (t->transform == SL_INLINE) {
        memcpy(out, t->values + first, n * sizeof *out);
        return 0;
    }
    for (uint64_t i = 0; i < n; i++)
        SL_TRY(element(r, t, first + i, &out[i], e));
    return 0;
}

int source_ids(struct source_reader *r, const struct sl_out_tensor *t, uint64_t first, uint64_t n, uint8_t *bytes,
               struct sl_error *e)
{
    const struct sl_src_tensor *st = &r->ck->tensors[r->m->src[t->first_src].tensor];
    uint64_t width = sl_dtype_info((int)st->dtype)->bytes;

    if (first > st->elems || n > st->elems - first)
        return sl_fail(e, SL_ESOURCE, "%s: has no element %llu", st->name, (unsigned long long)first);
    for (; n--; first++, bytes += 4) { /* little-endian: the first half of an I64 that is small */
        uint8_t v[8] = {0};

        SL_TRY(fetch(r, st->file, st->offset + first * width, (uint32_t)width, v, e));
        memcpy(bytes, v, 4);
    }
    return 0;
}

int source_stored(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint64_t n,
                  uint8_t *bytes, struct sl_error *e)
{
    const struct sl_src_tensor *st = &r->ck->tensors[r->m->src[t->first_src].tensor];
    const struct sl_dtype_info *d = sl_dtype_info((int)st->dtype);

    if (block > st->elems / d->block || n > st->elems / d->block - block)
        return sl_fail(e, SL_ESOURCE, "%s: has no block %llu", st->name, (unsigned long long)block);
    while (n--) {
        SL_TRY(fetch(r, st->file, st->offset + block++ * d->bytes, d->bytes, bytes, e));
        bytes += d->bytes;
    }
    return 0;
}

/* Element `at` of t: its code of four bits, and the byte that scales it and those beside it, `group` in all. */
static int code_at(struct source_reader *r, const struct sl_out_tensor *t, uint64_t at, unsigned group, uint8_t *code,
                   uint8_t *scale, struct sl_error *e)
{
    uint64_t run = t->elems / t->n_src, row, col;
    const struct sl_model_src *s = &r->m->src[t->first_src + at / run];
    const struct sl_src_tensor *st = &r->ck->tensors[s->tensor], *sc = &r->ck->tensors[s->scale.tensor];

    source_place(t, s, at % run, &row, &col);
    SL_TRY(fetch(r, st->file, st->offset + (row * s->cols + col) / 2, 1, code, e));
    *code = col % 2 ? *code >> 4 : *code % 16;
    return fetch(r, sc->file, sc->offset + row * s->scale.cols + col / group, 1, scale, e);
}

/* One block of MXFP4: the exponent, and 32 codes. */
static int repacked_mxfp4(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint8_t to[17], struct sl_error *e)
{
    uint8_t code;

    memset(to, 0, 17);
    for (uint64_t i = 0; i < 32; i++) {
        SL_TRY(code_at(r, t, block * 32 + i, 32, &code, &to[0], e));
        to[1 + i % 16] |= (uint8_t)(code << i / 16 * 4);
    }
    return 0;
}

/* One of NVFP4: four scales without their signs, and 64 codes. */
static int repacked_nvfp4(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint8_t to[36], struct sl_error *e)
{
    uint8_t code;

    memset(to, 0, 36);
    for (uint64_t i = 0; i < 64; i++) {
        SL_TRY(code_at(r, t, block * 64 + i, 16, &code, &to[i / 16], e));
        to[i / 16] %= 128;
        to[4 + i / 16 * 8 + i % 8] |= (uint8_t)(code << i % 16 / 8 * 4);
    }
    return 0;
}

int source_nvfp4(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint64_t n, uint8_t *bytes,
                 struct sl_error *e)
{
    for (uint64_t i = 0; i < n; i++, bytes += 36)
        SL_TRY(repacked_nvfp4(r, t, block + i, bytes, e));
    return 0;
}

int source_mxfp4(struct source_reader *r, const struct sl_out_tensor *t, uint64_t block, uint64_t n, uint8_t *bytes,
                 struct sl_error *e)
{
    float v[32];

    for (uint64_t i = 0; i < n; i++, bytes += 17) {
        SL_TRY(source_values(r, t, 32 * (block + i), 32, v, e)); /* which are to be finite */
        SL_TRY(repacked_mxfp4(r, t, block + i, bytes, e));
    }
    return 0;
}
