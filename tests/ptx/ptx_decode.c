/* One statement to one decoded instruction. An opcode or modifier that is not here is refused:
 * nothing is guessed, nothing skipped. */
#include "ptx.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *opcode;
    uint16_t op;
} names[] = {
    {"mov.b32", PTX_MOV32}, {"mov.u32", PTX_MOV32}, {"mov.s32", PTX_MOV32}, {"mov.f32", PTX_MOV32}, {"mov.b16", PTX_MOV32},
    {"mov.u16", PTX_MOV32}, {"mov.s16", PTX_MOV32}, {"mov.b64", PTX_MOV64}, {"mov.u64", PTX_MOV64}, {"mov.s64", PTX_MOV64},
    {"mov.pred", PTX_MOVP},
    {"cvta.to.global.u64", PTX_MOV64}, {"cvta.global.u64", PTX_MOV64}, {"cvta.to.shared.u64", PTX_TO_SHARED},
    {"cvta.shared.u64", PTX_FROM_SHARED}, {"cvta.to.local.u64", PTX_TO_SHARED}, {"cvta.local.u64", PTX_FROM_LOCAL},
    {"cvta.param.u64", PTX_FROM_PARAM}, {"cvta.to.param.u64", PTX_TO_SHARED},
    {"add.s32", PTX_ADD32}, {"add.u32", PTX_ADD32}, {"sub.s32", PTX_SUB32}, {"sub.u32", PTX_SUB32},
    {"mul.lo.s32", PTX_MUL32}, {"mul.lo.u32", PTX_MUL32}, {"mad.lo.s32", PTX_MAD32}, {"mad.lo.u32", PTX_MAD32},
    {"mul.hi.u32", PTX_MULHI_U32}, {"mul.hi.s32", PTX_MULHI_S32}, {"and.b32", PTX_AND32}, {"or.b32", PTX_OR32},
    {"xor.b32", PTX_XOR32}, {"not.b32", PTX_NOT32}, {"neg.s32", PTX_NEG32}, {"abs.s32", PTX_ABS32},
    {"shl.b32", PTX_SHL32}, {"shr.u32", PTX_SHR_U32}, {"shr.b32", PTX_SHR_U32}, {"shr.s32", PTX_SHR_S32},
    {"min.s32", PTX_MIN_S32}, {"max.s32", PTX_MAX_S32}, {"min.u32", PTX_MIN_U32}, {"max.u32", PTX_MAX_U32},
    {"selp.b32", PTX_SELP32}, {"selp.u32", PTX_SELP32}, {"selp.s32", PTX_SELP32}, {"selp.f32", PTX_SELP32},
    {"lop3.b32", PTX_LOP3}, {"prmt.b32", PTX_PRMT},
    {"dp2a.lo.s32.s32", PTX_DP2A_LO_S}, {"dp2a.hi.s32.s32", PTX_DP2A_HI_S}, {"dp2a.lo.s32.u32", PTX_DP2A_LO_U}, {"dp2a.hi.s32.u32", PTX_DP2A_HI_U},
    {"bfi.b32", PTX_BFI32}, {"bfe.u32", PTX_BFE_U32}, {"bfe.s32", PTX_BFE_S32},
    {"shf.l.wrap.b32", PTX_SHF_L_WRAP}, {"shf.r.wrap.b32", PTX_SHF_R_WRAP}, {"popc.b32", PTX_POPC32}, {"clz.b32", PTX_CLZ32},
    {"brev.b32", PTX_BREV32}, {"div.u32", PTX_DIV_U32}, {"rem.u32", PTX_REM_U32}, {"div.s32", PTX_DIV_S32}, {"rem.s32", PTX_REM_S32},
    {"add.s16", PTX_ADD16}, {"add.u16", PTX_ADD16}, {"sub.s16", PTX_SUB16}, {"sub.u16", PTX_SUB16}, {"mul.lo.s16", PTX_MUL16},
    {"mul.lo.u16", PTX_MUL16}, {"and.b16", PTX_AND16}, {"or.b16", PTX_OR16}, {"xor.b16", PTX_XOR16}, {"not.b16", PTX_NOT16},
    {"shl.b16", PTX_SHL16}, {"shr.u16", PTX_SHR_U16}, {"selp.b16", PTX_SELP16}, {"selp.u16", PTX_SELP16}, {"selp.s16", PTX_SELP16},
    {"mul.wide.u16", PTX_MULWIDE_U16}, {"mul.wide.s16", PTX_MULWIDE_S16},
    {"add.s64", PTX_ADD64}, {"add.u64", PTX_ADD64}, {"sub.s64", PTX_SUB64}, {"sub.u64", PTX_SUB64}, {"mul.lo.s64", PTX_MUL64},
    {"mul.lo.u64", PTX_MUL64}, {"mad.lo.s64", PTX_MAD64}, {"mad.lo.u64", PTX_MAD64}, {"mul.hi.u64", PTX_MULHI_U64},
    {"and.b64", PTX_AND64}, {"or.b64", PTX_OR64}, {"xor.b64", PTX_XOR64}, {"not.b64", PTX_NOT64}, {"neg.s64", PTX_NEG64},
    {"shl.b64", PTX_SHL64}, {"shr.u64", PTX_SHR_U64}, {"shr.b64", PTX_SHR_U64}, {"shr.s64", PTX_SHR_S64},
    {"min.u64", PTX_MIN_U64}, {"max.u64", PTX_MAX_U64}, {"min.s64", PTX_MIN_S64}, {"max.s64", PTX_MAX_S64},
    {"selp.b64", PTX_SELP64}, {"selp.u64", PTX_SELP64}, {"selp.s64", PTX_SELP64}, {"mul.wide.u32", PTX_MULWIDE_U32},
    {"mul.wide.s32", PTX_MULWIDE_S32}, {"mad.wide.u32", PTX_MADWIDE_U32}, {"mad.wide.s32", PTX_MADWIDE_S32},
    {"div.u64", PTX_DIV_U64}, {"rem.u64", PTX_REM_U64},
    {"and.pred", PTX_ANDP}, {"or.pred", PTX_ORP}, {"xor.pred", PTX_XORP}, {"not.pred", PTX_NOTP},
    {"add.rn.f32", PTX_ADDF}, {"add.rm.f32", PTX_ADDF_RM}, {"sub.rn.f32", PTX_SUBF}, {"mul.rn.f32", PTX_MULF}, {"fma.rn.f32", PTX_FMAF}, {"div.rn.f32", PTX_DIVF},
    {"rcp.rn.f32", PTX_RCPF}, {"sqrt.rn.f32", PTX_SQRTF}, {"min.f32", PTX_MINF}, {"max.f32", PTX_MAXF}, {"neg.f32", PTX_NEGF},
    {"abs.f32", PTX_ABSF},
    {"cvt.rn.f32.s32", PTX_F_FROM_S32}, {"cvt.rn.f32.u32", PTX_F_FROM_U32}, {"cvt.rzi.s32.f32", PTX_S32_FROM_F},
    {"cvt.rzi.u32.f32", PTX_U32_FROM_F}, {"cvt.rni.s32.f32", PTX_S32_RNI}, {"cvt.rni.f32.f32", PTX_F_RNI},
    {"cvt.u64.u32", PTX_U64_FROM_U32}, {"cvt.s64.s32", PTX_S64_FROM_S32}, {"cvt.u32.u64", PTX_U32_FROM_U64},
    {"cvt.rn.f32.u64", PTX_F_FROM_U64}, {"cvt.rn.f32.s64", PTX_F_FROM_S64},
};

