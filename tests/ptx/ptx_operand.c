/* Names of a PTX module, immediates, and operands of its statements. */
#include "ptx_lex.h"

uint32_t ptx_constant(struct ptx_module *m, uint64_t bits, bool wide)
{
    uint32_t words = wide ? 2 * PTX_LANES : PTX_LANES;

    for (uint32_t i = 0; i < m->n_constants;) { /* each begins with its width, which is no row */
        const uint32_t *c = m->constants + i;
        bool w = c[0] == 2;
        uint64_t v = w ? (uint64_t)c[2] << 32 | c[1] : c[1];

        if (w == wide && v == bits)
            return PTX_ROW_CONSTANT | c[3];
        i += 4;
    }
    m->constants = realloc(m->constants, (m->n_constants + 4) * sizeof *m->constants);
    m->constants[m->n_constants] = wide ? 2 : 1;
    m->constants[m->n_constants + 1] = (uint32_t)bits;
    m->constants[m->n_constants + 2] = (uint32_t)(bits >> 32);
    m->constants[m->n_constants + 3] = m->at_constants;
    m->n_constants += 4;
    m->at_constants += words;
    return PTX_ROW_CONSTANT | (m->at_constants - words);
}

/* ---- names */

struct symbol *ptx_symbol(struct parser *p, const char *name, size_t n)
{
    for (unsigned i = p->n_symbols; i-- > 0;)
        if (p->symbols[i].n == n && memcmp(p->symbols[i].name, name, n) == 0)
            return &p->symbols[i];
    return NULL;
}

struct symbol *ptx_add_symbol(struct parser *p, const char *name, size_t n, enum symbol_kind kind)
{
    p->symbols = grown(p->symbols, p->n_symbols, &p->cap_symbols, sizeof *p->symbols);
    p->symbols[p->n_symbols] = (struct symbol){.name = name, .n = n, .kind = kind};
    return &p->symbols[p->n_symbols++];
}

uint32_t ptx_label(struct parser *p, const char *name, size_t n)
{
    uint32_t func = (uint32_t)(p->func - p->m->func), h = func * 7919;

    for (size_t i = 0; i < n; i++)
        h = h * 31 + (unsigned char)name[i];
    for (h %= PTX_BUCKETS; p->buckets[h]; h = (h + 1) % PTX_BUCKETS) {
        struct label *l = &p->labels[p->buckets[h] - 1];

        if (l->func == func && l->n == n && memcmp(l->name, name, n) == 0)
            return p->buckets[h] - 1;
    }
    if (p->n_labels > PTX_BUCKETS / 2)
        return (uint32_t)(bad(p, "too many labels"), 0);
    p->labels = grown(p->labels, p->n_labels, &p->cap_labels, sizeof *p->labels);
    p->labels[p->n_labels] = (struct label){name, n, func, UINT32_MAX, p->line};
    p->buckets[h] = ++p->n_labels;
    return p->n_labels - 1;
}

uint32_t ptx_new_row(struct parser *p, bool wide, uint32_t n)
{
    uint32_t words = n * (wide ? 2 : 1) * PTX_LANES, row;

    if (p->func && p->func->kernel) {
        row = PTX_ROW_KERNEL | p->func->rows;
        p->func->rows += words;
    } else {
        row = p->func_words;
        p->func_words += words;
    }
    return row;
}

static const char *const special_names[] = {"%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%ctaid.x", "%ctaid.y",
                                            "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z", "%laneid", "%warpid"};

/* A register by its name, declared or special. */
bool ptx_find_register(struct parser *p, struct ptx_operand *o)
{
    size_t digits = 0;

    for (unsigned i = 0; i < sizeof special_names / sizeof special_names[0]; i++)
        if (at(p, special_names[i])) {
            o->kind = PTX_O_REG;
            o->row = i * PTX_LANES;
            o->special = 1;
            return true;
        }
    while (digits < p->n && isdigit((unsigned char)p->tok[p->n - 1 - digits]))
        digits++;
    for (unsigned i = p->n_regs_declared; i-- > 0;) {
        const struct registers *r = &p->regs[i];
        uint32_t k = 0;

        if (r->n ? r->n_prefix != p->n - digits || !digits : r->n_prefix != p->n)
            continue;
        if (memcmp(r->prefix, p->tok, r->n_prefix))
            continue;
        if (r->n) {
            k = (uint32_t)strtoul(p->tok + p->n - digits, NULL, 10);
            if (k >= r->n)
                continue;
        }
        o->kind = PTX_O_REG;
        o->reg = r->first + k;
        o->row = r->row + k * (r->wide ? 2 : 1) * PTX_LANES;
        o->wide = r->wide;
        o->pred = r->pred;
        return true;
    }
    return false;
}

