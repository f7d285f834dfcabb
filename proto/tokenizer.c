#include "proto/tokenizer.h"

#include "proto/arch_table.h"
#include "proto/json_file.h"
#include "proto/name_table.h"
#include "proto/source_file.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


struct vocab {
    uint64_t n;
    const char **text;  /* of each id; NULL: no token */
    int32_t *type;
    uint32_t *seen;     /* of each id: one bit for each set of flags it has or was added with */
    bool loading;       /* tokenizer.json's own: the last one alone counts as seen */
    char **owned;       /* texts made here */
    uint64_t n_owned, cap_owned;
    uint64_t n_base;    /* entries of model.vocab */
    uint64_t end_base;  /* one past the highest id there */
    int64_t max_added;  /* highest id of an added token, or -1 */
    struct sl_name_table base, added; /* text -> id */
    struct sl_name_table listed;      /* added tokens whose flags stand, whatever a role's are */
    struct sl_roles roles;
    bool byte_decoder;  /* decoding turns the byte-level alphabet into bytes */
};

static bool starts(const char *s, const char *with)
{
    return strncmp(s, with, strlen(with)) == 0;
}

/* Some added tokens that control are not marked as special. */
bool sl_token_looks_special(const char *s)
{
    static const char *const words[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(s, words[i]) == 0)
            return true;
    return (starts(s, "<|") && sl_ends_with(s, "|>")) || (starts(s, "<｜") && sl_ends_with(s, "｜>")) ||
           (starts(s, "<unused") && sl_ends_with(s, ">"));
}

/* ---- files ---- */

int sl_tokenizer_read_json(const struct sl_source_dir *dir, const char *name, cJSON **out,
                           struct sl_error *e)
{
    char *text;
    size_t len;
    int rc;

    *out = NULL;
    rc = sl_source_text(dir, name, &text, &len, e);
    if (rc <= 0)
        return rc;
    rc = sl_json_parse_python(name, text, len, out, e);
    free(text);
    if (rc < 0)
        return rc;
    if (cJSON_IsObject(*out))
        return 0;
    cJSON_Delete(*out);
    *out = NULL;
    return sl_fail(e, SL_ESOURCE, "%s: expected a JSON object", name);
}

/* ---- tokens ---- */

int sl_tokenizer_no_memory(struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "out of memory for the tokenizer");
}

static int bad_id(const struct vocab *v, const char *token, struct sl_error *e)
{
    return sl_fail(e, SL_ESOURCE, "tokenizer.json: the id of token '%.80s' is not an integer below "
                   "config.json's vocab_size %" PRIu64, token, v->n);
}

static int own(struct vocab *v, char *text, struct sl_error *e)
{
    if (text && v->n_owned == v->cap_owned) {
        uint64_t cap = v->cap_owned ? 2 * v->cap_owned : 64;
        char **grown = realloc(v->owned, cap * sizeof *grown);

        if (!grown) {
            free(text);
            return sl_tokenizer_no_memory(e);
        }
        v->owned = grown;
        v->cap_owned = cap;
    }
    if (!text)
        return sl_tokenizer_no_memory(e);
    v->owned[v->n_owned++] = text;
    return 0;
}

static int take_base(struct vocab *v, const cJSON *tokenizer, struct sl_error *e)
{
    const cJSON *list = sl_get(sl_get(tokenizer, "model"), "vocab");
    uint64_t id;

    if (!cJSON_IsObject(list) || !list->child)
        return sl_fail(e, SL_ESOURCE, "tokenizer.json: model.vocab is missing or empty");
    for (const cJSON *x = list->child; x; x = x->next) {
        if (!sl_json_uint(x, SL_JSON_EXACT, &id) || id >= v->n)
            return bad_id(v, x->string, e);
        v->text[id] = x->string;
        v->type[id] = SL_TOKEN_NORMAL;
        v->n_base++;
        if (id >= v->end_base)
            v->end_base = id + 1;
    }
    return 0;
}

/* U+2581 is how some vocabularies write a space. */
char *sl_token_with_spaces(const char *text)
{
    char *copy = malloc(strlen(text) + 1), *to = copy;

    for (const char *s = text; copy && *s;) {
        bool space = starts(s, "\xe2\x96\x81");

        *to++ = space ? ' ' : *s;
        s += space ? 3 : 1;
    }
    if (copy)
        *to = '\0';
    return copy;
}

static int with_spaces(struct vocab *v, uint64_t id, const char *text, struct sl_error *e)
{
    char *copy;

    if (!strstr(text, "\xe2\x96\x81"))
        return 0;
    copy = sl_token_with_spaces(text);
    SL_TRY(own(v, copy, e));
    v->text[id] = copy;
    return 0;
}

