/* A warp: which of its lanes run, and what an instruction does in each of them. */
#include "ptx_run.h"

#include <string.h>

#if defined(__GNUC__) && !defined(__clang__)
#define LANES_APART _Pragma("GCC ivdep")
#else
#define LANES_APART
#endif
/* A row may be both source and result; a lane touches no other. */
#define EACH LANES_APART for (int l = 0; l < PTX_LANES; l++)

static inline uint32_t bits_of(float a)
{
    union { float f; uint32_t u; } v = {.f = a};

    return v.u;
}

static inline uint32_t ptx_canonical(float a)
{
    return a != a ? 0x7fffffffu : bits_of(a);
}

/* a + b towards minus infinity: the nearest sum and what it lacks, which is exact. */
static inline uint32_t ptx_add_down(float a, float b)
{
    float s = a + b, of_b = s - a, lacks = (a - (s - of_b)) + (b - of_b);
    uint32_t u = ptx_canonical(s), inf = 0x7f800000u;

    if ((u & inf) == inf) /* a sum of finite values that is too large stays finite */
        return u == inf && (bits_of(a) & inf) != inf && (bits_of(b) & inf) != inf ? 0x7f7fffffu : u;
    if (s == 0)
        return bits_of(a) == 0 && bits_of(b) == 0 ? 0 : 0x80000000u;
    return lacks < 0 ? (u >> 31 ? u + 1 : u - 1) : u;
}

static inline uint32_t ptx_quiet_sign(uint32_t a, uint32_t with)
{
    return (a & 0x7fffffffu) > 0x7f800000u ? 0x7fffffffu : with;
}

static inline uint32_t ptx_minf(float a, float b)
{
    uint32_t ua = bits_of(a), ub = bits_of(b);

    return a != a ? (b != b ? 0x7fffffffu : ub) : b != b || a < b ? ua : a == b ? ua | ub /* -0 is less */ : ub;
}

static inline uint32_t ptx_maxf(float a, float b)
{
    uint32_t ua = bits_of(a), ub = bits_of(b);

    return a != a ? (b != b ? 0x7fffffffu : ub) : b != b || a > b ? ua : a == b ? ua & ub : ub;
}

static inline uint32_t ptx_s32_rzi(float a)
{
    return a != a ? 0 : a >= 2147483648.f ? 0x7fffffffu : a <= -2147483648.f ? 0x80000000u : (uint32_t)(int32_t)a;
}

static inline uint32_t ptx_u32_rzi(float a)
{
    return !(a >= 1.f) ? 0 : a >= 4294967296.f ? 0xffffffffu : (uint32_t)(int64_t)a;
}

/* Each bit of the table is the result for one combination: 4 a + 2 b + c. */
static inline uint32_t ptx_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t r = 0;

    for (unsigned k = 0; k < 8; k++)
        r |= (0u - (table >> k & 1)) & (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return r;
}

static inline uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t how)
{
    uint64_t from = (uint64_t)b << 32 | a;
    uint32_t r = 0;

    for (unsigned k = 0; k < 4; k++) {
        uint32_t s = how >> 4 * k & 15, byte = (uint32_t)(from >> 8 * (s & 7)) & 0xff;

        r |= (s & 8 ? (byte & 0x80 ? 0xffu : 0) : byte) << 8 * k;
    }
    return r;
}

/* The signed halves of a times two bytes of b, from bit at on, and c. */
static inline uint32_t ptx_dp2a(uint32_t a, uint32_t b, uint32_t c, uint32_t at, bool sign)
{
    for (unsigned k = 0; k < 2; k++) {
        uint32_t byte = b >> (at + 8 * k) & 0xff;

        c += (uint32_t)((int16_t)(a >> 16 * k) * (sign ? (int32_t)(int8_t)byte : (int32_t)byte));
    }
    return c;
}

