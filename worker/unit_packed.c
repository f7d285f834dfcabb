/* What packed integers need beside codes and scales: zero points, and the groups of columns; and those whose rows lie side by side,
 * which are brought into order. */
#include "worker/unit_packed.h"

#include <stdlib.h>
#include <string.h>

#define WORD 4u /* bytes */

static uint64_t up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static unsigned bits_of(const struct sl_model_src *ms)
{
    return ms->dtype == SL_DTYPE_I4 ? 4 : 8;
}

/* n lines of those of a tensor, of so many bytes, from `from` bytes on; whole ones are one. */
static struct sl_unit_part lines(uint32_t tensor, uint64_t from, uint64_t bytes, uint64_t step, uint64_t n)
{
    if (bytes == step)
        return (struct sl_unit_part){.tensor = tensor, .from = from, .bytes = n * bytes, .n = 1};
    return (struct sl_unit_part){.tensor = tensor, .from = from, .bytes = bytes, .step = step, .n = n};
}

/* Rows lie side by side: of each line of words, scales and zero points those of the run's. */
static void set_by_column(const struct sl_model_src *ms, uint32_t scale_bytes, struct sl_unit_run *r)
{
    const struct sl_scale *sc = &ms->scale;
    uint64_t in_word = 32 / bits_of(ms), end = (r->first + r->elems - 1) / ms->cols + 1;

    r->row0 = r->first / ms->cols / in_word * in_word;
    r->rows = up(end, in_word) - r->row0;
    r->scale_row0 = r->row0;
    r->scale_first = r->row0 * sc->cols;
    r->n_scales = r->rows * sc->cols;
    if (sc->packing == SL_PACKED_GPTQ)
        r->part[SL_PART_CODES] = lines(ms->tensor, r->row0 * WORD, r->rows * WORD, ms->rows * WORD, ms->cols / in_word);
    else
        r->part[SL_PART_CODES] = lines(ms->tensor, r->row0 / in_word * WORD, r->rows / in_word * WORD, ms->rows / in_word * WORD, ms->cols);
    r->part[SL_PART_SCALES] = lines(sc->tensor, r->row0 * scale_bytes, r->rows * scale_bytes, ms->rows * scale_bytes, sc->cols);
    r->part[SL_PART_ZEROS] = lines(sc->zeros - 1, r->row0 / in_word * WORD, r->rows / in_word * WORD, ms->rows / in_word * WORD, sc->cols);
}

void sl_packed_set(const struct sl_model_src *ms, uint32_t scale_bytes, struct sl_unit_run *r)
{
    const struct sl_scale *sc = &ms->scale;
    uint64_t in_word = 32 / bits_of(ms), row1 = (r->first + r->elems - 1) / ms->cols, line = sc->cols * WORD;

    if (sc->packing != SL_PACKED_ALONG)
        set_by_column(ms, scale_bytes, r);
    else if (sc->zeros)
        r->part[SL_PART_ZEROS] = lines(sc->zeros - 1, r->scale_row0 / in_word * line, line, line, row1 / in_word - r->scale_row0 / in_word + 1);
    if (sc->order)
        r->part[SL_PART_ORDER] = lines(sc->order - 1, 0, ms->cols * WORD, ms->cols * WORD, 1);
}

/* The order is used where it was read to: at a multiple of its numbers' size, which with the enclosing pages no file promises. */
static bool is_big(const struct sl_unit_run *r, const struct sl_unit_part *p)
{
    return p->n == 1 && p->bytes >= SL_UNIT_BIG && p != &r->part[SL_PART_ORDER];
}

uint64_t sl_packed_room(const struct sl_model_src *ms, const struct sl_unit_run *r)
{
    struct sl_unit_run tried = *r;

    if (!sl_packed_reads(r))
        return 0;
    return sl_packed_place(ms, &tried, 0) + 4096;
}

uint64_t sl_packed_place(const struct sl_model_src *ms, struct sl_unit_run *r, uint64_t used)
{
    for (int i = 0; i < SL_UNIT_PARTS; i++) {
        struct sl_unit_part *p = &r->part[i];
        uint64_t bytes = p->n * p->bytes;

        if (!p->n)
            continue;
        p->place = p->at = up(used, is_big(r, p) ? 4096 : 64);
        used = p->place + (is_big(r, p) ? up(bytes, 4096) + 4096 : bytes);
    }
    if (r->part[SL_PART_ZEROS].n) {
        r->zeros = up(used, 64);
        used = r->zeros + r->n_scales * sizeof(int16_t);
    }
    if (!r->rows)
        return used;
    r->codes = up(used, 64);
    r->at = r->codes + (r->first - r->row0 * ms->cols) * bits_of(ms) / 8;
    r->scale_raw = up(r->codes + r->rows * ms->cols * bits_of(ms) / 8, 64);
    r->scale_f32 = up(r->scale_raw + r->part[SL_PART_SCALES].n * r->part[SL_PART_SCALES].bytes, 64);
    return r->scale_f32 + r->n_scales * sizeof(float);
}

uint64_t sl_packed_reads(const struct sl_unit_run *r)
{
    uint64_t n = 0;

    for (int i = 0; i < SL_UNIT_PARTS; i++)
        n += r->part[i].n;
    return n;
}

/* Read *i of them: its part; *i = which line of that. */
static const struct sl_unit_part *part_of(const struct sl_unit_run *run, uint64_t *i)
{
    const struct sl_unit_part *p = run->part;

    for (; *i >= p->n; p++)
        *i -= p->n;
    return p;
}