/* The converter decodes what it encoded of a token that is not normalized; bytes
 * that are no UTF-8 become U+FFFD. */
static int decode_token(struct vocab *v, const char **text, struct sl_error *e)
{
    char *decoded;

    if (!v->byte_decoder || !sl_byte_level_decode(*text, &decoded))
        return 0;
    SL_TRY(own(v, decoded, e));
    *text = decoded;
    return 0;
}

/* What the tokenizers library tells added tokens of one text apart by. */
enum { SPECIAL = 1, NORMALIZED = 2, SINGLE_WORD = 4, LSTRIP = 8, RSTRIP = 16 };

static uint32_t flags_of(const cJSON *item, bool special)
{
    const cJSON *normalized = sl_get(item, "normalized");
    uint32_t flags = special ? SPECIAL : 0;

    if (cJSON_IsBool(normalized) ? cJSON_IsTrue(normalized) : !special)
        flags |= NORMALIZED;
    flags |= cJSON_IsTrue(sl_get(item, "single_word")) ? SINGLE_WORD : 0;
    flags |= cJSON_IsTrue(sl_get(item, "lstrip")) ? LSTRIP : 0;
    return flags | (cJSON_IsTrue(sl_get(item, "rstrip")) ? RSTRIP : 0);
}

/* A token that was added before is replaced, unless these flags were seen of it. */
static int add_token(struct vocab *v, const char *text, uint64_t id, uint32_t flags, struct sl_error *e)
{
    if (id >= v->n)
        return bad_id(v, text, e);
    if (sl_name_table_find(&v->added, text) != id)
        v->seen[id] = 0;
    SL_TRY(sl_name_table_add(&v->added, text, (uint32_t)id, NULL, e));
    if ((int64_t)id > v->max_added)
        v->max_added = (int64_t)id;
    if (v->seen[id] >> flags & 1)
        return 0;
    v->seen[id] = (v->loading ? 0 : v->seen[id]) | UINT32_C(1) << flags;
    if (!(flags & NORMALIZED))
        SL_TRY(decode_token(v, &text, e));
    v->text[id] = text;
    v->type[id] = flags & SPECIAL || sl_token_looks_special(text) ? SL_TOKEN_CONTROL : SL_TOKEN_USER_DEFINED;
    return v->type[id] == SL_TOKEN_USER_DEFINED ? with_spaces(v, id, text, e) : 0;
}

static int index_base(struct vocab *v, struct sl_error *e)
{
    if (v->base.cap)
        return 0;
    SL_TRY(sl_name_table_init(&v->base, v->n_base, e));
    for (uint64_t i = 0; i < v->n; i++)
        if (v->text[i] && v->type[i] == SL_TOKEN_NORMAL)
            SL_TRY(sl_name_table_add(&v->base, v->text[i], (uint32_t)i, NULL, e));
    return 0;
}

/* As the tokenizers library numbers an added token, whatever tokenizer.json says: it keeps
 * the id that it has in the vocabulary, else it gets the next free one. */
static int add_numbered(struct vocab *v, const char *text, uint32_t flags, struct sl_error *e)
{
    uint64_t id = sl_name_table_find(&v->added, text);

    if (!*text)
        return 0;
    if (id == SL_NO_NAME) {
        SL_TRY(index_base(v, e));
        id = sl_name_table_find(&v->base, text);
    }
    if (id == SL_NO_NAME) {
        id = v->max_added >= (int64_t)v->n_base ? (uint64_t)v->max_added + 1 : v->n_base;
        if (id >= v->n && !v->loading)
            return sl_fail(e, SL_ESOURCE, "token '%.80s' is not in tokenizer.json, and a new one has no id below config.json's "
                           "vocab_size %" PRIu64 "; is tokenizer_config.json there, and of this model?", text, v->n);
    }
    return add_token(v, text, id, flags, e);
}

/* ---- added tokens ---- */

struct added_entry {
    const char *text;
    double id; /* their order */
    size_t at;
    uint32_t flags;
};

struct added_list {
    struct added_entry *all;
    size_t n, cap;
};

static int push(struct added_list *l, const char *text, double id, uint32_t flags, struct sl_error *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        struct added_entry *grown = realloc(l->all, cap * sizeof *grown);

        if (!grown)
            return sl_tokenizer_no_memory(e);
        l->all = grown;
        l->cap = cap;
    }
    l->all[l->n] = (struct added_entry){text, id, l->n, flags};
    l->n++;
    return 0;
}

