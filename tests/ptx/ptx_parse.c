/* The text of a PTX module: declarations, functions, statements. What is not understood is an
 * error that names the line. */
#include "ptx.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct registers {
    const char *prefix;
    size_t n_prefix;
    uint32_t n, first, row; /* n: of %prefix<n>; 0: one register of this name */
    uint8_t wide, pred;
};

enum symbol_kind { SYMBOL_GLOBAL, SYMBOL_SHARED, SYMBOL_LOCAL, SYMBOL_POOL, SYMBOL_PARAM, SYMBOL_ROW };
struct symbol {
    const char *name;
    size_t n;
    enum symbol_kind kind;
    uint64_t value;
    uint32_t row;
    uint8_t wide;
};

struct label {
    const char *name;
    size_t n;
    uint32_t func, at; /* at: UINT32_MAX until it is seen */
    uint32_t line;
};

struct parser {
    struct ptx_module *m;
    const char *p;
    uint32_t line;
    const char *tok; /* the token that comes next */
    size_t n;
    struct registers regs[64];
    unsigned n_regs_declared;
    uint32_t n_regs;
    struct symbol *symbols;
    unsigned n_symbols, cap_symbols, scope[16], scope_regs[16];
    struct label *labels;
    uint32_t n_labels, cap_labels, *buckets;
    struct ptx_func *func;
    uint32_t func_words;
    struct ptx_regs_used *used;
    uint32_t cap_used;
};

#define N_BUCKETS 65536

static bool bad(struct parser *p, const char *what)
{
    return ptx_refuse(p->m, p->line, "%s, at \"%.*s\"", what, (int)(p->n > 60 ? 60 : p->n), p->tok);
}

static bool in_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

/* The next token: a name with its points, a number, a quoted text, or one character. */
static void next(struct parser *p)
{
    const char *s = p->p;

    for (;;) {
        if (*s == '\n')
            p->line++, s++;
        else if (isspace((unsigned char)*s))
            s++;
        else if (s[0] == '/' && s[1] == '/')
            s += strcspn(s, "\n");
        else
            break;
    }
    p->tok = s;
    if (*s == '"') {
        s += 1 + strcspn(s + 1, "\"\n");
        s += *s == '"';
    } else if (in_name(*s)) {
        while (in_name(*s) || (s[0] == ':' && s[1] == ':'))
            s += *s == ':' ? 2 : 1;
    } else if (*s) {
        s++;
    }
    p->n = (size_t)(s - p->tok);
    p->p = s;
}

static bool at(const struct parser *p, const char *text)
{
    return p->n == strlen(text) && memcmp(p->tok, text, p->n) == 0;
}

static bool take(struct parser *p, const char *text)
{
    char what[40];

    if (at(p, text)) {
        next(p);
        return true;
    }
    snprintf(what, sizeof what, "\"%s\" is missing", text);
    return bad(p, what);
}

static bool take_if(struct parser *p, const char *text)
{
    if (!at(p, text))
        return false;
    next(p);
    return true;
}

/* [-]decimal, 0x, 0f (bits of a float), 0d; U behind it. */
static bool number(struct parser *p, uint64_t *out, bool *real)
{
    bool minus = take_if(p, "-");
    char text[40], *end;

    *real = false;
    if (p->n == 0 || p->n >= sizeof text || !isdigit((unsigned char)p->tok[0]))
        return bad(p, "a number is missing");
    memcpy(text, p->tok, p->n);
    text[p->n] = 0;
    if (text[0] == '0' && strchr("fFdD", text[1]) && text[1]) {
        *real = true;
        *out = strtoull(text + 2, &end, 16);
        if (p->n != (text[1] == 'f' || text[1] == 'F' ? 10u : 18u) || minus)
            return bad(p, "not a number");
    } else {
        *out = strtoull(text, &end, 0);
        if (*end == 'U')
            end++;
        if (minus)
            *out = 0 - *out;
    }
    if (*end)
        return bad(p, "not a number");
    next(p);
    return true;
}

static bool small(struct parser *p, uint32_t *out)
{
    uint64_t v;
    bool real;

    if (!number(p, &v, &real))
        return false;
    *out = (uint32_t)v;
    return (!real && v <= UINT32_MAX / 4) || bad(p, "this number is too large");
}

static void *grown(void *p, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap ? 2 * *cap : 256;
    return realloc(p, *cap * size);
}

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

