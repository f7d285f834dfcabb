/* Checkpoints and configs that must be refused, each with one clear line; small
 * ones that must be taken; GGUF sources. */
#include "tests/unit/model_fixture.h"

#include <cjson/cJSON.h>

/* A Llama of one layer: 4 heads of 4, 2 key-value heads. */
#define LLAMA                                                                                   \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":16,\"intermediate_size\":32,"    \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"num_hidden_layers\":1,"              \
    "\"vocab_size\":8,\"rms_norm_eps\":1e-5,\"torch_dtype\":\"bfloat16\"%s}"

#define TOKENIZER                                                                               \
    "{\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
    "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|"     \
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"  \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}"

#define LAYER "model.layers.0."
#define N_LLAMA 12

static const struct fx_tensor llama[N_LLAMA] = {
    {"lm_head.weight", 8, 16, 0}, {"model.embed_tokens.weight", 8, 16, 0}, {"model.norm.weight", 16, 0, 0},
    {LAYER "input_layernorm.weight", 16, 0, 0}, {LAYER "mlp.down_proj.weight", 16, 32, 0},
    {LAYER "mlp.gate_proj.weight", 32, 16, 0}, {LAYER "mlp.up_proj.weight", 32, 16, 0},
    {LAYER "post_attention_layernorm.weight", 16, 0, 0}, {LAYER "self_attn.k_proj.weight", 8, 16, 0},
    {LAYER "self_attn.o_proj.weight", 16, 16, 0}, {LAYER "self_attn.q_proj.weight", 16, 16, 0},
    {LAYER "self_attn.v_proj.weight", 8, 16, 0},
};

static void write_llama(const char *dir, const char *more, const struct fx_tensor *t, size_t n)
{
    char config[1024];

    snprintf(config, sizeof config, LLAMA, more);
    fx_text(dir, "config.json", config);
    fx_text(dir, "tokenizer.json", TOKENIZER);
    fx_safetensors(dir, t, n);
}

static void assert_refused(const char *path, int code, const char *words)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;
    struct sl_error e;
    int rc = fx_open(path, SL_LAYOUT_MLA, &ck, &m, &e);

    if (rc == 0) {
        fx_close(ck, m);
        fail_msg("taken, but expected: %s", words);
    }
    if (rc != code || e.code != code || !strstr(e.text, words))
        fail_msg("code %d, '%s': expected code %d with '%s'", rc, e.text, code, words);
}

static void test_llama_is_taken(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;

    write_llama(*state, "", llama, N_LLAMA);
    fx_must_open(*state, SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 12);
    assert_string_equal(m->tensors[0].name, "output.weight");
    assert_int_equal(fx_tensor(m, "blk.0.attn_k.weight")->heads, 2);
    fx_close(ck, m);
}

static void test_tied(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_model *m;

    write_llama(*state, ",\"tie_word_embeddings\":true", llama + 1, N_LLAMA - 1);
    fx_must_open(*state, SL_LAYOUT_MLA, &ck, &m);
    assert_null(fx_tensor(m, "output.weight"));
    fx_close(ck, m);
    write_llama(*state, "", llama + 1, N_LLAMA - 1);
    assert_refused(*state, SL_ESOURCE, "1 tensor missing from the checkpoint: lm_head.weight");
}