static int by_id(const void *a, const void *b)
{
    const struct added_entry *x = a, *y = b;

    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->at > y->at) - (x->at < y->at);
}

static bool has_role(const struct vocab *v, const char *text)
{
    return sl_name_table_find(&v->roles.named, text) != SL_NO_NAME;
}

/* roles: a token that has one is special. */
static int push_tokenizer(const struct vocab *v, const cJSON *tokenizer, bool roles,
                          struct added_list *l, struct sl_error *e)
{
    const cJSON *list = sl_get(tokenizer, "added_tokens");

    for (const cJSON *x = cJSON_IsArray(list) ? list->child : NULL; x; x = x->next) {
        const char *text = sl_token_text(x);
        bool special = cJSON_IsTrue(sl_get(x, "special"));
        uint64_t id;

        if (!text || cJSON_IsString(x))
            return sl_fail(e, SL_ESOURCE, "tokenizer.json: an entry of added_tokens has no content");
        if (!sl_json_uint(sl_get(x, "id"), SL_JSON_EXACT, &id))
            return bad_id(v, text, e);
        special = special || (roles && has_role(v, text));
        SL_TRY(push(l, text, (double)id, flags_of(x, special), e));
    }
    return 0;
}

/* Those of tokenizer.json, in its order. A vocabulary with holes has no next free id: there their own stand. */
static int take_added(struct vocab *v, const cJSON *tokenizer, struct sl_error *e)
{
    struct added_list l = {NULL, 0, 0};
    int rc = push_tokenizer(v, tokenizer, false, &l, e);

    v->loading = true;
    for (size_t i = 0; i < l.n && rc == 0; i++)
        rc = v->end_base == v->n_base ? add_numbered(v, l.all[i].text, l.all[i].flags, e)
                                      : add_token(v, l.all[i].text, (uint64_t)l.all[i].id, l.all[i].flags, e);
    v->loading = false;
    free(l.all);
    return rc;
}

static int push_decoder(struct vocab *v, const cJSON *decoder, struct added_list *l, struct sl_error *e)
{
    for (const cJSON *x = cJSON_IsObject(decoder) ? decoder->child : NULL; x; x = x->next) {
        const char *text = sl_token_text(x);

        if (!text)
            continue;
        SL_TRY(push(l, text, (double)strtoll(x->string, NULL, 10),
                    flags_of(x, cJSON_IsTrue(sl_get(x, "special")) || has_role(v, text)), e));
        SL_TRY(sl_name_table_add(&v->listed, text, 0, NULL, e));
    }
    return 0;
}

/* Without "added_tokens_decoder": added_tokens.json's, but where tokenizer.json has a token of the
 * same id, that one. */
static int push_legacy(struct vocab *v, const cJSON *tokenizer, struct added_list *l, struct sl_error *e)
{
    size_t n;

    for (const cJSON *x = v->roles.added ? v->roles.added->child : NULL; x; x = x->next) {
        if (!cJSON_IsNumber(x))
            return sl_fail(e, SL_ESOURCE, "added_tokens.json: the id of token '%.80s' is not a number", x->string);
        SL_TRY(push(l, x->string, x->valuedouble, has_role(v, x->string) ? SPECIAL : NORMALIZED, e));
    }
    n = l->n;
    SL_TRY(push_tokenizer(v, tokenizer, true, l, e));
    for (size_t i = n; i < l->n; i++)
        SL_TRY(sl_name_table_add(&v->listed, l->all[i].text, 0, NULL, e));
    return 0;
}

static int take_roles(struct vocab *v, struct sl_error *e)
{
    for (size_t i = 0; i < v->roles.n; i++) {
        const struct sl_role *r = &v->roles.list[i];
        const struct sl_name_table *known = r->object ? &v->listed : &v->added;

        if ((r->object && !r->single) || sl_name_table_find(known, r->text) == SL_NO_NAME)
            SL_TRY(add_numbered(v, r->text, flags_of(r->item, true), e));
    }
    return 0;
}

/* What transformers adds to the tokenizer that tokenizer.json holds, or changes in it. */
static int take_more(struct vocab *v, const cJSON *tokenizer, const cJSON *config, struct sl_error *e)
{
    const cJSON *decoder = sl_get(config, "added_tokens_decoder");
    struct added_list l = {NULL, 0, 0};
    int rc = decoder ? push_decoder(v, decoder, &l, e) : push_legacy(v, tokenizer, &l, e);

    if (l.n)
        qsort(l.all, l.n, sizeof *l.all, by_id);
    for (size_t i = 0; i < l.n && rc == 0; i++)
        if (i + 1 == l.n || l.all[i + 1].id != l.all[i].id)
            rc = add_numbered(v, l.all[i].text, l.all[i].flags, e);
    free(l.all);
    return rc < 0 ? rc : take_roles(v, e);
}