/* n bits of a into b from bit at on. */
static inline uint32_t ptx_bfi(uint32_t a, uint32_t b, uint32_t at, uint32_t n)
{
    uint64_t mask;

    at &= 0xff;
    n &= 0xff;
    mask = at > 31 ? 0 : (n > 31 ? 0xffffffffull : (1ull << n) - 1) << at & 0xffffffffu;
    return (uint32_t)((b & ~mask) | ((at > 31 ? 0 : (uint64_t)a << at) & mask));
}

static inline uint32_t ptx_bfe(uint32_t a, uint32_t at, uint32_t n, bool sign)
{
    uint32_t last, r = 0, fill;

    at &= 0xff;
    n &= 0xff;
    last = at + n - 1 > 31 ? 31 : at + n - 1;
    fill = sign && n ? a >> last & 1 : 0;
    for (unsigned k = 0; k < 32; k++)
        r |= (k < n && at + k < 32 ? a >> (at + k) & 1 : fill) << k;
    return r;
}

static inline uint32_t ptx_brev(uint32_t a)
{
    uint32_t r = 0;

    for (unsigned k = 0; k < 32; k++)
        r |= (a >> k & 1) << (31 - k);
    return r;
}

static void spread(uint32_t mask, uint32_t *m)
{
    EACH m[l] = 0u - (mask >> l & 1);
}

static uint32_t gathered(const uint32_t *row)
{
    uint32_t mask = 0;

    EACH mask |= row[l] & 1u << l;
    return mask;
}

static void blend(uint32_t *to, const uint32_t *from, const uint32_t *m)
{
    EACH to[l] = (from[l] & m[l]) | (to[l] & ~m[l]);
}

static void blend_wide(uint64_t *to, const uint64_t *from, const uint32_t *m)
{
    EACH to[l] = m[l] ? from[l] : to[l];
}

/* Into the lanes of the row that take part. */
static void put(struct ptx_warp *w, uint32_t row, bool wide, const uint64_t *from, const uint32_t *m)
{
    if (row == PTX_ROW_NONE)
        return;
    if (wide)
        blend_wide((uint64_t *)(void *)(w->file + row), from, m);
    else
        blend(w->file + row, (const uint32_t *)(const void *)from, m);
}

#define COMPARE(T, x, y) \
    switch (i->sub) { \
    case PTX_EQ: EACH t[l] = 0u - (uint32_t)((T)x == (T)y); break; \
    case PTX_NE: EACH t[l] = 0u - (uint32_t)((T)x != (T)y); break; \
    case PTX_LT: EACH t[l] = 0u - (uint32_t)((T)x < (T)y); break; \
    case PTX_LE: EACH t[l] = 0u - (uint32_t)((T)x <= (T)y); break; \
    case PTX_GT: EACH t[l] = 0u - (uint32_t)((T)x > (T)y); break; \
    default: EACH t[l] = 0u - (uint32_t)((T)x >= (T)y); break; \
    }

static void compare_floats(const struct ptx_inst *i, const float *a, const float *b, uint32_t *t)
{
    switch (i->sub) {
    case PTX_EQ: EACH t[l] = 0u - (uint32_t)(a[l] == b[l]); break;
    case PTX_NE: EACH t[l] = 0u - (uint32_t)(a[l] < b[l] || a[l] > b[l]); break;
    case PTX_LT: EACH t[l] = 0u - (uint32_t)(a[l] < b[l]); break;
    case PTX_LE: EACH t[l] = 0u - (uint32_t)(a[l] <= b[l]); break;
    case PTX_GT: EACH t[l] = 0u - (uint32_t)(a[l] > b[l]); break;
    case PTX_GE: EACH t[l] = 0u - (uint32_t)(a[l] >= b[l]); break;
    case PTX_EQU: EACH t[l] = 0u - (uint32_t)!(a[l] < b[l] || a[l] > b[l]); break;
    case PTX_NEU: EACH t[l] = 0u - (uint32_t)(a[l] != b[l]); break;
    case PTX_LTU: EACH t[l] = 0u - (uint32_t)!(a[l] >= b[l]); break;
    case PTX_LEU: EACH t[l] = 0u - (uint32_t)!(a[l] > b[l]); break;
    case PTX_GTU: EACH t[l] = 0u - (uint32_t)!(a[l] <= b[l]); break;
    case PTX_GEU: EACH t[l] = 0u - (uint32_t)!(a[l] < b[l]); break;
    case PTX_NUM: EACH t[l] = 0u - (uint32_t)(a[l] == a[l] && b[l] == b[l]); break;
    default: EACH t[l] = 0u - (uint32_t)(a[l] != a[l] || b[l] != b[l]); break;
    }
}