/* A bias is permuted with its matrix, value by value. */
static void test_biases(void **state)
{
    struct fx_tensor t[N_LLAMA + 4];
    struct sl_checkpoint *ck;
    struct sl_model *m;
    const struct sl_model_src *s;

    memcpy(t, llama, sizeof llama);
    t[N_LLAMA] = (struct fx_tensor){LAYER "self_attn.q_proj.bias", 16, 0, 0};
    t[N_LLAMA + 1] = (struct fx_tensor){LAYER "self_attn.k_proj.bias", 8, 0, 0};
    t[N_LLAMA + 2] = (struct fx_tensor){LAYER "self_attn.v_proj.bias", 8, 0, 0};
    t[N_LLAMA + 3] = (struct fx_tensor){LAYER "self_attn.o_proj.bias", 16, 0, 0};
    write_llama(*state, ",\"attention_bias\":true", t, N_LLAMA + 4);
    fx_must_open(*state, SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(fx_tensor(m, "blk.0.attn_k.bias")->transform, SL_PERMUTE);
    assert_int_equal(fx_tensor(m, "blk.0.attn_k.bias")->heads, 2);
    s = &m->src[fx_tensor(m, "blk.0.attn_k.bias")->first_src];
    assert_int_equal(s->rows, 8);
    assert_int_equal(s->cols, 1);
    assert_true(fx_tensor(m, "blk.0.attn_output.bias")->keep_f32);
    fx_close(ck, m);
    write_llama(*state, "", t, N_LLAMA + 4);
    assert_refused(*state, SL_EUNSUPPORTED, "4 tensors unknown for LlamaForCausalLM");
}

static void test_dropped(void **state)
{
    struct fx_tensor t[N_LLAMA + 1];
    struct sl_checkpoint *ck;
    struct sl_model *m;

    memcpy(t, llama, sizeof llama);
    t[N_LLAMA] = (struct fx_tensor){LAYER "self_attn.rotary_emb.inv_freq", 2, 0, 0};
    write_llama(*state, "", t, N_LLAMA + 1);
    fx_must_open(*state, SL_LAYOUT_MLA, &ck, &m);
    assert_int_equal(m->n_tensors, 12);
    fx_close(ck, m);
}

static void test_wrong_tensors(void **state)
{
    struct fx_tensor t[N_LLAMA + 9];
    char names[9][64];

    memcpy(t, llama, sizeof llama);
    for (int i = 0; i < 9; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%d.odd.weight", i);
        t[N_LLAMA + i] = (struct fx_tensor){names[i], 2, 2, 0};
    }
    write_llama(*state, "", t, N_LLAMA + 1);
    assert_refused(*state, SL_EUNSUPPORTED, "1 tensor unknown for LlamaForCausalLM (0 expected ones "
                   "missing): model.layers.0.odd.weight");
    write_llama(*state, "", t, N_LLAMA + 9);
    assert_refused(*state, SL_EUNSUPPORTED, "model.layers.4.odd.weight and 4 more");
    t[9].name = "model.layers.0.self_attn.out_proj.weight";
    write_llama(*state, "", t, N_LLAMA);
    assert_refused(*state, SL_EUNSUPPORTED, "(1 expected one missing: " LAYER "self_attn.o_proj.weight): " LAYER "self_attn.out_proj");
    write_llama(*state, "", llama, 1);
    assert_refused(*state, SL_ESOURCE, "11 tensors missing from the checkpoint: model.embed_tokens");
    assert_refused(*state, SL_ESOURCE, " and 1 more");
    memcpy(t, llama, sizeof llama);
    t[4].cols = 16;
    write_llama(*state, "", t, N_LLAMA);
    assert_refused(*state, SL_ESOURCE, "tensor '" LAYER "mlp.down_proj.weight': expected shape "
                   "[16, 32] by config.json, found [16, 16]");
    memcpy(t, llama, sizeof llama);
    t[4].between = 1;
    write_llama(*state, "", t, N_LLAMA);
    assert_refused(*state, SL_ESOURCE, "expected shape [16, 32] by config.json, found [16, 1, 32]");
    t[4].between = 2;
    write_llama(*state, "", t, N_LLAMA);
    assert_refused(*state, SL_ESOURCE, "expected shape [16, 32] by config.json, found [16, 2, 32]");
    memcpy(t, llama, sizeof llama);
    t[2].cols = 1;
    write_llama(*state, "", t, N_LLAMA);
    assert_refused(*state, SL_ESOURCE, "expected shape [16] by config.json, found [16, 1]");
}

static void test_too_many(void **state)
{
    char config[1024], *at;

    write_llama(*state, "", llama, N_LLAMA);
    snprintf(config, sizeof config, LLAMA, "");
    at = strstr(config, "\"num_hidden_layers\":1,");
    memmove(at + 25, at + 22, strlen(at + 22) + 1);
    memcpy(at, "\"num_hidden_layers\":4000,", 25);
    fx_text(*state, "config.json", config);
    assert_refused(*state, SL_ESOURCE, "the config is not of this checkpoint");
}

/* ---- hostile configs: DeepSeek-R1's with one entry changed ---- */

struct change {
    const char *key, *value; /* value NULL: the entry is removed */
    int code;
    const char *words;
};

static const struct change changes[] = {
    {"architectures", "[\"GrokForCausalLM\"]", SL_EUNSUPPORTED,
     "architecture 'GrokForCausalLM' is not supported; supported, before ForCausalLM: DeepseekV2, DeepseekV3, DeepseekV32, DeepseekV4, "
     "ExaoneMoE, ExaoneMoe, GlmMoeDsa, Glm4Moe, SolarOpen, Glm4MoeLite, MiMoV2Flash, MiMoV2, MiniMaxM2, MiniMaxM3Sparse, Qwen2, Qwen3, "
     "Qwen3Moe, Qwen3Next, Qwen3_5, Qwen3_5Moe, Step3p5, Llama, BailingMoeV2, MistralLarge3, Llama4, HunYuanMoEV1, HYV3, Ernie4_5_Moe; "
     "before ForConditionalGeneration: KimiK25, KimiK3, Glm4vMoe, MiniMaxM3Sparse, Qwen3VL, Qwen3VLMoe, Qwen3_5, Qwen3_5Moe, Step3p7, Llama4"},
    {"architectures", "[]", SL_ESOURCE, "no \"architectures\""},
    {"architectures", "\"DeepseekV3ForCausalLM\"", SL_ESOURCE, "no \"architectures\""},
    {"architectures", NULL, SL_ESOURCE, "no \"architectures\""},
    {"hidden_size", NULL, SL_ESOURCE, "config.json has no \"hidden_size\", which DeepseekV3"},
    {"hidden_size", "0", SL_ESOURCE, "\"hidden_size\" is 0: expected an integer from 1"},
    {"hidden_size", "-7168", SL_ESOURCE, "\"hidden_size\" is -7168"},
    {"hidden_size", "1e18", SL_ESOURCE, "\"hidden_size\" is 1e+18"},
    {"hidden_size", "7168.5", SL_ESOURCE, "\"hidden_size\" is 7168.5"},
    {"hidden_size", "\"7168\"", SL_ESOURCE, "\"hidden_size\" is \"7168\""},
    {"hidden_size", "[7168]", SL_ESOURCE, "\"hidden_size\" is an array"},
    {"num_hidden_layers", "100000", SL_ESOURCE, "\"num_hidden_layers\" is 100000"},
    {"num_hidden_layers", "4096", SL_ESOURCE, "at most 1000000 are supported"},
    {"n_routed_experts", "16384", SL_ESOURCE, "at most 1000000 are supported"},
    {"n_routed_experts", "1e9", SL_ESOURCE, "\"n_routed_experts\""},
    {"n_routed_experts", "255", SL_ESOURCE, "255 experts cannot be divided in 8 groups"},
    {"n_group", "0", SL_ESOURCE, "\"n_group\" is 0"},
    {"topk_group", "9", SL_ESOURCE, "\"topk_group\" is 9 of 8 groups"},
    {"num_experts_per_tok", "257", SL_ESOURCE, "\"num_experts_per_tok\" is 257 of 256"},
    {"first_k_dense_replace", "62", SL_ESOURCE, "\"first_k_dense_replace\" is 62 of 61 layers"},
    {"num_key_value_heads", "8", SL_ESOURCE, "\"num_key_value_heads\" is 8"},
    {"scoring_func", "\"tanh\"", SL_EUNSUPPORTED, "\"scoring_func\" is 'tanh'"},
    {"rms_norm_eps", "-1", SL_ESOURCE, "\"rms_norm_eps\" is -1"},
    {"rope_theta", "0", SL_ESOURCE, "\"rope_theta\" is 0"},
    {"rope_theta", "1e300", SL_ESOURCE, "rope_theta is 1.00"},
    {"rope_theta", "true", SL_ESOURCE, "rope_theta is true"},
    {"rope_scaling", "3", SL_ESOURCE, "rope_scaling is not an object"},
    {"rope_scaling", "{\"type\":\"longrope\"}", SL_EUNSUPPORTED, "of type 'longrope'"},
    {"rope_scaling", "{\"type\":\"llama3\"}", SL_EUNSUPPORTED, "llama3 is not supported for Deep"},
    {"rope_scaling", "{\"type\":\"yarn\"}", SL_ESOURCE, "needs a positive \"factor\""},
    {"rope_scaling", "{\"type\":\"yarn\",\"factor\":40}", SL_ESOURCE, "original_max_position"},
    {"norm_topk_prob", "1", SL_ESOURCE, "\"norm_topk_prob\" is 1: expected true or false"},
    {"quantization_config", "{\"bits\":4}", SL_EUNSUPPORTED, "quant_method '(none)'"},
    {"quantization_config", "{\"quant_method\":\"gptq\"}", SL_EUNSUPPORTED, "'gptq'"},
    {"quantization_config", "{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\"}",
     SL_EUNSUPPORTED, "the weights are packed with 0 config_groups instead of one"},
    {"quantization_config", "{\"quant_method\":\"compressed-tensors\",\"format\":\"marlin-24\"}",
     SL_EUNSUPPORTED, "quant_method 'compressed-tensors', format 'marlin-24', and only"},
    {"n_routed_experts", NULL, SL_ESOURCE, "has no \"n_routed_experts\": the class of DeepseekV3ForCausalLM takes 256"},
    {"architectures", "[\"DeepseekV32ForCausalLM\"]", SL_ESOURCE, "has no \"index_n_heads\", which DeepseekV32ForCausalLM needs"},
    {"vocab_size", "0", SL_ESOURCE, "\"vocab_size\" is 0"},
    {"vocab_size", "1048577", SL_ESOURCE, "\"vocab_size\" is 1048577: expected an integer from 1 to 1048576"},
};

static const struct change v32_changes[] = {
    {"index_head_dim", NULL, SL_ESOURCE, "config.json has no \"index_head_dim\""},
    {"index_head_dim", "0", SL_ESOURCE, "\"index_head_dim\" is 0: expected an integer from 1"},
    {"index_n_heads", "1.5", SL_ESOURCE, "\"index_n_heads\" is 1.5"},
    {"index_topk", "null", SL_ESOURCE, "has no \"index_topk\""},
    {"num_nextn_predict_layers", "-1", SL_ESOURCE, "\"num_nextn_predict_layers\" is -1"},
    {"num_nextn_predict_layers", "65", SL_ESOURCE, "expected an integer from 0 to 64"},
    {"q_lora_rank", "null", SL_ESOURCE, "has no \"q_lora_rank\", which DeepseekV32"},
    {"n_routed_experts", NULL, SL_ESOURCE, "has no \"n_routed_experts\", which DeepseekV32"},
    {"first_k_dense_replace", "62", SL_ESOURCE, "\"first_k_dense_replace\" is 62 of 61 layers"},
};

static const struct change qwen3moe_changes[] = {
    {"num_experts", NULL, SL_ESOURCE, "config.json has no \"num_experts\", which Qwen3MoeForCausalLM needs"},
    {"num_experts", "0", SL_ESOURCE, "config.json has no \"num_experts\""},
    {"num_local_experts", "0.5", SL_ESOURCE, "\"num_local_experts\" is 0.5: expected an integer from 1"},
    {"num_experts_per_tok", "129", SL_ESOURCE, "\"num_experts_per_tok\" is 129 of 128 experts"},
    {"moe_intermediate_size", NULL, SL_ESOURCE, "config.json has no \"moe_intermediate_size\""},
    {"mlp_only_layers", "[0]", SL_EUNSUPPORTED, "\"mlp_only_layers\" tells of layers without experts, which llama.cpp's qwen3moe cannot have"},
    {"decoder_sparse_step", "2", SL_EUNSUPPORTED, "\"decoder_sparse_step\" tells of layers without experts"},
    {"attention_bias", "true", SL_EUNSUPPORTED, "\"attention_bias\" is true, and llama.cpp's qwen3moe has no bias"},
    {"num_key_value_heads", "3", SL_ESOURCE, "64 heads cannot be divided among 3"},
    {"rope_scaling", "{\"rope_type\":\"llama3\"}", SL_EUNSUPPORTED, "llama3 is not supported for Qwen3Moe"},
};

static const struct change minimax_changes[] = {
    {"rotary_dim", NULL, SL_ESOURCE, "config.json has no \"rotary_dim\", which MiniMaxM2ForCausalLM needs"},
    {"rotary_dim", "65", SL_ESOURCE, "\"rotary_dim\" is 65; expected an even number of the 128 of \"head_dim\""},
    {"rotary_dim", "130", SL_ESOURCE, "\"rotary_dim\" is 130; expected"},
    {"head_dim", "null", SL_ESOURCE, "has no \"head_dim\""},
    {"rope_theta", NULL, SL_ESOURCE, "has no \"rope_theta\""},
    {"max_position_embeddings", NULL, SL_ESOURCE, "has no \"max_position_embeddings\""},
    {"num_local_experts", "0", SL_ESOURCE, "\"num_local_experts\" is 0: expected an integer from 1"},
    {"num_experts_per_tok", "257", SL_ESOURCE, "\"num_experts_per_tok\" is 257 of 256 experts"},
    {"n_group", "7", SL_ESOURCE, "256 experts cannot be divided in 7 groups"},
    {"num_key_value_heads", "7", SL_ESOURCE, "48 heads cannot be divided among 7"},
    {"scoring_func", "\"tanh\"", SL_EUNSUPPORTED, "\"scoring_func\" is 'tanh'; supported: softmax, sigmoid"},
    {"tie_word_embeddings", "true", SL_EUNSUPPORTED, "\"tie_word_embeddings\" is true, and llama.cpp's minimax-m2 has a head of its own"},
    {"rope_scaling", "{\"rope_type\":\"llama3\"}", SL_EUNSUPPORTED, "llama3 is not supported for MiniMaxM2"},
};

static const struct change ling_changes[] = {
    {"max_position_embeddings", NULL, SL_ESOURCE, "config.json has no \"max_position_embeddings\", which BailingMoeV2ForCausalLM needs"},
    {"rope_theta", NULL, SL_ESOURCE, "config.json has no \"rope_theta\", which BailingMoeV2"},
    {"first_k_dense_replace", NULL, SL_ESOURCE, "config.json has no \"first_k_dense_replace\""},
    {"first_k_dense_replace", "81", SL_ESOURCE, "\"first_k_dense_replace\" is 81 of 80 layers"},
    {"num_experts", NULL, SL_ESOURCE, "config.json has no \"num_experts\", which BailingMoeV2"},
    {"num_experts_per_tok", "257", SL_ESOURCE, "\"num_experts_per_tok\" is 257 of 256 experts"},
    {"n_group", "7", SL_ESOURCE, "256 experts cannot be divided in 7 groups"},
    {"topk_group", "9", SL_ESOURCE, "\"topk_group\" is 9 of 8 groups"},
    {"num_shared_experts", "0", SL_ESOURCE, "\"num_shared_experts\" is 0: expected an integer from 1"},
    {"norm_topk_prob", "null", SL_ESOURCE, "has no \"norm_topk_prob\""},
    {"num_key_value_heads", "7", SL_ESOURCE, "64 heads cannot be divided among 7"},
    {"head_dim", "64", SL_EUNSUPPORTED, "64 heads of 64 rows, and llama.cpp's bailingmoe2 has as many as \"hidden_size\", 8192"},
    {"partial_rotary_factor", "0.06", SL_ESOURCE, "\"partial_rotary_factor\" is 0.06 of heads of 128"},
    {"score_function", "\"sqrtsoftplus\"", SL_EUNSUPPORTED, "\"score_function\" is 'sqrtsoftplus'; supported: softmax, sigmoid"},
    {"use_bias", "true", SL_EUNSUPPORTED, "\"use_bias\" is true, and llama.cpp's bailingmoe2 has no biases"},
    {"tie_word_embeddings", "true", SL_EUNSUPPORTED, "\"tie_word_embeddings\" is true, and llama.cpp's bailingmoe2 has a head of its own"},
    {"rope_scaling", "{\"rope_type\":\"llama3\"}", SL_EUNSUPPORTED, "llama3 is not supported for BailingMoeV2"},
};

static const struct change qwen3_changes[] = {
    {"attention_bias", "true", SL_EUNSUPPORTED, "\"attention_bias\" is true, and llama.cpp's qwen3 has no bias"},
    {"_name_or_path", "\"Qwen/Qwen3-Reranker-8B\"", SL_EUNSUPPORTED, "the checkpoint is a reranker by config.json's _name_or_path"},
    {"_name_or_path", "\"qwen3-vl-reranker-2b\"", SL_EUNSUPPORTED, "the checkpoint is a reranker by config.json's _name_or_path"},
    {"head_dim", "0", SL_ESOURCE, "\"head_dim\" is 0"},
};

#define SIX ",0,0,0,0,0,0"
#define LIST(a, b) "[" a "," b SIX SIX SIX SIX SIX SIX SIX SIX SIX SIX SIX SIX ",0,0,0,0]"
static const struct change glm_changes[] = {
    {"indexer_types", "[\"full\"]", SL_ESOURCE, "\"indexer_types\" is no list of 78 entries"},
    {"indexer_types", "\"full\"", SL_ESOURCE, "\"indexer_types\" is no list of 78 entries"},
    {"num_hidden_layers", "77", SL_ESOURCE, "\"indexer_types\" is no list of 77 entries"},
    {"partial_rotary_factor", "0.5", SL_EUNSUPPORTED, "\"partial_rotary_factor\" is 0.5; supported for GlmMoeDsaForCausalLM: 1"},
    {"rope_parameters", "{\"rope_theta\":1,\"partial_rotary_factor\":0.5}", SL_EUNSUPPORTED, "\"partial_rotary_factor\" is 0.5"},
    {"indexer_types", LIST("\"shared\"", "\"full\""), SL_ESOURCE, "an entry for layer 0 that is not \"full\", as the first must be"},
    {"indexer_types", LIST("\"full\"", "\"none\""), SL_ESOURCE, "an entry for layer 1 that is not \"full\" or \"shared\""},
    {"indexer_types", LIST("\"full\"", "true"), SL_ESOURCE, "an entry for layer 1 that is not \"full\" or \"shared\""},
    {"index_topk", NULL, SL_ESOURCE, "has no \"index_topk\", which GlmMoeDsa"},
    {"q_lora_rank", "null", SL_ESOURCE, "has no \"q_lora_rank\", which GlmMoeDsa"},
};

static const struct change flash_changes[] = {
    {"partial_rotary_factor", "0.5", SL_EUNSUPPORTED, "\"partial_rotary_factor\" is 0.5; supported for Glm4MoeLiteForCausalLM: 1"},
    {"scoring_func", "\"noisy\"", SL_EUNSUPPORTED, "\"scoring_func\" is 'noisy'; supported: softmax, sigmoid"},
    {"num_nextn_predict_layers", "-1", SL_ESOURCE, "\"num_nextn_predict_layers\" is -1"},
};

#define V4_RATIOS SIX SIX SIX SIX SIX SIX SIX
static const struct change v4_changes[] = {
    {"compress_ratios", "[0,0,4]", SL_ESOURCE, "\"compress_ratios\" is no list of 43 entries or more"},
    {"compress_ratios", "4", SL_ESOURCE, "\"compress_ratios\" is no list of 43 entries or more"},
    {"num_hidden_layers", "45", SL_ESOURCE, "\"compress_ratios\" is no list of 45 entries or more"},
    {"compress_ratios", "[0,2" V4_RATIOS "]", SL_EUNSUPPORTED, "an entry for layer 1 that is not 0, 4 or 128"},
    {"compress_ratios", "[null,0" V4_RATIOS "]", SL_EUNSUPPORTED, "an entry for layer 0 that is not 0, 4 or 128"},
    {"scoring_func", "\"sigmoid\"", SL_EUNSUPPORTED, "\"scoring_func\" is 'sigmoid'; supported for DeepseekV4ForCausalLM: sqrtsoftplus"},
    {"rope_scaling", "{\"type\":\"llama3\"}", SL_EUNSUPPORTED, "llama3 is not supported for DeepseekV4"},
    {"num_key_value_heads", "64", SL_ESOURCE, "\"num_key_value_heads\" is 64: expected an integer from 1 to 1"},
    {"num_experts_per_tok", "257", SL_ESOURCE, "\"num_experts_per_tok\" is 257 of 256 experts"},
    {"n_group", "7", SL_ESOURCE, "256 experts cannot be divided in 7 groups"},
    {"o_groups", "7", SL_ESOURCE, "64 heads cannot be divided in 7 groups (\"o_groups\")"},
    {"num_hash_layers", "44", SL_ESOURCE, "\"num_hash_layers\" is 44 of 43 layers"},
    {"swiglu_limit", NULL, SL_ESOURCE, "has no \"swiglu_limit\", which DeepseekV4"},
    {"head_dim", NULL, SL_ESOURCE, "has no \"head_dim\", which DeepseekV4"},
    {"hc_mult", "0", SL_ESOURCE, "\"hc_mult\" is 0"},
};

#define K3_LINEAR "\"short_conv_kernel_size\":4,\"full_attn_layers\":"
static const struct change k3_changes[] = {
    {"hidden_act", "\"silu\"", SL_EUNSUPPORTED, "\"hidden_act\" is 'silu'; supported for KimiK3ForConditionalGeneration: situ"},
    {"moe_router_activation_func", NULL, SL_EUNSUPPORTED, "\"moe_router_activation_func\" is '(none)'; supported for"},
    {"mla_use_nope", NULL, SL_EUNSUPPORTED, "\"mla_use_nope\" is not true: llama.cpp runs KimiK3"},
    {"num_key_value_heads", "2", SL_ESOURCE, "\"num_key_value_heads\" is 2: with latent attention it is \"num_attention_heads\", 96"},
    {"rope_scaling", "{\"type\":\"llama3\"}", SL_EUNSUPPORTED, "llama3 is not supported for KimiK3"},
    {"num_experts_per_token", "897", SL_ESOURCE, "\"num_experts_per_token\" is 897 of 896 experts"},
    {"num_experts_per_tok", "898", SL_ESOURCE, "\"num_experts_per_tok\" is 898 of 896 experts"},
    {"first_k_dense_replace", "94", SL_ESOURCE, "\"first_k_dense_replace\" is 94 of 93 layers"},
    {"activation_situ_beta", NULL, SL_ESOURCE, "has no \"activation_situ_beta\", which KimiK3"},
    {"linear_attn_config", NULL, SL_ESOURCE, "has no \"linear_attn_config\", which KimiK3"},
    {"linear_attn_config", "{\"full_attn_layers\":4}", SL_ESOURCE, "full_attn_layers: expected a list of layers"},
    {"linear_attn_config", "{\"full_attn_layers\":[4,94]}", SL_ESOURCE, "has an entry that is no layer, 1 to 93"},
    {"linear_attn_config", "{\"full_attn_layers\":[0]}", SL_ESOURCE, "has an entry that is no layer, 1 to 93"},
    {"linear_attn_config", "{\"full_attn_layers\":[]}", SL_EUNSUPPORTED, "names no layer: llama.cpp runs the model with layers of both kinds alone"},
    {"num_hidden_layers", "1", SL_ESOURCE, "has an entry that is no layer, 1 to 1"},
    {"linear_attn_config", "{\"full_attn_layers\":[4,4]}", SL_ESOURCE, "short_conv_kernel_size: expected an integer from 1 to 1024"},
    {"linear_attn_config", "{" K3_LINEAR "[4]}", SL_ESOURCE, "head_dim: expected an integer from 1 to 65536"},
    {"linear_attn_config", "{" K3_LINEAR "[4],\"head_dim\":128,\"gate_lower_bound\":\"x\"}", SL_ESOURCE,
     "linear_attn_config.gate_lower_bound is \"x\""},
};

static void refuse_changes(const char *dir, const char *of, const struct change *c, size_t n)
{
    char *text = fx_read(of), path[256];

    snprintf(path, sizeof path, "%s/config.json", dir);
    for (size_t i = 0; i < n; i++) {
        cJSON *config = cJSON_Parse(text), *inner = cJSON_GetObjectItemCaseSensitive(config, "text_config");
        char *changed;

        assert_non_null(config);
        cJSON_DeleteItemFromObjectCaseSensitive(inner ? inner : config, c[i].key);
        if (c[i].value)
            cJSON_AddRawToObject(inner ? inner : config, c[i].key, c[i].value);
        changed = cJSON_Print(config);
        fx_text(dir, "config.json", changed);
        assert_refused(path, c[i].code, c[i].words);
        cJSON_free(changed);
        cJSON_Delete(config);
    }
    free(text);
}

static void test_hostile_configs(void **state)
{
    refuse_changes(*state, "tests/data/deepseek-r1-config.json", changes, sizeof changes / sizeof *changes);
    refuse_changes(*state, "tests/data/deepseek-v3.2-exp-config.json", v32_changes, sizeof v32_changes / sizeof *v32_changes);
    refuse_changes(*state, "tests/data/r1-0528-qwen3-8b-config.json", qwen3_changes, sizeof qwen3_changes / sizeof *qwen3_changes);
    refuse_changes(*state, "tests/data/qwen3-235b-a22b-2507-fp8-config.json", qwen3moe_changes,
                   sizeof qwen3moe_changes / sizeof *qwen3moe_changes);
    refuse_changes(*state, "tests/data/deepseek-v4-flash-config.json", v4_changes, sizeof v4_changes / sizeof *v4_changes);
    refuse_changes(*state, "tests/data/kimi-k3-config.json", k3_changes, sizeof k3_changes / sizeof *k3_changes);
    refuse_changes(*state, "tests/data/ling-1t-fp8-config.json", ling_changes, sizeof ling_changes / sizeof *ling_changes);
    refuse_changes(*state, "tests/data/minimax-m2.5-config.json", minimax_changes, sizeof minimax_changes / sizeof *minimax_changes);
    refuse_changes(*state, "tests/data/glm-5.2-fp8-config.json", glm_changes, sizeof glm_changes / sizeof *glm_changes);
    refuse_changes(*state, "tests/data/glm-4.7-flash-config.json", flash_changes, sizeof flash_changes / sizeof *flash_changes);
}

/* More experts of a token than there are, by each family's own word for it. */
static void test_experts_of_every_family(void **state)
{
    static const struct {
        const char *config;
        struct change change;
    } cases[] = {
        {"ernie-4.5-300b-a47b", {"moe_k", "65", SL_ESOURCE, "\"moe_k\" is 65 of 64 experts"}},
        {"glm-4.5v", {"num_experts_per_tok", "129", SL_ESOURCE, "is 129 of 128 experts"}},
        {"hunyuan-a13b", {"moe_topk", "65", SL_ESOURCE, "\"moe_topk\" is 65 of 64 experts"}},
        {"hunyuan-a13b", {"num_shared_expert", "2", SL_EUNSUPPORTED, "\"moe_layer_num_skipped\" says otherwise"}},
        {"hunyuan-a13b", {"moe_layer_num_skipped", "1", SL_EUNSUPPORTED, "\"moe_layer_num_skipped\" says otherwise"}},
        {"hunyuan-a13b", {"moe_intermediate_size", "1536", SL_EUNSUPPORTED, "\"moe_layer_num_skipped\" says otherwise"}},
        {"hunyuan-a13b", {"n_group", "7", SL_ESOURCE, "64 experts cannot be divided in 7 groups"}},
        {"hy3-fp8", {"num_experts_per_tok", "193", SL_ESOURCE, "is 193 of 192 experts"}},
        {"k-exaone-236b-a23b", {"num_experts_per_tok", "129", SL_ESOURCE, "is 129 of 128 experts"}},
        {"llama-4-scout", {"num_experts_per_tok", "17", SL_ESOURCE, "is 17 of 16 experts"}},
        {"mimo-v2-flash", {"num_experts_per_tok", "257", SL_ESOURCE, "is 257 of 256 experts"}},
        {"minimax-m3", {"num_experts_per_tok", "129", SL_ESOURCE, "is 129 of 128 experts"}},
        {"qwen3-vl-235b-a22b", {"num_experts_per_tok", "129", SL_ESOURCE, "is 129 of 128 experts"}},
        {"qwen3.5-397b-a17b-fp8", {"num_experts_per_tok", "513", SL_ESOURCE, "is 513 of 512 experts"}},
        {"solar-open-100b", {"num_experts_per_tok", "129", SL_ESOURCE, "is 129 of 128 experts"}},
        {"step-3.5-flash-fp8", {"moe_top_k", "289", SL_ESOURCE, "\"moe_top_k\" is 289 of 288 experts"}},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128];

        snprintf(path, sizeof path, "tests/data/%s-config.json", cases[i].config);
        refuse_changes(*state, path, &cases[i].change, 1);
    }
}