static int fill_gaps(struct vocab *v, struct sl_error *e)
{
    for (uint64_t i = 0; i < v->n; i++) {
        char pad[32];

        if (v->text[i])
            continue;
        snprintf(pad, sizeof pad, "[PAD%" PRIu64 "]", i);
        SL_TRY(own(v, strdup(pad), e));
        v->text[i] = v->owned[v->n_owned - 1];
        v->type[i] = SL_TOKEN_UNUSED;
    }
    return 0;
}

static void vocab_free(struct vocab *v)
{
    for (uint64_t i = 0; i < v->n_owned; i++)
        free(v->owned[i]);
    free(v->owned);
    free(v->text);
    free(v->type);
    free(v->seen);
    sl_name_table_free(&v->base);
    sl_name_table_free(&v->added);
    sl_name_table_free(&v->listed);
    sl_roles_free(&v->roles);
}

static bool has_byte_decoder(const cJSON *tokenizer)
{
    const cJSON *j = sl_get(tokenizer, "decoder"), *list = sl_get(j, "decoders");

    for (const cJSON *x = cJSON_IsArray(list) ? list->child : j; x; x = x->next) {
        const cJSON *type = sl_get(x, "type");

        if (cJSON_IsString(type) && strcmp(type->valuestring, "ByteLevel") == 0)
            return true;
        if (x == j)
            break;
    }
    return false;
}

static int set_tokens(const struct sl_source_dir *dir, const cJSON *tokenizer, const cJSON *config,
                      const cJSON *model, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e)
{
    struct vocab v = {.n = n_vocab, .max_added = -1, .byte_decoder = has_byte_decoder(tokenizer)};
    int rc;

    v.text = calloc(n_vocab + 1, sizeof *v.text);
    v.type = calloc(n_vocab + 1, sizeof *v.type);
    v.seen = calloc(n_vocab + 1, sizeof *v.seen);
    rc = v.text && v.type && v.seen ? sl_name_table_init(&v.added, 64, e) : sl_tokenizer_no_memory(e);
    rc = rc < 0 ? rc : sl_name_table_init(&v.listed, 64, e);
    rc = rc < 0 ? rc : take_base(&v, tokenizer, e);
    rc = rc < 0 ? rc : sl_roles_read(dir, tokenizer, config, model, &v.roles, e);
    rc = rc < 0 ? rc : take_added(&v, tokenizer, e);
    rc = rc < 0 ? rc : take_more(&v, tokenizer, config, e);
    rc = rc < 0 ? rc : fill_gaps(&v, e);
    if (rc == 0 && (sl_kvs_set_strs(kvs, "tokenizer.ggml.tokens", v.text, n_vocab) < 0 ||
                    sl_kvs_set_arr(kvs, "tokenizer.ggml.token_type", SL_KV_I32, v.type, n_vocab) < 0))
        rc = sl_tokenizer_no_memory(e);
    vocab_free(&v);
    return rc;
}

/* ---- all of it ---- */

static int check_kind(const struct sl_source_dir *dir, const cJSON *tokenizer,
                      const struct sl_arch *arch, struct sl_error *e)
{
    const cJSON *model = sl_get(tokenizer, "model"), *type = sl_get(model, "type");
    const char *kind = cJSON_IsString(type) ? type->valuestring : "BPE";

    if (arch->sentencepiece && sl_source_exists(dir->path, "tokenizer.model"))
        return sl_fail(e, SL_EUNSUPPORTED, "the checkpoint has a SentencePiece tokenizer "
                       "(tokenizer.model); supported: byte-level BPE");
    if (strcmp(kind, "BPE") != 0 || cJSON_IsTrue(sl_get(model, "byte_fallback")))
        return sl_fail(e, SL_EUNSUPPORTED, "tokenizer.json: a tokenizer of type %.40s%s is not "
                       "supported; supported: byte-level BPE", kind,
                       strcmp(kind, "BPE") == 0 ? " with byte_fallback" : "");
    return 0;
}

/* MiniMax-M2's and Ling's rules are those of others, too, under other names. transformers 5 makes a tokenizer.json of any
 * tiktoken.model, with Llama 3's rules. */
