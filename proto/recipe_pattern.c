#include "proto/recipe_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_KIB 1024u

struct sl_pattern {
    char *text;
    pcre2_code *code; /* NULL: a glob */
    pcre2_match_context *limits;
    pcre2_match_data *data;
};

static int compile_regex(struct sl_pattern *p, bool option, struct sl_error *e)
{
    int code;
    size_t at;

    p->code = pcre2_compile((PCRE2_SPTR)p->text, PCRE2_ZERO_TERMINATED,
                            PCRE2_NEVER_BACKSLASH_C | (option ? PCRE2_CASELESS | PCRE2_ALLOW_EMPTY_CLASS : 0), &code,
                            &at, NULL);
    if (!p->code && code == PCRE2_ERROR_HEAP_FAILED)
        return sl_no_memory(e);
    if (!p->code) {
        PCRE2_UCHAR why[160] = "";

        pcre2_get_error_message(code, why, sizeof why);
        return sl_fail(e, SL_EUSAGE, "'%s' is no regular expression: %s at character %zu", p->text,
                       (const char *)why, at + 1);
    }
    p->limits = pcre2_match_context_create(NULL);
    p->data = pcre2_match_data_create(1, NULL);
    if (!p->limits || !p->data)
        return sl_no_memory(e);
    pcre2_set_heap_limit(p->limits, HEAP_KIB);
    return 0;
}

int sl_pattern_compile(const char *text, bool regex, bool option, struct sl_pattern **out,
                       struct sl_error *e)
{
    struct sl_pattern *p = calloc(1, sizeof *p);
    int rc = 0;

    *out = NULL;
    if (!p || !(p->text = strdup(text))) {
        free(p);
        return sl_no_memory(e);
    }
    if (regex)
        rc = compile_regex(p, option, e);
    if (rc < 0) {
        sl_pattern_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void sl_pattern_free(struct sl_pattern *p)
{
    if (!p)
        return;
    pcre2_match_data_free(p->data);
    pcre2_match_context_free(p->limits);
    pcre2_code_free(p->code);
    free(p->text);
    free(p);
}

const char *sl_pattern_text(const struct sl_pattern *p)
{
    return p->text;
}

/* On a mismatch the last star takes one character more: no recursion. */
static bool glob_match(const char *g, const char *s)
{
    const char *star = NULL, *resume = NULL;

    while (*s) {
        if (*g == '*') {
            star = g++;
            resume = s;
        } else if (*g && (*g == '?' || *g == *s)) {
            g++;
            s++;
        } else if (star) {
            g = star + 1;
            s = ++resume;
        } else {
            return false;
        }
    }
    while (*g == '*')
        g++;
    return *g == '\0';
}

int sl_pattern_match(const struct sl_pattern *p, const char *name, struct sl_error *e)
{
    return sl_pattern_match_within(p, name, SL_PATTERN_STEPS, e);
}

int sl_pattern_match_within(const struct sl_pattern *p, const char *name, uint32_t steps, struct sl_error *e)
{
    int rc;

    steps = steps < SL_PATTERN_STEPS ? steps : SL_PATTERN_STEPS;

    if (!p->code)
        return glob_match(p->text, name);
    pcre2_set_match_limit(p->limits, steps);
    pcre2_set_depth_limit(p->limits, steps);
    rc = pcre2_match(p->code, (PCRE2_SPTR)name, strlen(name), 0, 0, p->data, p->limits);
    if (rc >= 0)
        return 1;
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc == PCRE2_ERROR_NOMEMORY)
        return sl_no_memory(e);
    return sl_fail(e, SL_EUSAGE, "regular expression '%s' needs too many steps on '%s'; simplify it",
                   p->text, name);
}