static enum ptx_space space_of(enum symbol_kind k)
{
    return k == SYMBOL_GLOBAL ? PTX_SPACE_GLOBAL : k == SYMBOL_PARAM ? PTX_SPACE_PARAM : k == SYMBOL_LOCAL ? PTX_SPACE_LOCAL : PTX_SPACE_SHARED;
}

static void of_symbol(const struct symbol *s, struct ptx_operand *o)
{
    o->value = s->value;
    o->space = space_of(s->kind);
    if (s->kind == SYMBOL_POOL) {
        o->special = o->wide = 1;
        o->row = PTX_POOL * PTX_LANES;
    }
    if (s->kind == SYMBOL_ROW) {
        o->is_row = true;
        o->row = s->row;
        o->wide = s->wide;
    }
}

/* [register+n], [symbol+n] */
static bool address(struct parser *p, struct ptx_operand *o)
{
    uint64_t off = 0;
    bool real;
    const struct symbol *s;

    next(p);
    o->kind = PTX_O_MEM;
    if (ptx_find_register(p, o)) {
        o->kind = PTX_O_MEM;
        o->based = true;
        next(p);
    } else if ((s = ptx_symbol(p, p->tok, p->n))) {
        of_symbol(s, o);
        o->based = s->kind == SYMBOL_POOL;
        next(p);
    } else {
        return bad(p, "an address over something unknown");
    }
    if (at(p, "+")) {
        next(p);
        if (!number(p, &off, &real))
            return false;
    } else if (at(p, "-") && !number(p, &off, &real)) {
        return false;
    }
    o->off = (int64_t)off;
    return take(p, "]");
}

static bool list(struct parser *p, struct ptx_operand *o, const char *between, const char *end)
{
    do {
        struct ptx_operand r = {.kind = PTX_O_SINK};

        if (o->n == 4)
            return bad(p, "more than four registers");
        if (!at(p, "_") && (!ptx_find_register(p, &r) || r.special))
            return bad(p, "not a register");
        o->list[o->n].row = r.row;
        o->list[o->n].reg = r.reg;
        o->list[o->n].wide = r.wide;
        o->list[o->n++].sink = r.kind == PTX_O_SINK;
        next(p);
    } while (take_if(p, between));
    o->kind = PTX_O_LIST;
    return !end || take(p, end);
}

bool ptx_operand(struct parser *p, struct ptx_operand *o)
{
    const struct symbol *s;

    memset(o, 0, sizeof *o);
    if (at(p, "["))
        return address(p, o);
    if (take_if(p, "{"))
        return list(p, o, ",", "}");
    if (at(p, "_")) {
        o->kind = PTX_O_SINK;
        next(p);
        return true;
    }
    if (ptx_find_register(p, o)) {
        if (*p->p == '|')
            return list(p, o, "|", NULL);
        next(p);
        return true;
    }
    if (at(p, "-") || (p->n && isdigit((unsigned char)p->tok[0]))) {
        o->kind = PTX_O_IMM;
        return number(p, &o->value, &o->real);
    }
    if (p->n && p->tok[0] == '$') {
        o->kind = PTX_O_LABEL;
        o->label = ptx_label(p, p->tok, p->n);
        next(p);
        return true;
    }
    if ((s = ptx_symbol(p, p->tok, p->n)) && s->kind != SYMBOL_ROW) {
        o->kind = PTX_O_SYMBOL;
        of_symbol(s, o);
        next(p);
        return true;
    }
    return bad(p, "an operand that is not known");
}
