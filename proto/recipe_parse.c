#include "proto/recipe_rules.h"

#include "proto/utf8.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 1024u
#define MAX_RULES 1000u
#define MAX_WORDS 16

struct parser {
    struct sl_recipe *r;
    struct sl_error *e;
    uint32_t line;
    unsigned seen; /* directives so far, a bit for each */
};

static int bad(const struct parser *p, const char *what, const char *word, const char *expected)
{
    return sl_fail(p->e, SL_EUSAGE, "%s:%u: %s '%s'; expected %s", p->r->where, p->line, what, word,
                   expected);
}

static bool writable_kind(int type)
{
    return sl_type_info(type) && (type < SL_TYPE_I8 || type > SL_TYPE_F64);
}

static int known_types_error(const struct parser *p, const char *word)
{
    char list[512] = "one of";
    size_t n = strlen(list);

    for (int i = 0; i < SL_TYPE_LIMIT; i++)
        if (writable_kind(i) && n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, " %s", sl_type_info(i)->name);
    return bad(p, "unknown type", word, list);
}

static int parse_type(const struct parser *p, const char *word, int *type)
{
    *type = sl_type_by_name(word);
    if (!writable_kind(*type) && sl_mixture_by_name(word))
        return bad(p, "unknown type", word, "a type; that mixture is asked for by a line 'mixture NAME'");
    return writable_kind(*type) ? 0 : known_types_error(p, word);
}

/* A number below 10000 at *s, which moves past it. */
static bool number(const char **s, uint32_t *out)
{
    uint32_t v = 0;
    int digits = 0;

    for (; **s >= '0' && **s <= '9' && digits < 4; (*s)++, digits++)
        v = v * 10 + (uint32_t)(**s - '0');
    *out = v;
    return digits > 0 && !(**s >= '0' && **s <= '9');
}

/* "N", "N-M", "N-", each with "/S" after a range. */
static bool parse_range(const char *s, struct sl_layers *l)
{
    l->kind = SL_LAYERS_RANGE;
    l->step = 1;
    if (!number(&s, &l->a))
        return false;
    l->b = l->a;
    if (*s == '-') {
        s++;
        l->b = UINT32_MAX;
        if (*s && *s != '/' && !number(&s, &l->b))
            return false;
        if (*s == '/') {
            s++;
            if (!number(&s, &l->step))
                return false;
        }
    }
    return *s == '\0' && l->step > 0 && l->a <= l->b;
}

static bool parse_layer_set(const char *s, struct sl_layers *l)
{
    const char *num;

    memset(l, 0, sizeof *l);
    if (strcmp(s, "more_bits") == 0)
        l->kind = SL_LAYERS_MORE_BITS;
    else if (strcmp(s, "dense") == 0)
        l->kind = SL_LAYERS_DENSE;
    else if (strcmp(s, "moe") == 0)
        l->kind = SL_LAYERS_MOE;
    else if (strncmp(s, "first/", 6) == 0 || strncmp(s, "last/", 5) == 0) {
        l->kind = *s == 'f' ? SL_LAYERS_FIRST : SL_LAYERS_LAST;
        num = strchr(s, '/') + 1;
        return number(&num, &l->a) && *num == '\0' && l->a > 0;
    } else
        return parse_range(s, l);
    return true;
}

static int parse_layers(const struct parser *p, char *word, struct sl_rule *rule)
{
    char *rest = word, *item;

    while ((item = strsep(&rest, ",")) != NULL) {
        if (rule->n_layers == SL_RULE_MAX_LAYERS)
            return bad(p, "too many items in a list of layers at", item, "16 at most");
        if (!parse_layer_set(item, &rule->layers[rule->n_layers]))
            return bad(p, "bad layers", item,
                       "N, N-M, N- or N-M/STEP, more_bits, first/N, last/N, dense or moe, "
                       "separated by commas without spaces");
        rule->n_layers++;
    }
    return 0;
}

static int parse_pattern(const struct parser *p, char *word, struct sl_rule *rule)
{
    size_t len = strlen(word);
    bool regex = len >= 3 && word[0] == '/' && word[len - 1] == '/';

    if (word[0] == '/' && !regex)
        return bad(p, "bad pattern", word, "a regular expression between slashes, /attn_.*/");
    if (regex)
        word[len - 1] = '\0';
    if (sl_pattern_compile(word + regex, regex, false, &rule->pattern, p->e) < 0)
        return sl_fail_context(p->e, "%s:%u", p->r->where, p->line);
    return 0;
}