static void set_predicate(struct ptx_warp *w, const struct ptx_inst *i, const uint32_t *m)
{
    const uint32_t *a = w->file + i->a, *b = w->file + i->b, *c = w->file + i->c;
    const uint64_t *a8 = (const uint64_t *)(const void *)a, *b8 = (const uint64_t *)(const void *)b;
    uint32_t t[PTX_LANES], q[PTX_LANES];

    switch (i->type) {
    case PTX_TF32: compare_floats(i, (const float *)(const void *)a, (const float *)(const void *)b, t); break;
    case PTX_S32: COMPARE(int32_t, a[l], b[l]) break;
    case PTX_B32: case PTX_U32: COMPARE(uint32_t, a[l], b[l]) break;
    case PTX_S16: COMPARE(int16_t, a[l], b[l]) break;
    case PTX_B16: case PTX_U16: COMPARE(uint16_t, a[l], b[l]) break;
    case PTX_S64: COMPARE(int64_t, a8[l], b8[l]) break;
    default: COMPARE(uint64_t, a8[l], b8[l]) break;
    }
    EACH q[l] = ~t[l];
    if (i->combine == PTX_AND) {
        EACH t[l] &= c[l];
        EACH q[l] &= c[l];
    } else if (i->combine == PTX_OR) {
        EACH t[l] |= c[l];
        EACH q[l] |= c[l];
    } else if (i->combine == PTX_XOR) {
        EACH t[l] ^= c[l];
        EACH q[l] ^= c[l];
    }
    blend(w->file + i->d, t, m);
    if (i->vec == 2)
        blend(w->file + i->e, q, m);
}

static int64_t as_type(uint64_t v, enum ptx_type t)
{
    switch (t) {
    case PTX_U8: return (uint8_t)v;
    case PTX_S8: return (int8_t)v;
    case PTX_U16: return (uint16_t)v;
    case PTX_S16: return (int16_t)v;
    case PTX_U32: return (uint32_t)v;
    case PTX_S32: return (int32_t)v;
    default: return (int64_t)v;
    }
}

static void convert(struct ptx_warp *w, const struct ptx_inst *i, const uint32_t *m)
{
    const uint32_t *a = w->file + i->a;
    const uint64_t *a8 = (const uint64_t *)(const void *)a;
    uint64_t out[PTX_LANES];
    uint32_t narrow[2 * PTX_LANES];

    for (int l = 0; l < PTX_LANES; l++) {
        int64_t v = as_type(i->flags & PTX_ADDR64 ? a8[l] : a[l], i->type2);

        out[l] = i->type == PTX_TF32 ? bits_of(i->type2 == PTX_U64 ? (float)(uint64_t)v : (float)v) : (uint64_t)as_type((uint64_t)v, i->type);
        narrow[l] = (uint32_t)out[l];
    }
    if (i->flags & PTX_WIDE)
        blend_wide((uint64_t *)(void *)(w->file + i->d), out, m);
    else
        blend(w->file + i->d, narrow, m);
}

