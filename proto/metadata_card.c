#include "proto/metadata_card.h"

#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_DEPTH 8
#define MAX_FRONT (1 << 16) /* bytes of front matter that are looked at */

struct card {
    char **line; /* without line ends; tabs are two spaces */
    size_t n, at;
    bool no_memory;
};

static cJSON *parse_map(struct card *c, size_t indent, int depth);
static cJSON *parse_value(struct card *c, const char *v, size_t indent, int depth);

static size_t indent_of(const char *s)
{
    return strspn(s, " ");
}

static bool is_blank(const char *s)
{
    s += indent_of(s);
    return *s == '\0' || *s == '#';
}

static bool is_item(const char *s)
{
    return *s == '-' && (s[1] == ' ' || s[1] == '\0');
}

static void skip_blank(struct card *c)
{
    while (c->at < c->n && is_blank(c->line[c->at]))
        c->at++;
}

static cJSON *keep(struct card *c, cJSON *item)
{
    if (!item)
        c->no_memory = true;
    return item;
}

static cJSON *text_item(struct card *c, const char *s)
{
    return keep(c, sl_utf8_valid(s) ? cJSON_CreateString(s) : cJSON_CreateNull());
}

/* Writes the character as UTF-8; returns the bytes, at most as many as its escape has. */
static size_t put_character(char *to, unsigned long v)
{
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = v < 0x80 ? 1 : v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;

    for (size_t i = n; i-- > 1; v >>= 6)
        to[i] = (char)(0x80 | (v & 0x3f));
    *to = (char)(lead[n] | v);
    return n;
}

/* What stands behind the backslash at *from goes to *to; both move behind it. */
static void unescape(char **from, char **to)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    char digits[9] = "", c = *(*from)++;
    size_t n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    unsigned long v = 0;

    if (n && strspn(*from, hex) >= n) {
        memcpy(digits, *from, n);
        v = strtoul(digits, NULL, 16);
    }
    if (v && v <= 0x10ffff && (v < 0xd800 || v > 0xdfff)) {
        *from += n;
        *to += put_character(*to, v);
        return;
    }
    *(*to)++ = c == 'n' ? '\n' : c == 't' ? '\t' : c;
}

/* The quoted string that begins at *s, unescaped in place; *s moves behind it.
 * NULL when it does not end on this line. */
static char *quoted(char **s)
{
    char quote = **s, *from = *s + 1, *to = from, *start = from;

    while (*from) {
        if (*from == quote && quote == '\'' && from[1] == '\'') {
            from++;
        } else if (*from == quote) {
            *s = from + 1;
            *to = '\0';
            return start;
        } else if (*from == '\\' && quote == '"' && from[1]) {
            from++;
            unescape(&from, &to);
            continue;
        }
        *to++ = *from++;
    }
    return NULL;
}

/* Cuts a comment and white space at the end of a plain scalar. */
static void trim_plain(char *s)
{
    size_t n;

    for (char *h = s; (h = strchr(h, '#')) != NULL; h++)
        if (h > s && h[-1] == ' ') {
            *h = '\0';
            break;
        }
    n = strlen(s);
    while (n && s[n - 1] == ' ')
        s[--n] = '\0';
}

static cJSON *plain_item(struct card *c, const char *s)
{
    if (!*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0 || strcmp(s, "Null") == 0 ||
        strcmp(s, "NULL") == 0)
        return keep(c, cJSON_CreateNull());
    return text_item(c, s);
}

/* "a" + sep + "b" in new memory; frees a. */
static char *joined(char *a, const char *sep, const char *b)
{
    size_t n = a ? strlen(a) : 0, cap = n + strlen(sep) + strlen(b) + 1;
    char *s = realloc(a, cap);

    if (!s) {
        free(a);
        return NULL;
    }
    s[n] = '\0';
    strcpy(s + n, n ? sep : "");
    strcat(s + n, b);
    return s;
}

