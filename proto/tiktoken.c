#include "proto/tiktoken.h"

#include "proto/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BLANK " \t\v\f"
#define N_CHARS 324 /* the byte-level alphabet ends before U+0144 */
#define MAX_TEXT (2 * SL_TIKTOKEN_MAX_TOKEN)

static int no_memory(const char *label, struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "out of memory for %s", label);
}

/* ---- lines ---- */

static int digit64(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Base64 with its padding, in place; returns the number of bytes, 0 when it is none. */
static size_t decode64(char *s, size_t n)
{
    uint8_t *to = (uint8_t *)s;
    size_t pad = 0, bytes = 0;

    while (pad < 2 && n > pad && s[n - 1 - pad] == '=')
        pad++;
    if (n == 0 || n % 4)
        return 0;
    for (size_t i = 0; i < n; i += 4) {
        size_t have = i + 4 == n ? 4 - pad : 4;
        uint32_t v = 0;

        for (size_t k = 0; k < 4; k++) {
            int d = k < have ? digit64(s[i + k]) : 0;

            if (d < 0)
                return 0;
            v = v << 6 | (uint32_t)d;
        }
        if (v & (have == 4 ? 0 : have == 3 ? 0xff : 0xffff))
            return 0; /* bits behind the last byte */
        for (size_t k = 0; k + 1 < have; k++)
            to[bytes++] = (uint8_t)(v >> (16 - 8 * k));
    }
    return bytes;
}

struct reading {
    const char *label;
    uint64_t line, max;
    bool by_line;
    char *at;         /* next free byte of the arena */
    struct sl_tiktoken *t;
};

static int bad_line(const struct reading *r, const char *what, struct sl_error *e)
{
    return sl_fail(e, SL_ESOURCE, "%s: line %" PRIu64 ": %s", r->label, r->line, what);
}

/* "TOKEN RANK" of the line's n bytes, which a NUL follows. */
static int take_line(struct reading *r, char *line, struct sl_error *e)
{
    struct sl_tiktoken *t = r->t;
    char *token = line + strspn(line, BLANK), *digits;
    size_t len = strcspn(token, BLANK), n;
    uint64_t rank = 0;
    uint32_t held;

    if (!*token)
        return 0;
    digits = token + len + strspn(token + len, BLANK);
    n = strspn(digits, "0123456789");
    if (n == 0 || n > 9 || digits[n + strspn(digits + n, BLANK)])
        return bad_line(r, "expected a token in base64, a space, and its rank, a number", e);
    for (size_t i = 0; i < n; i++)
        rank = rank * 10 + (uint64_t)(digits[i] - '0');
    if (r->by_line)
        rank = t->n;
    if (rank >= r->max || t->n >= r->max)
        return sl_fail(e, SL_ESOURCE, "%s: line %" PRIu64 ": rank %" PRIu64 " is not below config.json's "
                       "vocab_size %" PRIu64, r->label, r->line, rank, r->max);
    n = decode64(token, len);
    if (n == 0)
        return bad_line(r, "the token is no base64", e);
    if (n > SL_TIKTOKEN_MAX_TOKEN)
        return sl_fail(e, SL_ESOURCE, "%s: line %" PRIu64 ": a token of %zu bytes; at most %u are supported",
                       r->label, r->line, n, SL_TIKTOKEN_MAX_TOKEN);
    if (t->text[rank])
        return sl_fail(e, SL_ESOURCE, "%s: line %" PRIu64 ": rank %" PRIu64 " stands twice", r->label,
                       r->line, rank);
    t->text[rank] = r->at;
    r->at += sl_byte_level_encode((const uint8_t *)token, n, r->at) + 1;
    SL_TRY(sl_name_table_add(&t->rank_of, t->text[rank], (uint32_t)rank, &held, e));
    if (held != rank && r->by_line) {
        t->text[rank] = NULL;
        return 0;
    }
    if (held != rank)
        return sl_fail(e, SL_ESOURCE, "%s: line %" PRIu64 ": the token of rank %" PRIu64 " is that of rank %"
                       PRIu32 " again", r->label, r->line, rank, held);
    t->order[t->n++] = (uint32_t)rank;
    return 0;
}

static int take_lines(struct reading *r, char *text, struct sl_error *e)
{
    for (char *line = text, *next; line; line = next) {
        next = strpbrk(line, "\r\n");
        r->line++;
        if (next) {
            bool pair = next[0] == '\r' && next[1] == '\n';

            *next++ = '\0';
            next += pair;
        }
        SL_TRY(take_line(r, line, e));
    }
    return 0;
}

/* ---- what all tokens must be ---- */

static int check(const struct sl_tiktoken *t, const char *label, struct sl_error *e)
{
    if (t->n == 0)
        return sl_fail(e, SL_ESOURCE, "%s holds no tokens", label);
    for (uint32_t i = 0; i < t->n; i++)
        if (!t->text[i])
            return sl_fail(e, SL_ESOURCE, "%s: rank %" PRIu32 " is missing among %" PRIu32 " tokens; is the "
                           "download complete?", label, i, t->n);
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        uint8_t byte = (uint8_t)b;

        sl_byte_level_encode(&byte, 1, text);
        if (sl_name_table_find(&t->rank_of, text) == SL_NO_NAME)
            return sl_fail(e, SL_ESOURCE, "%s: the byte 0x%02x has no token: texts with it could not be "
                           "written", label, b);
    }
    return 0;
}