#define PTX_ALU_SIG(name, sig, cls, weight, D, S, expr) {sig, cls, weight},
#undef PTX_ALU_NAME
#define PTX_ALU_NAME PTX_ALU_SIG
static const struct {
    const char *sig;
    uint8_t cls, weight;
} alu[] = {
#include "ptx_alu.h"
};
#define ALU_OPS (sizeof alu / sizeof alu[0])

bool ptx_refuse(struct ptx_module *m, uint32_t line, const char *format, ...)
{
    va_list ap;
    int n;

    if (m->error[0])
        return false;
    n = snprintf(m->error, sizeof m->error, "%s:%u: ", m->name, line);
    va_start(ap, format);
    vsnprintf(m->error + n, sizeof m->error - (size_t)n, format, ap);
    va_end(ap);
    return false;
}

static const char *const type_names[] = {"pred", "b8", "b16", "b32", "b64", "u8", "u16", "u32", "u64",
                                         "s8", "s16", "s32", "s64", "f32", "f64"};

bool ptx_type_of(const char *text, size_t n, enum ptx_type *out)
{
    for (unsigned i = 0; i < PTX_NO_TYPE; i++)
        if (strlen(type_names[i]) == n && memcmp(type_names[i], text, n) == 0) {
            *out = (enum ptx_type)i;
            return true;
        }
    return false;
}

