/* config.json, as published models of each form have it. */
#include "generator.h"

#include <string.h>

const struct arch_names arch_names[N_ARCHS] = {
    [DEEPSEEK] = { "deepseek", "DeepseekV3ForCausalLM", "deepseek_v3" },
    [QWEN2] = { "qwen2", "Qwen2ForCausalLM", "qwen2" },
    [LLAMA] = { "llama", "LlamaForCausalLM", "llama" },
    [QWEN3] = { "qwen3", "Qwen3ForCausalLM", "qwen3" },
    [QWEN3MOE] = { "qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe" },
    [MINIMAX] = { "minimax", "MiniMaxM2ForCausalLM", "minimax_m2" },
    [MINIMAX3] = { "minimax3", "MiniMaxM3SparseForCausalLM", "minimax_m3" },
    [GLM4MOE] = { "glm4moe", "Glm4MoeForCausalLM", "glm4_moe" },
    [LING] = { "ling", "BailingMoeV2ForCausalLM", "bailing_moe" },
};

static void write_fp8(FILE *f, const struct config *c)
{
    bool lists = c->arch != DEEPSEEK && c->arch != MINIMAX && c->arch != MINIMAX3 && c->arch != LING;
    bool mx = !strcmp(c->scales, "mxfp8"), blocks = strcmp(c->scales, "tensor") != 0 && strcmp(c->scales, "row") != 0;
    fprintf(f, "{\"quant_method\":\"%s\",\"fmt\":\"e4m3\",\"activation_scheme\":\"dynamic\"%s", mx ? "mxfp8" : "fp8",
            mx ? ",\"weight_block_size\":[1,32]" : blocks ? ",\"weight_block_size\":[128,128]" : "");
    for (uint64_t i = 0; i < c->layers && lists; i++)
        fprintf(f, "%s\"model.layers.%" PRIu64 ".input_layernorm\",\"model.layers.%" PRIu64 ".mlp.gate\"",
                i ? "," : ",\"modules_to_not_convert\":[\"lm_head\",", i, i);
    fputs(lists ? "]}" : "}", f);
}

/* As Kimi-K2-Thinking's: experts alone, as 4-bit integers or as MXFP4. */
static void write_packed(FILE *f, const struct config *c)
{
    fprintf(f, "{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\",\"quantization_status\":\"compressed\","
               "\"config_groups\":{\"group_0\":{\"input_activations\":null,\"output_activations\":null,\"targets\":[\"Linear\"],"
               "\"weights\":{\"actorder\":null,\"block_structure\":null,\"dynamic\":false,\"group_size\":32,\"num_bits\":4,"
               "\"observer\":\"minmax\",\"observer_kwargs\":{},\"strategy\":\"group\",\"symmetric\":true,\"type\":\"%s\"}}},"
               "\"ignore\":[\"lm_head\",\"re:.*self_attn.*\",\"re:.*shared_experts.*\","
               "\"re:.*mlp\\\\.(gate|up|gate_up|down)_proj.*\"],\"kv_cache_scheme\":null}",
            c->mxfp4 ? "mxfp4-pack-quantized" : "pack-quantized", c->mxfp4 ? "float" : "int");
}

/* As RedHat's w8a8 of compressed-tensors; in blocks as SGLang's. */
static void write_int8(FILE *f, const struct config *c)
{
    if (!strcmp(c->scales, "block"))
        fputs("{\"activation_scheme\":\"dynamic\",\"quant_method\":\"blockwise_int8\",\"weight_block_size\":[128,128]}", f);
    else
        fprintf(f, "{\"config_groups\":{\"group_0\":{\"input_activations\":{\"dynamic\":true,\"num_bits\":8,\"strategy\":\"token\","
                   "\"symmetric\":true,\"type\":\"int\"},\"output_activations\":null,\"targets\":[\"Linear\"],\"weights\":{\"actorder\":null,"
                   "\"block_structure\":null,\"dynamic\":false,\"group_size\":null,\"num_bits\":8,\"observer\":\"minmax\",\"strategy\":\"%s\","
                   "\"symmetric\":true,\"type\":\"int\"}}},\"format\":\"int-quantized\",\"ignore\":[\"lm_head\"],"
                   "\"kv_cache_scheme\":null,\"quant_method\":\"compressed-tensors\",\"quantization_status\":\"compressed\"}",
                strcmp(c->scales, "tensor") ? "channel" : "tensor");
}