/* A plain scalar goes on over deeper lines. */
static cJSON *parse_plain(struct card *c, const char *v, size_t indent)
{
    char *s = strdup(v);
    cJSON *item;

    if (s)
        trim_plain(s);
    while (s && c->at < c->n && !is_blank(c->line[c->at]) && indent_of(c->line[c->at]) > indent &&
           strlen(s) < MAX_FRONT) {
        trim_plain(c->line[c->at]);
        s = joined(s, " ", c->line[c->at] + indent_of(c->line[c->at]));
        c->at++;
    }
    if (!s)
        return keep(c, NULL);
    item = plain_item(c, s);
    free(s);
    return item;
}

/* "|" keeps line ends, ">" folds them between lines that are no deeper than the first; "-" cuts the
 * last one, "+" keeps empty lines behind it. */
static cJSON *parse_block(struct card *c, const char *v, size_t indent)
{
    char *s = strdup("");
    bool fold = *v == '>', first = true, was_deeper = false;
    size_t deep = 0, blanks = 0;
    cJSON *item;

    for (; s && c->at < c->n; c->at++) {
        const char *l = c->line[c->at];
        bool folds;

        if (l[indent_of(l)] == '\0') {
            blanks++;
            continue;
        }
        if (indent_of(l) <= indent)
            break;
        if (first)
            deep = indent_of(l);
        folds = fold && !was_deeper && indent_of(l) <= deep;
        was_deeper = indent_of(l) > deep;
        if (!first && folds && !blanks)
            s = joined(s, " ", "");
        for (size_t i = 0; s && i < blanks + (!first && !folds); i++)
            s = joined(s, "", "\n");
        s = s ? joined(s, "", l + (indent_of(l) < deep ? indent_of(l) : deep)) : NULL;
        first = false;
        blanks = 0;
    }
    for (size_t i = 0; s && !first && !strchr(v, '-') && i <= (strchr(v, '+') ? blanks : 0); i++)
        s = joined(s, "", "\n");
    if (!s)
        return keep(c, NULL);
    item = text_item(c, s);
    free(s);
    return item;
}

/* Scalars between brackets; false when something else is there. */
static bool fill_flow(struct card *c, char *s, cJSON *list)
{
    for (s += strspn(s, " "); *s && *s != ']';) {
        cJSON *item;

        if (*s == '[' || *s == '{')
            return false;
        if (*s == '"' || *s == '\'') {
            char *t = quoted(&s);

            if (!t)
                return false;
            item = text_item(c, t);
            s += strspn(s, " ");
            if (*s && *s != ',' && *s != ']') {
                cJSON_Delete(item);
                return false;
            }
        } else {
            size_t n = strcspn(s, ",]");
            char end = s[n];

            s[n] = '\0';
            trim_plain(s);
            item = plain_item(c, s);
            s[n] = end;
            s += n;
        }
        if (!item || !cJSON_AddItemToArray(list, item))
            return false;
        s += *s == ',';
        s += strspn(s, " ");
    }
    return *s == ']';
}

static cJSON *parse_flow(struct card *c, const char *v)
{
    char *s = strdup(v + 1);
    cJSON *list = cJSON_CreateArray();
    bool ok;

    while (s && !strchr(s, ']') && c->at < c->n && strlen(s) < MAX_FRONT / 4)
        s = joined(s, " ", c->line[c->at++]);
    if (!s || !list) {
        free(s);
        cJSON_Delete(list);
        return keep(c, NULL);
    }
    ok = fill_flow(c, s, list);
    free(s);
    if (ok)
        return list;
    cJSON_Delete(list);
    return keep(c, cJSON_CreateNull());
}

/* Whether the quoted string that s begins with has its end in it. */
static bool ends_here(const char *s)
{
    char quote = *s++;

    for (; *s; s++) {
        if (*s == quote && quote == '\'' && s[1] == '\'')
            s++;
        else if (*s == '\\' && quote == '"' && s[1])
            s++;
        else if (*s == quote)
            return true;
    }
    return false;
}

