/* Loads, stores and atomic operations of a group of lanes, each address checked: inside
 * memory that was given out, aligned to its whole access, written before it is read, and
 * touched by no other thread that nothing keeps apart. */
#include "ptx_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- who touched a byte of shared memory since the last barrier
 *
 * 0..15 epoch (barriers), 16..26 who wrote, 27..37 who read, 38 written atomically, 39 ever
 * written, 40..51 and 52..63 meetings of the warp when it was written and read.
 * Who: 0 nobody, 1 + a thread, 1025 + a warp (several of its threads), 2047 several warps. */
#define WHO_WARP 1025u
#define WHO_MANY 2047u
#define SHADOW_ATOMIC (1ull << 38)
#define SHADOW_WRITTEN (1ull << 39)

static unsigned writer_of(uint64_t s) { return s >> 16 & 2047; }
static unsigned reader_of(uint64_t s) { return s >> 27 & 2047; }

static unsigned warp_of(unsigned who)
{
    return who == WHO_MANY ? ~0u : who >= WHO_WARP ? who - WHO_WARP : (who - 1) / PTX_LANES;
}

/* Whether nothing keeps thread `me` apart from those. */
static bool beside(unsigned who, unsigned me, unsigned then, unsigned now)
{
    return who && who != me && (warp_of(who) != warp_of(me) || then == now);
}

static unsigned joined(unsigned who, unsigned me, unsigned then, unsigned now)
{
    if (who == 0 || who == me)
        return me;
    if (warp_of(who) != warp_of(me))
        return WHO_MANY;
    return then == now ? WHO_WARP + warp_of(me) : me;
}

void ptx_shared_epoch(struct ptx_block *b, bool fresh)
{
    if (fresh || b->epoch == 0xffff) {
        for (uint32_t i = 0; i < b->shared_bytes; i++)
            b->shadow[i] = fresh ? 0 : b->shadow[i] & SHADOW_WRITTEN;
        b->epoch = 0;
    }
    b->epoch++;
}

static void name_of(unsigned who, char *out, size_t n)
{
    if (who == WHO_MANY)
        snprintf(out, n, "threads of several warps");
    else if (who >= WHO_WARP)
        snprintf(out, n, "threads of warp %u", who - WHO_WARP);
    else
        snprintf(out, n, "thread %u", who - 1);
}

enum how { READS, WRITES, ATOMICALLY };

static bool race(struct ptx_block *b, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i, uint32_t at, unsigned who,
                 const char *did, const char *does)
{
    char name[40];

    name_of(who, name, sizeof name);
    return ptx_finding(b, PTX_RACECHECK, w, lane, i, "%s byte %u of shared memory, which %s %s since the last barrier", does, at, name, did);
}

static bool touch_shared(struct ptx_block *b, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i, uint32_t at, unsigned n, enum how how)
{
    unsigned me = 1 + w->number * PTX_LANES + lane, now = w->meetings & 4095;
    uint64_t mine = (uint64_t)now << (how == READS ? 52 : 40) | (uint64_t)me << (how == READS ? 27 : 16) | SHADOW_WRITTEN | b->epoch;
    uint64_t same = (4095ull << (how == READS ? 52 : 40)) | (2047ull << (how == READS ? 27 : 16)) | SHADOW_WRITTEN | 0xffff;

    if (how != READS)
        same |= SHADOW_ATOMIC | 2047ull << 27; /* and nobody has read it */
    else
        same |= 2047ull << 16;                 /* nor written it */
    for (unsigned k = 0; k < n; k++) {
        uint64_t s = b->shadow[at + k];
        unsigned then_w, then_r;

        if ((s & same) == mine)
            continue;
        if ((s & 0xffff) != b->epoch)
            s = (s & SHADOW_WRITTEN) | b->epoch;
        then_w = (unsigned)(s >> 40) & 4095;
        then_r = (unsigned)(s >> 52);
        if (how != WRITES && !(s & SHADOW_WRITTEN))
            return ptx_finding(b, PTX_INITCHECK, w, lane, i, "byte %u of shared memory is read, and no thread wrote it", at + k);
        if (!(how == ATOMICALLY && s & SHADOW_ATOMIC) && beside(writer_of(s), me, then_w, now))
            return race(b, w, lane, i, at + k, writer_of(s), "wrote", how == READS ? "reads" : "writes");
        if (how != READS && beside(reader_of(s), me, then_r, now))
            return race(b, w, lane, i, at + k, reader_of(s), "read", "writes");
        if (how == READS) {
            s = (s & ~(2047ull << 27 | 4095ull << 52)) | (uint64_t)joined(reader_of(s), me, then_r, now) << 27 | (uint64_t)now << 52;
        } else {
            unsigned who = how == ATOMICALLY && s & SHADOW_ATOMIC ? joined(writer_of(s), me, then_w, now) : me;

            s = (s & ~(2047ull << 16 | 4095ull << 40 | SHADOW_ATOMIC)) | (uint64_t)who << 16 | (uint64_t)now << 40 | SHADOW_WRITTEN |
                (how == ATOMICALLY ? SHADOW_ATOMIC : 0);
        }
        b->shadow[at + k] = s;
    }
    return true;
}

