/* Fuzz target: bytes as a tiktoken.model, behind the 256 bytes that each must have, so that merges
 * are reached. Whatever they are, the parser says no with a reason, or every token of more than
 * one byte is two others of lower rank, joined.
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE \
 *     tests/fuzz/tiktoken_fuzz.c build/asan/libsluice.a */
#include "proto/tiktoken.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

static size_t put_bytes(char *to)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0;

    for (int b = 0; b < 256; b++)
        at += (size_t)sprintf(to + at, "%c%c== %d\n", digits[b >> 2], digits[(b & 3) << 4], b);
    return at;
}

static void check(const struct sl_tiktoken *t, const char **merges, uint64_t n)
{
    require(n == t->n - 256);
    for (uint64_t i = 0; i < n; i++) {
        char *pair = strdup(merges[i]), *gap = pair ? strchr(pair, ' ') : NULL;
        uint32_t left, right, whole;

        require(gap != NULL);
        *gap = '\0';
        left = sl_name_table_find(&t->rank_of, pair);
        right = sl_name_table_find(&t->rank_of, gap + 1);
        memmove(gap, gap + 1, strlen(gap + 1) + 1);
        whole = sl_name_table_find(&t->rank_of, pair);
        require(whole < t->n && left < t->n && right < t->n && left != whole && right != whole);
        require((left < 256 || left < whole) && (right < 256 || right < whole));
        free(pair);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(4096 + size), *copy;
    struct sl_tiktoken t;
    struct sl_error e = {0};
    const char **merges;
    size_t n, len;
    uint64_t n_merges;

    require(text != NULL);
    n = put_bytes(text);
    if (size)
        memcpy(text + n, data, size);
    text[n + size] = '\0';
    len = strlen(text); /* a NUL in a file is refused by its reader */
    copy = strdup(text);
    free(text);
    require(copy != NULL);
    if (sl_tiktoken_parse("f", copy, len, 400, len % 2, &t, &e) < 0) {
        require(e.text[0]);
    } else if (sl_tiktoken_merges(&t, "f", &merges, &n_merges, &e) < 0) {
        require(e.text[0] && merges == NULL);
    } else {
        check(&t, merges, n_merges);
        free(merges);
    }
    free(copy);
    sl_tiktoken_free(&t);
    return 0;
}