int sl_tiktoken_parse(const char *label, char *text, size_t len, uint64_t max, bool by_line,
                      struct sl_tiktoken *t, struct sl_error *e)
{
    struct reading r = {.label = label, .max = max, .by_line = by_line, .t = t};
    uint64_t lines = 1;

    *t = (struct sl_tiktoken){.n = 0};
    if (len > SL_TIKTOKEN_MAX_BYTES)
        return sl_fail(e, SL_ESOURCE, "%s has %zu bytes: expected at most %u", label, len,
                       SL_TIKTOKEN_MAX_BYTES);
    for (const char *s = text; *s; s++)
        lines += *s == '\n' || *s == '\r';
    t->text = calloc(max, sizeof *t->text);
    t->order = calloc(lines < max ? lines : max, sizeof *t->order);
    /* Four characters are three bytes at most, each of two bytes at most, and one NUL. */
    t->arena = r.at = malloc(2 * len + 1);
    if (!t->text || !t->order || !t->arena)
        return no_memory(label, e);
    SL_TRY(sl_name_table_init(&t->rank_of, lines < max ? lines : max, e));
    SL_TRY(take_lines(&r, text, e));
    return check(t, label, e);
}

void sl_tiktoken_free(struct sl_tiktoken *t)
{
    sl_name_table_free(&t->rank_of);
    free(t->text);
    free(t->order);
    free(t->arena);
    *t = (struct sl_tiktoken){.n = 0};
}

/* ---- merges ---- */

/* A token on its way from single characters to two parts. */
struct parts {
    const struct sl_tiktoken *t;
    uint32_t *of_chars;               /* rank of two characters: [first * N_CHARS + second] */
    const char *text;
    uint32_t n;                       /* parts */
    uint32_t start[SL_TIKTOKEN_MAX_TOKEN + 1]; /* where each begins in text; then text's end */
    uint32_t rank[SL_TIKTOKEN_MAX_TOKEN];      /* of part i and i + 1 together, or SL_NO_NAME */
    char key[MAX_TEXT + 1];
};

static unsigned char_at(const char *s, uint32_t *len)
{
    unsigned c = (unsigned char)*s;

    *len = c < 0x80 ? 1 : 2;
    return c < 0x80 ? c : (c & 0x1f) << 6 | ((unsigned char)s[1] & 0x3f);
}

