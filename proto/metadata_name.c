#include "proto/metadata_name.h"

#include "proto/utf8.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_PARTS 64
#define MAX_FILE_NAME 160

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

/* Bytes of other scripts count as letters. */
static bool is_alpha(char c)
{
    return is_upper(c) || is_lower(c) || (unsigned char)c >= 0x80;
}

static char upper(char c)
{
    return is_lower(c) ? (char)(c - 32) : c;
}

static char lower(char c)
{
    return is_upper(c) ? (char)(c + 32) : c;
}

static const char *digits(const char *s)
{
    while (is_digit(*s))
        s++;
    return s;
}

/* ---- what one part of a name looks like ---- */

/* 1, 1.5, 1.5.2; returns what follows, or NULL. */
static const char *dotted(const char *s)
{
    if (!is_digit(*s))
        return NULL;
    s = digits(s);
    while (*s == '.' && is_digit(s[1]))
        s = digits(s + 1);
    return s;
}

static bool is_version(const char *s)
{
    if (strncasecmp(s, "iter", 4) == 0)
        s += 4;
    else if (lower(*s) == 'v')
        s++;
    s = dotted(s);
    return s && !*s;
}

/* q4_k_m, q8_0, bf16, f32; not iq2_xxs, whose second part has more than one letter */
static bool is_quant(const char *s)
{
    const char *t = s + (lower(*s) == 'i');

    if (lower(*t) == 'q' && is_digit(t[1])) {
        for (t += 2; *t == '_' && (is_alpha(t[1]) || is_digit(t[1]) || t[1] == '_');)
            t += 2;
        return !*t;
    }
    t = s + (lower(*s) == 'b');
    if (lower(*t) != 'f')
        return false;
    t += 1 + (lower(t[1]) == 'p');
    return strcmp(t, "16") == 0 || strcmp(t, "32") == 0;
}

/* From the first digits on: 7B, 1.5b, 7b1 */
static bool is_count(const char *s)
{
    if (!is_digit(*s))
        return false;
    s = digits(s);
    if ((*s == '.' || *s == '_') && is_digit(s[1]))
        s = digits(s + 1);
    if (!*s || !strchr("kmbt", lower(*s)))
        return false;
    s++;
    return !*s || (is_digit(*s) && !s[1]);
}

