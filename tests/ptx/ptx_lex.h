/* The parser's state, and the tokens of a text: shared by ptx_operand.c (names and operands) and
 * ptx_parse.c (declarations and statements). */
#ifndef SLUICE_TESTS_PTX_LEX_H
#define SLUICE_TESTS_PTX_LEX_H

#include "ptx.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PTX_BUCKETS 65536

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

static inline bool bad(struct parser *p, const char *what)
{
    return ptx_refuse(p->m, p->line, "%s, at \"%.*s\"", what, (int)(p->n > 60 ? 60 : p->n), p->tok);
}

static inline bool in_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

/* The next token: a name with its points, a number, a quoted text, or one character. */
static inline void next(struct parser *p)
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

static inline bool at(const struct parser *p, const char *text)
{
    return p->n == strlen(text) && memcmp(p->tok, text, p->n) == 0;
}

static inline bool take(struct parser *p, const char *text)
{
    char what[40];

    if (at(p, text)) {
        next(p);
        return true;
    }
    snprintf(what, sizeof what, "\"%s\" is missing", text);
    return bad(p, what);
}

static inline bool take_if(struct parser *p, const char *text)
{
    if (!at(p, text))
        return false;
    next(p);
    return true;
}

/* [-]decimal, 0x, 0f (bits of a float), 0d; U behind it. */
static inline bool number(struct parser *p, uint64_t *out, bool *real)
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

static inline bool small(struct parser *p, uint32_t *out)
{
    uint64_t v = 0;
    bool real;

    if (!number(p, &v, &real))
        return false;
    *out = (uint32_t)v;
    return (!real && v <= UINT32_MAX / 4) || bad(p, "this number is too large");
}

static inline void *grown(void *p, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap ? 2 * *cap : 256;
    return realloc(p, *cap * size);
}

struct symbol *ptx_symbol(struct parser *p, const char *name, size_t n);
struct symbol *ptx_add_symbol(struct parser *p, const char *name, size_t n, enum symbol_kind kind);
/* Returns the number of a label of this function, seen or only named so far. */
uint32_t ptx_label(struct parser *p, const char *name, size_t n);
/* Returns the place of n new rows of the function. */
uint32_t ptx_new_row(struct parser *p, bool wide, uint32_t n);
/* Whether the next token is a register, declared or special; does not take it. */
bool ptx_find_register(struct parser *p, struct ptx_operand *o);
/* Takes one operand. False: the error is set. */
bool ptx_operand(struct parser *p, struct ptx_operand *o);

#endif