static void pack(struct ptx_warp *w, const struct ptx_inst *i, const uint32_t *m)
{
    const uint32_t *a = w->file + i->a, *b = w->file + i->b;
    const uint64_t *a8 = (const uint64_t *)(const void *)a;
    uint64_t lo[PTX_LANES], hi[PTX_LANES];
    uint32_t *lo4 = (uint32_t *)(void *)lo, *hi4 = (uint32_t *)(void *)hi;
    bool wide = i->flags & PTX_WIDE;

    for (int l = 0; l < PTX_LANES; l++)
        if (i->op == PTX_PACK && wide)
            lo[l] = (uint64_t)b[l] << 32 | a[l];
        else if (i->op == PTX_PACK)
            lo4[l] = b[l] << 16 | (a[l] & 0xffff);
        else
            lo4[l] = wide ? (uint32_t)a8[l] : a[l] & 0xffff, hi4[l] = wide ? (uint32_t)(a8[l] >> 32) : a[l] >> 16;
    put(w, i->d, i->op == PTX_PACK && wide, lo, m);
    if (i->op == PTX_UNPACK)
        put(w, i->e, false, hi, m);
}

/* ---- lanes that talk to each other */

/* Waits until the group is all that the instruction names. 1: it is; 0: parked; -1: a finding. */
static int together(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t row, uint32_t *mask, uint32_t pc)
{
    uint32_t all = *mask, first;
    unsigned lane = (unsigned)__builtin_ctz(all);

    for (int l = 0; l < PTX_LANES; l++)
        if (w->parked >> l & 1 && w->pc[l] == pc)
            all |= 1u << l;
    first = w->file[row + lane];
    for (unsigned l = 0; l < PTX_LANES; l++)
        if (all >> l & 1 && (w->file[row + l] != first || !(first >> l & 1)))
            return ptx_finding(b, PTX_SYNCCHECK, w, l, i, "lane %u names the lanes %08x, lane %u the lanes %08x", l, w->file[row + l], lane, first), -1;
    if ((first & w->alive) != all) {
        for (unsigned l = 0; l < PTX_LANES; l++)
            if (*mask >> l & 1)
                w->pc[l] = pc;
        w->parked |= *mask;
        return 0;
    }
    w->parked &= ~all;
    *mask = all;
    if (all == w->alive)
        w->meetings++;
    return 1;
}

static bool shuffle(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask, const uint32_t *m)
{
    const uint32_t *a = w->file + i->a, *by = w->file + i->b, *bounds = w->file + i->target;
    uint32_t v[PTX_LANES], p[PTX_LANES];

    for (uint32_t l = 0; l < PTX_LANES; l++) {
        uint32_t seg = bounds[l] >> 8 & 31, clamp = bounds[l] & 31, most = (l & seg) | (clamp & ~seg), n = by[l] & 31;
        int j = i->sub == 0 ? (int)(l - n) : i->sub == 1 ? (int)(l + n) : i->sub == 2 ? (int)(l ^ n) : (int)((l & seg) | (n & ~seg));
        bool in = i->sub == 0 ? j >= (int)most : j <= (int)most;

        j = in ? j : (int)l;
        v[l] = a[j];
        p[l] = 0u - (uint32_t)in;
        if (mask >> l & 1 && !(mask >> j & 1))
            return ptx_finding(b, PTX_SYNCCHECK, w, l, i, "takes the value of lane %d, which takes no part", j);
    }
    blend(w->file + i->d, v, m);
    if (i->e != PTX_ROW_NONE)
        blend(w->file + i->e, p, m);
    return true;
}

static void vote(struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask, const uint32_t *m)
{
    uint32_t yes = gathered(w->file + i->a) & mask, v[PTX_LANES];
    uint32_t r = i->sub == 0   ? 0u - (yes != 0)
                 : i->sub == 1 ? 0u - (yes == mask)
                 : i->sub == 2 ? 0u - (yes == 0 || yes == mask)
                               : yes;

    for (int l = 0; l < PTX_LANES; l++)
        v[l] = r;
    blend(w->file + i->d, v, m);
}

/* Division by zero has no defined result on a device. */
static bool divisors(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask)
{
    bool wide = i->flags & PTX_WIDE;

    for (unsigned l = 0; l < PTX_LANES; l++)
        if (mask >> l & 1 && (w->file[i->b + (wide ? 2 * l : l)] | (wide ? w->file[i->b + 2 * l + 1] : 0)) == 0)
            return ptx_finding(b, PTX_MEMCHECK, w, l, i, "division by zero");
    return true;
}

