/* Tokenizers of ranks, whose rules for splitting a text are in a Python file: Kimi-K2's, with special tokens in
 * tokenizer_config.json, and Hunyuan-A13B's, whose special tokens are in that file, too. */
#include "proto/arch_table.h"
#include "proto/json_file.h"
#include "proto/tiktoken.h"
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL "tiktoken.model"
#define MAX_SPECIAL 258u
#define MADE 40        /* bytes of a name that is made here */

static const struct form {
    const char *of, *file, *class, *module, *pre;
    const char *rules[2]; /* what the Python file has */
    uint32_t n_special;   /* ids behind the ordinary tokens */
    bool by_line;         /* tokens are numbered as they come */
} kimi = {"Kimi-K2", MODEL, "TikTokenTokenizer", "tokenization_kimi", "kimi-k2", {"[\\p{Han}]+", "\\p{N}{1,3}"}, MAX_SPECIAL, false},
  hunyuan = {"Hunyuan-A13B", "hy.tiktoken", "HYTokenizer", "tokenization_hy", "hunyuan",
             {"\nPAT_STR = r\"\"\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|",
              "\"<|extra_{i}|>\" for i in range(205)"}, 210, true};

/* Its first special tokens; 205 named "extra" follow. */
static const char *const hunyuan_special[] = {"<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"};
#define HUNYUAN_BOS 2

/* ---- whose tokenizer it is ---- */

/* The Python file that auto_map names: "tokenization_kimi.TikTokenTokenizer" -> that with ".py". */
static bool module_file(const struct form *f, const cJSON *config, char name[160])
{
    const cJSON *map = sl_get(sl_get(config, "auto_map"), "AutoTokenizer");
    const cJSON *first = cJSON_IsArray(map) ? map->child : map;
    const char *text = cJSON_IsString(first) ? first->valuestring : f->module;
    size_t n = strcspn(text, ".");

    snprintf(name, 160, "%.*s.py", (int)(n < 150 ? n : 150), text);
    return sl_source_plain_name(name);
}

static bool is_class(const struct form *f, const cJSON *config)
{
    const cJSON *class = sl_get(config, "tokenizer_class");

    return cJSON_IsString(class) && strcmp(class->valuestring, f->class) == 0;
}

bool sl_tokenizer_is_tiktoken(const struct sl_source_dir *dir, const cJSON *tokenizer,
                              const cJSON *tokenizer_config)
{
    return sl_source_exists(dir->path, MODEL) && (!tokenizer || is_class(&kimi, tokenizer_config));
}

/* GGUF has a name for these rules, so they must be the model's: its class, and, where its code is there, two parts of
 * that. */
static int check_rules(const struct form *f, const struct sl_source_dir *dir, const cJSON *config, struct sl_error *e)
{
    const cJSON *class = sl_get(config, "tokenizer_class");
    char file[160], *code;
    size_t len;
    bool known;
    int rc;

    if (!config)
        return sl_fail(e, SL_ESOURCE, "tokenizer_config.json is missing, which %s %s; download it beside that",
                       f == &kimi ? "names the special tokens of" : "tells the class of", f->file);
    if (!is_class(f, config))
        return sl_fail(e, SL_EUNSUPPORTED, "the checkpoint has a tiktoken tokenizer (%s) of tokenizer_class '%.80s' in "
                       "tokenizer_config.json; supported: '%s', %s's", f->file, cJSON_IsString(class) ? class->valuestring : "(none)",
                       f->class, f->of);
    if (!module_file(f, config, file))
        return 0;
    rc = sl_source_text(dir, file, &code, &len, e);
    if (rc <= 0)
        return rc;
    known = strstr(code, f->rules[0]) && strstr(code, f->rules[1]);
    free(code);
    return known ? 0 : sl_fail(e, SL_EUNSUPPORTED, "%s splits texts by other rules than %s's%s: llama.cpp has no name for them", file,
                               f->of, f == &kimi ? "" : ", or has other special tokens");
}

/* ---- tokens ---- */

struct vocab {
    const struct form *f;
    const struct sl_tiktoken *t;
    uint64_t n;
    const char **text;
    int32_t *type;
    const char *name[MAX_SPECIAL]; /* of added_tokens_decoder, or the form's; NULL: one is made */
    struct sl_name_table special;
};