static uint32_t rank_of_pair(struct parts *p, uint32_t i)
{
    uint32_t len;

    if (i + 1 >= p->n)
        return SL_NO_NAME;
    len = p->start[i + 2] - p->start[i];
    memcpy(p->key, p->text + p->start[i], len);
    p->key[len] = '\0';
    return sl_name_table_find(&p->t->rank_of, p->key);
}

static void begin(struct parts *p, const char *text)
{
    unsigned before = 0;
    uint32_t at = 0, len;

    p->text = text;
    p->n = 0;
    for (; text[at]; at += len) {
        unsigned c = char_at(text + at, &len);

        if (p->n)
            p->rank[p->n - 1] = p->of_chars[before * N_CHARS + c];
        p->start[p->n++] = at;
        before = c;
    }
    p->start[p->n] = at;
}

/* Joins the leftmost pair of the lowest rank until two parts are left, or no pair's rank is
 * below that of the token itself. */
static void join(struct parts *p, uint32_t below)
{
    while (p->n > 2) {
        uint32_t best = 0;

        for (uint32_t i = 1; i + 1 < p->n; i++)
            if (p->rank[i] < p->rank[best])
                best = i;
        if (p->rank[best] >= below)
            return;
        memmove(p->start + best + 1, p->start + best + 2, (p->n - best - 1) * sizeof *p->start);
        memmove(p->rank + best, p->rank + best + 1, (p->n - best - 2) * sizeof *p->rank);
        p->n--;
        if (best)
            p->rank[best - 1] = rank_of_pair(p, best - 1);
        if (best + 1 < p->n)
            p->rank[best] = rank_of_pair(p, best);
    }
}

static void rank_chars(struct parts *p)
{
    for (uint32_t i = 0; i < N_CHARS * N_CHARS; i++)
        p->of_chars[i] = SL_NO_NAME;
    for (uint32_t i = 0; i < p->t->n; i++) {
        uint32_t first, second;
        unsigned a = char_at(p->t->text[i], &first), b;

        if (!p->t->text[i][first])
            continue;
        b = char_at(p->t->text[i] + first, &second);
        if (!p->t->text[i][first + second])
            p->of_chars[a * N_CHARS + b] = i;
    }
}

/* A token that is not left in two parts gets no merge, as with the converter: joining never makes
 * it, and only a text that is that token alone is. */
static void make_merges(struct parts *p, const char **merges, char *to, uint64_t *n)
{
    rank_chars(p);
    for (uint32_t i = 0; i < p->t->n; i++) {
        uint32_t rank = p->t->order[i], left;

        begin(p, p->t->text[rank]);
        join(p, rank);
        if (p->n != 2)
            continue;
        left = p->start[1];
        merges[(*n)++] = to;
        memcpy(to, p->text, left);
        to[left] = ' ';
        memcpy(to + left + 1, p->text + left, p->start[2] - left + 1);
        to += p->start[2] + 2;
    }
}

int sl_tiktoken_merges(const struct sl_tiktoken *t, const char *label, const char ***merges,
                       uint64_t *n, struct sl_error *e)
{
    struct parts *p = malloc(sizeof *p);
    size_t bytes = 0, pointers = (size_t)t->n * sizeof **merges;
    bool ok;

    for (uint32_t i = 0; i < t->n; i++)
        bytes += strlen(t->text[i]) + 2;
    *merges = malloc(pointers + bytes);
    *n = 0;
    if (p) {
        p->t = t;
        p->of_chars = malloc(N_CHARS * N_CHARS * sizeof *p->of_chars);
    }
    ok = p && p->of_chars && *merges;
    if (ok)
        make_merges(p, *merges, (char *)*merges + pointers, n);
    if (p)
        free(p->of_chars);
    free(p);
    if (ok)
        return 0;
    free(*merges);
    *merges = NULL;
    return no_memory(label, e);
}