/* A quoted string goes on over deeper lines as a plain one does; an empty line is a line end, a
 * backslash at a line's end joins it to the next without a space. */
static char *whole_quoted(struct card *c, const char *v, size_t indent)
{
    char *s = strdup(v);
    size_t blanks = 0;

    while (s && !ends_here(s) && c->at < c->n && strlen(s) < MAX_FRONT) {
        char *l = c->line[c->at];
        size_t n = strlen(s);
        bool joins = *s == '"' && n > 1 && s[n - 1] == '\\';

        if (l[indent_of(l)] && indent_of(l) <= indent)
            break;
        c->at++;
        if (!l[indent_of(l)]) {
            blanks++;
            continue;
        }
        while (n > 1 && s[n - 1] == ' ')
            s[--n] = '\0';
        if (joins)
            s[n - 1] = '\0';
        for (size_t i = 0; s && i < blanks; i++)
            s = joined(s, "", "\n");
        s = s ? joined(s, blanks || joins ? "" : " ", l + indent_of(l)) : NULL;
        blanks = 0;
    }
    return s;
}

static cJSON *parse_quoted(struct card *c, const char *v, size_t indent)
{
    char *s = whole_quoted(c, v, indent), *at = s, *t;
    cJSON *item;

    if (!s)
        return keep(c, NULL);
    t = quoted(&at);
    item = t ? text_item(c, t) : keep(c, cJSON_CreateNull());
    free(s);
    return item;
}

/* The key of "key: value"; *v = the value. NULL: the line is no such pair. */
static char *parse_key(char *s, char **v)
{
    char *key = s, *colon;

    if (*s == '"' || *s == '\'') {
        key = quoted(&s);
        colon = s + strspn(s, " ");
        if (!key || *colon != ':')
            return NULL;
    } else {
        for (colon = s; *colon && !(*colon == ':' && (colon[1] == ' ' || !colon[1]));)
            colon++;
        if (!*colon || colon == s || strchr("[]{}&*!|>%@`#-?", *s))
            return NULL;
    }
    *v = colon + 1 + strspn(colon + 1, " ");
    while (colon > s && colon[-1] == ' ')
        colon--;
    *colon = '\0';
    return key;
}

static bool is_pair(struct card *c, const char *s)
{
    char *copy = strdup(s), *v;
    bool yes = copy && parse_key(copy, &v) != NULL;

    c->no_memory |= !copy;
    free(copy);
    return yes;
}

static bool item_follows(struct card *c, size_t indent)
{
    skip_blank(c);
    return c->at < c->n && indent_of(c->line[c->at]) == indent && is_item(c->line[c->at] + indent);
}

static cJSON *parse_list(struct card *c, size_t indent, int depth)
{
    cJSON *list = cJSON_CreateArray();

    for (skip_blank(c); list && c->at < c->n && !c->no_memory; skip_blank(c)) {
        char *l = c->line[c->at], *v;
        cJSON *item;

        if (indent_of(l) != indent || !is_item(l + indent))
            break;
        l[indent] = ' ';
        v = l + indent_of(l);
        if (is_pair(c, v)) {
            item = parse_map(c, indent_of(l), depth + 1);
        } else {
            c->at++;
            item = is_blank(v) && item_follows(c, indent) ? keep(c, cJSON_CreateNull())
                                                          : parse_value(c, v, indent, depth + 1);
        }
        if (!item || !cJSON_AddItemToArray(list, item))
            c->no_memory = true;
    }
    return keep(c, list);
}

static cJSON *parse_nested(struct card *c, size_t indent, int depth)
{
    const char *l;

    skip_blank(c);
    if (c->at >= c->n)
        return keep(c, cJSON_CreateNull());
    l = c->line[c->at];
    if (indent_of(l) >= indent && is_item(l + indent_of(l)))
        return parse_list(c, indent_of(l), depth);
    if (indent_of(l) <= indent)
        return keep(c, cJSON_CreateNull());
    if (is_pair(c, l + indent_of(l)))
        return parse_map(c, indent_of(l), depth + 1);
    c->at++;
    return parse_value(c, l + indent_of(l), indent, depth + 1);
}

