/* Registers that may be read before they are written. Where every path to an instruction
 * writes what it reads nothing is left to look at; else each lane is looked at when it runs. */
#include "ptx.h"

#include <stdlib.h>
#include <string.h>

struct flow {
    struct ptx_inst *inst;
    const struct ptx_regs_used *used;
    uint32_t n, n_blocks, words;
    uint32_t *first;  /* of each block, and the end */
    uint32_t *block;  /* of each instruction */
    uint64_t *in;     /* registers surely written where a block begins */
    uint64_t *now;
};

static void cut(struct flow *f, uint32_t base)
{
    uint8_t *leads = calloc(f->n + 1, 1);

    leads[0] = 1;
    for (uint32_t i = 0; i < f->n; i++) {
        const struct ptx_inst *in = &f->inst[i];

        if (in->op == PTX_BRA)
            leads[in->target - base] = 1;
        if (in->op == PTX_BRA || in->op == PTX_RET || in->op == PTX_EXIT)
            leads[i + 1] = 1;
    }
    for (uint32_t i = 0; i < f->n; i++) {
        if (leads[i])
            f->first[f->n_blocks++] = i;
        f->block[i] = f->n_blocks - 1;
    }
    f->first[f->n_blocks] = f->n;
    free(leads);
}

static void written(const struct flow *f, uint32_t i, uint64_t *set)
{
    if (!(f->inst[i].flags & PTX_GUARDED))
        for (unsigned k = 0; k < f->used[i].n_def; k++)
            set[f->used[i].def[k] / 64] |= 1ull << f->used[i].def[k] % 64;
}

static bool meet(const struct flow *f, uint32_t block, const uint64_t *set)
{
    uint64_t *in = f->in + (size_t)block * f->words;
    bool less = false;

    for (uint32_t k = 0; k < f->words; k++) {
        less |= (in[k] & ~set[k]) != 0;
        in[k] &= set[k];
    }
    return less;
}

static void spread(struct flow *f, uint32_t base)
{
    bool again = true;

    memset(f->in, 0xff, (size_t)f->n_blocks * f->words * 8);
    memset(f->in, 0, f->words * 8);
    while (again) {
        again = false;
        for (uint32_t b = 0; b < f->n_blocks; b++) {
            const struct ptx_inst *last = &f->inst[f->first[b + 1] - 1];

            memcpy(f->now, f->in + (size_t)b * f->words, f->words * 8);
            for (uint32_t i = f->first[b]; i < f->first[b + 1]; i++)
                written(f, i, f->now);
            if (last->op == PTX_BRA)
                again |= meet(f, f->block[last->target - base], f->now);
            if (b + 1 < f->n_blocks && ((last->op != PTX_BRA && last->op != PTX_RET && last->op != PTX_EXIT) || last->flags & PTX_GUARDED))
                again |= meet(f, b + 1, f->now);
        }
    }
}

/* slot[r]: 1 + the place of a register that is looked at. */
static bool note(struct ptx_module *m, struct flow *f, uint32_t *slot)
{
    for (uint32_t b = 0; b < f->n_blocks; b++) {
        memcpy(f->now, f->in + (size_t)b * f->words, f->words * 8);
        for (uint32_t i = f->first[b]; i < f->first[b + 1]; i++) {
            for (unsigned k = 0; k < f->used[i].n_use; k++) {
                int32_t r = f->used[i].use[k];

                if (!(f->now[r / 64] >> r % 64 & 1)) {
                    f->inst[i].flags |= PTX_SOME_UNSET;
                    if (!slot[r])
                        slot[r] = ++m->n_slots;
                }
            }
            written(f, i, f->now);
        }
    }
    return true;
}

static void enter(struct ptx_module *m, struct ptx_inst *in, const int32_t *regs, unsigned n, const uint32_t *slot, bool write)
{
    for (unsigned k = 0; k < n; k++)
        if (slot[regs[k]]) {
            m->unset = realloc(m->unset, (m->n_unset + 2) * sizeof *m->unset);
            m->unset[m->n_unset++] = (struct ptx_unset){slot[regs[k]] - 1, write};
            if (write)
                in->flags |= PTX_SETS;
        }
}

bool ptx_mark_unset(struct ptx_module *m, uint32_t first, uint32_t end, const struct ptx_regs_used *used, uint32_t n_regs)
{
    struct flow f = {.inst = m->inst + first, .used = used, .n = end - first, .words = n_regs / 64 + 1};
    uint32_t *slot = calloc(n_regs + 1, sizeof *slot);

    f.first = calloc(f.n + 2, sizeof *f.first);
    f.block = calloc(f.n + 1, sizeof *f.block);
    cut(&f, first);
    f.in = malloc((size_t)f.n_blocks * f.words * 8);
    f.now = malloc(f.words * 8);
    spread(&f, first);
    note(m, &f, slot);
    for (uint32_t i = 0; i < f.n; i++) {
        struct ptx_inst *in = &f.inst[i];

        in->regs = m->n_unset;
        if (in->flags & PTX_SOME_UNSET)
            enter(m, in, used[i].use, used[i].n_use, slot, false);
        enter(m, in, used[i].def, used[i].n_def, slot, true);
        if (m->n_unset > in->regs)
            m->unset[m->n_unset - 1].last |= 2;
    }
    free(slot);
    free(f.first);
    free(f.block);
    free(f.in);
    free(f.now);
    return true;
}
