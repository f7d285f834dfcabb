/* Qwen's models for embeddings and for ranking have the class of those that make text. The converter
 * tells them by the files beside config.json, and writes a kind of pooling, or two rows of the output as
 * a classifier; here they are refused. */
#include "proto/arch_table.h"
#include "proto/json_file.h"
#include "proto/suffix.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CARD (256u << 20)

static bool is_reranker(const char *text)
{
    return text && (strcasestr(text, "qwen3-reranker") || strcasestr(text, "qwen3-vl-reranker"));
}

/* Both return 1 or 0. */
static int card_says_reranker(const struct sl_source_dir *dir, struct sl_error *e)
{
    char *text;
    size_t len;
    int rc = sl_source_head(dir, "README.md", MAX_CARD, &text, &len, e);

    if (rc <= 0)
        return rc;
    rc = strcasestr(text, "# qwen3-reranker") || strcasestr(text, "# qwen3-vl-reranker");
    free(text);
    return rc;
}

static int folder_says_reranker(const struct sl_source_dir *dir, struct sl_error *e)
{
    char *name;
    int yes;

    SL_TRY(sl_source_full_name(dir->path, &name, e));
    yes = is_reranker(name);
    free(name);
    return yes;
}

static int check_ranks(const struct sl_params *p, const struct sl_source_dir *dir, struct sl_error *e)
{
    const char *by = is_reranker(sl_config_str(p->config, "_name_or_path")) ? "config.json's _name_or_path" : NULL;

    if (!by && dir->path) {
        int card = card_says_reranker(dir, e), folder = card == 0 ? folder_says_reranker(dir, e) : 0;

        SL_TRY(card);
        SL_TRY(folder);
        by = card ? "README.md" : folder ? "the folder's name" : NULL;
    }
    return by ? sl_fail(e, SL_EUNSUPPORTED, "the checkpoint is a reranker by %s, which llama.cpp runs in a form of its "
                        "own; supported: models that make text", by) : 0;
}

/* modules.json is a list of sentence-transformers' stages. */
static int check_embeds(const struct sl_source_dir *dir, struct sl_error *e)
{
    static const char pooling[] = "Pooling";
    bool found = false;
    cJSON *list = NULL;
    const cJSON *item;
    char *text;
    size_t len;
    int rc = dir->path ? sl_source_text(dir, "modules.json", &text, &len, e) : 0;

    if (rc <= 0)
        return rc;
    rc = sl_json_parse("modules.json", text, len, NULL, &list, e);
    free(text);
    SL_TRY(rc);
    cJSON_ArrayForEach(item, list) {
        const char *type = sl_config_str(item, "type");

        found = found || (type && sl_ends_with(type, pooling));
    }
    cJSON_Delete(list);
    return found ? sl_fail(e, SL_EUNSUPPORTED, "the checkpoint is of a model for embeddings (modules.json has a stage "
                           "for pooling); supported: models that make text") : 0;
}

int sl_arch_check_task(const struct sl_params *p, const struct sl_source_dir *dir, struct sl_error *e)
{
    if (p->arch->ranks)
        SL_TRY(check_ranks(p, dir, e));
    return p->arch->embeds ? check_embeds(dir, e) : 0;
}
