#include "proto/json_file.h"

#include "proto/name_table.h"
#include "proto/source_file.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- strict check of the text ---- */

struct scan {
    const unsigned char *s;
    size_t at, len;
    uint32_t values;
    size_t odd_number;
    const char *why; /* set with the first error, which is at `at` */
};

static bool bad(struct scan *c, const char *why)
{
    c->why = why;
    return false;
}

static int peek(const struct scan *c)
{
    return c->at < c->len ? c->s[c->at] : -1;
}

static void skip_space(struct scan *c)
{
    while (c->at < c->len && (c->s[c->at] == ' ' || c->s[c->at] == '\n' || c->s[c->at] == '\t' ||
                              c->s[c->at] == '\r'))
        c->at++;
}

/* The four digits after "\u". */
static bool scan_unicode(struct scan *c)
{
    unsigned v = 0;

    for (int i = 0; i < 4; i++, c->at++) {
        int d = peek(c);

        if (d >= '0' && d <= '9')
            v = v * 16 + (unsigned)(d - '0');
        else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
            v = v * 16 + (unsigned)((d | 0x20) - 'a' + 10);
        else
            return bad(c, "\\u needs four hexadecimal digits");
    }
    return v ? true : bad(c, "a string holds \\u0000");
}

static bool scan_string(struct scan *c)
{
    if (peek(c) != '"')
        return bad(c, "expected a string");
    c->at++;
    for (;;) {
        int ch = peek(c);
        size_t n;

        /* Nearly every byte is plain ASCII. */
        while (ch >= 0x20 && ch < 0x80 && ch != '"' && ch != '\\') {
            c->at++;
            ch = peek(c);
        }
        if (ch < 0)
            return bad(c, "a string does not end");
        if (ch < 0x20)
            return bad(c, "a string holds a control character");
        if (ch == '"') {
            c->at++;
            return true;
        }
        if (ch == '\\') {
            c->at++;
            ch = peek(c);
            if (ch < 0 || !strchr("\"\\/bfnrtu", ch) || ch == 0)
                return bad(c, "unknown escape in a string");
            c->at++;
            if (ch == 'u' && !scan_unicode(c))
                return false;
            continue;
        }
        n = sl_utf8_at(c->s + c->at, c->len - c->at);
        if (n == 0)
            return bad(c, "a string is not valid UTF-8");
        c->at += n;
    }
}

static bool scan_digits(struct scan *c)
{
    if (peek(c) < '0' || peek(c) > '9')
        return bad(c, "expected a digit");
    while (peek(c) >= '0' && peek(c) <= '9')
        c->at++;
    return true;
}

static bool scan_number(struct scan *c)
{
    size_t start = c->at;
    bool odd = peek(c) == '-';

    if (odd)
        c->at++;
    if (peek(c) == '0' && c->at + 1 < c->len && c->s[c->at + 1] >= '0' && c->s[c->at + 1] <= '9')
        return bad(c, "a number begins with 0");
    if (!scan_digits(c))
        return false;
    if (peek(c) == '.') {
        odd = true;
        c->at++;
        if (!scan_digits(c))
            return false;
    }
    if (peek(c) == 'e' || peek(c) == 'E') {
        odd = true;
        c->at++;
        if (peek(c) == '+' || peek(c) == '-')
            c->at++;
        if (!scan_digits(c))
            return false;
    }
    /* cJSON reads the first 63 characters of a number. */
    if (c->at - start > 60)
        return bad(c, "a number has more than 60 characters");
    if (odd && c->odd_number == SL_JSON_PLAIN)
        c->odd_number = start;
    return true;
}

static bool scan_word(struct scan *c, const char *word)
{
    size_t n = strlen(word);

    if (c->len - c->at < n || memcmp(c->s + c->at, word, n) != 0)
        return bad(c, "expected a value");
    c->at += n;
    return true;
}