static struct symbol *symbol(struct parser *p, const char *name, size_t n)
{
    for (unsigned i = p->n_symbols; i-- > 0;)
        if (p->symbols[i].n == n && memcmp(p->symbols[i].name, name, n) == 0)
            return &p->symbols[i];
    return NULL;
}

static struct symbol *add_symbol(struct parser *p, const char *name, size_t n, enum symbol_kind kind)
{
    p->symbols = grown(p->symbols, p->n_symbols, &p->cap_symbols, sizeof *p->symbols);
    p->symbols[p->n_symbols] = (struct symbol){.name = name, .n = n, .kind = kind};
    return &p->symbols[p->n_symbols++];
}

static uint32_t label(struct parser *p, const char *name, size_t n)
{
    uint32_t func = (uint32_t)(p->func - p->m->func), h = func * 7919;

    for (size_t i = 0; i < n; i++)
        h = h * 31 + (unsigned char)name[i];
    for (h %= N_BUCKETS; p->buckets[h]; h = (h + 1) % N_BUCKETS) {
        struct label *l = &p->labels[p->buckets[h] - 1];

        if (l->func == func && l->n == n && memcmp(l->name, name, n) == 0)
            return p->buckets[h] - 1;
    }
    if (p->n_labels > N_BUCKETS / 2)
        return (uint32_t)(bad(p, "too many labels"), 0);
    p->labels = grown(p->labels, p->n_labels, &p->cap_labels, sizeof *p->labels);
    p->labels[p->n_labels] = (struct label){name, n, func, UINT32_MAX, p->line};
    p->buckets[h] = ++p->n_labels;
    return p->n_labels - 1;
}

static uint32_t new_row(struct parser *p, bool wide, uint32_t n)
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
static bool find_register(struct parser *p, struct ptx_operand *o)
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
    if (find_register(p, o)) {
        o->kind = PTX_O_MEM;
        o->based = true;
        next(p);
    } else if ((s = symbol(p, p->tok, p->n))) {
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
        if (!at(p, "_") && (!find_register(p, &r) || r.special))
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

static bool operand(struct parser *p, struct ptx_operand *o)
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
    if (find_register(p, o)) {
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
        o->label = label(p, p->tok, p->n);
        next(p);
        return true;
    }
    if ((s = symbol(p, p->tok, p->n)) && s->kind != SYMBOL_ROW) {
        o->kind = PTX_O_SYMBOL;
        of_symbol(s, o);
        next(p);
        return true;
    }
    return bad(p, "an operand that is not known");
}

/* ---- statements */

static bool emit(struct parser *p, const struct ptx_inst *i, const struct ptx_regs_used *u)
{
    struct ptx_module *m = p->m;
    uint32_t at_func = m->n_inst - p->func->first;

    m->inst = grown(m->inst, m->n_inst, &m->cap_inst, sizeof *m->inst);
    p->used = grown(p->used, at_func, &p->cap_used, sizeof *p->used);
    m->inst[m->n_inst++] = *i;
    p->used[at_func] = *u;
    return true;
}

static bool move(struct parser *p, uint32_t to, uint32_t from, bool wide)
{
    struct ptx_inst i = {.op = wide ? PTX_MOV64 : PTX_MOV32, .cls = PTX_MOVE, .flags = wide ? PTX_WIDE : 0, .line = p->line, .d = to, .a = from};
    struct ptx_regs_used u = {.n_def = 0};

    return emit(p, &i, &u);
}

static struct ptx_func *find_func(struct ptx_module *m, const char *name, size_t n)
{
    for (uint32_t i = 0; i < m->n_func; i++)
        if (strlen(m->func[i].name) == n && memcmp(m->func[i].name, name, n) == 0)
            return &m->func[i];
    return NULL;
}