static void test_heads_that_do_not_divide(void **state)
{
    static const struct { const char *more, *words; } cases[] = {
        {",\"head_dim\":5", "heads have 5 rows; an even number is needed"},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\",\"low_freq_factor\":0}", "has absurd values"},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\"},\"original_max_position_embeddings\":0.5", "original context 0.5"},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":\"8\"}", "factor is \"8\""},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":1e-50,\"original_max_position_embeddings\":2}", "factor 0 of rope_freqs is no"},
        {",\"rope_scaling\":{\"rope_type\":\"llama3\",\"high_freq_factor\":1,\"original_max_position_embeddings\":6.2831854820251465}",
         "factor 0 of rope_freqs is no positive number"},
    };
    char config[1024], path[256], *at;

    snprintf(path, sizeof path, "%s/config.json", (char *)*state);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(config, sizeof config, LLAMA, cases[i].more);
        fx_text(*state, "config.json", config);
        assert_refused(path, SL_ESOURCE, cases[i].words);
    }
    snprintf(config, sizeof config, LLAMA, "");
    at = strstr(config, "_heads\":4");
    at[8] = '5';
    fx_text(*state, "config.json", config);
    assert_refused(path, SL_ESOURCE, "5 heads cannot be divided among 2");
    at = strstr(config, "key_value_heads\":2");
    at[17] = '5';
    fx_text(*state, "config.json", config);
    assert_refused(path, SL_ESOURCE, "\"hidden_size\" 16 cannot be divided among 5");
}