static bool scan_value(struct scan *c, int depth)
{
    int open = peek(c), end = open == '{' ? '}' : ']';

    if (++c->values > SL_JSON_MAX_VALUES)
        return bad(c, "more than 4000000 values");
    if (open == '"')
        return scan_string(c);
    if (open == '-' || (open >= '0' && open <= '9'))
        return scan_number(c);
    if (open != '{' && open != '[')
        return scan_word(c, open == 't' ? "true" : open == 'f' ? "false" : "null");
    if (depth >= SL_JSON_MAX_DEPTH)
        return bad(c, "nested more than 64 deep");
    c->at++;
    skip_space(c);
    if (peek(c) == end) {
        c->at++;
        return true;
    }
    for (;;) {
        skip_space(c);
        if (open == '{') {
            if (!scan_string(c))
                return false;
            skip_space(c);
            if (peek(c) != ':')
                return bad(c, "expected ':'");
            c->at++;
            skip_space(c);
        }
        if (!scan_value(c, depth + 1))
            return false;
        skip_space(c);
        if (peek(c) == end) {
            c->at++;
            return true;
        }
        if (peek(c) != ',')
            return bad(c, open == '{' ? "expected ',' or '}'" : "expected ',' or ']'");
        c->at++;
    }
}

/* ---- duplicate keys ---- */

/* The later one takes the first one's place, as in Python, and its text, which a table of names holds; or it is an error. */
static int meet_again(const char *label, cJSON *object, cJSON **first, cJSON *later, bool last_counts,
                      struct sl_error *e)
{
    char *text;

    if (!last_counts)
        return sl_fail(e, SL_ESOURCE, "%s: key '%.120s' occurs twice in one object", label, later->string);
    text = later->string;
    later->string = (*first)->string;
    (*first)->string = text;
    cJSON_ReplaceItemViaPointer(object, *first, cJSON_DetachItemViaPointer(object, later));
    *first = later;
    return 0;
}

static int settle_keys(const char *label, cJSON *object, uint32_t n, bool last_counts, struct sl_error *e)
{
    cJSON **items = calloc(n, sizeof *items), *item, *next;
    struct sl_name_table keys = {0};
    uint32_t held, used = 0;
    int rc = items ? sl_name_table_init(&keys, n, e) : sl_fail(e, SL_EFAIL, "%s: out of memory", label);

    for (item = object->child; item && rc == 0; item = next) {
        next = item->next;
        rc = sl_name_table_add(&keys, item->string, used, &held, e);
        if (rc == 0 && held == used)
            items[used++] = item;
        else if (rc == 0)
            rc = meet_again(label, object, &items[held], item, last_counts, e);
    }
    sl_name_table_free(&keys);
    free(items);
    return rc;
}

static bool repeats(const cJSON *object)
{
    for (const cJSON *item = object->child; item; item = item->next)
        for (const cJSON *other = item->next; other; other = other->next)
            if (strcmp(item->string, other->string) == 0)
                return true;
    return false;
}

/* Recursion is bounded by SL_JSON_MAX_DEPTH. */
static int settle(const char *label, cJSON *node, bool last_counts, struct sl_error *e)
{
    uint32_t n = 0;

    for (cJSON *item = node->child; item; item = item->next, n++)
        if (item->child)
            SL_TRY(settle(label, item, last_counts, e));
    return cJSON_IsObject(node) && (n > 8 || repeats(node)) ? settle_keys(label, node, n, last_counts, e) : 0;
}

/* ---- Python's own words ---- */

/* Before a ':' it is a key, which Python does not take. */
static bool is_key(const char *text, size_t at, size_t len)
{
    while (at < len && strchr(" \t\r\n", text[at]) && text[at])
        at++;
    return at < len && text[at] == ':';
}

/* Each becomes an empty string and spaces. */
static void replace_words(char *text, size_t len)
{
    static const char *const words[] = {"-Infinity", "Infinity", "NaN"};

    for (size_t at = 0; at < len; at++) {
        if (text[at] == '"') { /* to the string's end */
            for (at++; at < len && text[at] != '"'; at++)
                at += text[at] == '\\';
            continue;
        }
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            size_t n = strlen(words[i]);

            if (text[at] == *words[i] && len - at >= n && memcmp(text + at, words[i], n) == 0 && !is_key(text, at + n, len)) {
                memset(text + at, ' ', n);
                memset(text + at, '"', 2);
                at += n - 1;
                break;
            }
        }
    }
}