static int check_rules(const cJSON *config, const struct sl_arch *arch, const char *pre, struct sl_error *e)
{
    const char *type = sl_config_str(config, "model_type"), *of = strcmp(pre, "bailingmoe") == 0 ? "Ling" : NULL;

    if (strcmp(pre, "minimax-m2") == 0 && arch->tokens != SL_TOKENS_MINIMAX)
        of = "MiniMax-M2";
    if (of)
        return sl_fail(e, SL_EUNSUPPORTED, "tokenizer.json splits texts by %s's rules, and config.json is of %s", of, arch->name);
    if (!type || !starts(type, "kimi_k2") || strcmp(pre, "llama-bpe") != 0)
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "tokenizer.json splits texts by Llama 3's rules, as transformers 5 writes it for "
                   "Kimi-K2, whose rules are others; put the tiktoken.model and the tokenizer_config.json that the "
                   "model came with in its place");
}

static int set_all(const struct sl_source_dir *dir, const cJSON *tokenizer,
                   const cJSON *tokenizer_config, const cJSON *config, const struct sl_arch *arch, uint64_t n_vocab,
                   struct sl_kvs *kvs, struct sl_error *e)
{
    const cJSON *space = sl_get(tokenizer_config, "add_prefix_space");
    const char *pre;

    SL_TRY(check_kind(dir, tokenizer, arch, e));
    SL_TRY(sl_tokenizer_pre(tokenizer, tokenizer_config, config, arch, &pre, e));
    SL_TRY(check_rules(config, arch, pre, e));
    if (arch->space_prefix && cJSON_IsBool(space) &&
        sl_kvs_set_bool(kvs, "tokenizer.ggml.add_space_prefix", cJSON_IsTrue(space)) < 0)
        return sl_tokenizer_no_memory(e);
    if (sl_kvs_set_str(kvs, "tokenizer.ggml.model", "gpt2") < 0 ||
        sl_kvs_set_str(kvs, "tokenizer.ggml.pre", pre) < 0)
        return sl_tokenizer_no_memory(e);
    SL_TRY(set_tokens(dir, tokenizer, tokenizer_config, config, n_vocab, kvs, e));
    SL_TRY(sl_tokenizer_merges(dir, tokenizer, kvs, e));
    return sl_tokenizer_special(dir, tokenizer, tokenizer_config, config, arch, kvs, e);
}

const char *sl_tokenizer_file(const struct sl_arch *arch)
{
    switch (arch->tokens) {
    case SL_TOKENS_TEKKEN: return "tekken.json";
    case SL_TOKENS_HUNYUAN: return "hy.tiktoken";
    case SL_TOKENS_PIECES: return "tokenizer.model";
    default: return NULL;
    }
}

bool sl_tokenizer_there(const char *dir, const struct sl_arch *arch)
{
    const char *file = sl_tokenizer_file(arch);

    return sl_source_exists(dir, file ? file : "tokenizer.json") || (!file && sl_source_exists(dir, "tiktoken.model"));
}

int sl_tokenizer_keys(const struct sl_source_dir *dir, const cJSON *config,
                      const struct sl_arch *arch, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e)
{
    bool hunyuan = arch->tokens == SL_TOKENS_HUNYUAN;
    cJSON *tokenizer = NULL, *tokenizer_config = NULL;
    int rc;

    if (!dir->path)
        return sl_fail(e, SL_ESOURCE, "the checkpoint has no folder with a tokenizer.json");
    if (arch->tokens == SL_TOKENS_TEKKEN)
        return sl_tokenizer_tekken(dir, n_vocab, kvs, e);
    if (arch->tokens == SL_TOKENS_PIECES)
        return sl_tokenizer_pieces(dir, config, arch, n_vocab, kvs, e);
    rc = sl_tokenizer_read_json(dir, "tokenizer.json", &tokenizer, e);
    if (rc == 0 && !tokenizer && !hunyuan && !sl_source_exists(dir->path, "tiktoken.model"))
        rc = sl_fail(e, SL_ESOURCE, "%s: tokenizer.json is missing, and so is tiktoken.model, which Kimi-K2's "
                     "models have instead; download the one that yours has beside config.json", dir->path);
    rc = rc < 0 ? rc : sl_tokenizer_read_json(dir, "tokenizer_config.json", &tokenizer_config, e);
    if (rc == 0)
        rc = hunyuan || sl_tokenizer_is_tiktoken(dir, tokenizer, tokenizer_config)
                 ? sl_tokenizer_tiktoken(dir, tokenizer, tokenizer_config, config, arch, n_vocab, kvs, e)
                 : set_all(dir, tokenizer, tokenizer_config, config, arch, n_vocab, kvs, e);
    cJSON_Delete(tokenizer);
    cJSON_Delete(tokenizer_config);
    return rc;
}
