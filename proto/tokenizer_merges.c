/* The merges of byte-level BPE: tokenizer.json's, else those of merges.txt. */
#include "proto/tokenizer.h"

#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Copies one half of a pair; a space in it is written as byte-level BPE does. */
static char *put_half(char *to, const char *from)
{
    for (; *from; from++) {
        if (*from == ' ') {
            *to++ = '\xc4';
            *to++ = '\xa0';
        } else {
            *to++ = *from;
        }
    }
    return to;
}

static bool is_pair(const cJSON *x)
{
    return cJSON_IsArray(x) && cJSON_IsString(x->child) && cJSON_IsString(x->child->next) &&
           !x->child->next->next;
}

/* Two tokens, as the tokenizers library wants them; it passes over a heading. */
static bool is_merge(const char *s)
{
    const char *gap = strchr(s, ' ');

    return strncmp(s, "#version", 8) == 0 || (gap && gap > s && gap[1] && !strchr(gap + 1, ' '));
}

/* "a b" strings as they are; pairs joined by one space. */
static int set_json_merges(const cJSON *list, struct sl_kvs *kvs, struct sl_error *e)
{
    uint64_t n = 0;
    size_t bytes = 1;
    const char **merges;
    char *arena, *to;
    int rc = 0;

    for (const cJSON *x = list->child; x; x = x->next, n++)
        if (is_pair(x))
            bytes += 2 * strlen(x->child->valuestring) + 2 * strlen(x->child->next->valuestring) + 2;
    merges = calloc(n + 1, sizeof *merges);
    arena = to = malloc(bytes);
    if (!merges || !arena)
        rc = sl_tokenizer_no_memory(e);
    n = 0;
    for (const cJSON *x = list->child; x && rc == 0; x = x->next, n++) {
        if (cJSON_IsString(x) && is_merge(x->valuestring)) {
            merges[n] = x->valuestring;
            continue;
        }
        if (!is_pair(x)) {
            rc = sl_fail(e, SL_ESOURCE, "tokenizer.json: model.merges, entry %" PRIu64 ": expected "
                         "two tokens with a space between, or a pair of strings", n);
            break;
        }
        merges[n] = to;
        to = put_half(to, x->child->valuestring);
        *to++ = ' ';
        to = put_half(to, x->child->next->valuestring);
        *to++ = '\0';
    }
    if (rc == 0 && sl_kvs_set_strs(kvs, "tokenizer.ggml.merges", merges, n) < 0)
        rc = sl_tokenizer_no_memory(e);
    free(merges);
    free(arena);
    return rc;
}

/* A line "a b" for each merge; a first line that begins with '#' is a heading.
 * Lines of another form are skipped, as the converter skips them. */
static int set_text_merges(char *text, struct sl_kvs *kvs, struct sl_error *e)
{
    uint64_t n = 0, cap = 1;
    const char **merges;
    char *line = text, *next;
    int rc;

    for (const char *s = text; *s; s++)
        cap += *s == '\n';
    merges = calloc(cap, sizeof *merges);
    if (!merges)
        return sl_tokenizer_no_memory(e);
    for (bool first = true; line; line = next, first = false) {
        char *gap, *half;

        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        line += strspn(line, " \t\r");
        for (size_t k = strlen(line); k && strchr(" \t\r", line[k - 1]); k--)
            line[k - 1] = '\0';
        gap = strpbrk(line, " \t");
        if ((first && *line == '#') || !gap)
            continue;
        half = gap + strspn(gap, " \t");
        if (strpbrk(half, " \t"))
            continue;
        *gap = ' ';
        memmove(gap + 1, half, strlen(half) + 1);
        merges[n++] = line;
    }
    rc = n == 0 ? sl_fail(e, SL_ESOURCE, "merges.txt holds no merges")
         : sl_kvs_set_strs(kvs, "tokenizer.ggml.merges", merges, n) < 0 ? sl_tokenizer_no_memory(e) : 0;
    free(merges);
    return rc;
}

int sl_tokenizer_merges(const struct sl_source_dir *dir, const cJSON *tokenizer, struct sl_kvs *kvs,
                        struct sl_error *e)
{
    const cJSON *list = sl_get(sl_get(tokenizer, "model"), "merges");
    char *text;
    size_t len;
    int rc;

    if (cJSON_IsArray(list) && list->child)
        return set_json_merges(list, kvs, e);
    rc = sl_source_text(dir, "merges.txt", &text, &len, e);
    if (rc == 0)
        return sl_fail(e, SL_ESOURCE, "tokenizer.json has no merges, and there is no merges.txt");
    if (rc < 0)
        return rc;
    rc = set_text_merges(text, kvs, e);
    free(text);
    return rc;
}
