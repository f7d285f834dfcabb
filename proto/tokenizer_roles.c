/* Which tokens have a role. tokenizer_config.json names them; where it has no "added_tokens_decoder",
 * files of older tokenizers count too, as transformers loads them. For a key that is not there at all
 * the tokenizer's class may have a token of its own, and tokenizer.json one that it fills up with. */
#include "proto/tokenizer.h"

#include "proto/arch_table.h"
#include "proto/json_file.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { BOS, EOS, UNK, SEP, PAD, CLS, MASK, N_KEYS };

static const char *const keys[N_KEYS] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
#define MORE "additional_special_tokens"

struct tokenizer_class {
    const char *name; /* "Fast" may follow */
    const char *token[N_KEYS];
    bool objects; /* it makes an object of a bos, eos, unk or pad token that is a text */
};

static const struct tokenizer_class classes[] = {
    {"LlamaTokenizer", {[BOS] = "<s>", [EOS] = "</s>", [UNK] = "<unk>"}, false},
    {"Qwen2Tokenizer", {[EOS] = "<|endoftext|>", [UNK] = "<|endoftext|>", [PAD] = "<|endoftext|>"}, true},
    {"GPT2Tokenizer", {[BOS] = "<|endoftext|>", [EOS] = "<|endoftext|>", [UNK] = "<|endoftext|>"}, false},
};

/* Its own name, or the model's; without either, the one that the model's kind has. NULL: none of the table. */
static const struct tokenizer_class *class_of(const cJSON *config, const cJSON *model)
{
    static const struct { const char *model_type, *name; } kinds[] = {
        {"deepseek_v2", "LlamaTokenizer"}, {"deepseek_v3", "LlamaTokenizer"},
        {"llama", "LlamaTokenizer"}, {"qwen2", "Qwen2Tokenizer"}, {"qwen3", "Qwen2Tokenizer"}, {"qwen3_moe", "Qwen2Tokenizer"},
        {"qwen3_next", "Qwen2Tokenizer"},
    };
    const char *name = sl_config_str(config, "tokenizer_class"), *type = sl_config_str(model, "model_type");

    if (!name)
        name = sl_config_str(model, "tokenizer_class");
    for (size_t i = 0; type && !name && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(type, kinds[i].model_type) == 0)
            name = kinds[i].name;
    for (size_t i = 0; name && i < sizeof classes / sizeof *classes; i++) {
        size_t n = strlen(classes[i].name);

        if (strncmp(name, classes[i].name, n) == 0 && (!name[n] || strcmp(name + n, "Fast") == 0))
            return &classes[i];
    }
    return NULL;
}

static int push(struct sl_roles *r, struct sl_role role, struct sl_error *e)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16;
        struct sl_role *grown = realloc(r->list, cap * sizeof *grown);

        if (!grown)
            return sl_fail(e, SL_EFAIL, "out of memory for the tokenizer");
        r->list = grown;
        r->cap = cap;
    }
    r->list[r->n++] = role;
    return 0;
}

static bool is_new(const struct sl_roles *r, const char *text)
{
    return text && *text && sl_name_table_find(&r->named, text) == SL_NO_NAME;
}

static int add(struct sl_roles *r, struct sl_role role, struct sl_error *e)
{
    if (!is_new(r, role.text))
        return 0;
    SL_TRY(sl_name_table_add(&r->named, role.text, (uint32_t)r->n, NULL, e));
    return push(r, role, e);
}

static int add_each(struct sl_roles *r, const cJSON *list, struct sl_error *e)
{
    for (const cJSON *x = list ? list->child : NULL; x; x = x->next)
        SL_TRY(add(r, (struct sl_role){sl_token_text(x), x, false, cJSON_IsObject(x)}, e));
    return 0;
}

/* The list that transformers 5 writes, and earlier ones refuse: its tokens are added where they are not
 * there, and change nothing where they are. */
static int add_extra(struct sl_roles *r, const cJSON *list, struct sl_error *e)
{
    for (const cJSON *x = list->child; x; x = x->next)
        if (is_new(r, sl_token_text(x)))
            SL_TRY(push(r, (struct sl_role){.text = sl_token_text(x)}, e));
    return 0;
}

/* A key of the map stands for the one of tokenizer_config.json, be it null; but a list is joined to it. */
static int collect(struct sl_roles *r, const cJSON *config, const char *const absent[N_KEYS], bool objects,
                   struct sl_error *e)
{
    const cJSON *more = sl_get(config, MORE), *mapped = sl_get(r->map, MORE);
    const cJSON *extra = sl_get(config, "extra_special_tokens");

    for (size_t i = 0; i < N_KEYS; i++) {
        const cJSON *item = sl_get(sl_get(r->map, keys[i]) ? r->map : config, keys[i]);
        bool object = (objects && (i == BOS || i == EOS || i == UNK || i == PAD)) || cJSON_IsObject(item);

        SL_TRY(add(r, (struct sl_role){item ? sl_token_text(item) : absent[i], item, true, object}, e));
    }
    if (cJSON_IsArray(more) && (!mapped || cJSON_IsArray(mapped)))
        SL_TRY(add_each(r, more, e));
    if (cJSON_IsArray(mapped))
        SL_TRY(add_each(r, mapped, e));
    if (cJSON_IsArray(extra))
        return add_extra(r, extra, e);
    return cJSON_IsObject(extra) ? add_each(r, extra, e) : 0;
}

int sl_roles_read(const struct sl_source_dir *dir, const cJSON *tokenizer, const cJSON *config,
                  const cJSON *model, struct sl_roles *r, struct sl_error *e)
{
    const struct tokenizer_class *class = class_of(config, model);
    const char *absent[N_KEYS] = {NULL};
    int rc = 0;

    if (class)
        memcpy(absent, class->token, sizeof absent);
    if (!absent[PAD])
        absent[PAD] = sl_config_str(sl_get(tokenizer, "padding"), "pad_token");

    *r = (struct sl_roles){.map = NULL};
    if (!sl_get(config, "added_tokens_decoder")) {
        rc = sl_tokenizer_read_json(dir, "special_tokens_map.json", &r->map, e);
        rc = rc < 0 ? rc : sl_tokenizer_read_json(dir, "added_tokens.json", &r->added, e);
    }
    rc = rc < 0 ? rc : sl_name_table_init(&r->named, 16, e);
    rc = rc < 0 ? rc : collect(r, config, absent, class && class->objects, e);
    if (rc < 0)
        sl_roles_free(r);
    return rc;
}

void sl_roles_free(struct sl_roles *r)
{
    cJSON_Delete(r->map);
    cJSON_Delete(r->added);
    free(r->list);
    sl_name_table_free(&r->named);
    *r = (struct sl_roles){.map = NULL};
}