static int not_json(const char *label, const struct scan *c, struct sl_error *e)
{
    const char *found = (const char *)c->s + c->at;
    size_t n = sl_source_shown(found, c->len - c->at < 20 ? c->len - c->at : 20);

    if (strncmp(c->why, "expected", 8) == 0 && c->at == c->len)
        return sl_fail(e, SL_ESOURCE, "%s: not valid JSON at byte %zu: %s, found its end", label, c->at, c->why);
    if (strncmp(c->why, "expected", 8) == 0 && n)
        return sl_fail(e, SL_ESOURCE, "%s: not valid JSON at byte %zu: %s, found '%.*s'", label, c->at, c->why, (int)n, found);
    return sl_fail(e, SL_ESOURCE, "%s: not valid JSON at byte %zu: %s", label, c->at, c->why);
}

/* ---- public ---- */

static int parse(const char *label, const char *text, size_t len, size_t *odd_number, bool last_counts,
                 struct cJSON **out, struct sl_error *e)
{
    struct scan c = {.s = (const unsigned char *)text, .len = len, .odd_number = SL_JSON_PLAIN};
    cJSON *root;
    bool ok;
    int rc;

    skip_space(&c);
    ok = scan_value(&c, 0);
    if (ok) {
        skip_space(&c);
        if (c.at < len)
            ok = bad(&c, "bytes after the end of the value");
    }
    if (!ok)
        return not_json(label, &c, e);
    errno = 0;
    root = cJSON_ParseWithLength(text, len);
    if (!root && errno == ENOMEM)
        return sl_fail(e, SL_EFAIL, "%s: out of memory", label);
    if (!root)
        return sl_fail(e, SL_ESOURCE, "%s: not valid JSON: an unpaired surrogate in a string", label);
    if (odd_number)
        *odd_number = c.odd_number;
    rc = settle(label, root, last_counts, e);
    if (rc < 0)
        cJSON_Delete(root);
    else
        *out = root;
    return rc;
}

int sl_json_parse(const char *label, const char *text, size_t len, size_t *odd_number,
                  struct cJSON **out, struct sl_error *e)
{
    return parse(label, text, len, odd_number, false, out, e);
}

int sl_json_parse_python(const char *label, char *text, size_t len, struct cJSON **out, struct sl_error *e)
{
    replace_words(text, len);
    return parse(label, text, len, NULL, true, out, e);
}

int sl_json_read_fd(int fd, const char *label, size_t max_bytes, struct cJSON **out,
                    struct sl_error *e)
{
    struct stat st;
    size_t size;
    char *text;
    int rc;

    if (fstat(fd, &st) < 0)
        return sl_fail(e, SL_ESOURCE, "%s: %s", label, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return sl_fail(e, SL_ESOURCE, "%s: not a regular file", label);
    if ((uint64_t)st.st_size > max_bytes)
        return sl_fail(e, SL_ESOURCE, "%s: %llu bytes, more than the %zu that such a file may have",
                       label, (unsigned long long)st.st_size, max_bytes);
    size = (size_t)st.st_size;
    text = malloc(size + 1);
    if (!text)
        return sl_fail(e, SL_EFAIL, "%s: out of memory for %zu bytes", label, size);
    rc = sl_source_read(fd, label, text, size, 0, e);
    if (rc == 0 && sl_source_is_lfs(text, size))
        rc = sl_fail(e, SL_ESOURCE, "%s: %s", label, SL_SOURCE_LFS);
    if (rc == 0)
        rc = sl_json_parse_python(label, text, size, out, e);
    free(text);
    return rc;
}

cJSON *sl_get(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

bool sl_json_uint(const struct cJSON *item, uint64_t max, uint64_t *v)
{
    double d;

    if (!item || !cJSON_IsNumber(item))
        return false;
    d = item->valuedouble;
    if (!(d >= 0) || d > (double)SL_JSON_EXACT || max > SL_JSON_EXACT || (uint64_t)d > max ||
        (double)(uint64_t)d != d)
        return false;
    *v = (uint64_t)d;
    return true;
}