/* call{.uni} {(result),} name{, (params)}; all of them rows. */
static bool call(struct parser *p, bool guarded)
{
    struct ptx_inst i = {.op = PTX_CALL, .cls = PTX_BRANCH, .weight = 1, .line = p->line};
    struct ptx_regs_used u = {.n_def = 0};
    const struct symbol *result = NULL, *s;
    const struct ptx_func *f;
    unsigned n = 0;

    if (guarded)
        return bad(p, "a guarded call");
    if (take_if(p, "(")) {
        result = symbol(p, p->tok, p->n);
        if (!result || result->kind != SYMBOL_ROW)
            return bad(p, "the result of a call is not a scalar parameter");
        next(p);
        if (!take(p, ")") || !take(p, ","))
            return false;
    }
    f = find_func(p->m, p->tok, p->n);
    if (!f || f->kernel)
        return bad(p, "a call of something that is not a function of this module");
    next(p);
    i.target = (uint32_t)(f - p->m->func);
    if (take_if(p, ",")) {
        if (!take(p, "("))
            return false;
        while (!at(p, ")")) {
            s = symbol(p, p->tok, p->n);
            if (!s || s->kind != SYMBOL_ROW || n == f->n_formal || s->wide != f->wide[n])
                return bad(p, "an argument does not fit the function");
            move(p, f->formal[n], s->row, s->wide);
            n++;
            next(p);
            if (!take_if(p, ","))
                break;
        }
        if (!take(p, ")"))
            return false;
    }
    if (n != f->n_formal || f->has_result != (result != NULL) || (result && result->wide != f->result_wide))
        return bad(p, "a call with other parameters than the function has");
    emit(p, &i, &u);
    if (result)
        move(p, result->row, f->result, result->wide);
    return take(p, ";");
}

static bool statement(struct parser *p)
{
    struct ptx_statement s = {.line = p->line};
    struct ptx_inst inst;
    struct ptx_regs_used used;
    char opcode[64];

    if (take_if(p, "@")) {
        s.guarded = true;
        s.guard_not = take_if(p, "!");
        if (!find_register(p, &s.guard))
            return bad(p, "the guard is not a register");
        next(p);
    }
    if (p->n == 0 || p->n >= sizeof opcode || !isalpha((unsigned char)p->tok[0]))
        return bad(p, "an instruction is missing");
    memcpy(opcode, p->tok, p->n);
    opcode[p->n] = 0;
    s.opcode = opcode;
    next(p);
    if (strcmp(opcode, "call.uni") == 0 || strcmp(opcode, "call") == 0)
        return call(p, s.guarded);
    while (!at(p, ";")) {
        if (s.n == PTX_OPERANDS)
            return bad(p, "too many operands");
        if (!operand(p, &s.op[s.n++]))
            return false;
        if (!take_if(p, ","))
            break;
    }
    return take(p, ";") && ptx_decode(p->m, &s, &inst, &used) && emit(p, &inst, &used);
}

/* .type or .align n .type; points and all. */
static bool declared_type(struct parser *p, enum ptx_type *t, uint32_t *align)
{
    *align = 0;
    if (take_if(p, ".align") && !small(p, align))
        return false;
    if (p->n < 2 || !ptx_type_of(p->tok + 1, p->n - 1, t))
        return bad(p, "an unknown type");
    if (*align == 0)
        *align = ptx_type_bytes(*t);
    next(p);
    return true;
}

static uint32_t aligned(uint32_t n, uint32_t align)
{
    return align ? (n + align - 1) / align * align : n;
}

/* name[n]{[n]} with its bytes; count 0: [] */
static bool declared_name(struct parser *p, const char **name, size_t *n, uint32_t *count, bool *array)
{
    *name = p->tok;
    *n = p->n;
    *count = 1;
    *array = false;
    if (p->n == 0 || !in_name(p->tok[0]))
        return bad(p, "a name is missing");
    next(p);
    while (take_if(p, "[")) {
        uint32_t k = 0;

        *array = true;
        if (!at(p, "]") && !small(p, &k))
            return false;
        if (k && *count > UINT32_MAX / 64 / k)
            return bad(p, "too large an array");
        *count *= k;
        if (!take(p, "]"))
            return false;
    }
    return true;
}

static bool declare_registers(struct parser *p)
{
    enum ptx_type t;
    uint32_t align;

    if (!declared_type(p, &t, &align))
        return false;
    do {
        struct registers r = {p->tok, p->n, 0, p->n_regs, 0, ptx_type_bytes(t) == 8, t == PTX_PRED};

        next(p);
        if (take_if(p, "<") && (!small(p, &r.n) || r.n == 0 || !take(p, ">")))
            return bad(p, "how many registers?");
        if (p->n_regs_declared == sizeof p->regs / sizeof p->regs[0])
            return bad(p, "too many kinds of registers");
        p->n_regs += r.n ? r.n : 1;
        r.row = new_row(p, r.wide, r.n ? r.n : 1);
        p->regs[p->n_regs_declared++] = r;
    } while (take_if(p, ","));
    return take(p, ";");
}

