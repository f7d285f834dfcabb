/* Mistral's tokenizer, tekken.json: special tokens first, then those of byte-pair encoding by ranks. GGUF wants the pairs that
 * are joined: of each token, by the converter, all in which it can be cut. */
#include "proto/arch_table.h"
#include "proto/tiktoken.h"
#include "proto/tokenizer.h"

#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "tekken.json"
#define HIDDEN_NUL "\xef\xbf\xbf" /* U+FFFF */
#define MADE 40         /* bytes of a name that is made here */
#define MAX_SPECIAL 65536u
#define MAX_MERGES (128u << 20) /* bytes that they take, about; those of a published file take 6 MB */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"

/* The rules that llama.cpp has by this name. */
static const char rules[] = BEFORE UPPER "*" LOWER "+|" BEFORE UPPER "+" LOWER "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+"
                            "|\\s+(?!\\S)|\\s+";

struct tekken {
    uint64_t n, n_special;
    const char **text;   /* of each id */
    char (*made)[MADE];  /* names of special tokens that the file does not give */
    struct sl_tiktoken t;
};

/* ---- special tokens ---- */

static int read_special(struct tekken *k, const cJSON *list, struct sl_error *e)
{
    uint64_t i = 0, rank;

    if (!cJSON_IsArray(list))
        return sl_fail(e, SL_EUNSUPPORTED, FILE_NAME " has no \"special_tokens\", as before Mistral's version 11");
    for (const cJSON *x = list->child; x; x = x->next, i++) {
        const char *text = cJSON_GetStringValue(sl_get(x, "token_str"));

        if (i >= k->n_special || !text || strstr(text, HIDDEN_NUL) || !sl_json_uint(sl_get(x, "rank"), UINT32_MAX, &rank) || rank != i)
            return sl_fail(e, SL_ESOURCE, FILE_NAME ": special_tokens, entry %" PRIu64 ": expected a \"token_str\" of that rank, below "
                           "\"default_num_special_tokens\", %" PRIu64, i, k->n_special);
        k->text[i] = text;
    }
    for (; i < k->n_special; i++) {
        snprintf(k->made[i], MADE, "<SPECIAL_%" PRIu64 ">", i);
        k->text[i] = k->made[i];
    }
    return 0;
}

static int set_id(const struct tekken *k, struct sl_kvs *kvs, const char *key, const char *text, struct sl_error *e)
{
    for (uint64_t i = 0; i < k->n_special; i++)
        if (strcmp(k->text[i], text) == 0)
            return sl_kvs_set_u32(kvs, key, (uint32_t)i) < 0 ? sl_tokenizer_no_memory(e) : 0;
    return sl_fail(e, SL_ESOURCE, FILE_NAME " has no special token '%s'", text);
}

/* ---- ordinary tokens ---- */

/* The first ones, as lines of a tiktoken.model. */
static int write_lines(const cJSON *list, uint64_t n, char **text, size_t *len, struct sl_error *e)
{
    const cJSON *x = cJSON_IsArray(list) ? list->child : NULL;
    size_t bytes = 1;
    uint64_t i = 0, rank;
    char *at;

    for (const cJSON *y = x; y && i < n; y = y->next, i++) {
        const char *token = cJSON_GetStringValue(sl_get(y, "token_bytes"));

        if (!token || strpbrk(token, " \t\v\f\r\n") || !sl_json_uint(sl_get(y, "rank"), UINT32_MAX, &rank) || rank != i)
            return sl_fail(e, SL_ESOURCE, FILE_NAME ": vocab, entry %" PRIu64 ": expected \"token_bytes\" of that rank", i);
        bytes += strlen(token) + 24;
    }
    if (i < n)
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": vocab has %" PRIu64 " tokens; expected at least %" PRIu64, i, n);
    *text = at = malloc(bytes);
    if (!at)
        return sl_tokenizer_no_memory(e);
    *at = '\0';
    for (i = 0; i < n; x = x->next, i++)
        at += sprintf(at, "%s %" PRIu64 "\n", sl_get(x, "token_bytes")->valuestring, i);
    *len = (size_t)(at - *text);
    return 0;
}

static int read_tokens(struct tekken *k, const cJSON *list, struct sl_error *e)
{
    uint64_t n = k->n - k->n_special;
    size_t len = 0;
    char *text;
    int rc;

    SL_TRY(write_lines(list, n, &text, &len, e));
    rc = sl_tiktoken_parse(FILE_NAME "'s vocab", text, len, n, false, &k->t, e);
    free(text);
    SL_TRY(rc);
    for (unsigned b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        char one[8];

        sl_byte_level_encode(&byte, 1, one);
        if (strcmp(k->t.text[b], one) != 0)
            return sl_fail(e, SL_ESOURCE, FILE_NAME ": vocab, entry %u: expected the byte 0x%02x", b, b);
    }
    for (uint64_t i = 0; i < n; i++)
        k->text[k->n_special + i] = k->t.text[i];
    return 0;
}