/* PATTERN [layers LIST] = TYPE */
static int parse_rule(struct parser *p, char **w, int n)
{
    bool layers = n == 5 && strcmp(w[1], "layers") == 0;
    struct sl_rule *rule;

    if (n < 3 || strcmp(w[n - 2], "=") != 0 || !(n == 3 || layers))
        return bad(p, "cannot read the line that begins with", w[0],
                   "PATTERN = TYPE or PATTERN layers LIST = TYPE, with spaces around '=', or one "
                   "of mixture, default, file_type, encoding, advice");
    if (p->r->n_rules == MAX_RULES)
        return bad(p, "too many rules at", w[0], "1000 at most");
    rule = &p->r->rules[p->r->n_rules++];
    rule->line = p->line;
    SL_TRY(parse_pattern(p, w[0], rule));
    if (layers)
        SL_TRY(parse_layers(p, w[2], rule));
    if (strcmp(w[n - 1], "mixture") == 0)
        rule->type = SL_RULE_MIXTURE;
    else if (strcmp(w[n - 1], "keep") == 0)
        rule->type = SL_RULE_KEEP;
    else
        SL_TRY(parse_type(p, w[n - 1], &rule->type));
    return 0;
}

static int parse_mixture(const struct parser *p, const char *word, const struct sl_mixture **out)
{
    char list[512] = "one of";
    size_t n = strlen(list);

    *out = sl_mixture_by_name(word);
    if (*out)
        return 0;
    for (uint32_t i = 0; sl_mixture_at(i) && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, " %s", sl_mixture_name(sl_mixture_at(i)));
    return bad(p, "unknown mixture", word, list);
}

static int parse_file_type(const struct parser *p, const char *word)
{
    const struct sl_mixture *x = NULL;
    const char *end = word;
    uint32_t v;

    p->r->copy = strcmp(word, "source") == 0;
    if (p->r->copy)
        return 0;
    if (isdigit((unsigned char)*word)) {
        if (!number(&end, &v) || *end)
            return bad(p, "bad file_type", word, "a number, a mixture's name such as q3_k_m, or source");
    } else {
        SL_TRY(parse_mixture(p, word, &x));
        v = sl_mixture_file_type(x);
    }
    p->r->file_type = v;
    return 0;
}

static int set_text(struct parser *p, char **slot, const char *value)
{
    free(*slot);
    *slot = strdup(value);
    return *slot ? 0 : sl_no_memory(p->e);
}

static bool encoding_ok(const char *s)
{
    return strlen(s) <= 32 && strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == strlen(s);
}

/* Returns 1 when the line is a directive (and was read), 0 when it is not. */
static int parse_directive(struct parser *p, char **w, int n)
{
    static const char *const words[] = {"mixture", "default", "file_type", "encoding"};
    int k = 0;

    while (k < 4 && strcmp(w[0], words[k]) != 0)
        k++;
    if (k == 4 || (n > 1 && strcmp(w[1], "=") == 0))
        return 0;
    if (n != 2)
        return bad(p, "wrong number of words after", w[0], "exactly one");
    if (p->seen & 1u << k)
        return bad(p, "a second", w[0], "one at most");
    p->seen |= 1u << k;
    switch (k) {
    case 0: SL_TRY(parse_mixture(p, w[1], &p->r->mixture)); break;
    case 1: SL_TRY(parse_type(p, w[1], &p->r->default_type)); break;
    case 2: SL_TRY(parse_file_type(p, w[1])); break;
    default:
        if (!encoding_ok(w[1]))
            return bad(p, "bad encoding", w[1], "capitals, digits, '_' and '-', 32 at most");
        SL_TRY(set_text(p, &p->r->encoding, w[1]));
    }
    return 1;
}

/* '#' begins a comment at the start of a line and after a space. */
static void cut_comment(char *s)
{
    for (char *c = s; *c; c++)
        if (*c == '#' && (c == s || c[-1] == ' ' || c[-1] == '\t')) {
            *c = '\0';
            return;
        }
}

/* C0 but for the tab, DEL and C1, in a text that is UTF-8. */
static bool is_control(const char *c)
{
    return (iscntrl((unsigned char)*c) && *c != '\t') || ((uint8_t)c[0] == 0xc2 && (uint8_t)c[1] < 0xa0);
}