/* {"163584": {"content": "[BOS]", ...}, ...}; ids of other tokens are of no interest. */
static int take_names(struct vocab *v, const cJSON *config, struct sl_error *e)
{
    const cJSON *list = sl_get(config, "added_tokens_decoder");

    if (!cJSON_IsObject(list))
        return sl_fail(e, SL_ESOURCE, "tokenizer_config.json has no \"added_tokens_decoder\", which names the "
                       "special tokens of " MODEL);
    for (const cJSON *x = list->child; x; x = x->next) {
        size_t n = strlen(x->string);
        uint64_t id = 0;

        if (n == 0 || n > 9 || strspn(x->string, "0123456789") != n || !sl_token_text(x))
            return sl_fail(e, SL_ESOURCE, "tokenizer_config.json: added_tokens_decoder, entry '%.40s': expected "
                           "an id with the \"content\" of a token", x->string);
        for (size_t i = 0; i < n; i++)
            id = id * 10 + (uint64_t)(x->string[i] - '0');
        if (id >= v->t->n && id < (uint64_t)v->t->n + MAX_SPECIAL)
            v->name[id - v->t->n] = sl_token_text(x);
    }
    return 0;
}

/* bos_token and its kin must be special tokens, or the model's own tokenizer would not start. */
static int check_named(const struct vocab *v, const cJSON *config, struct sl_error *e)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = sl_token_text(sl_get(config, names[i]));

        if (text && sl_name_table_find(&v->special, text) == SL_NO_NAME)
            return sl_fail(e, SL_ESOURCE, "tokenizer_config.json: \"%s\" is '%.80s', which is no token of "
                           "%s from id %" PRIu32 " on", names[i], text, v->f == &kimi ? "added_tokens_decoder" : v->f->class, v->t->n);
    }
    return 0;
}

/* A text has one id: the highest special one, else the ordinary one. Ids that lose theirs so
 * are filled as those without a token are. */
static int name_ids(struct vocab *v, char (*made)[MADE], struct sl_error *e)
{
    for (uint32_t k = v->f->n_special; k-- > 0;) {
        uint32_t id = v->t->n + k, held;
        const char *text = v->name[k];

        if (!text) {
            if (v->f == &kimi)
                snprintf(*made, MADE, "<|reserved_token_%" PRIu32 "|>", id);
            else
                snprintf(*made, MADE, "<|extra_%" PRIu32 "|>", k - (uint32_t)(sizeof hunyuan_special / sizeof *hunyuan_special));
            text = *made++;
        }
        SL_TRY(sl_name_table_add(&v->special, text, id, &held, e));
        if (id >= v->n || held != id)
            continue;
        v->text[id] = text;
        v->type[id] = SL_TOKEN_CONTROL;
    }
    for (uint64_t id = 0; id < v->n; id++) {
        if (id < v->t->n && sl_name_table_find(&v->special, v->t->text[id]) == SL_NO_NAME) {
            v->text[id] = v->t->text[id];
            v->type[id] = SL_TOKEN_NORMAL;
        }
        if (v->text[id])
            continue;
        snprintf(*made, MADE, "[PAD%" PRIu64 "]", id);
        v->text[id] = *made++;
        v->type[id] = SL_TOKEN_UNUSED;
    }
    return 0;
}

static int set_tokens(const struct form *f, const struct sl_tiktoken *t, const cJSON *config, uint64_t n_vocab,
                      struct sl_kvs *kvs, struct sl_error *e)
{
    struct vocab v = {.f = f, .t = t, .n = n_vocab};
    /* Each special token may take an ordinary one's text, so twice as many may be made. */
    uint64_t n_made = (n_vocab > t->n ? n_vocab - t->n : 0) + 2 * MAX_SPECIAL;
    char (*made)[MADE] = calloc(n_made, MADE);
    int rc;

