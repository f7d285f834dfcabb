/* Mistral's own format: params.json in place of config.json, shards consolidated*.safetensors, and names of its own. Read is
 * what llama.cpp's converter makes of a model with latent attention and experts, Mistral-Large-3: entries and names are
 * DeepSeek-V3's from here on. */
#include "proto/checkpoint_priv.h"
#include "proto/shard_series.h"
#include "proto/source_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARAMS "params.json"
#define GROWTH 48 /* bytes that a name gains at most */

/* Whether the folder has the shards of a config.json, be it without their index. */
static bool has_usual(const char *dir)
{
    struct sl_shard_series s;
    struct sl_error e;
    bool damaged = sl_shard_series_read(dir, &s, &e) < 0, any = s.n || sl_source_exists(dir, "model.safetensors.index.json");

    sl_shard_series_free(&s);
    return any || damaged;
}

bool sl_ck_has_params(const char *dir)
{
    bool own = sl_source_exists(dir, "consolidated.safetensors.index.json") || sl_source_exists(dir, "consolidated.safetensors");

    if (!sl_source_exists(dir, PARAMS))
        return false;
    return sl_source_exists(dir, "config.json") ? own && !has_usual(dir) : own || sl_source_exists(dir, "tekken.json");
}

/* ---- params.json ---- */

struct pair {
    const char *own, *name;
    bool needed;
};

static const struct pair entries[] = {
    {"dim", "hidden_size", true}, {"n_layers", "num_hidden_layers", true}, {"hidden_dim", "intermediate_size", true},
    {"n_heads", "num_attention_heads", true}, {"n_kv_heads", "num_key_value_heads", false}, {"norm_eps", "rms_norm_eps", false},
    {"tied_embeddings", "tie_word_embeddings", false}, {"vocab_size", "vocab_size", true}, {"rope_theta", "rope_theta", true},
    {"head_dim", "head_dim", false}, {"q_lora_rank", "q_lora_rank", true}, {"kv_lora_rank", "kv_lora_rank", true},
    {"qk_nope_head_dim", "qk_nope_head_dim", true}, {"qk_rope_head_dim", "qk_rope_head_dim", true}, {"v_head_dim", "v_head_dim", true},
    {"max_position_embeddings", "max_position_embeddings", false}, {"yarn", "yarn", true}, {"llama_4_scaling", "llama_4_scaling", false},
    {"vision_encoder", "vision_config", false}, {"quantization_config", "quantization_config", false},
};

static const struct pair experts[] = {
    {"num_experts", "n_routed_experts", true}, {"num_experts_per_tok", "num_experts_per_tok", true},
    {"expert_hidden_dim", "moe_intermediate_size", true}, {"first_k_dense_replace", "first_k_dense_replace", false},
    {"routed_scale", "routed_scaling_factor", false}, {"num_shared_experts", "n_shared_experts", false},
    {"num_expert_groups", "n_group", false}, {"num_expert_groups_per_tok", "topk_group", false},
};

static int take_pairs(cJSON *to, const cJSON *from, const char *where, const struct pair *p, size_t n, struct sl_error *e)
{
    for (size_t i = 0; i < n; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(from, p[i].own);
        cJSON *copy;

        if (p[i].needed && (!item || cJSON_IsNull(item)))
            return sl_fail(e, SL_EUNSUPPORTED, "no \"%s%s\": of models in Mistral's own format those of Mistral-Large-3's form are "
                           "supported", where, p[i].own);
        if (!item)
            continue;
        copy = cJSON_Duplicate(item, true);
        if (!copy || !cJSON_AddItemToObject(to, p[i].name, copy))
            return sl_no_memory(e);
    }
    return 0;
}

/* Entries that are always so. Softmax routing without a correction of it. */
static int take_constants(cJSON *to, struct sl_error *e)
{
    static const char *const class[] = {"MistralLarge3ForCausalLM"};
    cJSON *classes = cJSON_CreateStringArray(class, 1);

    if (!classes || !cJSON_AddItemToObject(to, "architectures", classes) || !cJSON_AddStringToObject(to, "scoring_func", "softmax") ||
        !cJSON_AddStringToObject(to, "topk_method", "greedy") || !cJSON_AddTrueToObject(to, "norm_topk_prob"))
        return sl_no_memory(e);
    if (!cJSON_GetObjectItemCaseSensitive(to, "max_position_embeddings") && !cJSON_AddNumberToObject(to, "max_position_embeddings", 128000))
        return sl_no_memory(e);
    return 0;
}

/* FP8 with a scale for each tensor, by Mistral's word for it. */
static int take_quantization(cJSON *to, const cJSON *from, struct sl_error *e)
{
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(from, "quantization");
    const char *format = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(own, "qformat_weight"));
    cJSON *q;

    if (!own || cJSON_IsNull(own) || cJSON_GetObjectItemCaseSensitive(to, "quantization_config"))
        return 0;
    if (!format || strcmp(format, "fp8_e4m3") != 0)
        return sl_fail(e, SL_EUNSUPPORTED, "quantization.qformat_weight is '%.40s'; supported: fp8_e4m3", format ? format : "(none)");
    q = cJSON_AddObjectToObject(to, "quantization_config");
    return q && cJSON_AddStringToObject(q, "quant_method", "fp8") ? 0 : sl_no_memory(e);
}

