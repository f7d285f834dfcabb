/* SentencePiece's tokenizer.model, a message of Protocol Buffers: pieces with a score and a kind, of which their places in the file are
 * the ids; and the tokens that added_tokens.json and tokenizer_config.json put beside or in place of them. */
#include "proto/arch_table.h"
#include "proto/cursor.h"
#include "proto/json_file.h"
#include "proto/tokenizer.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "tokenizer.model"
#define MAX_FILE (64u << 20)
#define MADE 32 /* bytes of a name that is made here */

/* Kinds, which are GGUF's types of tokens, too; a piece that a user defined is an ordinary one there. */
enum { NORMAL = 1, UNKNOWN = 2, USER_DEFINED = 4, UNUSED = 5, LAST_KIND = 6 };

struct pieces {
    uint64_t n;        /* ids */
    char **text;       /* of each; malloc'ed */
    float *score;
    int32_t *type;
    uint64_t n_read;
    bool unknown;      /* a piece of that kind was there */
    struct sl_name_table names;
};

/* ---- the message ---- */

struct field {
    uint64_t number, value; /* of a number or of four bytes; of bytes: how many */
    const uint8_t *bytes;   /* NULL: none */
};

static bool next_varint(struct sl_cursor *c, uint64_t *v)
{
    uint8_t byte = 0x80;

    *v = 0;
    for (unsigned shift = 0; byte & 0x80; shift += 7) {
        if (shift > 63 || !sl_cursor_u8(c, &byte))
            return false;
        *v |= (uint64_t)(byte & 0x7f) << shift;
    }
    return true;
}

static bool next_field(struct sl_cursor *c, struct field *f)
{
    uint64_t key;

    f->bytes = NULL;
    if (!next_varint(c, &key))
        return false;
    f->number = key >> 3;
    switch (key & 7) {
    case 0: return next_varint(c, &f->value);
    case 1: return sl_cursor_uint(c, 8, &f->value);
    case 2: return next_varint(c, &f->value) && sl_cursor_bytes(c, f->value, &f->bytes);
    case 5: return sl_cursor_uint(c, 4, &f->value);
    default: return false;
    }
}

static int damaged(struct sl_error *e)
{
    return sl_fail(e, SL_ESOURCE, FILE_NAME " is damaged, or no SentencePiece model; is the download complete?");
}

static int take_piece(struct pieces *k, struct sl_cursor c, struct sl_error *e)
{
    const uint8_t *text = NULL;
    uint64_t len = 0, kind = NORMAL, id = k->n_read++;
    struct field f;
    uint32_t bits = 0, held;
    char *copy;

    while (sl_cursor_left(&c)) {
        if (!next_field(&c, &f))
            return damaged(e);
        if (f.number == 1 && f.bytes) {
            text = f.bytes;
            len = f.value;
        } else if (f.number == 2 && !f.bytes) {
            bits = (uint32_t)f.value;
        } else if (f.number == 3 && !f.bytes) {
            kind = f.value;
        }
    }
    if (!text || !len || memchr(text, 0, len) || kind < NORMAL || kind > LAST_KIND)
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": piece %" PRIu64 " is empty, no text, or of an unknown kind", id);
    if (id >= k->n)
        return 0;
    copy = k->text[id] = strndup((const char *)text, len);
    if (!copy)
        return sl_tokenizer_no_memory(e);
    if (!sl_utf8_valid(copy))
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": piece %" PRIu64 " is no UTF-8", id);
    SL_TRY(sl_name_table_add(&k->names, copy, (uint32_t)id, &held, e));
    if (held != id)
        return sl_fail(e, SL_ESOURCE, FILE_NAME ": piece %" PRIu64 " has the text of piece %" PRIu32, id, held);
    memcpy(&k->score[id], &bits, sizeof bits);
    k->type[id] = kind == USER_DEFINED ? NORMAL : (int32_t)kind;
    k->unknown = k->unknown || kind == UNKNOWN;
    return 0;
}

static int read_pieces(struct pieces *k, const struct sl_source_dir *dir, struct sl_error *e)
{
    struct sl_cursor c;
    struct field f;
    char *text;
    size_t len;
    int rc = sl_source_head(dir, FILE_NAME, MAX_FILE, &text, &len, e);

    if (rc <= 0)
        return rc < 0 ? rc : sl_fail(e, SL_ESOURCE, "%s: " FILE_NAME " is missing; download the one that the model has beside config.json", dir->path);
    rc = sl_source_is_lfs(text, len) ? sl_fail(e, SL_ESOURCE, FILE_NAME " " SL_SOURCE_LFS) : 0;
    c = sl_cursor(text, len);
    for (; rc == 0 && sl_cursor_left(&c);)
        if (!next_field(&c, &f))
            rc = damaged(e);
        else if (f.number == 1 && f.bytes)
            rc = take_piece(k, sl_cursor(f.bytes, f.value), e);
    free(text);
    return rc == 0 && !k->unknown ? damaged(e) : rc;
}

/* ---- tokens that are added ---- */

static int replace(struct pieces *k, uint64_t id, char *text, int32_t type, struct sl_error *e)
{
    if (!text)
        return sl_tokenizer_no_memory(e);
    free(k->text[id]);
    k->text[id] = text;
    k->score[id] = -1000;
    k->type[id] = type;
    return 0;
}

