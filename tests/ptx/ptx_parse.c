/* The text of a PTX module: declarations, functions, statements. What is not understood is an
 * error that names the line. */
#include "ptx_lex.h"

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
        result = ptx_symbol(p, p->tok, p->n);
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
            s = ptx_symbol(p, p->tok, p->n);
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
        if (!ptx_find_register(p, &s.guard))
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
        if (!ptx_operand(p, &s.op[s.n++]))
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
        r.row = ptx_new_row(p, r.wide, r.n ? r.n : 1);
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
    s = ptx_add_symbol(p, name, n, SYMBOL_ROW);
    s->wide = ptx_type_bytes(t) == 8;
    s->row = ptx_new_row(p, s->wide, 1);
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
        ptx_add_symbol(p, name, n, SYMBOL_POOL);
        return take(p, ";");
    }
    used = shared ? (p->func && p->func->kernel ? &p->func->shared : &p->m->func_shared)
                  : (p->func && p->func->kernel ? &p->func->local : &p->m->func_local);
    if (shared && p->func && !p->func->kernel)
        return bad(p, "shared memory of a function");
    s = ptx_add_symbol(p, name, n, shared ? SYMBOL_SHARED : SYMBOL_LOCAL);
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
            uint32_t l = ptx_label(p, p->tok, p->n);

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
        *row = ptx_new_row(p, *wide, 1);
    }
    s = ptx_add_symbol(p, a->name, a->n, SYMBOL_ROW);
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
            ptx_add_symbol(p, a.name, a.n, SYMBOL_PARAM)->value = f->param_bytes;
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
    ptx_add_symbol(p, name, n, SYMBOL_GLOBAL)->value = (uint64_t)(uintptr_t)v->bytes;
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
    p.buckets = calloc(PTX_BUCKETS, sizeof *p.buckets);
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