/* v = what stands behind the key or the dash; c->at = the line after it. */
static cJSON *parse_value(struct card *c, const char *v, size_t indent, int depth)
{
    if (depth > MAX_DEPTH || strchr("&*!{%@`", *v ? *v : 'x'))
        return keep(c, cJSON_CreateNull());
    if (*v == '"' || *v == '\'')
        return parse_quoted(c, v, indent);
    if (*v == '[')
        return parse_flow(c, v);
    if (*v == '|' || *v == '>')
        return parse_block(c, v, indent);
    if (*v == '\0' || *v == '#')
        return parse_nested(c, indent, depth);
    return parse_plain(c, v, indent);
}

/* "language: no" is not Norwegian but false; in a list it is text: there the converter quotes it. */
static bool is_truth(const char *s)
{
    static const char *const words[] = {"yes", "no", "true", "false", "on", "off"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(s, words[i]) == 0)
            return true;
    return false;
}

static cJSON *parse_map(struct card *c, size_t indent, int depth)
{
    cJSON *map = cJSON_CreateObject();

    for (skip_blank(c); map && c->at < c->n && !c->no_memory; skip_blank(c)) {
        char *l = c->line[c->at], *v, *key;
        cJSON *item;

        if (indent_of(l) < indent || (depth > 0 && is_item(l + indent_of(l))))
            break;
        c->at++;
        key = indent_of(l) == indent ? parse_key(l + indent, &v) : NULL;
        if (!key || !sl_utf8_valid(key))
            continue;
        item = parse_value(c, v, indent, depth);
        if (cJSON_IsString(item) && *v == *item->valuestring && is_truth(item->valuestring)) {
            cJSON_Delete(item);
            item = cJSON_CreateFalse();
        }
        cJSON_DeleteItemFromObjectCaseSensitive(map, key);
        if (!item || !cJSON_AddItemToObject(map, key, item))
            c->no_memory = true;
    }
    return keep(c, map);
}

/* ---- lines ---- */

/* Cuts text into c's lines up to the closing "---"; returns their memory. */
static char *cut_lines(struct card *c, const char *text, size_t len)
{
    char *buf = malloc(2 * len + 1);
    size_t at = 0, cap = 1;

    for (size_t i = 0; i < len; i++)
        cap += text[i] == '\n';
    c->line = calloc(cap, sizeof *c->line);
    if (!buf || !c->line) {
        free(buf);
        return NULL;
    }
    for (size_t i = 0; i < len && c->n < cap; i++) {
        c->line[c->n] = buf + at;
        for (; i < len && text[i] != '\n'; i++) {
            if (text[i] == '\t')
                buf[at++] = ' ';
            buf[at++] = text[i] == '\t' || text[i] == '\0' ? ' ' : text[i];
        }
        if (at && buf[at - 1] == '\r' && buf + at > c->line[c->n])
            at--;
        buf[at++] = '\0';
        if (strcmp(c->line[c->n], "---") == 0)
            break;
        c->n++;
    }
    return buf;
}

int sl_card_parse(const char *text, size_t len, cJSON **out)
{
    struct card c = {NULL, 0, 0, false};
    size_t skip = len >= 4 && memcmp(text, "---\n", 4) == 0 ? 4
                  : len >= 5 && memcmp(text, "---\r\n", 5) == 0 ? 5 : 0;
    char *buf;

    if (!skip) {
        *out = cJSON_CreateObject();
        return *out ? 0 : SL_EFAIL;
    }
    len -= skip;
    buf = cut_lines(&c, text + skip, len < MAX_FRONT ? len : MAX_FRONT);
    *out = buf ? parse_map(&c, 0, 0) : NULL;
    free(buf);
    free(c.line);
    if (*out && c.no_memory) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return *out ? 0 : SL_EFAIL;
}