unsigned ptx_type_bytes(enum ptx_type t)
{
    static const uint8_t bytes[] = {4, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8};

    return bytes[t];
}

/* One operand into a row of the width that the signature says. */
static bool source(struct ptx_module *m, const struct ptx_statement *s, unsigned i, char sig, uint32_t *row, struct ptx_regs_used *u)
{
    const struct ptx_operand *o = &s->op[i];
    bool wide = sig == '8';

    switch (o->kind) {
    case PTX_O_REG:
        if (o->wide != wide || o->pred != (sig == 'p'))
            return ptx_refuse(m, s->line, "%s: operand %u has another width", s->opcode, i + 1);
        *row = o->row;
        if (!o->special)
            u->use[u->n_use++] = (int32_t)o->reg;
        return true;
    case PTX_O_IMM:
        *row = ptx_constant(m, sig == 'p' ? (o->value ? 0xffffffff : 0) : sig == '2' ? o->value & 0xffff : wide ? o->value : (uint32_t)o->value, wide);
        return true;
    case PTX_O_SYMBOL:
        if (o->special) {
            if (!wide && sig != '4')
                break;
            *row = wide ? o->row : PTX_POOL32 * PTX_LANES;
            return true;
        }
        *row = ptx_constant(m, o->value, wide);
        return true;
    default:
        break;
    }
    return ptx_refuse(m, s->line, "%s: operand %u is not one that is known here", s->opcode, i + 1);
}

static bool result(struct ptx_module *m, const struct ptx_statement *s, unsigned i, char sig, uint32_t *row, struct ptx_regs_used *u)
{
    const struct ptx_operand *o = &s->op[i];

    if (o->kind != PTX_O_REG || o->special || o->wide != (sig == '8') || o->pred != (sig == 'p'))
        return ptx_refuse(m, s->line, "%s: the result's register has another width", s->opcode);
    *row = o->row;
    u->def[u->n_def++] = (int32_t)o->reg;
    return true;
}

static bool decode_alu(struct ptx_module *m, const struct ptx_statement *s, uint16_t op, struct ptx_inst *out, struct ptx_regs_used *u)
{
    const char *sig = alu[op].sig;
    uint32_t *rows[] = {&out->a, &out->b, &out->c, &out->e};
    size_t n = strlen(sig);

    if (s->n != n)
        return ptx_refuse(m, s->line, "%s: %u operands, not %zu", s->opcode, s->n, n);
    out->op = op;
    out->cls = alu[op].cls;
    out->weight = alu[op].weight;
    if (sig[0] == '8')
        out->flags |= PTX_WIDE;
    for (size_t i = 1; i < n; i++)
        if (!source(m, s, (unsigned)i, sig[i], rows[i - 1], u))
            return false;
    return result(m, s, 0, sig[0], &out->d, u);
}

/* Words of an opcode between its points. */
struct words {
    const char *at[12];
    size_t n[12];
    unsigned count;
};

static bool is(const struct words *w, unsigned i, const char *text)
{
    return i < w->count && w->n[i] == strlen(text) && memcmp(w->at[i], text, w->n[i]) == 0;
}

static bool type_at(const struct words *w, unsigned i, enum ptx_type *out)
{
    return i < w->count && ptx_type_of(w->at[i], w->n[i], out);
}

static struct words split(const char *opcode)
{
    struct words w = {.count = 0};

    for (const char *p = opcode; w.count < 12;) {
        size_t n = strcspn(p, ".");

        w.at[w.count] = p;
        w.n[w.count++] = n;
        p += n;
        if (!*p)
            break;
        p++;
        if (*p == ':') /* a scope such as .L1::no_allocate */
            break;
    }
    return w;
}

static char width_of(enum ptx_type t)
{
    return ptx_type_bytes(t) == 8 ? '8' : t == PTX_PRED ? 'p' : ptx_type_bytes(t) == 2 ? '2' : '4';
}