/* ---- global memory */

static struct ptx_alloc *alloc_of(struct ptx_block *b, uint64_t at, unsigned n)
{
    const struct ptx_launch *l = b->launch;
    unsigned lo = 0, hi = l->n_allocs;

    if (b->last && at >= (uint64_t)(uintptr_t)b->last->at && at - (uint64_t)(uintptr_t)b->last->at + n <= b->last->n)
        return b->last;
    while (lo < hi) { /* the last that begins at or before it */
        unsigned mid = (lo + hi) / 2;

        if ((uint64_t)(uintptr_t)l->allocs[mid]->at <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0 || at - (uint64_t)(uintptr_t)l->allocs[lo - 1]->at + n > l->allocs[lo - 1]->n)
        return NULL;
    return b->last = l->allocs[lo - 1];
}

static bool outside(struct ptx_block *b, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i, uint64_t at, unsigned n)
{
    const struct ptx_launch *l = b->launch;

    for (unsigned k = 0; k < l->n_allocs; k++) {
        uint64_t from = (uint64_t)(uintptr_t)l->allocs[k]->at, end = from + l->allocs[k]->n;

        if (at < end + 65536 && at + 65536 > from)
            return ptx_finding(b, PTX_MEMCHECK, w, lane, i, "%u bytes at offset %lld of an allocation of %zu bytes", n, (long long)(at - from), l->allocs[k]->n);
    }
    return ptx_finding(b, PTX_MEMCHECK, w, lane, i, "%u bytes at 0x%llx, which is in no allocation", n, (unsigned long long)at);
}

#define GLOBAL_ATOMIC 0xffffffffu

static bool touch_global(struct ptx_block *b, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i, struct ptx_alloc *a, size_t off,
                         unsigned n, enum how how, const uint8_t *value)
{
    uint32_t me = (uint32_t)(b->thread0 + w->number * PTX_LANES + lane) + 2;

    for (unsigned k = 0; k < n; k++) {
        uint32_t s = __atomic_load_n(&a->shadow[off + k], __ATOMIC_RELAXED);

        if (how == READS) {
            if (s == 1)
                continue;
            if (s == 0)
                return ptx_finding(b, PTX_INITCHECK, w, lane, i, "byte %zu of an allocation of %zu bytes is read, and nothing wrote it", off + k, a->n);
            if (i->flags & PTX_NC)
                return ptx_finding(b, PTX_RACECHECK, w, lane, i, "byte %zu of an allocation of %zu bytes was written by this launch: not for ld.global.nc", off + k, a->n);
            if (s != me)
                return ptx_finding(b, PTX_RACECHECK, w, lane, i, "reads byte %zu of an allocation of %zu bytes, which thread %u of the launch wrote", off + k, a->n, s - 2);
            continue;
        }
        if (s != (how == ATOMICALLY ? GLOBAL_ATOMIC : me)) {
            s = __atomic_exchange_n(&a->shadow[off + k], how == ATOMICALLY ? GLOBAL_ATOMIC : me, __ATOMIC_RELAXED);
            /* The same value once more harms nobody. */
            if (s > 1 && s != me && !(how == WRITES && s != GLOBAL_ATOMIC && __atomic_load_n(&a->at[off + k], __ATOMIC_RELAXED) == value[k]) &&
                !(how == ATOMICALLY && s == GLOBAL_ATOMIC))
                return ptx_finding(b, PTX_RACECHECK, w, lane, i, "writes byte %zu of an allocation of %zu bytes, which thread %u of the launch wrote", off + k, a->n, s - 2);
        }
    }
    if (how != READS) {
        size_t lo = __atomic_load_n(&a->lo, __ATOMIC_RELAXED), hi = __atomic_load_n(&a->hi, __ATOMIC_RELAXED);

        while (off < lo && !__atomic_compare_exchange_n(&a->lo, &lo, off, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
        while (off + n > hi && !__atomic_compare_exchange_n(&a->hi, &hi, off + n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            ;
    }
    return true;
}

/* ---- a place: where the bytes are, checked */

static uint64_t address_of(const struct ptx_warp *w, const struct ptx_inst *i, unsigned lane)
{
    uint64_t base;

    if (!(i->flags & PTX_ADDR64))
        return w->file[i->a + lane] + (uint64_t)i->off;
    memcpy(&base, w->file + i->a + 2 * lane, 8);
    return base + (uint64_t)i->off;
}

static bool misaligned(struct ptx_block *b, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i, uint64_t at, unsigned n)
{
    return ptx_finding(b, PTX_MISALIGNED, w, lane, i, "%u bytes at 0x%llx, which is no multiple of %u", n, (unsigned long long)at, n);
}

/* value: what is to be written, for writes. NULL: a finding. */
static uint8_t *place(struct ptx_block *b, struct ptx_warp *w, unsigned lane, const struct ptx_inst *i, uint64_t at, unsigned n, enum how how,
                      const uint8_t *value)
{
    unsigned space = i->space;
    uint64_t off = at;

    if (space == PTX_GENERIC) {
        uint64_t window = at & PTX_WINDOW_MASK;

        space = window == 0 ? PTX_SPACE_GLOBAL : window == PTX_WINDOW_SHARED ? PTX_SPACE_SHARED : window == PTX_WINDOW_LOCAL ? PTX_SPACE_LOCAL : PTX_SPACE_PARAM;
        off = at & ~PTX_WINDOW_MASK;
    }
    if (off & (n - 1))
        return misaligned(b, w, lane, i, at, n), NULL;
    if (space == PTX_SPACE_GLOBAL) {
        struct ptx_alloc *a = alloc_of(b, at, n);

        if (!a)
            return outside(b, w, lane, i, at, n), NULL;
        if (!touch_global(b, w, lane, i, a, at - (uint64_t)(uintptr_t)a->at, n, how, value))
            return NULL;
        return a->at + (at - (uint64_t)(uintptr_t)a->at);
    }
    if (space == PTX_SPACE_SHARED) {
        if (off > b->shared_bytes || n > b->shared_bytes - off)
            return ptx_finding(b, PTX_MEMCHECK, w, lane, i, "%u bytes at %lld of shared memory, of which the block has %u", n, (long long)off, b->shared_bytes), NULL;
        return touch_shared(b, w, lane, i, (uint32_t)off, n, how) ? b->shared + off : NULL;
    }
    if (space == PTX_SPACE_LOCAL) {
        uint64_t index = off < b->local_kernel ? off : off >= PTX_LOCAL_OF_FUNCS ? off - PTX_LOCAL_OF_FUNCS + b->local_kernel : UINT64_MAX;
        uint64_t end = off < b->local_kernel ? b->local_kernel : b->local_bytes;
        uint8_t *p, *set;

        if (index >= end || n > end - index || how == ATOMICALLY)
            return ptx_finding(b, PTX_MEMCHECK, w, lane, i, "%u bytes at %lld of local memory, of which a thread has %u", n, (long long)off, b->local_bytes), NULL;
        p = w->local + (size_t)lane * b->local_bytes + index;
        set = w->local_set + (size_t)lane * b->local_bytes + index;
        for (unsigned k = 0; k < n; k++)
            if (how == WRITES)
                set[k] = 1;
            else if (!set[k])
                return ptx_finding(b, PTX_INITCHECK, w, lane, i, "byte %u of local memory is read, and was not written", (unsigned)off + k), NULL;
        return p;
    }
    if (how != READS || off > b->launch->kernel->param_bytes || n > b->launch->kernel->param_bytes - off)
        return ptx_finding(b, PTX_MEMCHECK, w, lane, i, "%u bytes at %lld of the parameters, of which there are %u", n, (long long)off, b->launch->kernel->param_bytes), NULL;
    return (uint8_t *)(uintptr_t)b->launch->param + off;
}

/* ---- counting: passes of shared memory over the first, sectors of global memory */

static uint64_t shared_passes(const uint64_t *at, unsigned n, unsigned width, bool atomic)
{
    unsigned part = width <= 4 ? 32 : width == 8 ? 16 : 8; /* lanes that go together */
    uint64_t extra = 0;

    for (unsigned from = 0; from < n; from += part) {
        unsigned most = 0, in_bank[32] = {0};
        uint64_t seen[32 * 4];
        unsigned n_seen = 0;

        for (unsigned k = from; k < n && k < from + part; k++)
            for (unsigned word = 0; word < (width + 3) / 4; word++) {
                uint64_t v = at[k] / 4 + word;
                bool known = false;

                for (unsigned j = 0; j < n_seen && !known && !atomic; j++)
                    known = seen[j] == v;
                if (known)
                    continue;
                seen[n_seen++] = v;
                if (++in_bank[v % 32] > most)
                    most = in_bank[v % 32];
            }
        extra += most ? most - 1 : 0;
    }
    return extra;
}

static uint64_t sectors(const uint64_t *at, unsigned n, unsigned width)
{
    uint64_t seen[PTX_LANES];
    unsigned n_seen = 0;

    for (unsigned k = 0; k < n; k++)
        for (uint64_t s = at[k] / 32; s <= (at[k] + width - 1) / 32; s++) {
            bool known = false;

            for (unsigned j = 0; j < n_seen && !known; j++)
                known = seen[j] == s;
            if (!known && n_seen < PTX_LANES)
                seen[n_seen++] = s;
        }
    return n_seen;
}

static void count(struct ptx_block *b, const struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask)
{
    uint64_t at[PTX_LANES];
    unsigned n = 0, space = i->space;

    for (; mask; mask &= mask - 1)
        at[n++] = address_of(w, i, (unsigned)__builtin_ctz(mask));
    if (space == PTX_GENERIC)
        space = (at[0] & PTX_WINDOW_MASK) == PTX_WINDOW_SHARED ? PTX_SPACE_SHARED : (at[0] & PTX_WINDOW_MASK) == 0 ? PTX_SPACE_GLOBAL : PTX_SPACE_LOCAL;
    if (space == PTX_SPACE_SHARED)
        b->tally[i - b->module->inst].extra += shared_passes(at, n, (unsigned)i->bytes * i->vec, i->op == PTX_ATOM);
    else if (space == PTX_SPACE_GLOBAL)
        b->tally[i - b->module->inst].extra += sectors(at, n, (unsigned)i->bytes * i->vec);
}

/* ---- what instructions do */

/* Lane l's place in a row; wide: of 64 bits. */
static uint32_t *lane_of(const struct ptx_warp *w, uint32_t row, unsigned l, bool wide)
{
    return w->file + row + (wide ? 2 * l : l);
}

static uint64_t extended(const struct ptx_inst *i, const uint8_t *p)
{
    uint64_t v = 0;

    memcpy(&v, p, i->bytes);
    if (i->flags & PTX_SIGNED)
        v = i->bytes == 1 ? (uint64_t)(int64_t)(int8_t)v : i->bytes == 2 ? (uint64_t)(int64_t)(int16_t)v : (uint64_t)(int64_t)(int32_t)v;
    return v;
}

bool ptx_load(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask)
{
    const uint32_t rows[] = {i->d, i->b, i->c, i->e};
    unsigned n = (unsigned)i->bytes * i->vec;

    if (b->launch->count)
        count(b, w, i, mask);
    for (; mask; mask &= mask - 1) {
        unsigned l = (unsigned)__builtin_ctz(mask);
        const uint8_t *p = place(b, w, l, i, address_of(w, i, l), n, READS, NULL);

        if (!p)
            return false;
        for (unsigned k = 0; k < i->vec; k++) {
            uint64_t v = extended(i, p + k * i->bytes);

            memcpy(lane_of(w, rows[k], l, i->flags & PTX_WIDE), &v, i->flags & PTX_WIDE ? 8 : 4);
        }
    }
    return true;
}

bool ptx_store(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask)
{
    const uint32_t rows[] = {i->d, i->b, i->c, i->e};
    unsigned n = (unsigned)i->bytes * i->vec;

    if (b->launch->count)
        count(b, w, i, mask);
    for (; mask; mask &= mask - 1) {
        unsigned l = (unsigned)__builtin_ctz(mask);
        uint8_t value[32], *p;

        for (unsigned k = 0; k < i->vec; k++)
            memcpy(value + k * i->bytes, lane_of(w, rows[k], l, i->flags & PTX_WIDE), i->bytes);
        p = place(b, w, l, i, address_of(w, i, l), n, WRITES, value);
        if (!p)
            return false;
        if (n == 4) /* other blocks may write the same there */
            __atomic_store_n((uint32_t *)(void *)p, *(uint32_t *)(void *)value, __ATOMIC_RELAXED);
        else
            memcpy(p, value, n);
    }
    return true;
}

static uint64_t changed(const struct ptx_inst *i, uint64_t was, uint64_t x, uint64_t y)
{
    bool sign = i->type == PTX_S32 || i->type == PTX_S64;
    int64_t a = i->bytes == 4 ? (int32_t)was : (int64_t)was, v = i->bytes == 4 ? (int32_t)x : (int64_t)x;

    switch (i->sub) {
    case PTX_A_AND: return was & x;
    case PTX_A_OR: return was | x;
    case PTX_A_XOR: return was ^ x;
    case PTX_A_ADD: return was + x;
    case PTX_A_MIN: return (sign ? a < v : was < x) ? was : x;
    case PTX_A_MAX: return (sign ? a > v : was > x) ? was : x;
    case PTX_A_EXCH: return x;
    default: return was == x ? y : was; /* cas: x is compared, y is put */
    }
}

static uint64_t row_value(const struct ptx_warp *w, const struct ptx_inst *i, uint32_t row, unsigned l)
{
    uint64_t v = 0;

    memcpy(&v, lane_of(w, row, l, i->bytes == 8), i->bytes);
    return v;
}

bool ptx_atomic(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask)
{
    if (b->launch->count)
        count(b, w, i, mask);
    for (; mask; mask &= mask - 1) {
        unsigned l = (unsigned)__builtin_ctz(mask);
        uint8_t *p = place(b, w, l, i, address_of(w, i, l), i->bytes, ATOMICALLY, NULL);
        uint64_t x = row_value(w, i, i->b, l), y = i->sub == PTX_A_CAS ? row_value(w, i, i->c, l) : 0, was = 0;

        if (!p)
            return false;
        if (i->bytes == 4) {
            uint32_t old = __atomic_load_n((uint32_t *)(void *)p, __ATOMIC_RELAXED);

            while (!__atomic_compare_exchange_n((uint32_t *)(void *)p, &old, (uint32_t)changed(i, old, x, y), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                ;
            was = old;
        } else {
            was = __atomic_load_n((uint64_t *)(void *)p, __ATOMIC_RELAXED);
            while (!__atomic_compare_exchange_n((uint64_t *)(void *)p, &was, changed(i, was, x, y), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                ;
        }
        if (i->d != PTX_ROW_NONE)
            memcpy(lane_of(w, i->d, l, i->bytes == 8), &was, i->bytes);
    }
    return true;
}