static bool is_params(const cJSON *config)
{
    return !cJSON_GetObjectItemCaseSensitive(config, "architectures") &&
           (cJSON_GetObjectItemCaseSensitive(config, "dim") || cJSON_GetObjectItemCaseSensitive(config, "n_layers"));
}

int sl_ck_take_params(struct sl_checkpoint *ck, struct sl_error *e)
{
    const cJSON *from = ck->config, *moe = cJSON_GetObjectItemCaseSensitive(from, "moe");
    cJSON *to;
    int rc;

    if (!is_params(from))
        return 0;
    to = cJSON_CreateObject();
    rc = to ? take_pairs(to, from, "", entries, sizeof entries / sizeof *entries, e) : sl_no_memory(e);
    rc = rc < 0 ? rc : take_pairs(to, moe, "moe.", experts, sizeof experts / sizeof *experts, e);
    rc = rc < 0 ? rc : take_constants(to, e);
    rc = rc < 0 ? rc : take_quantization(to, from, e);
    if (rc < 0) {
        cJSON_Delete(to);
        return rc;
    }
    cJSON_Delete(ck->config);
    ck->config = to;
    sl_ck_priv(ck)->mistral = true;
    return 0;
}

/* ---- names ---- */

/* What stands behind "layers.N.", or behind "layers.N.experts.N.". */
static const char *const parts[][2] = {
    {"attention_norm.", "input_layernorm."}, {"ffn_norm.", "post_attention_layernorm."}, {"attention.wq_a.", "self_attn.q_a_proj."},
    {"attention.q_a_norm.", "self_attn.q_a_layernorm."}, {"attention.wq_b.", "self_attn.q_b_proj."},
    {"attention.wkv_a_with_mqa.", "self_attn.kv_a_proj_with_mqa."}, {"attention.kv_a_norm.", "self_attn.kv_a_layernorm."},
    {"attention.wkv_b.", "self_attn.kv_b_proj."}, {"attention.wo.", "self_attn.o_proj."}, {"gate.", "mlp.gate."},
    {"feed_forward.w1.", "mlp.gate_proj."}, {"feed_forward.w2.", "mlp.down_proj."}, {"feed_forward.w3.", "mlp.up_proj."},
    {"shared_experts.w1.", "mlp.shared_experts.gate_proj."}, {"shared_experts.w2.", "mlp.shared_experts.down_proj."},
    {"shared_experts.w3.", "mlp.shared_experts.up_proj."}, {"w1.", "gate_proj."}, {"w2.", "down_proj."}, {"w3.", "up_proj."},
};
static const char *const top[][2] = {
    {"tok_embeddings.", "model.embed_tokens."}, {"norm.", "model.norm."}, {"output.", "lm_head."},
};
static const char *const ends[][2] = {{".qscale_weight", ".weight_scale"}, {".qscale_act", ".input_scale"}};

/* Effect: where s begins with one of the pairs' first, appends its second. Returns the rest of s. */
static const char *replace(char *to, const char *s, const char *const pairs[][2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(pairs[i][0]);

        if (strncmp(s, pairs[i][0], len) != 0)
            continue;
        strcat(to, pairs[i][1]);
        return s + len;
    }
    return s;
}

/* Effect: appends prefix and a number, where they are there. Returns the rest of s. */
static const char *numbered(char *to, const char *s, const char *own, const char *name)
{
    size_t len = strlen(own), digits = strspn(s + (strncmp(s, own, len) == 0 ? len : 0), "0123456789");

    if (strncmp(s, own, len) != 0 || !digits || s[len + digits] != '.')
        return s;
    strcat(to, name);
    strncat(to, s + len, digits + 1);
    return s + len + digits + 1;
}

/* Effect: the name in DeepSeek's form to `to`, which has room for GROWTH bytes more; others stay as they are. */
static void rename_tensor(char *to, const char *s)
{
    const char *in_layer, *rest;

    *to = '\0';
    in_layer = numbered(to, s, "layers.", "model.layers.");
    if (in_layer == s) {
        rest = replace(to, s, top, sizeof top / sizeof *top);
    } else {
        rest = numbered(to, in_layer, "experts.", "mlp.experts.");
        /* w1 to w3 alone are an expert's. */
        rest = replace(to, rest, rest == in_layer ? parts : parts + sizeof parts / sizeof *parts - 3,
                       rest == in_layer ? sizeof parts / sizeof *parts - 3 : 3);
    }
    strcat(to, rest);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (sl_stem(to, ends[i][0]))
            strcpy(to + sl_stem(to, ends[i][0]), ends[i][1]);
}

int sl_ck_take_mistral(struct sl_checkpoint *ck, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    size_t bytes = 0;
    char *arena, *at;

    if (!p->mistral)
        return 0;
    for (uint32_t i = 0; i < ck->n_tensors; i++)
        bytes += strlen(ck->tensors[i].name) + GROWTH + 1;
    arena = at = malloc(bytes + 1);
    if (!arena)
        return sl_no_memory(e);
    p->arenas[p->n_arenas++] = arena;
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        rename_tensor(at, ck->tensors[i].name);
        ck->tensors[i].name = at;
        at += strlen(at) + 1;
    }
    return sl_ck_name_anew(ck, e);
}
