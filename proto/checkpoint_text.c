/* Models that see and have a text model inside (GLM-4.5V, Kimi-K2.5, K3, Llama-4, MiniMax-M3, Qwen3.5, Qwen3-VL): the text model's
 * entries are config.json's "text_config", its tensors have names of their own. And other names that a model's tensors may have. */
#include "proto/checkpoint_priv.h"

#include <cjson/cJSON.h>
#include <string.h>

#define PREFIX "language_model."
#define MODEL "model."
#define MTP "mtp."

const struct cJSON *sl_checkpoint_config(const struct sl_checkpoint *ck)
{
    return sl_ck_priv(ck)->text ? sl_ck_priv(ck)->text : ck->config;
}

static const char *class_of(const cJSON *config)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config, "architectures");

    return cJSON_IsArray(list) && cJSON_IsString(list->child) ? list->child->valuestring : "";
}

/* Effect: appends the object's entries to `to`, but for one. Returns false out of memory. */
static bool append(cJSON *to, const cJSON *object, const char *but)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, object) {
        cJSON *copy = strcmp(item->string, but) != 0 ? cJSON_Duplicate(item, true) : NULL;

        if (strcmp(item->string, but) != 0 && (!copy || !cJSON_AddItemToObject(to, item->string, copy)))
            return false;
    }
    return true;
}

/* As the converter reads it: of two entries with one name the text model's, which is first here. But
 * model_type stays the whole model's, for which the library that llama.cpp asks for (transformers 4.57)
 * has no class with defaults, but for Qwen3-VL (arch_qwen_vl.c) and GLM-4.5V (arch_glm4_moe.c). */
int sl_ck_read_text(struct sl_checkpoint *ck, struct sl_error *e)
{
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(ck->config, "text_config");
    const char *class = class_of(ck->config);
    cJSON *all;

    if (strcmp(class, "KimiK25ForConditionalGeneration") != 0 && strcmp(class, "KimiK3ForConditionalGeneration") != 0 &&
        strcmp(class, "MiniMaxM3SparseForConditionalGeneration") != 0 && strcmp(class, "Step3p7ForConditionalGeneration") != 0 &&
        strcmp(class, "Llama4ForConditionalGeneration") != 0 && strcmp(class, "Glm4vMoeForConditionalGeneration") != 0 &&
        strcmp(class, "Qwen3VLForConditionalGeneration") != 0 && strcmp(class, "Qwen3VLMoeForConditionalGeneration") != 0 &&
        !(strncmp(class, "Qwen3_5", 7) == 0 && text))
        return 0;
    if (!cJSON_IsObject(text))
        return sl_fail(e, SL_ESOURCE, "no \"text_config\", where %s has its text model", class);
    all = sl_ck_priv(ck)->text = cJSON_CreateObject();
    return all && append(all, text, "model_type") && append(all, ck->config, "text_config") ? 0
               : sl_no_memory(e);
}

/* "model.language_model.X" is "model.X", "language_model.X" is "X". The name lies in the reader's own memory. */
static bool without_prefix(const char **name)
{
    bool inside = strncmp(*name, MODEL PREFIX, sizeof MODEL PREFIX - 1) == 0;
    const char *rest = *name + (inside ? sizeof MODEL - 1 : 0);

    if (strncmp(rest, PREFIX, sizeof PREFIX - 1) != 0 || !rest[sizeof PREFIX - 1])
        return false;
    *name += sizeof PREFIX - 1;
    if (inside)
        memcpy((char *)(uintptr_t)*name, MODEL, sizeof MODEL - 1);
    return true;
}

/* "model.mtp.X" is "mtp.X", as some checkpoints of Qwen have what predicts several tokens. */
static bool without_model(const char **name)
{
    bool inside = strncmp(*name, MODEL MTP, sizeof MODEL MTP - 1) == 0;

    *name += inside ? sizeof MODEL - 1 : 0;
    return inside;
}

/* "...experts.E.gate_proj.X" is "...experts.E.w1.X", as llm-compressor names the experts of MiniMax-M2. */
static bool with_numbers(const char **name)
{
    static const struct { const char *part, *number; } names[] = {{".gate_proj.", ".w1."}, {".down_proj.", ".w2."}, {".up_proj.", ".w3."}};
    char *at = strstr((char *)(uintptr_t)*name, ".block_sparse_moe.experts.");

    at = at ? at + strlen(".block_sparse_moe.experts.") : NULL;
    at = at ? at + strspn(at, "0123456789") : NULL;
    for (size_t i = 0; at && i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i].part), to = strlen(names[i].number);

        if (strncmp(at, names[i].part, n) != 0)
            continue;
        memcpy(at, names[i].number, to);
        memmove(at + to, at + n, strlen(at + n) + 1);
        return true;
    }
    return false;
}

int sl_ck_take_text(struct sl_checkpoint *ck, struct sl_error *e)
{
    const char *class = class_of(ck->config);
    bool text = sl_ck_priv(ck)->text != NULL, qwen = strncmp(class, "Qwen3", 5) == 0, minimax = strncmp(class, "MiniMaxM", 8) == 0, any = false;

    for (uint32_t i = 0; i < ck->n_tensors && (text || qwen || minimax); i++) {
        any |= text && without_prefix(&ck->tensors[i].name);
        any |= qwen && without_model(&ck->tensors[i].name);
        any |= minimax && with_numbers(&ck->tensors[i].name);
    }
    return any ? sl_ck_name_anew(ck, e) : 0;
}