static int parse_line(struct parser *p, char *s)
{
    char *w[MAX_WORDS], *save = NULL;
    int n = 0, rc;

    if (*s && s[strlen(s) - 1] == '\r')
        s[strlen(s) - 1] = '\0';
    if (strlen(s) > MAX_LINE)
        return bad(p, "line too long at", "...", "1024 bytes at most");
    if (!sl_utf8_valid(s))
        return bad(p, "this is no UTF-8:", s, "text in UTF-8");
    for (const char *c = s; *c; c++)
        if (is_control(c))
            return bad(p, "a control character in", s, "plain text");
    cut_comment(s);
    s += strspn(s, " \t");
    for (size_t len = strlen(s); len && strchr(" \t", s[len - 1]); len--)
        s[len - 1] = '\0';
    if (strncmp(s, "advice", 6) == 0 && (s[6] == ' ' || s[6] == '\t'))
        return set_text(p, &p->r->advice, s + 6 + strspn(s + 6, " \t"));
    for (char *t = strtok_r(s, " \t", &save); t; t = strtok_r(NULL, " \t", &save)) {
        if (n == MAX_WORDS)
            return bad(p, "too many words at", t, "PATTERN layers LIST = TYPE");
        w[n++] = t;
    }
    if (n == 0)
        return 0;
    rc = parse_directive(p, w, n);
    return rc != 0 ? rc : parse_rule(p, w, n);
}

/* The file_type of a file whose weights are mostly of this type. */
static int64_t file_type_of(int type)
{
    for (uint32_t i = 0; sl_mixture_at(i); i++)
        if (sl_mixture_base_type(sl_mixture_at(i)) == type)
            return sl_mixture_file_type(sl_mixture_at(i));
    return 0;
}

static int complete(struct parser *p)
{
    struct sl_recipe *r = p->r;

    if (!r->mixture == (r->default_type < 0))
        return sl_fail(p->e, SL_EUSAGE,
                       "%s: %s; expected exactly one line 'default TYPE' or 'mixture NAME', without '='",
                       r->where, r->mixture ? "both a default and a mixture" : "no default type");
    for (uint32_t i = 0; i < r->n_rules; i++)
        if (r->rules[i].type == SL_RULE_MIXTURE && !r->mixture)
            return sl_fail(p->e, SL_EUSAGE,
                           "%s:%u: '= mixture' without a mixture; expected a line 'mixture NAME'",
                           r->where, r->rules[i].line);
    if (r->file_type < 0)
        r->file_type = r->mixture ? sl_mixture_file_type(r->mixture)
                                  : file_type_of(r->default_type);
    if (!r->advice)
        SL_TRY(set_text(p, &r->advice, ""));
    if (!r->encoding) {
        SL_TRY(set_text(p, &r->encoding, r->name));
        for (char *c = r->encoding; *c; c++)
            *c = isalnum((unsigned char)*c) ? (char)toupper((unsigned char)*c) : '_';
    }
    return 0;
}

static int parse_text(struct parser *p)
{
    char *copy = strdup(p->r->text), *rest = copy, *line;
    int rc = copy ? 0 : sl_no_memory(p->e);

    while (rc >= 0 && (line = strsep(&rest, "\n")) != NULL) {
        p->line++;
        rc = parse_line(p, line);
    }
    free(copy);
    SL_TRY(rc);
    return complete(p);
}

int sl_recipe_parse(const char *name, const char *where, const char *text, struct sl_recipe **out,
                    struct sl_error *e)
{
    struct parser p = {.r = calloc(1, sizeof *p.r), .e = e};
    struct sl_recipe *r = p.r;
    int rc;

    *out = NULL;
    if (strlen(text) > SL_RECIPE_MAX) {
        free(r);
        return sl_fail(e, SL_EUSAGE, "%s: too long; expected a recipe of 64 KiB at most", where);
    }
    if (!r || !(r->name = strdup(name)) || !(r->where = strdup(where))
        || !(r->text = strdup(text)) || !(r->rules = calloc(MAX_RULES, sizeof *r->rules))) {
        sl_recipe_close(r);
        return sl_no_memory(e);
    }
    r->default_type = -1;
    r->file_type = -1;
    rc = parse_text(&p);
    if (rc < 0) {
        sl_recipe_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void sl_recipe_close(struct sl_recipe *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->n_rules; i++)
        sl_pattern_free(r->rules[i].pattern);
    free(r->rules);
    free(r->name);
    free(r->where);
    free(r->text);
    free(r->advice);
    free(r->encoding);
    free(r);
}

const char *sl_recipe_name(const struct sl_recipe *r)
{
    return r->name;
}

const char *sl_recipe_text(const struct sl_recipe *r)
{
    return r->text;
}

const char *sl_recipe_advice(const struct sl_recipe *r)
{
    return r->advice;
}

uint32_t sl_recipe_file_type(const struct sl_recipe *r)
{
    return (uint32_t)r->file_type;
}

uint32_t sl_recipe_rules(const struct sl_recipe *r)
{
    return r->n_rules;
}

bool sl_recipe_is_copy(const struct sl_recipe *r)
{
    return r->copy;
}

const char *sl_recipe_encoding(const struct sl_recipe *r)
{
    return r->encoding;
}
