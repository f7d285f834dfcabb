/* What packed integers need beside codes and scales: zero points, and the groups of columns. */
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

void sl_packed_set(const struct sl_model_src *ms, struct sl_unit_run *r)
{
    const struct sl_scale *sc = &ms->scale;
    uint64_t in_word = 32 / bits_of(ms), row1 = (r->first + r->elems - 1) / ms->cols, line = sc->cols * WORD;

    if (sc->zeros)
        r->part[SL_PART_ZEROS] = (struct sl_unit_part){.tensor = sc->zeros - 1, .from = r->scale_row0 / in_word * line, .n = 1,
                                                       .bytes = (row1 / in_word - r->scale_row0 / in_word + 1) * line};
    if (sc->order)
        r->part[SL_PART_ORDER] = (struct sl_unit_part){.tensor = sc->order - 1, .n = 1, .bytes = ms->cols * WORD};
}

uint64_t sl_packed_room(const struct sl_unit_run *r)
{
    uint64_t sum = 0;

    for (int i = 0; i < SL_UNIT_PARTS; i++)
        sum += r->part[i].n ? up(r->part[i].n * r->part[i].bytes, 64) + 64 : 0;
    return sum + (r->part[SL_PART_ZEROS].n ? up(r->n_scales * sizeof(int16_t), 64) + 64 : 0);
}

uint64_t sl_packed_place(struct sl_unit_run *r, uint64_t used)
{
    for (int i = 0; i < SL_UNIT_PARTS; i++) {
        struct sl_unit_part *p = &r->part[i];

        if (!p->n)
            continue;
        p->place = up(used, 64);
        used = p->place + p->n * p->bytes;
    }
    if (r->part[SL_PART_ZEROS].n) {
        r->zeros = up(used, 64);
        used = r->zeros + r->n_scales * sizeof(int16_t);
    }
    return used;
}

uint64_t sl_packed_reads(const struct sl_unit_run *r)
{
    uint64_t n = 0;

    for (int i = 0; i < SL_UNIT_PARTS; i++)
        n += r->part[i].n;
    return n;
}

void sl_packed_read(const struct sl_checkpoint *ck, const struct sl_unit_run *run, uint64_t i, struct sl_unit_read *r)
{
    const struct sl_unit_part *p = run->part;

    for (; i >= p->n; p++)
        i -= p->n;
    r->big = false;
    r->tensor = p->tensor;
    r->file = ck->tensors[p->tensor].file;
    r->off = ck->tensors[p->tensor].offset + p->from + i * p->step;
    r->bytes = (uint32_t)p->bytes;
    r->place = p->place + i * p->bytes;
}

static uint32_t word(const uint8_t *from, uint64_t i)
{
    uint32_t v;

    memcpy(&v, from + i * WORD, WORD);
    return v;
}

/* Of each row of scales that the run has. */
static void unpack_zeros(const struct sl_model_src *ms, const struct sl_unit_run *r, uint8_t *slab)
{
    const uint8_t *from = slab + r->part[SL_PART_ZEROS].place;
    unsigned bits = bits_of(ms), in_word = 32 / bits;
    int16_t *to = (int16_t *)(void *)(slab + r->zeros);
    uint64_t cols = ms->scale.cols, row = r->scale_row0;

    for (uint64_t i = 0; i < r->n_scales; row++)
        for (uint64_t c = 0; c < cols; c++, i++)
            to[i] = (int16_t)(word(from, (row / in_word - r->scale_row0 / in_word) * cols + c) >> bits * (row % in_word) & ((1u << bits) - 1));
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
    s->group = (const uint32_t *)(const void *)(slab + order->place);
    for (uint64_t i = 0; i < ms->cols; i++)
        if (s->group[i] >= ms->scale.cols)
            return sl_fail(e, SL_ESOURCE, "tensor '%s' in '%s': column %llu is of group %d, expected 0 to %llu: the source is damaged",
                           ck->tensors[order->tensor].name, ck->files[ck->tensors[order->tensor].file].path, (unsigned long long)i,
                           (int)s->group[i], (unsigned long long)ms->scale.cols - 1);
    return 0;
}