static void write_quantization(FILE *f, const struct config *c)
{
    fputs(",\"quantization_config\":", f);
    if (c->packed)
        write_packed(f, c);
    else if (c->int8)
        write_int8(f, c);
    else
        write_fp8(f, c);
}

static void write_quantized(FILE *f, const struct config *c)
{
    if (strcmp(c->scales, "none"))
        write_quantization(f, c);
}

/* Qwen3's own entries: with experts as Qwen3-235B's, without as DeepSeek-R1-0528-Qwen3-8B's. */
static void write_qwen3(FILE *f, const struct config *c)
{
    fprintf(f, ",\"bos_token_id\":256,\"eos_token_id\":257,\"head_dim\":%" PRIu64 ",\"attention_bias\":false,"
               "\"use_sliding_window\":false,\"sliding_window\":null,\"max_window_layers\":%" PRIu64,
            c->head_dim, c->layers);
    if (c->arch == QWEN3)
        fputs(",\"max_position_embeddings\":131072,\"rope_theta\":1000000,\"rope_scaling\":{\"attn_factor\":"
              "0.8782488562869419,\"factor\":4.0,\"original_max_position_embeddings\":32768,\"rope_type\":\"yarn\"}", f);
    else
        fprintf(f, ",\"max_position_embeddings\":262144,\"rope_theta\":5000000,\"rope_scaling\":null,"
                   "\"num_experts\":%" PRIu64 ",\"num_experts_per_tok\":%" PRIu64 ",\"moe_intermediate_size\":%" PRIu64
                   ",\"norm_topk_prob\":true,\"decoder_sparse_step\":1,\"mlp_only_layers\":[]",
                c->experts, c->used, c->moe_inter);
    write_quantized(f, c);
}

/* 0 for each dense layer, 1 for the others. */
static void write_layers(FILE *f, const struct config *c, const char *name)
{
    for (uint64_t i = 0; i < c->layers; i++)
        fprintf(f, "%s%s%s%d", i ? "," : "\"", i ? "" : name, i ? "" : "\":[", i >= c->dense);
    fputs("]", f);
}

/* MiniMax-M3's own entries. */
static void write_minimax3(FILE *f, const struct config *c)
{
    fprintf(f, "\"num_mtp_modules\":7,\"num_nextn_predict_layers\":1,\"dense_intermediate_size\":%" PRIu64
               ",\"shared_intermediate_size\":%" PRIu64 ",\"n_shared_experts\":1,\"routed_scaling_factor\":2.0,\"swiglu_alpha\":1.702,"
               "\"swiglu_beta\":1.0,\"swiglu_limit\":7.0,\"use_gemma_norm\":true,\"partial_rotary_factor\":0.5,"
               "\"sparse_attention_config\":{\"use_sparse_attention\":true,\"sparse_index_dim\":%" PRIu64
               ",\"sparse_num_index_heads\":%" PRIu64 ",\"sparse_topk_blocks\":%" PRIu64 ",\"sparse_block_size\":128,"
               "\"sparse_score_type\":\"max\",\"sparse_init_block\":0,\"sparse_local_block\":1,",
            c->inter, c->moe_inter, c->index_dim, c->kv_heads, c->index_top);
    write_layers(f, c, "sparse_attention_freq");
    fputs("},", f);
    write_layers(f, c, "moe_layer_freq");
}

static void write_minimax(FILE *f, const struct config *c)
{
    bool m3 = c->arch == MINIMAX3;
    fprintf(f, ",\"head_dim\":%" PRIu64 ",\"rotary_dim\":%" PRIu64 ",\"num_local_experts\":%" PRIu64
               ",\"num_experts_per_tok\":%" PRIu64 ",\"max_position_embeddings\":%s,\"rope_theta\":5000000,"
               "\"scoring_func\":\"sigmoid\",\"use_routing_bias\":true,\"use_qk_norm\":true,\"qk_norm_type\":\"%s\",",
            c->head_dim, c->rope, c->experts, c->used, m3 ? "1048576" : "196608", m3 ? "per_head" : "per_layer");
    if (m3)
        write_minimax3(f, c);
    else
        fputs("\"use_mtp\":true,\"num_mtp_modules\":3,\"mtp_transformer_layers\":1,\"shared_intermediate_size\":0", f);
    write_quantized(f, c);
}