static bool is_size(const char *s)
{
    static const char *const words[] = {"small", "mini", "medium", "large", "xl", "xxl"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    if (lower(*s) == 'a')
        return is_count(s + 1);
    if (is_digit(*s) && lower(*digits(s)) == 'x')
        return is_count(digits(s) + 1);
    return is_count(s);
}

static bool is_finetune(const char *s)
{
    return strcasecmp(s, "chat") == 0 || strcasecmp(s, "instruct") == 0 ||
           strcasecmp(s, "vision") == 0 || strcasecmp(s, "lora") == 0;
}

/* ---- the parts of a name ---- */

enum { BASE = 1, SIZE = 2, FINETUNE = 4, VERSION = 8, TYPE = 16 };

struct parts {
    char *s[MAX_PARTS]; /* into one buffer, with room for a byte more behind each */
    int kind[MAX_PARTS];
    int n;
};

/* "8b" -> "8B", "7b1" -> "7.1b" (the suffix is no longer before the end, so
 * letters keep their case unless a digit stands before them). A size far from
 * the model's is a length of context and belongs to the fine-tuning. */
static int normalize_size(char *s, uint64_t total)
{
    static const char units[] = "KMBT";
    size_t n;
    const char *unit;
    char *end;
    double label;

    for (char *c = s; *c; c++)
        if (*c == '_')
            *c = '.';
    n = strlen(s);
    if (is_digit(s[n - 1])) { /* one byte more: the caller's buffer has room */
        char digit = s[n - 1], letter = s[n - 2];

        s[n - 2] = '.';
        s[n - 1] = digit;
        s[n] = letter;
        s[++n] = '\0';
    }
    if (n > 1 && is_digit(s[n - 2]) && strchr("kmbt", s[n - 1]))
        s[n - 1] = upper(s[n - 1]);
    unit = memchr(units, s[n - 1], 4);
    if (!total || !unit || !is_digit(*s))
        return SIZE;
    label = strtod(s, &end);
    if (end != s + n - 1)
        return SIZE;
    for (const char *u = units; u <= unit; u++)
        label *= 1000;
    if (fabs(label - (double)total) > floor(7 * (double)total / 8)) {
        s[n - 1] = lower(s[n - 1]);
        return FINETUNE;
    }
    return SIZE;
}

static int classify(char *s, int i, uint64_t total)
{
    if (is_version(s))
        return VERSION;
    if (is_quant(s)) {
        for (char *c = s; *c; c++)
            *c = upper(*c);
        return TYPE;
    }
    if (i > 0 && is_size(s))
        return normalize_size(s, total);
    return i > 0 && is_finetune(s) ? FINETUNE : 0;
}

/* Words for a size do not count beside a size in numbers. */
static void drop_size_words(struct parts *p)
{
    bool numbers = false;

    for (int i = 0; i < p->n; i++)
        if (p->kind[i] & SIZE)
            numbers = numbers || strpbrk(p->s[i], "0123456789");
    for (int i = 0; numbers && i < p->n; i++) {
        const char *c = p->s[i];

        while (is_alpha(*c))
            c++;
        if ((p->kind[i] & SIZE) && !*c)
            p->kind[i] &= ~SIZE;
    }
}

/* The base name is the beginning; versions at its end are versions. */
static void find_base(struct parts *p)
{
    bool at_start = true;

    for (int i = 0; i < p->n; i++) {
        if (at_start && ((p->kind[i] == 0 && is_alpha(*p->s[i])) || (p->kind[i] & VERSION))) {
            p->kind[i] |= BASE;
            continue;
        }
        at_start = false;
        if (p->kind[i] == 0)
            p->kind[i] = FINETUNE;
    }
    for (int i = p->n; i-- > 0 && (p->kind[i] & BASE) && p->kind[i] != BASE;)
        p->kind[i] &= ~BASE;
}

/* The parts of one kind, joined by '-'; *out stays NULL when there are none. */
static int join(const struct parts *p, int kind, int without, char **out)
{
    size_t len = 1, at = 0;
    bool any = false;
    char *s;

    for (int i = 0; i < p->n; i++)
        len += strlen(p->s[i]) + 1;
    s = malloc(len);
    if (!s)
        return SL_EFAIL;
    for (int i = 0; i < p->n; i++) {
        bool again = false;

        if (!(p->kind[i] & kind) || (p->kind[i] & without))
            continue;
        for (int k = 0; k < i && kind == SIZE; k++)
            again = again || ((p->kind[k] & SIZE) && strcmp(p->s[k], p->s[i]) == 0);
        if (again)
            continue;
        at += (size_t)snprintf(s + at, len - at, "%s%s", any ? "-" : "", p->s[i]);
        any = true;
    }
    if (any)
        *out = s;
    else
        free(s);
    return 0;
}

static int split_parts(const char *name, uint64_t total, struct sl_name_parts *out)
{
    size_t len = strlen(name), at = 0;
    char *buf = malloc(2 * len + 2);
    struct parts p = {.n = 0};
    int rc;

    if (!buf)
        return SL_EFAIL;
    for (const char *s = name; *s && p.n < MAX_PARTS;) {
        size_t n = strcspn(s, "-");

        if (n) {
            p.s[p.n] = buf + at;
            memcpy(buf + at, s, n);
            buf[at + n] = '\0';
            p.kind[p.n] = classify(p.s[p.n], p.n, total);
            p.n++;
            at += n + 2;
        }
        s += n + (s[n] == '-');
    }
    drop_size_words(&p);
    find_base(&p);
    rc = join(&p, SIZE, 0, &out->size);
    rc = rc < 0 ? rc : join(&p, FINETUNE, 0, &out->finetune);
    rc = rc < 0 ? rc : join(&p, VERSION, BASE, &out->version);
    if (rc == 0 && (out->size || out->finetune || out->version))
        rc = join(&p, BASE, 0, &out->base);
    free(buf);
    return rc;
}

int sl_name_split(const char *id, uint64_t total, struct sl_name_parts *out)
{
    const char *slash = strchr(id, '/');
    int rc;

    *out = (struct sl_name_parts){NULL, NULL, NULL, NULL, NULL, NULL};
    if (strchr(id, ' ')) { /* a sentence, not a repository's name */
        out->full = strdup(id);
        return out->full ? 0 : SL_EFAIL;
    }
    out->full = strdup(slash ? slash + 1 : id);
    if (slash && *id != '.')
        out->org = strndup(id, (size_t)(slash - id));
    rc = !out->full || (slash && *id != '.' && !out->org) ? SL_EFAIL
         : split_parts(out->full, total, out);
    if (rc < 0)
        sl_name_parts_free(out);
    return rc;
}

void sl_name_parts_free(struct sl_name_parts *p)
{
    free(p->full);
    free(p->org);
    free(p->base);
    free(p->finetune);
    free(p->version);
    free(p->size);
    *p = (struct sl_name_parts){NULL, NULL, NULL, NULL, NULL, NULL};
}

/* A word in lower case that is no version and does not begin with a digit. */
static bool wants_title(const char *w, size_t n)
{
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        if (is_upper(w[i]))
            return false;
        any = any || is_lower(w[i]);
    }
    if (!any || is_digit(*w))
        return false;
    return !(*w == 'v' && dotted(w + 1) == w + n);
}

