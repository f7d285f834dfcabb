/* Which tokens have a role. tokenizer_config.json names them; where it has no "added_tokens_decoder",
 * files of older tokenizers count too, as transformers loads them. */
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                   "pad_token", "cls_token", "mask_token"};
#define MORE "additional_special_tokens"

static const cJSON *entry(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static int add(struct sl_roles *r, const cJSON *item, bool single, struct sl_error *e)
{
    const char *text = sl_token_text(item);

    if (!text || !*text || sl_name_table_find(&r->named, text) != SL_NO_NAME)
        return 0;
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16;
        struct sl_role *grown = realloc(r->list, cap * sizeof *grown);

        if (!grown)
            return sl_fail(e, SL_EFAIL, "out of memory for the tokenizer");
        r->list = grown;
        r->cap = cap;
    }
    SL_TRY(sl_name_table_add(&r->named, text, (uint32_t)r->n, NULL, e));
    r->list[r->n++] = (struct sl_role){text, item, single};
    return 0;
}

static int add_each(struct sl_roles *r, const cJSON *list, struct sl_error *e)
{
    for (const cJSON *x = list ? list->child : NULL; x; x = x->next)
        SL_TRY(add(r, x, false, e));
    return 0;
}

/* A key of the map stands for the one of tokenizer_config.json, be it null; but a list is joined to it. */
static int collect(struct sl_roles *r, const cJSON *config, struct sl_error *e)
{
    const cJSON *more = entry(config, MORE), *mapped = entry(r->map, MORE);
    const cJSON *extra = entry(config, "extra_special_tokens");

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        SL_TRY(add(r, entry(entry(r->map, keys[i]) ? r->map : config, keys[i]), true, e));
    if (cJSON_IsArray(more) && (!mapped || cJSON_IsArray(mapped)))
        SL_TRY(add_each(r, more, e));
    if (cJSON_IsArray(mapped))
        SL_TRY(add_each(r, mapped, e));
    return cJSON_IsObject(extra) ? add_each(r, extra, e) : 0;
}

int sl_roles_read(const struct sl_source_dir *dir, const cJSON *config, struct sl_roles *r,
                  struct sl_error *e)
{
    int rc = 0;

    *r = (struct sl_roles){.map = NULL};
    if (!entry(config, "added_tokens_decoder")) {
        rc = sl_tokenizer_read_json(dir, "special_tokens_map.json", &r->map, e);
        rc = rc < 0 ? rc : sl_tokenizer_read_json(dir, "added_tokens.json", &r->added, e);
    }
    rc = rc < 0 ? rc : sl_name_table_init(&r->named, 16, e);
    rc = rc < 0 ? rc : collect(r, config, e);
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