static int bad_added(const char *where, const char *name, struct sl_error *e)
{
    return sl_fail(e, SL_ESOURCE, "%s, entry '%.40s': expected a token and its id", where, name);
}

/* {"<mask:7>": 100000, ...} */
static int take_added(struct pieces *k, const cJSON *list, struct sl_error *e)
{
    uint64_t id;

    for (const cJSON *x = list ? list->child : NULL; x; x = x->next) {
        if (!sl_json_uint(x, UINT32_MAX, &id) || !*x->string)
            return bad_added("added_tokens.json", x->string, e);
        if (id < k->n)
            SL_TRY(replace(k, id, strdup(x->string), USER_DEFINED, e));
    }
    return 0;
}

/* {"100000": {"content": "<mask:7>", "special": true, ...}, ...} */
static int take_decoder(struct pieces *k, const cJSON *list, struct sl_error *e)
{
    for (const cJSON *x = cJSON_IsObject(list) ? list->child : NULL; x; x = x->next) {
        const char *text = cJSON_GetStringValue(sl_get(x, "content"));
        size_t n = strlen(x->string);
        bool special = text && (cJSON_IsTrue(sl_get(x, "special")) || sl_token_looks_special(text));
        uint64_t id = 0;

        if (!text || n == 0 || n > 9 || strspn(x->string, "0123456789") != n)
            return bad_added("tokenizer_config.json: added_tokens_decoder", x->string, e);
        for (size_t i = 0; i < n; i++)
            id = id * 10 + (uint64_t)(x->string[i] - '0');
        if (id < k->n)
            SL_TRY(replace(k, id, special ? strdup(text) : sl_token_with_spaces(text), special ? (int32_t)SL_TOKEN_CONTROL : USER_DEFINED, e));
    }
    return 0;
}

/* ---- keys ---- */

static int name_others(struct pieces *k, struct sl_error *e)
{
    char made[MADE];

    for (uint64_t id = 0; id < k->n; id++) {
        if (k->text[id])
            continue;
        snprintf(made, sizeof made, "[PAD%" PRIu64 "]", id);
        SL_TRY(replace(k, id, strdup(made), UNUSED, e));
        k->score[id] = -10000;
    }
    return 0;
}

static int set_tokens(struct pieces *k, const struct sl_source_dir *dir, const cJSON *added, const cJSON *tokenizer_config,
                      struct sl_kvs *kvs, struct sl_error *e)
{
    k->text = calloc(k->n, sizeof *k->text);
    k->score = calloc(k->n, sizeof *k->score);
    k->type = calloc(k->n, sizeof *k->type);
    if (!k->text || !k->score || !k->type)
        return sl_tokenizer_no_memory(e);
    SL_TRY(sl_name_table_init(&k->names, k->n, e));
    SL_TRY(read_pieces(k, dir, e));
    SL_TRY(name_others(k, e));
    SL_TRY(take_added(k, added, e));
    SL_TRY(take_decoder(k, sl_get(tokenizer_config, "added_tokens_decoder"), e));
    if (sl_kvs_set_str(kvs, "tokenizer.ggml.model", "llama") < 0 || sl_kvs_set_str(kvs, "tokenizer.ggml.pre", "default") < 0 ||
        sl_kvs_set_strs(kvs, "tokenizer.ggml.tokens", (const char *const *)k->text, k->n) < 0 ||
        sl_kvs_set_arr(kvs, "tokenizer.ggml.scores", SL_KV_F32, k->score, k->n) < 0 ||
        sl_kvs_set_arr(kvs, "tokenizer.ggml.token_type", SL_KV_I32, k->type, k->n) < 0)
        return sl_tokenizer_no_memory(e);
    return 0;
}

static void free_pieces(struct pieces *k)
{
    for (uint64_t id = 0; k->text && id < k->n; id++)
        free(k->text[id]);
    sl_name_table_free(&k->names);
    free(k->text);
    free(k->score);
    free(k->type);
}

int sl_tokenizer_pieces(const struct sl_source_dir *dir, const cJSON *config, const struct sl_arch *arch, uint64_t n_vocab,
                        struct sl_kvs *kvs, struct sl_error *e)
{
    static const char *const names[] = {"added_tokens.json", "tokenizer_config.json", "tokenizer.json"};
    cJSON *files[3] = {NULL, NULL, NULL};
    struct pieces k = {.n = n_vocab};
    const cJSON *space;
    int rc = 0;

    for (int i = 0; rc == 0 && i < 3; i++)
        rc = sl_tokenizer_read_json(dir, names[i], &files[i], e);
    rc = rc < 0 ? rc : set_tokens(&k, dir, files[0], files[1], kvs, e);
    rc = rc < 0 ? rc : sl_tokenizer_special(dir, files[2], files[1], config, arch, kvs, e);
    space = sl_get(files[1], "add_prefix_space");
    if (rc == 0 && cJSON_IsBool(space) && sl_kvs_set_bool(kvs, "tokenizer.ggml.add_space_prefix", cJSON_IsTrue(space)) < 0)
        rc = sl_tokenizer_no_memory(e);
    for (int i = 0; i < 3; i++)
        cJSON_Delete(files[i]);
    free_pieces(&k);
    return rc;
}
