/* DeepSeek-V3.2: V3 whose attention has an indexer in each layer, which chooses the tokens that are
 * looked at, and whose layers for multi-token prediction are kept, behind the others. */
#include "proto/arch_table.h"

#include <math.h>

const struct sl_field sl_arch_indexed_fields[] = {
    SL_NEED(INDEX_HEADS, "index_n_heads"), SL_NEED(INDEX_DIM, "index_head_dim"), SL_NEED(INDEX_TOP, "index_topk"),
    SL_MAY(NEXTN, "num_nextn_predict_layers"), SL_END_FIELDS,
};

void sl_arch_keep_mtp(struct sl_params *p)
{
    struct sl_number *n = p->num;

    if (p->no_mtp)
        n[SL_N_NEXTN] = (struct sl_number){0};
    sl_num_set(p, SL_N_LAYER, n[SL_N_LAYER].u + n[SL_N_NEXTN].u);
    sl_num_set(p, SL_N_TWO_EMBD, 2 * n[SL_N_EMBD].u);
}

int sl_arch_indexed_derive(struct sl_params *p, struct sl_error *e)
{
    const struct sl_number *n = p->num;

    SL_TRY(sl_arch_latent_derive(p, e));
    SL_TRY(sl_arch_need(p, SL_N_EXPERT, e));
    SL_TRY(sl_arch_need(p, SL_N_Q_LORA, e));
    p->when |= SL_W_INDEXER;
    sl_arch_keep_mtp(p);
    return sl_num_mul(p, SL_N_INDEX_ROWS, n[SL_N_INDEX_HEADS].u, n[SL_N_INDEX_DIM].u, e);
}

const char sl_arch_latent_own_scales[] =
    " attn_output ffn_gate ffn_up ffn_down ffn_gate_exps ffn_up_exps ffn_down_exps ffn_gate_shexp ffn_up_shexp ffn_down_shexp "
    "nextn.eh_proj nextn.shared_head_head ";

const struct sl_arch sl_arch_deepseek32 = {
    .name = "deepseek32",
    .classes = SL_CLASSES("DeepseekV32ForCausalLM"),
    .fields = SL_FIELDS(sl_arch_model_fields, sl_arch_latent_fields, sl_arch_indexed_fields),
    .tensors = sl_arch_latent_tensors,
    .keys = sl_arch_latent_keys,
    .derive = sl_arch_indexed_derive,
    .mla_only = true,
    .adds_bos = true,
    .own_scales = sl_arch_latent_own_scales,
};