/* .param of a call, inside a function: a row. */
static bool declare_argument(struct parser *p)
{
    enum ptx_type t;
    uint32_t align, count;
    const char *name;
    size_t n;
    bool array;
    struct symbol *s;

    if (!declared_type(p, &t, &align) || !declared_name(p, &name, &n, &count, &array))
        return false;
    if (array || ptx_type_bytes(t) < 4)
        return bad(p, "a structure passed by value between functions");
    s = add_symbol(p, name, n, SYMBOL_ROW);
    s->wide = ptx_type_bytes(t) == 8;
    s->row = new_row(p, s->wide, 1);
    return take(p, ";");
}

/* .local and .shared of a function or of the module. */
static bool declare_place(struct parser *p, bool shared, bool external)
{
    uint32_t align, count, *used;
    enum ptx_type t;
    const char *name;
    struct symbol *s;
    size_t n;
    bool array;

    if (!declared_type(p, &t, &align) || !declared_name(p, &name, &n, &count, &array))
        return false;
    if (count == 0) {
        if (!shared || !external || align > 16)
            return bad(p, "an array without a size");
        add_symbol(p, name, n, SYMBOL_POOL);
        return take(p, ";");
    }
    used = shared ? (p->func && p->func->kernel ? &p->func->shared : &p->m->func_shared)
                  : (p->func && p->func->kernel ? &p->func->local : &p->m->func_local);
    if (shared && p->func && !p->func->kernel)
        return bad(p, "shared memory of a function");
    s = add_symbol(p, name, n, shared ? SYMBOL_SHARED : SYMBOL_LOCAL);
    *used = aligned(*used, align);
    s->value = *used + (!shared && !p->func->kernel ? PTX_LOCAL_OF_FUNCS : 0);
    *used += count * ptx_type_bytes(t);
    return take(p, ";");
}

static bool body(struct parser *p)
{
    unsigned depth = 1;

    p->scope[0] = p->n_symbols;
    while (depth) {
        if (p->m->error[0])
            return false;
        if (p->n == 0)
            return bad(p, "the text ends inside a function");
        if (take_if(p, "{")) {
            if (depth == 16)
                return bad(p, "too many braces");
            p->scope_regs[depth] = p->n_regs_declared;
            p->scope[depth++] = p->n_symbols;
        } else if (take_if(p, "}")) {
            p->n_symbols = p->scope[--depth];
            p->n_regs_declared = depth ? p->scope_regs[depth] : p->n_regs_declared;
        } else if (take_if(p, ".reg")) {
            declare_registers(p);
        } else if (take_if(p, ".param")) {
            declare_argument(p);
        } else if (take_if(p, ".local")) {
            declare_place(p, false, false);
        } else if (take_if(p, ".shared")) {
            declare_place(p, true, false);
        } else if (take_if(p, ".pragma")) {
            next(p);
            take(p, ";");
        } else if (at(p, ".loc")) {
            uint32_t line = p->line;

            while (p->n && p->line == line)
                next(p);
        } else if (p->tok[0] == '$' && *p->p == ':') {
            uint32_t l = label(p, p->tok, p->n);

            if (p->m->error[0] || p->labels[l].at != UINT32_MAX)
                return bad(p, "a label twice");
            p->labels[l].at = p->m->n_inst;
            next(p);
            next(p);
        } else {
            statement(p);
        }
    }
    return !p->m->error[0];
}

static bool resolve(struct parser *p)
{
    for (uint32_t i = p->func->first; i < p->m->n_inst; i++) {
        struct ptx_inst *in = &p->m->inst[i];

        if (in->op != PTX_BRA)
            continue;
        if (p->labels[in->target].at >= p->m->n_inst)
            return ptx_refuse(p->m, in->line, "a branch to a label that is not there");
        in->target = p->labels[in->target].at;
    }
    return true;
}

/* One .param between brackets. */
struct parameter {
    enum ptx_type type;
    uint32_t align, count;
    const char *name;
    size_t n;
    bool array;
};

static bool parameter(struct parser *p, struct parameter *a)
{
    return take(p, ".param") && declared_type(p, &a->type, &a->align) && declared_name(p, &a->name, &a->n, &a->count, &a->array);
}

/* A parameter or result of a function: a row, made when the function is first seen. */
static bool formal(struct parser *p, const struct parameter *a, bool known, uint32_t *row, uint8_t *wide)
{
    struct symbol *s;

    if (a->array || ptx_type_bytes(a->type) < 4)
        return bad(p, "a structure passed by value between functions");
    if (!known) {
        *wide = ptx_type_bytes(a->type) == 8;
        *row = new_row(p, *wide, 1);
    }
    s = add_symbol(p, a->name, a->n, SYMBOL_ROW);
    s->row = *row;
    s->wide = *wide;
    return true;
}

