/* Special tokens, and whether they are added. The rules follow
 * what gguf-py finds, including that a token given as an object is never
 * recognized in a template of the post-processor. */
#include "proto/arch_table.h"
#include "proto/json_file.h"
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, EOT, EOM, N_TYPES };

static const struct {
    const char *name;    /* as in bos_token, add_bos_token, bos_token_id */
    const char *id_key;  /* NULL: has none in GGUF */
    const char *add_key;
} types[N_TYPES] = {
    [BOS] = {"bos", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token"},
    [EOS] = {"eos", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token"},
    [UNK] = {"unk", "tokenizer.ggml.unknown_token_id", NULL},
    [SEP] = {"sep", "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.add_sep_token"},
    [PAD] = {"pad", "tokenizer.ggml.padding_token_id", NULL},
    [CLS] = {"cls", NULL, NULL},
    [MASK] = {"mask", "tokenizer.ggml.mask_token_id", NULL},
    [EOT] = {"eot", "tokenizer.ggml.eot_token_id", NULL},
    [EOM] = {"eom", "tokenizer.ggml.eom_token_id", NULL},
};

struct special {
    const cJSON *token[N_TYPES]; /* entries of tokenizer_config, corrected by the post-processor */
    bool active[N_TYPES];
    int add_order[N_TYPES], n_add; /* types with a known add_X_token, in the order found */
    bool add[N_TYPES], have_add[N_TYPES];
    int id_order[N_TYPES], n_id;
    bool have_id[N_TYPES];
    uint32_t id[N_TYPES];
    uint64_t max_id;
};

const char *sl_token_text(const cJSON *item)
{
    const cJSON *content = sl_get(item, "content");

    if (cJSON_IsString(item))
        return item->valuestring;
    return cJSON_IsString(content) ? content->valuestring : NULL;
}

static bool is_set(const cJSON *j)
{
    return j && !cJSON_IsNull(j) && !(cJSON_IsString(j) && !*j->valuestring);
}

static bool same(const cJSON *a, const cJSON *b)
{
    return cJSON_IsString(a) && cJSON_IsString(b) && strcmp(a->valuestring, b->valuestring) == 0;
}

static void set_add(struct special *s, int type, bool v)
{
    if (!s->have_add[type])
        s->add_order[s->n_add++] = type;
    s->have_add[type] = true;
    s->add[type] = v;
}

static void take_id(struct special *s, int type, uint32_t id)
{
    if (s->have_id[type])
        return;
    s->have_id[type] = true;
    s->id[type] = id;
    s->id_order[s->n_id++] = type;
}

/* An id outside the vocabulary is passed on, but of SentencePiece's: llama.cpp says so and takes its own. */
static void set_id(struct special *s, int type, const cJSON *id)
{
    uint64_t v;

    if (sl_json_uint(id, s->max_id, &v))
        take_id(s, type, (uint32_t)v);
}

/* ---- the post-processor ---- */

static const cJSON *special_id(const cJSON *piece)
{
    const cJSON *id = sl_get(sl_get(piece, "SpecialToken"), "id");

    return is_set(id) ? id : NULL;
}

static bool is_sequence(const cJSON *piece, const char *id)
{
    const cJSON *j = sl_get(sl_get(piece, "Sequence"), "id");

    return cJSON_IsString(j) && strcmp(j->valuestring, id) == 0;
}

/* A ... [sep] [eos] ... B: whether a separator stands between the two texts. */
static void read_pair(struct special *s, const cJSON *pair, const cJSON *first, const cJSON *last,
                      bool have_config)
{
    int n = cJSON_GetArraySize(pair), from = 0, to = n;
    bool sep = false;

    if (n == 0)
        return;
    if (first && same(special_id(pair->child), first))
        from++;
    if (last && same(special_id(cJSON_GetArrayItem(pair, n - 1)), last))
        to--;
    if (to - from < 3 || !is_sequence(cJSON_GetArrayItem(pair, from), "A") ||
        !is_sequence(cJSON_GetArrayItem(pair, to - 1), "B"))
        return;
    for (int i = from + 1; i < to - 1 && i < from + 3; i++) {
        const cJSON *id = special_id(cJSON_GetArrayItem(pair, i));
        bool is_sep = same(id, s->token[SEP]) || same(id, s->token[EOS]);

        if (i == from + 1)
            sep = is_sep && !last;
        else if (to - from == 4)
            sep = sep || is_sep;
    }
    set_add(s, SEP, sep);
    if (sep && !is_set(s->token[SEP]) && have_config)
        s->token[SEP] = s->token[EOS];
}

static void read_template(struct special *s, const cJSON *processor, bool have_config)
{
    const cJSON *single = sl_get(processor, "single"), *first = NULL, *last = NULL;
    int n = cJSON_IsArray(single) ? cJSON_GetArraySize(single) : 0;

    if (n > 1) {
        first = special_id(single->child);
        last = special_id(cJSON_GetArrayItem(single, n - 1));
    }
    if (first) {
        bool known = same(first, s->token[BOS]) || same(first, s->token[CLS]);

        if (!have_config || (!known && !is_set(s->token[BOS])))
            s->token[BOS] = first;
        if (have_config && !known && !is_set(s->token[CLS]))
            s->token[CLS] = first;
        set_add(s, BOS, same(first, s->token[BOS]) || same(first, s->token[CLS]));
    }
    if (last) {
        int spare = !s->active[EOT] ? EOT : EOM;

        if (have_config && !same(last, s->token[EOS]) && !s->active[spare]) {
            s->active[spare] = true;
            s->token[spare] = s->token[EOS];
        }
        s->token[EOS] = last;
        set_add(s, EOS, true);
    }
    if (cJSON_IsArray(sl_get(processor, "pair")))
        read_pair(s, sl_get(processor, "pair"), first, last, have_config);
}

static void read_processor(struct special *s, const cJSON *processor, bool have_config)
{
    const cJSON *type = sl_get(processor, "type");

    if (!cJSON_IsString(type))
        return;
    if (strcmp(type->valuestring, "TemplateProcessing") == 0) {
        read_template(s, processor, have_config);
    } else if (strcmp(type->valuestring, "RobertaProcessing") == 0) {
        const cJSON *cls = sl_get(processor, "cls"), *sep = sl_get(processor, "sep");

        set_add(s, BOS, true);
        set_add(s, EOS, true);
        set_add(s, SEP, true);
        if (!is_set(s->token[CLS]) && have_config)
            s->token[CLS] = cls && cls->child ? cls->child : s->token[BOS];
        if (!is_set(s->token[SEP]) && have_config)
            s->token[SEP] = sep && sep->child ? sep->child : s->token[EOS];
    }
}

static void read_processors(struct special *s, const cJSON *tokenizer, bool have_config)
{
    const cJSON *post = sl_get(tokenizer, "post_processor");
    const cJSON *list = sl_get(post, "processors");

    if (!cJSON_IsArray(list)) {
        read_processor(s, post, have_config);
        return;
    }
    for (const cJSON *x = list->child; x; x = x->next)
        read_processor(s, x, have_config);
}

/* ---- tokens ---- */

/* The added token of that text, or NULL. */
static const cJSON *find_added(const cJSON *tokenizer, const char *text)
{
    const cJSON *added = sl_get(tokenizer, "added_tokens");
    const cJSON *x = text && cJSON_IsArray(added) ? added->child : NULL;

    while (x && (!sl_token_text(x) || strcmp(sl_token_text(x), text) != 0))
        x = x->next;
    return x;
}

static void read_tokens(struct special *s, const cJSON *tokenizer, const cJSON *config)
{
    for (int t = 0; t < N_TYPES; t++) {
        const cJSON *x = find_added(tokenizer, sl_token_text(s->token[t]));
        const cJSON *add;
        char name[32];

        if (!s->active[t])
            continue;
        snprintf(name, sizeof name, "add_%s_token", types[t].name);
        add = sl_get(config, name);
        if (cJSON_IsBool(add))
            set_add(s, t, cJSON_IsTrue(add));
        if (x)
            set_id(s, t, sl_get(x, "id"));
    }
}

static void find_special(struct special *s, const cJSON *tokenizer, const cJSON *config,
                         const cJSON *model_config)
{
    char name[32];

    for (int t = 0; t < N_TYPES; t++) {
        snprintf(name, sizeof name, "%s_token", types[t].name);
        s->active[t] = t != EOT && t != EOM;
        s->token[t] = sl_get(config, name);
    }
    if (config && !is_set(s->token[BOS]) && is_set(s->token[CLS]))
        s->token[BOS] = s->token[CLS];
    if (config && !is_set(s->token[EOS]) && is_set(s->token[SEP]))
        s->token[EOS] = s->token[SEP];
    read_processors(s, tokenizer, config != NULL);
    if (config)
        read_tokens(s, tokenizer, config);
    for (int t = 0; t < N_TYPES; t++) {
        const cJSON *id;

        snprintf(name, sizeof name, "%s_token_id", types[t].name);
        id = sl_get(model_config, name);
        if (s->active[t])
            set_id(s, t, id && !cJSON_IsNull(id) ? id : sl_get(sl_get(model_config, "text_config"), name));
    }
}

/* Where the list of tokens has that text: transformers numbers added tokens anew where ids are left out between them. */
static bool listed(const struct sl_kvs *kvs, const char *text, uint32_t *id)
{
    const struct sl_kv *list = sl_kvs_find(kvs, "tokenizer.ggml.tokens");

    for (*id = 0; list && *id < list->n; ++*id)
        if (strcmp(list->strs[*id], text) == 0)
            return true;
    return false;
}

/* Tokens that a family's models have by name, in the converter's order. */
static int read_named(struct special *s, const cJSON *tokenizer, bool solar, const struct sl_kvs *kvs, struct sl_error *e)
{
    static const struct { int type; const char *text; } named[2][4] = {
        {{BOS, "[gMASK]"}, {EOT, "<|user|>"}, {UNK, "<|endoftext|>"}, {EOM, "<|observation|>"}},
        {{EOS, "<|endoftext|>"}, {EOT, "<|endoftext|>"}, {UNK, "<unk>"}, {BOS, "<|startoftext|>"}},
    };

    for (size_t i = 0; i < 4; i++) {
        const char *text = named[solar][i].text;
        uint32_t id;

        if (!find_added(tokenizer, text) || !listed(kvs, text, &id))
            return sl_fail(e, SL_ESOURCE, "tokenizer.json: \"added_tokens\" lacks '%s', which %s models have; is it of the "
                           "same model?", text, solar ? "Solar's" : "GLM's");
        take_id(s, named[solar][i].type, id);
    }
    return 0;
}

/* ---- the normalizer ---- */

struct normalizer {
    const cJSON *lowercase, *strip_accents; /* true or false, or NULL */
};

static void read_normalizer(const cJSON *j, struct normalizer *n, int depth)
{
    const cJSON *type = sl_get(j, "type"), *list = sl_get(j, "normalizers");

    if (!cJSON_IsString(type) || depth > 4)
        return;
    if (strcmp(type->valuestring, "BertNormalizer") == 0) {
        n->lowercase = sl_get(j, "lowercase");
        n->strip_accents = sl_get(j, "strip_accents");
    } else if (strcmp(type->valuestring, "Lowercase") == 0) {
        n->lowercase = j;
    } else if (strcmp(type->valuestring, "StripAccents") == 0) {
        n->strip_accents = j;
    } else if (strcmp(type->valuestring, "Sequence") == 0) {
        for (const cJSON *x = cJSON_IsArray(list) ? list->child : NULL; x; x = x->next)
            read_normalizer(x, n, depth + 1);
    }
}

/* What turns text into lower case, or takes accents off: by its type alone, or as an entry says. */
static int set_normalizer(const cJSON *tokenizer, struct sl_kvs *kvs)
{
    struct normalizer n = {NULL, NULL};

    read_normalizer(sl_get(tokenizer, "normalizer"), &n, 0);
    if (cJSON_IsBool(n.lowercase) || cJSON_IsObject(n.lowercase))
        SL_TRY(sl_kvs_set_bool(kvs, "tokenizer.ggml.normalizer.lowercase", !cJSON_IsFalse(n.lowercase)));
    if (cJSON_IsBool(n.strip_accents) || cJSON_IsObject(n.strip_accents))
        SL_TRY(sl_kvs_set_bool(kvs, "tokenizer.ggml.normalizer.strip_accents", !cJSON_IsFalse(n.strip_accents)));
    return 0;
}

int sl_tokenizer_special(const struct sl_source_dir *dir, const cJSON *tokenizer,
                         const cJSON *tokenizer_config, const cJSON *config, const struct sl_arch *arch,
                         struct sl_kvs *kvs, struct sl_error *e)
{
    const struct sl_kv *pieces = arch && arch->tokens == SL_TOKENS_PIECES ? sl_kvs_find(kvs, "tokenizer.ggml.tokens") : NULL;
    struct special s = {.max_id = pieces ? pieces->n - 1 : UINT32_MAX};
    int rc = 0;

    if (tokenizer_config && !tokenizer_config->child)
        tokenizer_config = NULL; /* an empty object counts as none */
    find_special(&s, tokenizer, tokenizer_config, config);
    s.add[BOS] |= arch && arch->adds_bos;
    if (arch && (arch->tokens == SL_TOKENS_GLM || arch->tokens == SL_TOKENS_SOLAR))
        SL_TRY(read_named(&s, tokenizer, arch->tokens == SL_TOKENS_SOLAR, kvs, e));
    for (int i = 0; i < s.n_id && rc == 0; i++)
        if (types[s.id_order[i]].id_key)
            rc = sl_kvs_set_u32(kvs, types[s.id_order[i]].id_key, s.id[s.id_order[i]]);
    for (int i = 0; i < s.n_add && rc == 0; i++)
        if (types[s.add_order[i]].add_key)
            rc = sl_kvs_set_bool(kvs, types[s.add_order[i]].add_key, s.add[s.add_order[i]]);
    if (rc < 0)
        return sl_fail(e, rc, "out of memory for metadata");
    if (e)
        e->text[0] = '\0';
    rc = tokenizer_config ? sl_tokenizer_chat(dir, tokenizer_config, kvs, e) : 0;
    rc = rc < 0 ? rc : set_normalizer(tokenizer, kvs);
    return rc < 0 && e && !e->text[0] ? sl_fail(e, rc, "out of memory for metadata") : rc;
}

int sl_tokenizer_eos(const cJSON *config, struct sl_kvs *kvs, struct sl_error *e)
{
    static const char key[] = "tokenizer.ggml.eos_token_id";
    const cJSON *eos = cJSON_GetObjectItemCaseSensitive(config, "eos_token_id");
    const struct sl_kv *old = sl_kvs_find(kvs, key);
    uint64_t v, at = old ? (uint64_t)(old - kvs->kv) : kvs->n;

    if ((!eos || cJSON_IsNull(eos)) && old)
        return 0;
    if (!sl_json_uint(eos, UINT32_MAX, &v))
        return sl_fail(e, SL_ESOURCE, "config.json: \"eos_token_id\": expected the id of the token at a text's end");
    if (sl_kvs_set_u32(kvs, key, (uint32_t)v) < 0)
        return sl_fail(e, SL_EFAIL, "out of memory for metadata");
    sl_kvs_move(kvs, key, at);
    return 0;
}