char *sl_name_title(const char *id)
{
    char *out = malloc(strlen(id) + 1);
    size_t at = 0;

    if (!out)
        return NULL;
    for (const char *s = id; *s;) {
        size_t n = strcspn(s, "- \t\n\r\f\v");
        char word[256];

        if (n && at)
            out[at++] = ' ';
        snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : 0, s);
        for (size_t i = 0; i < n; i++)
            out[at + i] = *word && wants_title(word, n) && (i == 0 || !is_alpha(s[i - 1]))
                          ? upper(s[i]) : s[i];
        at += n;
        s += n + (s[n] != '\0');
    }
    out[at] = '\0';
    return out;
}

/* At least two digits: 1.2K, 14B, 671B. */
static void rounded(char *buf, size_t cap, double weights)
{
    static const struct { double above, scale; char unit; } units[] = {
        {1e12, 1e-12, 'T'}, {1e9, 1e-9, 'B'}, {1e6, 1e-6, 'M'}, {-1, 1e-3, 'K'},
    };
    int u = 0;
    double x;

    while (weights <= units[u].above)
        u++;
    x = weights * units[u].scale;
    snprintf(buf, cap, "%.*f%c", rint(x) < 1 ? 2 : rint(x) < 10 ? 1 : 0, x, units[u].unit);
}

void sl_size_label(char *buf, size_t cap, uint64_t total, uint64_t shared, uint64_t expert,
                   uint64_t n_expert)
{
    char size[32];

    rounded(size, sizeof size, n_expert ? (double)(shared + expert) : (double)total);
    if (n_expert)
        snprintf(buf, cap, "%llux%s", (unsigned long long)n_expert, size);
    else
        snprintf(buf, cap, "%s", size);
}

/* Appends part from buf[at] on, below cap, without a character cut in two. What controls a terminal or reorders text
 * becomes '_'. */
static size_t append(char *buf, size_t at, size_t cap, const char *part)
{
    size_t from = at;

    while (*part == ' ')
        part++;
    for (; *part && at + 1 < cap; part++) {
        size_t left = strnlen(part, 4), n = sl_utf8_at(part, left);
        bool odd = *part == ' ' || *part == '/' || *part == '\\', shown = n == 0 || sl_utf8_shown(part, left);

        buf[at++] = odd ? '-' : shown ? *part : '_';
        part += shown ? 0 : n - 1;
    }
    while (at > from && ((unsigned char)*part & 0xc0) == 0x80) {
        bool is_lead = ((unsigned char)buf[--at] & 0xc0) != 0x80;

        if (is_lead)
            break;
    }
    while (at > from && buf[at - 1] == '-')
        at--;
    buf[at] = '\0';
    return at;
}

char *sl_file_base_name(const char *name, const char *base, const char *size,
                        const char *finetune, const char *version)
{
    const char *more[] = {size, finetune, version};
    char *buf = malloc(MAX_FILE_NAME + 1);
    size_t at;

    if (!buf)
        return NULL;
    at = append(buf, 0, MAX_FILE_NAME / 2, base ? base : name ? name : "");
    if (at == 0)
        at = append(buf, 0, MAX_FILE_NAME, "model");
    if (*buf == '.')
        *buf = '_';
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        size_t next;

        if (!more[i] || !*more[i] || at + 2 >= MAX_FILE_NAME)
            continue;
        buf[at] = '-';
        next = append(buf, at + 1, MAX_FILE_NAME, more[i]);
        at = next > at + 1 ? next : at;
        buf[at] = '\0';
    }
    return buf;
}
