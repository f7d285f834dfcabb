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

/* Of others, which have no parts, any number. */
static unsigned bits_of(const struct sl_model_src *ms)
{
    return sl_packed_bits(ms->dtype) ? sl_packed_bits(ms->dtype) : 8;
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

uint64_t sl_packed_room(const struct sl_unit_run *r)
{
    struct sl_unit_run tried = *r;

    if (!sl_packed_reads(r))
        return 0;
    return sl_packed_place(&tried, 0) + 4096;
}

uint64_t sl_packed_place(struct sl_unit_run *r, uint64_t used)
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
    r->at = r->part[SL_PART_CODES].place;
    r->scale_raw = up(used, 64);
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

void sl_packed_arrange(const struct sl_unit_env *env, const struct sl_unit_run *r, uint8_t *slab)
{
    const struct sl_model_src *ms = &env->plan->model->src[r->src];

    if (r->rows)
        transpose(slab + r->part[SL_PART_SCALES].at, ms->scale.cols, r->rows, sl_dtype_info((int)env->ck->tensors[ms->scale.tensor].dtype)->bytes,
                  slab + r->scale_raw);
}

/* ---- rows that lie side by side, some at a time ---- */

#define BAND_ROWS 64u /* at most; a word holds no more than eight */
#define BAND_BYTES (256u << 10)
#define AHEAD 64u /* columns */

/* Bytes from one row of a band to the next: no power of two, at which caches have little room. Codes of 2 bits have 4 there. */
static uint64_t band_step(const struct sl_model_src *ms)
{
    return up(ms->cols * (bits_of(ms) == 8 ? 8 : 4) / 8, 64) + 64;
}

static uint64_t band_rows(const struct sl_model_src *ms)
{
    uint64_t rows = BAND_ROWS;

    while (rows > 8 && rows * band_step(ms) > BAND_BYTES)
        rows /= 2;
    return rows;
}

uint64_t sl_packed_band(const struct sl_model_src *ms)
{
    return ms->scale.packing == SL_PACKED_ALONG ? 0 : band_rows(ms) * band_step(ms);
}

/* Of GPTQ's words, [column / n][row], n rows; `all` rows are side by side, from is the first's. narrow: codes of 2 bits. */
static void gather(const uint8_t *from, uint64_t all, uint64_t words, uint64_t n, uint64_t step, bool narrow, uint8_t *to)
{
    for (uint64_t w0 = 0; w0 < words; w0 += TILE)
        for (uint64_t r = 0; r < n; r++)
            for (uint64_t w = w0; w < words && w < w0 + TILE; w++)
                if (narrow)
                    sl_packed_widen(from + (w * all + r) * WORD, 1, to + r * step + 2 * w * WORD);
                else
                    memcpy(to + r * step + w * WORD, from + (w * all + r) * WORD, WORD);
}

/* to = the bytes of four words by their place in them: the first bytes, the second, ... */
static void by_place(const uint32_t w[4], uint32_t to[4])
{
    for (unsigned i = 0; i < 2; i++) {
        uint32_t a = w[0] >> 8 * i & 0x00ff00ff, b = w[1] >> 8 * i & 0x00ff00ff, c = w[2] >> 8 * i & 0x00ff00ff, d = w[3] >> 8 * i & 0x00ff00ff;
        uint32_t ab = a | b << 8, cd = c | d << 8;

        to[i] = (ab & 0xffff) | cd << 16;
        to[i + 2] = ab >> 16 | (cd & 0xffff0000);
    }
}

/* Of AWQ's, [column][row / 8], the rows of one word. Of two columns' words the low halves of all bytes, then the high ones,
 * are bytes of the rows that a word has in places 0, 2, 4, 6 and 1, 3, 5, 7. */
static void spread(const uint8_t *from, uint64_t all, uint64_t cols, uint64_t step, uint8_t *to)
{
    for (uint64_t c = 0; c < cols; c += 8) {
        uint32_t low[4] = {0}, high[4] = {0}, place[8];

        for (uint64_t i = c + AHEAD; i < c + AHEAD + 8 && i < cols; i++)
            __builtin_prefetch(from + i * (all / 8) * WORD);
        for (unsigned i = 0; i < 4 && c + 2 * i < cols; i++) {
            uint32_t a = word(from, (c + 2 * i) * (all / 8)), b = word(from, (c + 2 * i + 1) * (all / 8));

            low[i] = (a & 0x0f0f0f0f) | (b & 0x0f0f0f0f) << 4;
            high[i] = (a >> 4 & 0x0f0f0f0f) | (b & 0xf0f0f0f0);
        }
        by_place(low, place);
        by_place(high, place + 4);
        for (unsigned row = 0; row < 8; row++) {
            unsigned at = sl_packed_shift(SL_PACKED_AWQ, 4, row) / 4; /* even ones in low */

            memcpy(to + row * step + c / 2, &place[at % 2 * 4 + at / 2], WORD);
        }
    }
}

/* Effect: the first band is the one with that row. */
static void turn_to(const struct sl_model_src *ms, const struct sl_unit_run *r, const uint8_t *slab, uint64_t row, struct sl_band *band)
{
    uint64_t from = (row - r->row0) / band_rows(ms) * band_rows(ms), step = band_step(ms);
    const uint8_t *codes = slab + r->part[SL_PART_CODES].at;
    struct sl_band last = band[SL_BANDS - 1];

    for (unsigned i = 0; i < SL_BANDS; i++)
        if (band[i].run == r && row >= band[i].row && row - band[i].row < band[i].rows) {
            last = band[i];
            band[i] = band[0];
            band[0] = last;
            return;
        }
    memmove(band + 1, band, (SL_BANDS - 1) * sizeof *band);
    last.run = r;
    last.row = r->row0 + from;
    last.rows = band_rows(ms) < r->rows - from ? band_rows(ms) : r->rows - from;
    band[0] = last;
    if (ms->scale.packing == SL_PACKED_GPTQ)
        gather(codes + from * WORD, r->rows, ms->cols * bits_of(ms) / 32, last.rows, step, bits_of(ms) == 2, last.data);
    else
        for (uint64_t i = 0; i < last.rows; i += 8)
            spread(codes + (from + i) / 8 * WORD, r->rows, ms->cols, step, last.data + i * step);
}

int sl_packed_load(const struct sl_model_src *ms, const struct sl_unit_run *r, const uint8_t *slab, const struct sl_source *s, uint64_t skip,
                   uint64_t n, struct sl_band *band, float *out, uint64_t *bad)
{
    struct sl_source row = *s;

    row.dtype = row.dtype == SL_DTYPE_I2 ? SL_DTYPE_I4 : row.dtype;
    for (uint64_t at = s->first + skip, take; n; at += take, out += take, n -= take) {
        uint64_t col = at % ms->cols;

        take = ms->cols - col < n ? ms->cols - col : n;
        turn_to(ms, r, slab, at / ms->cols, band);
        row.data = band->data + (at / ms->cols - band->row) * band_step(ms);
        row.first = at - col;
        SL_TRY(sl_load_f32(&row, col, take, out, bad));
    }
    return 0;
}

int sl_packed_unpack(const struct sl_unit_env *env, const struct sl_unit_run *r, uint8_t *slab, struct sl_source *s, struct sl_error *e)
{
    const struct sl_model_src *ms = &env->plan->model->src[r->src];
    const struct sl_checkpoint *ck = env->ck;
    const struct sl_unit_part *order = &r->part[SL_PART_ORDER];
    const uint32_t *group = (const uint32_t *)(const void *)(slab + order->at);
    bool odd = false;

    if (r->part[SL_PART_ZEROS].n) {
        unpack_zeros(ms, r, slab);
        s->zero = (const int16_t *)(const void *)(slab + r->zeros);
    }
    if (!order->n)
        return 0;
    for (uint64_t i = 0, of = 0, left = ms->scale.block_cols; i < ms->cols; i++, left--) {
        if (group[i] >= ms->scale.cols)
            return sl_fail(e, SL_ESOURCE, "tensor '%s' in '%s': column %llu is of group %d, expected 0 to %llu: the source is damaged",
                           ck->tensors[order->tensor].name, ck->files[ck->tensors[order->tensor].file].path, (unsigned long long)i,
                           (int)group[i], (unsigned long long)ms->scale.cols - 1);
        if (!left) {
            of++;
            left = ms->scale.block_cols;
        }
        odd |= group[i] != of;
    }
    s->group = odd ? group : NULL; /* GPTQ lists the usual order, too */
    return 0;
}