/* ---- merges ---- */

struct cut {
    uint32_t left, right; /* ranks */
};

static int by_ranks(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;

    return x->left != y->left ? (x->left < y->left ? -1 : 1) : (x->right > y->right) - (x->right < y->right);
}

/* All places in which a token is two tokens. Returns how many. */
static size_t cuts_of(const struct sl_tiktoken *t, const char *text, struct cut *cuts)
{
    char left[2 * SL_TIKTOKEN_MAX_TOKEN + 1];
    size_t n = 0;

    for (size_t at = 1; text[at]; at++) {
        if (((unsigned char)text[at] & 0xc0) == 0x80)
            continue;
        memcpy(left, text, at);
        left[at] = '\0';
        cuts[n].left = sl_name_table_find(&t->rank_of, left);
        cuts[n].right = cuts[n].left == SL_NO_NAME ? SL_NO_NAME : sl_name_table_find(&t->rank_of, text + at);
        n += cuts[n].right != SL_NO_NAME;
    }
    qsort(cuts, n, sizeof *cuts, by_ranks);
    return n;
}

struct merges {
    char **text;
    uint64_t n, cap, bytes;
};

static int add_merge(struct merges *m, const char *left, const char *right, struct sl_error *e)
{
    size_t a = strlen(left), b = strlen(right);

    m->bytes += a + b + 2 * sizeof m->text;
    if (m->bytes > MAX_MERGES)
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": its tokens are made of each other in too many ways: more than %u MB of merges", MAX_MERGES >> 20);
    if (m->n == m->cap) {
        uint64_t cap = m->cap ? 2 * m->cap : 65536;
        char **grown = realloc(m->text, cap * sizeof *grown);

        if (!grown)
            return sl_tokenizer_no_memory(e);
        m->text = grown;
        m->cap = cap;
    }
    m->text[m->n] = malloc(a + b + 2);
    if (!m->text[m->n])
        return sl_tokenizer_no_memory(e);
    memcpy(m->text[m->n], left, a);
    m->text[m->n][a] = ' ';
    memcpy(m->text[m->n++] + a + 1, right, b + 1);
    return 0;
}

static int make_merges(const struct sl_tiktoken *t, struct merges *m, struct sl_error *e)
{
    struct cut cuts[SL_TIKTOKEN_MAX_TOKEN];

    for (uint32_t i = 256; i < t->n; i++) {
        size_t n = cuts_of(t, t->text[i], cuts);

        if (!n)
            return sl_fail(e, SL_ESOURCE, FILE_NAME ": no two tokens make the one of rank %" PRIu32, i);
        for (size_t x = 0; x < n; x++)
            SL_TRY(add_merge(m, t->text[cuts[x].left], t->text[cuts[x].right], e));
    }
    return 0;
}

static int set_merges(const struct tekken *k, struct sl_kvs *kvs, struct sl_error *e)
{
    struct merges m = {.n = 0};
    int rc = make_merges(&k->t, &m, e);

    if (rc == 0 && sl_kvs_set_strs(kvs, "tokenizer.ggml.merges", (const char *const *)m.text, m.n) < 0)
        rc = sl_tokenizer_no_memory(e);
    for (uint64_t i = 0; i < m.n; i++)
        free(m.text[i]);
    free(m.text);
    return rc;
}

/* ---- all of it ---- */

static int set_tokens(const struct tekken *k, struct sl_kvs *kvs, struct sl_error *e)
{
    float *scores = calloc(k->n, sizeof *scores);
    int32_t *types = calloc(k->n, sizeof *types);
    int rc = scores && types ? 0 : sl_tokenizer_no_memory(e);

    for (uint64_t i = 0; rc == 0 && i < k->n; i++)
        types[i] = i < k->n_special ? SL_TOKEN_CONTROL : SL_TOKEN_NORMAL;
    if (rc == 0 && (sl_kvs_set_strs(kvs, "tokenizer.ggml.tokens", k->text, k->n) < 0 ||
                    sl_kvs_set_arr(kvs, "tokenizer.ggml.scores", SL_KV_F32, scores, k->n) < 0 ||
                    sl_kvs_set_arr(kvs, "tokenizer.ggml.token_type", SL_KV_I32, types, k->n) < 0 ||
                    sl_kvs_set_bool(kvs, "tokenizer.ggml.add_bos_token", true) < 0 ||
                    sl_kvs_set_bool(kvs, "tokenizer.ggml.add_eos_token", false) < 0))
        rc = sl_tokenizer_no_memory(e);
    free(scores);
    free(types);
    return rc;
}