static bool look_at_unset(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask)
{
    for (const struct ptx_unset *u = &b->module->unset[i->regs];; u++) {
        if (u->last & 1)
            w->set[u->slot] |= mask;
        else if (mask & ~w->set[u->slot])
            return ptx_finding(b, PTX_INITCHECK, w, (unsigned)__builtin_ctz(mask & ~w->set[u->slot]), i, "a register is read that was not written");
        if (u->last & 2)
            return true;
    }
}

/* ---- groups */

struct group {
    uint32_t mask, pc, stop; /* stop: where it may meet others */
};

static bool choose(const struct ptx_warp *w, struct group *g)
{
    uint32_t run = w->alive & ~w->parked;
    int depth = -1;

    *g = (struct group){0, UINT32_MAX, UINT32_MAX};
    for (uint32_t r = run; r; r &= r - 1) {
        unsigned l = (unsigned)__builtin_ctz(r);

        if (w->depth[l] > depth)
            depth = w->depth[l], g->pc = w->pc[l];
        else if (w->depth[l] == depth && w->pc[l] < g->pc)
            g->pc = w->pc[l];
    }
    for (uint32_t r = run; r; r &= r - 1) {
        unsigned l = (unsigned)__builtin_ctz(r);

        if (w->depth[l] != depth)
            continue;
        if (w->pc[l] == g->pc)
            g->mask |= 1u << l;
        else if (w->pc[l] < g->stop)
            g->stop = w->pc[l];
    }
    return run != 0;
}

static void leave(struct ptx_warp *w, uint32_t mask, uint32_t pc)
{
    for (; mask; mask &= mask - 1)
        w->pc[__builtin_ctz(mask)] = pc;
}

static void returned(struct ptx_warp *w, uint32_t mask, bool end)
{
    for (; mask; mask &= mask - 1) {
        unsigned l = (unsigned)__builtin_ctz(mask);

        if (end || w->depth[l] == 0)
            w->alive &= ~(1u << l);
        else
            w->pc[l] = w->back[--w->depth[l]][l];
    }
}

static bool called(struct ptx_block *b, struct ptx_warp *w, const struct ptx_inst *i, uint32_t mask, uint32_t pc)
{
    for (; mask; mask &= mask - 1) {
        unsigned l = (unsigned)__builtin_ctz(mask);

        if (w->depth[l] == PTX_DEPTH)
            return ptx_finding(b, PTX_BAD_CODE, w, l, i, "more than %d calls deep", PTX_DEPTH);
        w->back[w->depth[l]++][l] = pc + 1;
        w->pc[l] = i->target;
    }
    return true;
}

/* One instruction that goes on to the next; act: the lanes that do it. */
static bool execute(struct ptx_block *block, struct ptx_warp *w, const struct ptx_inst *i, uint32_t act, const uint32_t *m)
{
    uint32_t *const file = w->file;
    uint64_t room[PTX_LANES] __attribute__((aligned(64)));
    void *const out = act == UINT32_MAX && i->op < PTX_SETP ? (void *)(file + i->d) : (void *)room;

    switch (i->op) {
#undef PTX_ALU_NAME
#define PTX_ALU_NAME(name, sig, cls, weight, D, S, expr) \
    case PTX_##name: { \
        D *const d = (D *)out; \
        const S *const a = (const S *)(const void *)(file + i->a), *const b = (const S *)(const void *)(file + i->b), \
                *const c = (const S *)(const void *)(file + i->c); \
        const uint32_t *const b4 = file + i->b, *const c4 = file + i->c, *const e = file + i->e; \
        const uint64_t *const c8 = (const uint64_t *)(const void *)c4; \
        (void)a, (void)b, (void)c, (void)b4, (void)c4, (void)c8, (void)e; \
        EACH d[l] = (D)(expr); \
        break; \
    }
#include "ptx_alu.h"
    case PTX_SETP: set_predicate(w, i, m); return true;
    case PTX_CVT: convert(w, i, m); return true;
    case PTX_LD: return ptx_load(block, w, i, act);
    case PTX_ST: return ptx_store(block, w, i, act);
    case PTX_ATOM: return ptx_atomic(block, w, i, act);
    case PTX_PACK: case PTX_UNPACK: pack(w, i, m); return true;
    case PTX_SHFL: return shuffle(block, w, i, act, m);
    case PTX_VOTE: vote(w, i, act, m); return true;
    default: return true;
    }
    if (act != UINT32_MAX) {
        if (i->flags & PTX_WIDE)
            blend_wide((uint64_t *)(void *)(file + i->d), room, m);
        else
            blend(file + i->d, (const uint32_t *)(const void *)room, m);
    }
    return true;
}