/* Of a kernel, places in its block of parameters; of a function, rows. */
static bool parameters(struct parser *p, bool known)
{
    struct ptx_func *f = p->func;

    if (!take_if(p, "("))
        return true;
    for (unsigned k = 0; !at(p, ")"); k++) {
        struct parameter a;

        if (!parameter(p, &a))
            return false;
        if (f->kernel) {
            f->param_bytes = aligned(f->param_bytes, a.align);
            add_symbol(p, a.name, a.n, SYMBOL_PARAM)->value = f->param_bytes;
            if (k == 16)
                return bad(p, "more parameters than are known here");
            f->param_at[k] = f->param_bytes;
            f->param_size[k] = a.count * ptx_type_bytes(a.type);
            f->param_bytes += f->param_size[k];
            f->n_params = k + 1;
        } else if (k == 16 || !formal(p, &a, known, &f->formal[k], &f->wide[k])) {
            return bad(p, "more parameters than are known here");
        } else {
            f->n_formal = (uint8_t)(k + 1);
        }
        if (!take_if(p, ","))
            break;
    }
    return take(p, ")");
}

/* What stands between the parameters and the body. */
static bool directives(struct parser *p)
{
    uint32_t n, all = 1;

    while (!at(p, "{") && !at(p, ";")) {
        if (at(p, ".maxntid") || at(p, ".reqntid")) {
            do {
                next(p);
                if (!small(p, &n))
                    return false;
                all *= n ? n : 1;
            } while (at(p, ","));
            p->func->max_threads = all;
        } else if (at(p, ".minnctapersm") || at(p, ".maxnreg")) {
            next(p);
            if (!small(p, &n))
                return false;
        } else if (!take_if(p, ".noreturn")) {
            return bad(p, "an unknown directive of a function");
        }
    }
    return true;
}

static bool function(struct parser *p, bool kernel)
{
    struct ptx_module *m = p->m;
    unsigned symbols = p->n_symbols;
    struct parameter result;
    bool known, with_result = take_if(p, "(");
    const struct ptx_inst *last;

    if (with_result && (!parameter(p, &result) || !take(p, ")")))
        return false;
    p->func = find_func(m, p->tok, p->n);
    known = p->func != NULL;
    if (!known) {
        m->func = realloc(m->func, (m->n_func + 1) * sizeof *m->func);
        p->func = &m->func[m->n_func++];
        *p->func = (struct ptx_func){.name = strndup(p->tok, p->n), .kernel = kernel, .has_result = with_result};
    }
    if (p->func->defined)
        return bad(p, "a function twice");
    p->n_regs = p->n_regs_declared = 0;
    next(p);
    if ((with_result && !formal(p, &result, known, &p->func->result, &p->func->result_wide)) || !parameters(p, known) || !directives(p))
        return false;
    if (take_if(p, ";")) { /* declared only */
        p->n_symbols = symbols;
        return true;
    }
    next(p);
    p->func->first = m->n_inst;
    if (!body(p) || !resolve(p))
        return false;
    p->func->end = m->n_inst;
    p->func->defined = true;
    last = &m->inst[m->n_inst - 1];
    if (p->func->end == p->func->first || last->flags & PTX_GUARDED ||
        (last->op != PTX_RET && last->op != PTX_EXIT && last->op != PTX_BRA))
        return bad(p, "a function whose last instruction goes on");
    p->n_symbols = symbols;
    return ptx_mark_unset(m, p->func->first, m->n_inst, p->used, p->n_regs);
}

/* .global: bytes of the host. */
static bool variable(struct parser *p)
{
    struct ptx_module *m = p->m;
    struct ptx_variable *v;
    enum ptx_type t;
    uint32_t align, count, size, i = 0;
    const char *name;
    size_t n;
    bool array, real, braces;

    if (!declared_type(p, &t, &align) || !declared_name(p, &name, &n, &count, &array))
        return false;
    size = ptx_type_bytes(t);
    if (count == 0 || align > 256)
        return bad(p, "an array without a size");
    m->var = realloc(m->var, (m->n_var + 1) * sizeof *m->var);
    v = &m->var[m->n_var++];
    *v = (struct ptx_variable){strndup(name, n), aligned_alloc(256, aligned(count * size + 512, 256)), (size_t)count * size};
    memset(v->bytes, 0, aligned(count * size + 512, 256));
    add_symbol(p, name, n, SYMBOL_GLOBAL)->value = (uint64_t)(uintptr_t)v->bytes;
    if (take_if(p, "=")) {
        braces = take_if(p, "{");
        do {
            uint64_t x;

            if (i == count || !number(p, &x, &real))
                return bad(p, "not so many numbers");
            memcpy(v->bytes + (size_t)i++ * size, &x, size);
        } while (take_if(p, ","));
        if (braces && !take(p, "}"))
            return false;
    }
    return take(p, ";");
}