/* ---- GGUF sources ---- */

static void put_keys(struct sl_kvs *kvs, bool arch)
{
    assert_int_equal(sl_kvs_set_u32(kvs, "general.alignment", SL_GGUF_ALIGN), 0);
    if (arch)
        assert_int_equal(sl_kvs_set_str(kvs, "general.architecture", "qwen2"), 0);
    assert_int_equal(sl_kvs_set_str(kvs, "general.name", "Small One"), 0);
    assert_int_equal(sl_kvs_set_str(kvs, "general.size_label", "1.0K"), 0);
    assert_int_equal(sl_kvs_set_u32(kvs, "general.file_type", 1), 0);
    assert_int_equal(sl_kvs_set_u32(kvs, "qwen2.block_count", 11), 0);
    assert_int_equal(sl_kvs_set_u32(kvs, "qwen2.attention.head_count", 4), 0);
    assert_int_equal(sl_kvs_set_u32(kvs, "qwen2.embedding_length", 32), 0);
    assert_int_equal(sl_kvs_set_u32(kvs, "general.quantization_version", 2), 0);
}

static void write_gguf(const char *path, bool arch, uint32_t align)
{
    static const char *const names[] = {"blk.10.attn_q.weight", "blk.2.attn_norm.weight",
                                        "token_embd.weight", "output_norm.weight"};
    struct sl_gguf_tensor t[4];
    struct sl_kvs kvs = {NULL, 0, 0};
    uint8_t *head, zeros[4096] = {0};
    uint64_t len, off = 0;
    FILE *f = fopen(path, "wb");

    put_keys(&kvs, arch);
    for (int i = 0; i < 4; i++) {
        bool matrix = i % 2 == 0;

        memset(&t[i], 0, sizeof t[i]);
        snprintf(t[i].name, sizeof t[i].name, "%s", names[i]);
        t[i].n_dims = matrix ? 2 : 1;
        for (int d = 0; d < 4; d++)
            t[i].ne[d] = d == 0 ? 32 : d == 1 && matrix ? 8 : 1;
        t[i].type = matrix ? SL_TYPE_F16 : SL_TYPE_F32;
        t[i].bytes = matrix ? 512 : 128;
        t[i].offset = off;
        off += t[i].bytes;
    }
    assert_non_null(f);
    assert_int_equal(sl_gguf_header(&kvs, t, 4, &head, &len), 0);
    /* The writer knows its own alignment alone: 17 bytes of name, 4 of type. */
    memcpy((uint8_t *)memmem(head, len, "general.alignment", 17) + 21, &align, sizeof align);
    off += (align - len % align) % align;
    assert_int_equal(fwrite(head, 1, len, f), len);
    assert_int_equal(fwrite(zeros, 1, off, f), off);
    assert_int_equal(fclose(f), 0);
    free(head);
    sl_kvs_free(&kvs);
}