    v.text = calloc(n_vocab, sizeof *v.text);
    v.type = calloc(n_vocab, sizeof *v.type);
    rc = made && v.text && v.type ? sl_name_table_init(&v.special, MAX_SPECIAL, e) : sl_tokenizer_no_memory(e);
    if (f == &hunyuan)
        memcpy(v.name, hunyuan_special, sizeof hunyuan_special);
    else
        rc = rc < 0 ? rc : take_names(&v, config, e);
    rc = rc < 0 ? rc : name_ids(&v, made, e);
    rc = rc < 0 ? rc : check_named(&v, config, e);
    if (rc == 0 && (sl_kvs_set_strs(kvs, "tokenizer.ggml.tokens", v.text, n_vocab) < 0 ||
                    sl_kvs_set_arr(kvs, "tokenizer.ggml.token_type", SL_KV_I32, v.type, n_vocab) < 0))
        rc = sl_tokenizer_no_memory(e);
    sl_name_table_free(&v.special);
    free(v.text);
    free(v.type);
    free(made);
    return rc;
}

static int set_merges(const struct form *f, const struct sl_tiktoken *t, struct sl_kvs *kvs, struct sl_error *e)
{
    const char **merges;
    uint64_t n;
    int rc;

    SL_TRY(sl_tiktoken_merges(t, f->file, &merges, &n, e));
    rc = sl_kvs_set_strs(kvs, "tokenizer.ggml.merges", merges, n) < 0 ? sl_tokenizer_no_memory(e) : 0;
    free(merges);
    return rc;
}

static int check_hunyuan(const struct sl_tiktoken *t, uint64_t n_vocab, struct sl_error *e)
{
    return (uint64_t)t->n + hunyuan.n_special == n_vocab ? 0
               : sl_fail(e, SL_ESOURCE, "%s has %" PRIu32 " tokens, which with %" PRIu32 " special ones are not the %" PRIu64 " of config.json's "
                         "vocab_size; is it of this model?", hunyuan.file, t->n, hunyuan.n_special, n_vocab);
}

/* The token that begins texts, whatever config.json says. */
static int set_bos(uint32_t id, struct sl_kvs *kvs, struct sl_error *e)
{
    static const char key[] = "tokenizer.ggml.bos_token_id";
    const struct sl_kv *old = sl_kvs_find(kvs, key);
    uint64_t at = old ? (uint64_t)(old - kvs->kv) : kvs->n;

    if (sl_kvs_set_u32(kvs, key, id) < 0)
        return sl_tokenizer_no_memory(e);
    sl_kvs_move(kvs, key, at);
    return 0;
}

int sl_tokenizer_tiktoken(const struct sl_source_dir *dir, const cJSON *tokenizer,
                          const cJSON *tokenizer_config, const cJSON *config, const struct sl_arch *arch, uint64_t n_vocab,
                          struct sl_kvs *kvs, struct sl_error *e)
{
    const struct form *f = arch->tokens == SL_TOKENS_HUNYUAN ? &hunyuan : &kimi;
    struct sl_tiktoken t;
    uint32_t bos;
    char *text;
    size_t len;
    int rc;

    SL_TRY(check_rules(f, dir, tokenizer_config, e));
    rc = sl_source_text(dir, f->file, &text, &len, e);
    if (rc <= 0)
        return rc < 0 ? rc : sl_fail(e, SL_ESOURCE, "%s is missing", f->file);
    rc = sl_tiktoken_parse(f->file, text, len, n_vocab, f->by_line, &t, e);
    free(text);
    if (rc == 0 && f == &hunyuan)
        rc = check_hunyuan(&t, n_vocab, e);
    if (rc == 0 && (sl_kvs_set_str(kvs, "tokenizer.ggml.model", "gpt2") < 0 ||
                    sl_kvs_set_str(kvs, "tokenizer.ggml.pre", f->pre) < 0))
        rc = sl_tokenizer_no_memory(e);
    rc = rc < 0 ? rc : set_tokens(f, &t, tokenizer_config, n_vocab, kvs, e);
    rc = rc < 0 ? rc : set_merges(f, &t, kvs, e);
    bos = t.n + HUNYUAN_BOS;
    sl_tiktoken_free(&t);
    rc = rc < 0 ? rc : sl_tokenizer_special(dir, tokenizer, tokenizer_config, config, NULL, kvs, e);
    return rc < 0 || f != &hunyuan ? rc : set_bos(bos, kvs, e);
}