static bool unknown(struct ptx_module *m, const struct ptx_statement *s)
{
    return ptx_refuse(m, s->line, "%s: this opcode or one of its modifiers is not known here", s->opcode);
}

/* setp.CmpOp{.BoolOp}.type p{|q}, a, b{, c} */
static bool decode_setp(struct ptx_module *m, const struct ptx_statement *s, const struct words *w, struct ptx_inst *out,
                        struct ptx_regs_used *u)
{
    static const char *const cmp[] = {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
    static const char *const logic[] = {"", "and", "or", "xor"};
    enum ptx_type t;
    unsigned at = 2;
    int found = -1;

    for (int i = 0; i < 14; i++)
        if (is(w, 1, cmp[i]))
            found = i;
    for (unsigned i = 1; i < 4; i++)
        if (is(w, 2, logic[i])) {
            out->combine = (uint8_t)i;
            at = 3;
        }
    if (found < 0 || !type_at(w, at, &t) || w->count != at + 1 || ptx_type_bytes(t) == 1 || t == PTX_PRED || t == PTX_TF64 ||
        (t != PTX_TF32 && found > PTX_GE) || s->n != 3u + (out->combine != 0))
        return unknown(m, s);
    out->op = PTX_SETP;
    out->cls = PTX_COMPARE;
    out->weight = ptx_type_bytes(t) == 8 ? 2 : 1;
    out->sub = (uint8_t)found;
    out->type = (uint8_t)t;
    if (out->combine && !source(m, s, 3, 'p', &out->c, u))
        return false;
    if (s->op[0].kind == PTX_O_LIST) { /* p|q */
        for (unsigned i = 0; i < 2; i++)
            u->def[u->n_def++] = (int32_t)s->op[0].list[i].reg;
        out->d = s->op[0].list[0].row;
        out->e = s->op[0].list[1].row;
        out->vec = 2;
    } else if (!result(m, s, 0, 'p', &out->d, u)) {
        return false;
    }
    return source(m, s, 1, width_of(t), &out->a, u) && source(m, s, 2, width_of(t), &out->b, u);
}

/* Between integers: cvt.dtype.atype. */
static bool decode_cvt(struct ptx_module *m, const struct ptx_statement *s, const struct words *w, struct ptx_inst *out,
                       struct ptx_regs_used *u)
{
    enum ptx_type to, from;
    bool rn = is(w, 1, "rn");