static void test_gguf(void **state)
{
    static const char *const order[] = {"output_norm.weight", "token_embd.weight",
                                        "blk.2.attn_norm.weight", "blk.10.attn_q.weight"};
    struct sl_checkpoint *ck;
    struct sl_model *m;
    char path[256];

    snprintf(path, sizeof path, "%s/small.gguf", (char *)*state);
    write_gguf(path, true, 32);
    fx_must_open(path, SL_LAYOUT_MLA, &ck, &m);
    assert_string_equal(m->arch, "qwen2");
    assert_int_equal(m->n_tensors, 4);
    for (int i = 0; i < 4; i++) {
        const struct sl_out_tensor *t = &m->tensors[i];

        assert_string_equal(t->name, order[i]);
        assert_int_equal(t->transform, SL_COPY);
        assert_string_equal(ck->tensors[m->src[t->first_src].tensor].name, order[i]);
        assert_int_equal(t->keep_f32, i == 0 || i == 2);
        assert_int_equal(t->src_type, i == 0 || i == 2 ? SL_TYPE_F32 : SL_TYPE_F16);
    }
    assert_int_equal(m->src[m->tensors[1].first_src].rows, 8);
    assert_int_equal(m->n_params, 2 * 256 + 2 * 32);
    assert_int_equal(m->hp.n_layer, 11);
    assert_int_equal(m->hp.n_head_kv, 4);
    assert_int_equal(m->hp.head_k, 8);
    assert_int_equal(m->kvs.n, 7);
    assert_non_null(sl_kvs_find(&m->kvs, "general.alignment"));
    assert_null(sl_kvs_find(&m->kvs, "general.file_type"));
    assert_null(sl_kvs_find(&m->kvs, "general.quantization_version"));
    assert_string_equal(m->base_name, "Small-One-1.0K");
    fx_close(ck, m);
    write_gguf(path, true, 64); /* the output will have 32 */
    fx_must_open(path, SL_LAYOUT_MLA, &ck, &m);
    assert_null(sl_kvs_find(&m->kvs, "general.alignment"));
    fx_close(ck, m);
    write_gguf(path, false, 32);
    assert_refused(path, SL_ESOURCE, "general.architecture is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_llama_is_taken, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_tied, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_biases, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_dropped, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_tensors, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_too_many, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_hostile_configs, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_experts_of_every_family, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_heads_that_do_not_divide, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_gguf, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("models refused and taken", tests, NULL, NULL);
}