static int set_all(struct tekken *k, const cJSON *file, const struct sl_source_dir *dir, struct sl_kvs *kvs, struct sl_error *e)
{
    static const struct { const char *key, *text; } ids[] = {
        {"tokenizer.ggml.bos_token_id", "<s>"}, {"tokenizer.ggml.eos_token_id", "</s>"},
        {"tokenizer.ggml.unknown_token_id", "<unk>"}, {"tokenizer.ggml.padding_token_id", "<pad>"},
    };

    SL_TRY(read_special(k, sl_get(file, "special_tokens"), e));
    SL_TRY(read_tokens(k, sl_get(file, "vocab"), e));
    if (sl_kvs_set_str(kvs, "tokenizer.ggml.model", "gpt2") < 0 || sl_kvs_set_str(kvs, "tokenizer.ggml.pre", "tekken") < 0)
        return sl_tokenizer_no_memory(e);
    SL_TRY(set_merges(k, kvs, e));
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        SL_TRY(set_id(k, kvs, ids[i].key, ids[i].text, e));
    SL_TRY(set_tokens(k, kvs, e));
    return sl_tokenizer_chat(dir, NULL, kvs, e);
}

static int read_sizes(struct tekken *k, const cJSON *file, uint64_t n_vocab, struct sl_error *e)
{
    const cJSON *config = sl_get(file, "config");
    const char *pattern = cJSON_GetStringValue(sl_get(config, "pattern"));

    if (!pattern || strcmp(pattern, rules) != 0)
        return sl_fail(e, SL_EUNSUPPORTED, FILE_NAME " splits texts by other rules than those that llama.cpp has for it: '%.200s'",
                       pattern ? pattern : "");
    if (!sl_json_uint(sl_get(config, "default_vocab_size"), SL_MAX_VOCAB, &k->n) || k->n != n_vocab)
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": \"default_vocab_size\" is not params.json's \"vocab_size\", %" PRIu64, n_vocab);
    if (!sl_json_uint(sl_get(config, "default_num_special_tokens"), MAX_SPECIAL, &k->n_special) || k->n_special + 256 > k->n)
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": \"default_num_special_tokens\" leaves no room for 256 bytes among %" PRIu64 " tokens",
                       k->n);
    return 0;
}

/* The text of the token of byte 0 is a NUL, which cJSON cuts a string at: U+FFFF, which is no character, stands for it. No text of
 * an ordinary token is read. */
static void hide_nuls(char *text, size_t len)
{
    for (size_t at = 0; at + 6 <= len; at++)
        if (text[at] == '\\' && memcmp(text + at + 1, "u0000", 5) == 0)
            memcpy(text + at + 2, "ffff", 4);
        else
            at += text[at] == '\\';
}

static int read_file(const struct sl_source_dir *dir, cJSON **file, struct sl_error *e)
{
    size_t len;
    char *text;
    int rc = sl_source_text(dir, FILE_NAME, &text, &len, e);

    if (rc == 0)
        return sl_fail(e, SL_ESOURCE, "%s: " FILE_NAME " is missing, the tokenizer; download it beside params.json", dir->path);
    SL_TRY(rc);
    hide_nuls(text, len);
    rc = sl_json_parse_python(FILE_NAME, text, len, file, e);
    free(text);
    if (rc < 0 || cJSON_IsObject(*file))
        return rc;
    cJSON_Delete(*file);
    return sl_fail(e, SL_ESOURCE, FILE_NAME ": expected a JSON object");
}

int sl_tokenizer_tekken(const struct sl_source_dir *dir, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e)
{
    struct tekken k = {.n = 0};
    cJSON *file;
    int rc;

    SL_TRY(read_file(dir, &file, e));
    rc = read_sizes(&k, file, n_vocab, e);
    if (rc == 0) {
        k.text = calloc(k.n, sizeof *k.text);
        k.made = calloc(k.n_special + 1, sizeof *k.made);
        rc = k.text && k.made ? set_all(&k, file, dir, kvs, e) : sl_tokenizer_no_memory(e);
    }
    sl_tiktoken_free(&k.t);
    free(k.text);
    free(k.made);
    cJSON_Delete(file);
    return rc;
}
