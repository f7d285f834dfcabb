/* For fuzz targets: what must hold, and changes to JSON by its values. A text that is no JSON is changed byte by byte. */
#ifndef SLUICE_TESTS_FUZZ_JSON_H
#define SLUICE_TESTS_FUZZ_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

/* splitmix64 */
static inline uint64_t json_random(uint64_t *s)
{
    uint64_t z = *s += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* The node of that number in the order of the text; *at counts down. */
static inline cJSON *json_node(cJSON *x, uint64_t *at)
{
    for (; x; x = x->next) {
        cJSON *below;

        if ((*at)-- == 0)
            return x;
        below = x->child ? json_node(x->child, at) : NULL;
        if (below)
            return below;
    }
    return NULL;
}

/* The object or array that x lies in, from `in` down. */
static inline cJSON *json_parent(cJSON *in, const cJSON *x)
{
    for (cJSON *c = in->child; c; c = c->next) {
        cJSON *p = c == x ? in : json_parent(c, x);

        if (p)
            return p;
    }
    return NULL;
}

static inline uint64_t json_count(const cJSON *x)
{
    uint64_t n = 0;

    for (; x; x = x->next)
        n += 1 + json_count(x->child);
    return n;
}

static inline double json_number(double v, uint64_t *s)
{
    static const double odd[] = {0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 33, 64, 127, 128, 255, 256, 257, 512, 1000, 1024, 4096, 7168, 65535, 65536,
                                 129280, 1000000, 2147483647., 2147483648., 4294967295., 4294967296., 9007199254740992., 1.8446744073709552e19,
                                 -1, -2, 0.5, 1.5, -0.5, 1e-6, 1e-40, 1e38, 1e39, 1e300};
    uint64_t r = json_random(s);

    switch (r % 8) {
    case 0: return v + 1;
    case 1: return v - 1;
    case 2: return v * 2;
    case 3: return v / 2;
    case 4: return (double)(r >> 8 & 63);
    default: return odd[(r >> 8) % (sizeof odd / sizeof *odd)];
    }
}

/* A string's or a key's text, changed as bytes, so that words of a dictionary come in. */
static inline void json_text(char **text)
{
    size_t n = strlen(*text), cap = n + 64;
    char *t = calloc(cap + 1, 1);

    require(t != NULL);
    memcpy(t, *text, n);
    n = LLVMFuzzerMutate((uint8_t *)t, n, cap);
    t[n] = '\0';
    cJSON_free(*text);
    *text = t;
}

static inline cJSON *json_other(uint64_t r)
{
    switch (r % 8) {
    case 0: return cJSON_CreateNull();
    case 1: return cJSON_CreateTrue();
    case 2: return cJSON_CreateFalse();
    case 3: return cJSON_CreateNumber(1);
    case 4: return cJSON_CreateString("");
    case 5: return cJSON_CreateArray();
    default: return cJSON_CreateObject();
    }
}

/* x becomes copy, under its own key; or copy stands beside it in a list. */
static inline void json_put(cJSON *parent, cJSON *x, cJSON *copy, bool beside)
{
    if (!copy)
        return;
    if (beside && cJSON_IsArray(parent)) {
        cJSON_AddItemToArray(parent, copy);
        return;
    }
    cJSON_free(copy->string);
    copy->string = x->string ? strdup(x->string) : NULL;
    cJSON_ReplaceItemViaPointer(parent, x, copy);
}

/* One value is changed, left out, renamed, or replaced by another value of the text or of another kind. */
static inline void json_move(cJSON *root, uint64_t *s)
{
    uint64_t n = json_count(root->child), r = json_random(s), at = n ? json_random(s) % n : 0, from = n ? json_random(s) % n : 0;
    cJSON *x = n ? json_node(root->child, &at) : NULL;

    if (!x)
        return;
    if (cJSON_IsNumber(x) && r % 4) {
        cJSON_SetNumberHelper(x, json_number(x->valuedouble, s));
        return;
    }
    if (cJSON_IsString(x) && r % 4 == 3) {
        json_text(&x->valuestring);
        return;
    }
    switch (r / 4 % 6) {
    case 0:
        cJSON_Delete(cJSON_DetachItemViaPointer(json_parent(root, x), x));
        return;
    case 1:
        if (x->string)
            json_text(&x->string);
        return;
    case 2:
    case 3:
        json_put(json_parent(root, x), x, cJSON_Duplicate(json_node(root->child, &from), 1), r >> 16 & 1);
        return;
    default:
        json_put(json_parent(root, x), x, json_other(r >> 8), r >> 16 & 1);
    }
}

/* Effect: text[0..n) is changed, in cap bytes; what stands behind the value stays. Returns its new length. */
static inline size_t json_change(uint8_t *text, size_t n, size_t cap, uint64_t *s)
{
    const char *end = NULL;
    cJSON *root = json_random(s) % 8 ? cJSON_ParseWithLengthOpts((const char *)text, n, &end, 0) : NULL;
    size_t len, tail;
    char *printed;

    if (!root)
        return LLVMFuzzerMutate(text, n, cap);
    for (uint64_t k = json_random(s) % 3 + 1; k > 0; k--)
        json_move(root, s);
    printed = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    len = printed ? strlen(printed) : cap;
    tail = n - (size_t)(end - (const char *)text);
    if (printed && len + tail <= cap) {
        memmove(text + len, end, tail);
        memcpy(text, printed, len);
        n = len + tail;
    } else {
        n = LLVMFuzzerMutate(text, n, cap);
    }
    cJSON_free(printed);
    return n;
}

#endif