static bool toplevel(struct parser *p)
{
    bool external = false;

    while (p->n) {
        if (p->m->error[0])
            return false;
        if (take_if(p, ".version") || take_if(p, ".target")) {
            do
                next(p);
            while (take_if(p, ","));
        } else if (take_if(p, ".address_size")) {
            if (!take(p, "64"))
                return false;
        } else if (take_if(p, ".visible") || take_if(p, ".weak")) {
            continue;
        } else if (take_if(p, ".extern")) {
            external = true;
            continue;
        } else if (take_if(p, ".global")) {
            variable(p);
        } else if (take_if(p, ".shared")) {
            p->func = NULL;
            declare_place(p, true, external);
        } else if (at(p, ".entry") || at(p, ".func")) {
            bool kernel = at(p, ".entry");

            next(p);
            function(p, kernel);
        } else {
            return bad(p, "an unknown directive");
        }
        external = false;
    }
    return !p->m->error[0];
}

/* Rows to their places, now that all sizes are known. */
static void place(struct ptx_module *m, uint32_t func_words)
{
    uint32_t kernel = 0, constants;

    for (uint32_t i = 0; i < m->n_func; i++)
        if (m->func[i].kernel && m->func[i].rows > kernel)
            kernel = m->func[i].rows;
    constants = func_words + kernel;
    for (uint32_t i = 0; i < m->n_inst; i++) {
        struct ptx_inst *in = &m->inst[i];
        uint32_t *row[] = {&in->d, &in->a, &in->b, &in->c, &in->e, &in->guard, &in->target};

        for (unsigned k = 0; k < (in->op == PTX_SHFL ? 7 : 6); k++) {
            if (*row[k] == PTX_ROW_NONE)
                continue;
            if (*row[k] & PTX_ROW_CONSTANT)
                *row[k] = constants + (*row[k] & ~PTX_ROW_CONSTANT);
            else if (*row[k] & PTX_ROW_KERNEL)
                *row[k] = func_words + (*row[k] & ~PTX_ROW_KERNEL);
        }
        if (in->op == PTX_CALL)
            in->target = m->func[in->target].first;
    }
    m->words = constants + m->at_constants;
    m->at_constants = constants;
}

static void lines(struct ptx_module *m)
{
    uint32_t n = 1;

    for (const char *s = m->text; *s; s++)
        n += *s == '\n';
    m->line = calloc(n + 2, sizeof *m->line);
    m->n_lines = n;
    n = 0;
    for (const char *s = m->text; s; s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL)
        m->line[++n] = s;
}

bool ptx_module_load(struct ptx_module *m, const char *name, char *text)
{
    struct parser p = {.m = m, .p = text, .line = 1, .func_words = PTX_SPECIALS * PTX_LANES};

    memset(m, 0, sizeof *m);
    m->name = name;
    m->text = text;
    lines(m);
    p.buckets = calloc(N_BUCKETS, sizeof *p.buckets);
    next(&p);
    if (toplevel(&p))
        place(m, p.func_words);
    for (uint32_t i = 0; i < m->n_func; i++)
        if (!m->func[i].defined)
            ptx_refuse(m, 1, "%s is declared, but not here", m->func[i].name);
    free(p.buckets);
    free(p.labels);
    free(p.symbols);
    free(p.used);
    return !m->error[0];
}

void ptx_module_free(struct ptx_module *m)
{
    for (uint32_t i = 0; i < m->n_func; i++)
        free(m->func[i].name);
    for (uint32_t i = 0; i < m->n_var; i++) {
        free(m->var[i].name);
        free(m->var[i].bytes);
    }
    free(m->func);
    free(m->var);
    free(m->inst);
    free(m->unset);
    free(m->constants);
    free(m->line);
}

const struct ptx_func *ptx_find(const struct ptx_module *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_func; i++)
        if (strcmp(m->func[i].name, name) == 0)
            return &m->func[i];
    return NULL;
}