/* compressed-tensors' FP8 with a scale for each row, to the beginning of the list of what is not quantized; and its end. */
static void begin_rows(FILE *f)
{
    fputs(",\"quantization_config\":{\"config_groups\":{\"group_0\":{\"input_activations\":{\"actorder\":null,\"block_structure\":null,"
          "\"dynamic\":true,\"group_size\":null,\"num_bits\":8,\"observer\":null,\"observer_kwargs\":{},\"strategy\":\"token\","
          "\"symmetric\":true,\"type\":\"float\"},\"output_activations\":null,\"targets\":[\"Linear\"],\"weights\":{\"actorder\":null,"
          "\"block_structure\":null,\"dynamic\":false,\"group_size\":null,\"num_bits\":8,\"observer\":\"minmax\",\"observer_kwargs\":{},"
          "\"strategy\":\"channel\",\"symmetric\":true,\"type\":\"float\"}}},\"format\":\"float-quantized\","
          "\"global_compression_ratio\":null,\"ignore\":[\"lm_head\"", f);
}

static void end_rows(FILE *f)
{
    fputs("],\"kv_cache_scheme\":null,\"quant_method\":\"compressed-tensors\",\"quantization_status\":\"compressed\"}", f);
}

/* GLM-4.6's own entries. In FP8 "ignore" names all that is not quantized, whether it could be or not. */
static void write_glm4(FILE *f, const struct config *c)
{
    fprintf(f, ",\"attention_bias\":true,\"attention_dropout\":0.0,\"pad_token_id\":321,\"eos_token_id\":[321,325,327],"
               "\"head_dim\":%" PRIu64 ",\"max_position_embeddings\":202752,\"partial_rotary_factor\":0.5,\"rope_scaling\":null,"
               "\"rope_theta\":1000000,\"moe_intermediate_size\":%" PRIu64 ",\"norm_topk_prob\":true,\"n_group\":1,\"topk_group\":1,"
               "\"n_routed_experts\":%" PRIu64 ",\"n_shared_experts\":1,\"routed_scaling_factor\":2.5,\"num_experts_per_tok\":%" PRIu64
               ",\"first_k_dense_replace\":%" PRIu64 ",\"use_qk_norm\":%s,\"num_nextn_predict_layers\":%d",
            c->head_dim, c->moe_inter, c->experts, c->used, c->dense, c->head_norm ? "true" : "false", c->mtp);
    if (!strcmp(c->scales, "none"))
        return;
    begin_rows(f);
    fputs(",\"model.embed_tokens\",\"model.norm\"", f);
    for (uint64_t i = 0; i < c->layers + c->mtp; i++) {
        static const char *const names[] = { "input_layernorm", "post_attention_layernorm", "self_attn.q_proj.bias", "self_attn.k_proj.bias",
                                            "self_attn.v_proj.bias", "mlp.gate", "mlp.gate.e_score_correction_bias", "embed_tokens",
                                            "eh_proj", "enorm", "hnorm", "shared_head.norm" };
        for (int k = 0; k < (i < c->dense ? 5 : i < c->layers ? 7 : 12); k++)
            fprintf(f, ",\"model.layers.%" PRIu64 ".%s\"", i, names[k]);
    }
    end_rows(f);
}

/* Ling 2.0's own entries, as its publisher's tools write them. */
static void write_ling(FILE *f, const struct config *c)
{
    fprintf(f, ",\"attention_dropout\":0.0,\"eos_token_id\":321,\"pad_token_id\":321,\"first_k_dense_replace\":%" PRIu64
               ",\"max_position_embeddings\":32768,\"moe_intermediate_size\":%" PRIu64 ",\"norm_topk_prob\":true,"
               "\"num_experts_per_tok\":%" PRIu64 ",\"num_experts\":%" PRIu64 ",\"rope_theta\":600000,\"rope_scaling\":null,"
               "\"use_bias\":false,\"use_rmsnorm\":true,\"head_dim\":%" PRIu64 ",\"num_shared_experts\":1,\"use_qkv_bias\":false,"
               "\"partial_rotary_factor\":0.5,\"router_dtype\":\"fp32\",\"moe_router_enable_expert_bias\":true,"
               "\"routed_scaling_factor\":2.5,\"n_group\":%" PRIu64 ",\"topk_group\":%" PRIu64 ",\"use_qk_norm\":true,"
               "\"score_function\":\"sigmoid\",\"moe_shared_expert_intermediate_size\":%" PRIu64,
            c->dense, c->moe_inter, c->used, c->experts, c->head_dim, c->groups, c->groups_used, c->moe_inter);
    if (c->mtp)
        fputs(",\"num_nextn_predict_layers\":1", f);
    if (strcmp(c->scales, "row")) {
        write_quantized(f, c);
        return;
    }
    begin_rows(f);
    for (uint64_t i = c->dense; i < c->layers + c->mtp; i++)
        fprintf(f, ",\"model.layers.%" PRIu64 ".mlp.gate\"", i);
    if (c->mtp)
        fprintf(f, ",\"model.layers.%" PRIu64 ".eh_proj\"", c->layers);
    end_rows(f);
}