static bool divides(uint16_t op)
{
    return op == PTX_DIV_U32 || op == PTX_REM_U32 || op == PTX_DIV_S32 || op == PTX_REM_S32 || op == PTX_DIV_U64 || op == PTX_REM_U64;
}

/* A group until it ends, waits, parts from some of its lanes for those before it, or meets others. */
static void run_group(struct ptx_block *b, struct ptx_warp *w, struct group g)
{
    const struct ptx_inst *const code = b->module->inst;
    uint32_t m[PTX_LANES] __attribute__((aligned(64))), m_guard[PTX_LANES] __attribute__((aligned(64)));
    uint32_t mask = g.mask, pc = g.pc, stop = g.stop;
    unsigned lanes = (unsigned)__builtin_popcount(mask);

    spread(mask, m);
    for (; pc < stop; pc++) {
        const struct ptx_inst *const i = &code[pc];
        const uint32_t *how = m;
        uint32_t act = mask;

        b->tally[pc].issues++;
        b->tally[pc].lanes += lanes;
        if (i->flags & (PTX_GUARDED | PTX_SOME_UNSET | PTX_SETS)) {
            if (i->flags & PTX_GUARDED) {
                act &= i->flags & PTX_GUARD_NOT ? ~gathered(w->file + i->guard) : gathered(w->file + i->guard);
                spread(act, m_guard);
                how = m_guard;
            }
            if (i->flags & (PTX_SOME_UNSET | PTX_SETS) && !look_at_unset(b, w, i, i->op == PTX_BRA ? mask : act))
                return;
            if (act == 0 && i->op != PTX_BRA)
                continue;
        }
        switch (i->op) {
        case PTX_BRA:
            if (act == mask) {
                pc = i->target - 1;
            } else if (act) {
                bool back = i->target <= pc;
                uint32_t stay = back ? act : mask & ~act, other = back ? pc + 1 : i->target;

                leave(w, mask & ~stay, other);
                stop = other < stop ? other : stop;
                mask = stay;
                lanes = (unsigned)__builtin_popcount(mask);
                spread(mask, m);
                pc = back ? i->target - 1 : pc;
            }
            break;
        case PTX_CALL:
            called(b, w, i, mask, pc);
            return;
        case PTX_RET: case PTX_EXIT:
            leave(w, mask & ~act, pc + 1);
            returned(w, act, i->op == PTX_EXIT);
            return;
        case PTX_BAR:
            leave(w, mask & ~act, pc + 1);
            leave(w, act, pc);
            w->parked |= act;
            return;
        case PTX_SHFL: case PTX_VOTE: case PTX_WARP_BAR: {
            uint32_t all = act;
            int met = together(b, w, i, i->op == PTX_VOTE ? i->b : i->c, &all, pc);

            leave(w, mask & ~act, pc + 1);
            if (met <= 0)
                return;
            spread(all, m_guard);
            if (!execute(b, w, i, all, m_guard))
                return;
            leave(w, all, pc + 1);
            return;
        }
        default:
            if (divides(i->op) && !divisors(b, w, i, act))
                return;
            if (!execute(b, w, i, act, how))
                return;
        }
    }
    leave(w, mask, pc);
}

void ptx_run_warp(struct ptx_block *b, struct ptx_warp *w)
{
    struct group g;

    while (!b->failed && choose(w, &g))
        run_group(b, w, g);
}