    if (w->count != (rn ? 4 : 3) || !type_at(w, rn ? 2 : 1, &to) || !type_at(w, rn ? 3 : 2, &from) || s->n != 2 || from < PTX_U8 ||
        from >= PTX_TF32 || (rn ? to != PTX_TF32 : to < PTX_U8 || to >= PTX_TF32))
        return unknown(m, s);
    if (s->op[0].kind != PTX_O_REG || s->op[1].kind != PTX_O_REG)
        return unknown(m, s);
    if ((ptx_type_bytes(to) == 8) > s->op[0].wide || (ptx_type_bytes(from) == 8) > s->op[1].wide)
        return ptx_refuse(m, s->line, "%s: a register is too narrow", s->opcode);
    out->op = PTX_CVT;
    out->cls = PTX_CONVERT;
    out->weight = 1;
    out->type = (uint8_t)to;
    out->type2 = (uint8_t)from;
    out->flags |= (s->op[0].wide ? PTX_WIDE : 0) | (s->op[1].wide ? PTX_ADDR64 : 0);
    return source(m, s, 1, s->op[1].wide ? '8' : '4', &out->a, u) && result(m, s, 0, s->op[0].wide ? '8' : '4', &out->d, u);
}

static const char *const spaces[] = {"", "global", "shared", "local", "param"};

static bool memory_operand(struct ptx_module *m, const struct ptx_statement *s, unsigned i, struct ptx_inst *out, struct ptx_regs_used *u)
{
    const struct ptx_operand *o = &s->op[i];

    if (o->kind != PTX_O_MEM)
        return ptx_refuse(m, s->line, "%s: operand %u is not an address", s->opcode, i + 1);
    out->off = o->off;
    if (o->based) {
        out->a = o->row;
        out->flags |= o->wide ? PTX_ADDR64 : 0;
        if (!o->special)
            u->use[u->n_use++] = (int32_t)o->reg;
    } else {
        out->a = ptx_constant(m, o->value, true);
        out->flags |= PTX_ADDR64;
    }
    return true;
}

/* Elements: a register, an immediate, or a list of vec of them, into d, b, c, e. */
static bool elements(struct ptx_module *m, const struct ptx_statement *s, unsigned i, bool load, struct ptx_inst *out, struct ptx_regs_used *u)
{
    const struct ptx_operand *o = &s->op[i];
    uint32_t *rows[] = {&out->d, &out->b, &out->c, &out->e};
    bool wide = o->kind == PTX_O_LIST ? o->list[0].wide : o->kind == PTX_O_REG ? o->wide : out->bytes == 8;

    if (wide)
        out->flags |= PTX_WIDE;
    if ((out->bytes == 8) > wide)
        return ptx_refuse(m, s->line, "%s: a register is too narrow", s->opcode);
    if (out->vec == 1)
        return load ? result(m, s, i, wide ? '8' : '4', rows[0], u) : source(m, s, i, wide ? '8' : '4', rows[0], u);
    if (o->kind != PTX_O_LIST || o->n != out->vec)
        return ptx_refuse(m, s->line, "%s: not %u registers", s->opcode, out->vec);
    for (unsigned k = 0; k < o->n; k++) {
        if (o->list[k].wide != wide || o->list[k].sink)
            return ptx_refuse(m, s->line, "%s: registers of several widths, or one left out", s->opcode);
        *rows[k] = o->list[k].row;
        if (load)
            u->def[u->n_def++] = (int32_t)o->list[k].reg;
        else
            u->use[u->n_use++] = (int32_t)o->list[k].reg;
    }
    return true;
}

static const uint8_t space_class[] = {PTX_GLOBAL, PTX_GLOBAL, PTX_SHARED, PTX_LOCAL, PTX_PARAM};

/* ld, st {.space}{.nc}{.v2|.v4}.type */
static bool decode_memory(struct ptx_module *m, const struct ptx_statement *s, const struct words *w, struct ptx_inst *out,
                          struct ptx_regs_used *u)
{
    bool load = is(w, 0, "ld");
    unsigned at = 1;
    enum ptx_type t;

    for (unsigned i = 1; i < 5; i++)
        if (is(w, 1, spaces[i])) {
            out->space = (uint8_t)i;
            at = 2;
        }
    if (load && out->space == PTX_SPACE_GLOBAL && is(w, at, "nc")) {
        out->flags |= PTX_NC;
        at++;
    }
    out->vec = is(w, at, "v2") ? 2 : is(w, at, "v4") ? 4 : 1;
    at += out->vec > 1;
    if (!type_at(w, at, &t) || w->count != at + 1 || t == PTX_PRED || s->n != 2)
        return unknown(m, s);
    out->op = load ? PTX_LD : PTX_ST;
    out->cls = space_class[out->space];
    out->weight = 1;
    out->type = (uint8_t)t;
    out->bytes = (uint8_t)ptx_type_bytes(t);
    if (load && (t == PTX_S8 || t == PTX_S16 || t == PTX_S32))
        out->flags |= PTX_SIGNED;
    /* What a call passes lies in rows. */
    if (out->space == PTX_SPACE_PARAM && s->op[load].kind == PTX_O_MEM && s->op[load].is_row) {
        const struct ptx_operand *p = &s->op[load];

        if (p->off || out->vec > 1 || (out->bytes == 8) != p->wide || out->bytes < 4)
            return ptx_refuse(m, s->line, "%s: a part of what a call passes", s->opcode);
        out->op = p->wide ? PTX_MOV64 : PTX_MOV32;
        out->cls = PTX_MOVE;
        out->weight = 0;
        out->flags = p->wide ? PTX_WIDE : 0;
        if (load) {
            out->a = p->row;
            return result(m, s, 0, p->wide ? '8' : '4', &out->d, u);
        }
        out->d = p->row;
        return source(m, s, 1, p->wide ? '8' : '4', &out->a, u);
    }
    if (out->space == PTX_SPACE_PARAM && !load)
        return ptx_refuse(m, s->line, "%s: a kernel's parameters cannot be written", s->opcode);
    return memory_operand(m, s, load, out, u) && elements(m, s, !load, load, out, u);
}

/* atom and red {.sem}{.scope}{.space}.op.type; the weakest order is given to all. */
static bool decode_atom(struct ptx_module *m, const struct ptx_statement *s, const struct words *w, struct ptx_inst *out,
                        struct ptx_regs_used *u)
{
    static const char *const ops[] = {"and", "or", "xor", "add", "min", "max", "exch", "cas"};
    bool red = is(w, 0, "red");
    unsigned at = 1, first = red ? 0 : 1;
    enum ptx_type t;
    int op = -1;