void sl_packed_read(const struct sl_checkpoint *ck, const struct sl_unit_run *run, uint64_t i, struct sl_unit_read *r)
{
    const struct sl_unit_part *p = part_of(run, &i);

    r->big = is_big(run, p);
    r->tensor = p->tensor;
    r->file = ck->tensors[p->tensor].file;
    r->off = ck->tensors[p->tensor].offset + p->from + i * p->step;
    r->bytes = (uint32_t)p->bytes;
    r->place = p->place + i * p->bytes;
}

void sl_packed_placed(struct sl_unit_run *run, uint64_t i, uint64_t at)
{
    struct sl_unit_part *p = &run->part[part_of(run, &i) - run->part];

    p->at = at - i * p->bytes;
}

static uint32_t word(const uint8_t *from, uint64_t i)
{
    uint32_t v;

    memcpy(&v, from + i * WORD, WORD);
    return v;
}

#define TILE 16u /* words of a line of memory */

/* to = a matrix of words, or of halves, with rows and columns changed over. */
static void transpose(const uint8_t *from, uint64_t rows, uint64_t cols, unsigned width, uint8_t *to)
{
    for (uint64_t r0 = 0; r0 < rows; r0 += TILE)
        for (uint64_t c0 = 0; c0 < cols; c0 += TILE)
            for (uint64_t c = c0; c < cols && c < c0 + TILE; c++)
                for (uint64_t r = r0; r < rows && r < r0 + TILE; r++)
                    width == 4 ? memcpy(to + 4 * (c * rows + r), from + 4 * (r * cols + c), 4)
                               : memcpy(to + 2 * (c * rows + r), from + 2 * (r * cols + c), 2);
}

/* Of each row of scales that the run has. */
static void unpack_zeros(const struct sl_model_src *ms, const struct sl_unit_run *r, uint8_t *slab)
{
    const uint8_t *from = slab + r->part[SL_PART_ZEROS].at;
    unsigned bits = bits_of(ms), in_word = 32 / bits;
    int16_t *to = (int16_t *)(void *)(slab + r->zeros);
    uint64_t cols = ms->scale.cols, row = r->scale_row0;

    for (uint64_t i = 0; i < r->n_scales; row++)
        for (uint64_t c = 0; c < cols; c++, i++) {
            uint64_t line = row / in_word - r->scale_row0 / in_word, at = r->rows ? c * (r->rows / in_word) + line : line * cols + c;

            to[i] = (int16_t)((word(from, at) >> sl_packed_shift(ms->scale.packing, bits, row) & ((1u << bits) - 1)) + ms->scale.zero_plus);
        }
}

/* Of AWQ's words, of n columns, [column][row / 8], rows of codes. */
static void spread(const uint8_t *from, uint64_t n, uint64_t rows, uint8_t *to)
{
    memset(to, 0, n * rows / 2);
    for (uint64_t r0 = 0; r0 < rows / 8; r0 += TILE)
        for (uint64_t c = 0; c < n; c++)
            for (uint64_t r = r0; r < rows / 8 && r < r0 + TILE; r++) {
                uint32_t w = word(from, c * (rows / 8) + r);

                for (unsigned k = 0; k < 8; k++)
                    to[((8 * r + k) * n + c) / 2] |= (uint8_t)((w >> sl_packed_shift(SL_PACKED_AWQ, 4, k) & 15) << c % 2 * 4);
            }
}

void sl_packed_arrange(const struct sl_unit_env *env, const struct sl_unit_run *r, uint8_t *slab)
{
    const struct sl_model_src *ms = &env->plan->model->src[r->src];
    const struct sl_unit_part *codes = &r->part[SL_PART_CODES], *scales = &r->part[SL_PART_SCALES];

    if (!r->rows)
        return;
    if (ms->scale.packing == SL_PACKED_GPTQ)
        transpose(slab + codes->at, ms->cols * bits_of(ms) / 32, r->rows, WORD, slab + r->codes);
    else
        spread(slab + codes->at, ms->cols, r->rows, slab + r->codes);
    transpose(slab + scales->at, ms->scale.cols, r->rows, sl_dtype_info((int)env->ck->tensors[ms->scale.tensor].dtype)->bytes, slab + r->scale_raw);
}

int sl_packed_unpack(const struct sl_unit_env *env, const struct sl_unit_run *r, uint8_t *slab, struct sl_source *s, struct sl_error *e)
{
    const struct sl_model_src *ms = &env->plan->model->src[r->src];
    const struct sl_checkpoint *ck = env->ck;
    const struct sl_unit_part *order = &r->part[SL_PART_ORDER];

    if (r->part[SL_PART_ZEROS].n) {
        unpack_zeros(ms, r, slab);
        s->zero = (const int16_t *)(const void *)(slab + r->zeros);
    }
    if (!order->n)
        return 0;
    s->group = (const uint32_t *)(const void *)(slab + order->at);
    for (uint64_t i = 0; i < ms->cols; i++)
        if (s->group[i] >= ms->scale.cols)
            return sl_fail(e, SL_ESOURCE, "tensor '%s' in '%s': column %llu is of group %d, expected 0 to %llu: the source is damaged",
                           ck->tensors[order->tensor].name, ck->files[ck->tensors[order->tensor].file].path, (unsigned long long)i,
                           (int)s->group[i], (unsigned long long)ms->scale.cols - 1);
    return 0;
}