/* DeepSeek-V3's own entries; with an indexer V3.2's. */
static void write_deepseek(FILE *f, const struct config *c)
{
    if (c->index_heads)
        fprintf(f, ",\"index_head_dim\":%" PRIu64 ",\"index_n_heads\":%" PRIu64 ",\"index_topk\":%" PRIu64,
                c->index_dim, c->index_heads, c->index_top);
    fprintf(f, ",\"bos_token_id\":0,\"eos_token_id\":1,\"max_position_embeddings\":163840,\"rope_theta\":10000,"
               "\"first_k_dense_replace\":%" PRIu64 ",\"moe_intermediate_size\":%" PRIu64
               ",\"n_routed_experts\":%" PRIu64 ",\"n_shared_experts\":1,\"num_experts_per_tok\":%" PRIu64
               ",\"n_group\":%" PRIu64 ",\"topk_group\":%" PRIu64 ",\"q_lora_rank\":%" PRIu64
               ",\"kv_lora_rank\":%" PRIu64 ",\"qk_nope_head_dim\":%" PRIu64 ",\"qk_rope_head_dim\":%" PRIu64
               ",\"v_head_dim\":%" PRIu64,
            c->dense, c->moe_inter, c->experts, c->used, c->groups, c->groups_used,
            c->q_lora, c->kv_lora, c->nope, c->rope, c->v_dim);
    fprintf(f, ",\"moe_layer_freq\":1,\"norm_topk_prob\":true,\"scoring_func\":\"sigmoid\",\"topk_method\":\"noaux_tc\","
               "\"routed_scaling_factor\":2.5,\"num_nextn_predict_layers\":%d,\"rope_scaling\":{\"type\":\"yarn\","
               "\"factor\":40,\"original_max_position_embeddings\":4096,\"beta_fast\":32,\"beta_slow\":1,"
               "\"mscale\":1.0,\"mscale_all_dim\":1.0}", c->mtp);
    write_quantization(f, c);
}

void write_config(const struct config *c)
{
    FILE *f = open_out(c, "config.json");
    fprintf(f, "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"torch_dtype\":\"bfloat16\","
               "\"hidden_size\":%" PRIu64 ",\"intermediate_size\":%" PRIu64 ",\"num_hidden_layers\":%" PRIu64
               ",\"num_attention_heads\":%" PRIu64 ",\"num_key_value_heads\":%" PRIu64 ",\"vocab_size\":%" PRIu64
               ",\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-06,\"tie_word_embeddings\":%s",
            c->index_heads ? "DeepseekV32ForCausalLM" : arch_names[c->arch].class,
            c->index_heads ? "deepseek_v32" : arch_names[c->arch].type, c->hidden, c->arch == MINIMAX3 ? c->moe_inter : c->inter, c->layers, c->heads,
            c->kv_heads, c->vocab, c->tied ? "true" : "false");
    switch (c->arch) {
    case DEEPSEEK:
        write_deepseek(f, c);
        break;
    case QWEN2:
        fputs(",\"bos_token_id\":256,\"eos_token_id\":257,\"max_position_embeddings\":32768,\"rope_theta\":1000000.0", f);
        write_quantized(f, c);
        break;
    case LLAMA:
        fputs(",\"bos_token_id\":256,\"eos_token_id\":257,\"max_position_embeddings\":131072,\"rope_theta\":500000.0,"
              "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
              "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}", f);
        write_quantized(f, c);
        break;
    case QWEN3:
    case QWEN3MOE:
        write_qwen3(f, c);
        break;
    case MINIMAX:
    case MINIMAX3:
        write_minimax(f, c);
        break;
    case GLM4MOE:
        write_glm4(f, c);
        break;
    case LING:
        write_ling(f, c);
        break;
    case N_ARCHS:
        break;
    }
    fputs("}\n", f);
    close_out(f, "config.json");
}