    if (is(w, at, "relaxed"))
        at++;
    if (is(w, at, "cta") || is(w, at, "gpu"))
        at++;
    for (unsigned i = 1; i < 3; i++)
        if (is(w, at, spaces[i])) {
            out->space = (uint8_t)i;
            at++;
            break;
        }
    for (int i = 0; i < 8; i++)
        if (is(w, at, ops[i]))
            op = i;
    if (op < 0 || !type_at(w, at + 1, &t) || w->count != at + 2 || ptx_type_bytes(t) < 4 || t >= PTX_TF32 || t == PTX_PRED ||
        s->n != first + 2 + (op == PTX_A_CAS) || (red && op >= PTX_A_EXCH))
        return unknown(m, s);
    out->op = PTX_ATOM;
    out->cls = space_class[out->space];
    out->weight = 1;
    out->sub = (uint8_t)op;
    out->type = (uint8_t)t;
    out->bytes = (uint8_t)ptx_type_bytes(t);
    out->vec = 1;
    out->d = PTX_ROW_NONE;
    if (out->bytes == 8)
        out->flags |= PTX_WIDE;
    if (!memory_operand(m, s, first, out, u) || !source(m, s, first + 1, width_of(t), &out->b, u) ||
        (op == PTX_A_CAS && !source(m, s, first + 2, width_of(t), &out->c, u)))
        return false;
    return red || s->op[0].kind == PTX_O_SINK || result(m, s, 0, width_of(t), &out->d, u);
}

/* mov of {x, y} from or to a register of twice the width. */
static bool decode_pack(struct ptx_module *m, const struct ptx_statement *s, struct ptx_inst *out, struct ptx_regs_used *u)
{
    bool pack = s->op[1].kind == PTX_O_LIST, wide = strcmp(s->opcode, "mov.b64") == 0;
    const struct ptx_operand *list = &s->op[pack];

    if ((!wide && strcmp(s->opcode, "mov.b32")) || s->n != 2 || list->kind != PTX_O_LIST || list->n != 2 || list->list[0].wide || list->list[1].wide)
        return unknown(m, s);
    out->op = pack ? PTX_PACK : PTX_UNPACK;
    out->cls = PTX_MOVE;
    out->flags |= wide ? PTX_WIDE : 0;
    if (pack) {
        out->a = list->list[0].row;
        out->b = list->list[1].row;
        u->use[u->n_use++] = (int32_t)list->list[0].reg;
        u->use[u->n_use++] = (int32_t)list->list[1].reg;
        return (!list->list[0].sink && !list->list[1].sink && result(m, s, 0, wide ? '8' : '4', &out->d, u)) || unknown(m, s);
    }
    out->d = list->list[0].sink ? PTX_ROW_NONE : list->list[0].row;
    out->e = list->list[1].sink ? PTX_ROW_NONE : list->list[1].row;
    for (unsigned i = 0; i < 2; i++)
        if (!list->list[i].sink)
            u->def[u->n_def++] = (int32_t)list->list[i].reg;
    return source(m, s, 1, wide ? '8' : '4', &out->a, u);
}

/* shfl.sync.mode.b32 d{|p}, a, b, c, members; vote.sync.mode d, p, members */
static bool decode_warp(struct ptx_module *m, const struct ptx_statement *s, const struct words *w, struct ptx_inst *out,
                        struct ptx_regs_used *u)
{
    static const char *const shuffles[] = {"up", "down", "bfly", "idx"};
    static const char *const votes[] = {"any", "all", "uni", "ballot"};
    bool vote = is(w, 0, "vote");

    out->op = vote ? PTX_VOTE : PTX_SHFL;
    out->cls = PTX_SHARED;
    out->weight = 1;
    out->sub = 255;
    for (unsigned i = 0; i < 4; i++)
        if (is(w, 2, vote ? votes[i] : shuffles[i]))
            out->sub = (uint8_t)i;
    if (!is(w, 1, "sync") || out->sub == 255 || w->count != 4)
        return unknown(m, s);
    if (vote) {
        if (!is(w, 3, out->sub == 3 ? "b32" : "pred") || s->n != 3)
            return unknown(m, s);
        return source(m, s, 1, 'p', &out->a, u) && source(m, s, 2, '4', &out->b, u) && result(m, s, 0, out->sub == 3 ? '4' : 'p', &out->d, u);
    }
    if (!is(w, 3, "b32") || s->n != 5)
        return unknown(m, s);
    out->e = PTX_ROW_NONE;
    if (s->op[0].kind == PTX_O_LIST) {
        out->d = s->op[0].list[0].row;
        out->e = s->op[0].list[1].row;
        for (unsigned i = 0; i < 2; i++)
            u->def[u->n_def++] = (int32_t)s->op[0].list[i].reg;
    } else if (!result(m, s, 0, '4', &out->d, u)) {
        return false;
    }
    return source(m, s, 1, '4', &out->a, u) && source(m, s, 2, '4', &out->b, u) && source(m, s, 3, '4', &out->target, u) &&
           source(m, s, 4, '4', &out->c, u);
}

bool ptx_decode(struct ptx_module *m, const struct ptx_statement *s, struct ptx_inst *out, struct ptx_regs_used *u)
{
    struct words w = split(s->opcode);

    memset(out, 0, sizeof *out);
    memset(u, 0, sizeof *u);
    out->line = s->line;
    if (s->guarded) {
        if (!s->guard.pred)
            return ptx_refuse(m, s->line, "the guard is not a predicate");
        out->flags |= PTX_GUARDED | (s->guard_not ? PTX_GUARD_NOT : 0);
        out->guard = s->guard.row;
        u->use[u->n_use++] = (int32_t)s->guard.reg;
    }
    if (is(&w, 0, "mov") && s->n == 2 && (s->op[0].kind == PTX_O_LIST || s->op[1].kind == PTX_O_LIST))
        return decode_pack(m, s, out, u);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].opcode, s->opcode) == 0)
            return decode_alu(m, s, names[i].op, out, u);
    if (is(&w, 0, "setp"))
        return decode_setp(m, s, &w, out, u);
    if (is(&w, 0, "cvt"))
        return decode_cvt(m, s, &w, out, u);
    if (is(&w, 0, "ld") || is(&w, 0, "st"))
        return decode_memory(m, s, &w, out, u);
    if (is(&w, 0, "atom") || is(&w, 0, "red"))
        return decode_atom(m, s, &w, out, u);
    if (is(&w, 0, "shfl") || is(&w, 0, "vote"))
        return decode_warp(m, s, &w, out, u);
    out->cls = PTX_BRANCH;
    out->weight = 1;
    if ((strcmp(s->opcode, "bra") == 0 || strcmp(s->opcode, "bra.uni") == 0) && s->n == 1 && s->op[0].kind == PTX_O_LABEL) {
        out->op = PTX_BRA;
        out->target = s->op[0].label;
        return true;
    }
    if ((strcmp(s->opcode, "ret") == 0 || strcmp(s->opcode, "exit") == 0) && s->n == 0) {
        out->op = s->opcode[0] == 'r' ? PTX_RET : PTX_EXIT;
        return true;
    }
    out->cls = PTX_BARRIER;
    if ((strcmp(s->opcode, "bar.sync") == 0 || strcmp(s->opcode, "barrier.sync.aligned") == 0) && s->n == 1 && s->op[0].kind == PTX_O_IMM) {
        out->op = PTX_BAR;
        out->target = (uint32_t)s->op[0].value;
        return out->target < 16 || unknown(m, s);
    }
    if (strcmp(s->opcode, "bar.warp.sync") == 0 && s->n == 1) {
        out->op = PTX_WARP_BAR;
        return source(m, s, 0, '4', &out->c, u);
    }
    if (w.count == 2 && is(&w, 1, "f32") && (is(&w, 0, "add") || is(&w, 0, "sub") || is(&w, 0, "mul")))
        return ptx_refuse(m, s->line, "%s: does not say how it rounds, so an assembler may fuse it", s->opcode);
    return unknown(m, s);
}
