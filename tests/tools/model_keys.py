#!/usr/bin/env python3
"""The metadata that llama.cpp's converter makes of checkpoints of several models, computed from the format's rules, sharing
nothing with Sluice.

  model_keys.py v32 DIR FILE.gguf      FILE's are those of DeepSeek-V3.2, but for the tokenizer
  model_keys.py glm DIR FILE.gguf      those of GLM-5.2, with the tokenizer
  model_keys.py flash DIR FILE.gguf    of GLM-4.7-Flash
  model_keys.py glm4 DIR FILE.gguf     of GLM-4.5 and those after it, of GLM-4.5V and of Solar-Open
  model_keys.py minimax DIR FILE.gguf  of MiniMax-M2 and M3
  model_keys.py ling DIR FILE.gguf     of Ling 2.0
  model_keys.py qwen3 DIR FILE.gguf    of Qwen3, with experts or without, but for the tokenizer
--no-mtp: without layers for multi-token prediction
"""
import json
import os
import sys

from gguf_same import same_keys
from shard_maker import config_of, do_verb


def special_keys(folder):
    """Ids of special tokens and the chat template, found by gguf-py's own code."""
    import gguf

    class Told:
        def __init__(self):
            self.kv = []

        def __getattr__(self, name):
            return getattr(gguf.GGUFWriter, name).__get__(self)

        def add_key_value(self, key, val, vtype, sub_type=None):
            self.kv.append((key, val))

    told = Told()
    gguf.SpecialVocab(folder, load_merges=False).add_to_gguf(told, quiet=True)
    return told.kv


def deepseek_keys(c):
    """Those of DeepSeek-V3's form in the converter's order, where no configuration class reads config.json."""
    rs = c.get("rope_scaling")
    yarn = [("rope.scaling.type", "yarn"), ("rope.scaling.factor", rs["factor"]),
            ("rope.scaling.original_context_length", rs["original_max_position_embeddings"]),
            ("rope.scaling.yarn_beta_fast", rs["beta_fast"]), ("rope.scaling.yarn_beta_slow", rs["beta_slow"])] if rs else []
    mscale = [("rope.scaling.yarn_log_multiplier", 0.1 * rs["mscale_all_dim"])] if rs else []
    theta = c["rope_theta"] if "rope_theta" in c else c["rope_parameters"]["rope_theta"]
    lengths = [("attention.key_length", c["kv_lora_rank"] + c["qk_rope_head_dim"]),
               ("attention.value_length", c["kv_lora_rank"])]
    early = "head_dim" in c
    return [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", 1), *yarn,
            ("rope.freq_base", float(theta)), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["n_routed_experts"]), ("expert_used_count", c["num_experts_per_tok"]),
            ("expert_group_count", c["n_group"]), ("expert_group_used_count", c["topk_group"]),
            ("expert_gating_func", 2), *lengths * early, ("leading_dense_block_count", c["first_k_dense_replace"]),
            ("vocab_size", c["vocab_size"]), ("attention.q_lora_rank", c["q_lora_rank"]),
            ("attention.kv_lora_rank", c["kv_lora_rank"]), *lengths * (not early),
            ("attention.key_length_mla", c["qk_nope_head_dim"] + c["qk_rope_head_dim"]),
            ("attention.value_length_mla", c["v_head_dim"]),
            ("expert_feed_forward_length", c["moe_intermediate_size"]), ("expert_shared_count", c["n_shared_experts"]),
            ("expert_weights_scale", c["routed_scaling_factor"]), ("expert_weights_norm", True),
            ("rope.dimension_count", c["qk_rope_head_dim"]), *mscale]


def tokenizer_keys(folder, pre, n):
    t = json.load(open(os.path.join(folder, "tokenizer.json")))
    of_id = {i: (s, 1) for s, i in t["model"]["vocab"].items()}
    for x in t["added_tokens"]:
        of_id[x["id"]] = (x["content"], 3 if x["special"] else 4)
    tokens = [of_id.get(i, (f"[PAD{i}]", 5)) for i in range(n)]
    return [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", pre), ("tokenizer.ggml.tokens", [s for s, _ in tokens]),
            ("tokenizer.ggml.token_type", [k for _, k in tokens]),
            ("tokenizer.ggml.merges", [m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]])]


def glm_tokenizer(folder):
    c = config_of(folder)
    ids = {x["content"]: x["id"] for x in json.load(open(os.path.join(folder, "tokenizer.json")))["added_tokens"]}
    special = [("eos", ids["<|endoftext|>"]), ("padding", ids["<|endoftext|>"]), ("bos", ids["[gMASK]"]), ("eot", ids["<|user|>"]),
               ("unknown", ids["<|endoftext|>"]), ("eom", ids["<|observation|>"])]
    path = os.path.join(folder, "chat_template.jinja")
    return tokenizer_keys(folder, "glm4", c.get("text_config", c)["vocab_size"]) + [
        *((f"tokenizer.ggml.{k}_token_id", v) for k, v in special),
        *([("tokenizer.chat_template", open(path).read())] if os.path.exists(path) else [])]


def expected_indexed(folder, mtp, arch):
    c = config_of(folder)
    more = [("nextn_predict_layers", c["num_nextn_predict_layers"])] if mtp else []
    if mtp:
        c["num_hidden_layers"] += c["num_nextn_predict_layers"]
    if "index_n_heads" in c:
        more += [("attention.indexer.head_count", c["index_n_heads"]), ("attention.indexer.key_length", c["index_head_dim"]),
                 ("attention.indexer.top_k", c["index_topk"])]
    if "indexer_types" in c:
        more.append(("attention.indexer.types", [t == "full" for t in c["indexer_types"]]))
    return [(arch + k, v) for k, v in deepseek_keys(c) + more]


def solar_tokenizer(folder):
    c = config_of(folder)
    ids = {x["content"]: x["id"] for x in json.load(open(os.path.join(folder, "tokenizer.json")))["added_tokens"]}
    keys = special_keys(folder)
    special = dict(x for x in keys if x[0].endswith("_token_id"))
    for kind, text in (("eos", "<|endoftext|>"), ("eot", "<|endoftext|>"), ("unknown", "<unk>"), ("bos", "<|startoftext|>")):
        special.setdefault(f"tokenizer.ggml.{kind}_token_id", ids[text])
    return tokenizer_keys(folder, "solar-open", c["vocab_size"]) + [*special.items()] + [x for x in keys if x[0] not in special]


def expected_glm4(folder, mtp):
    c = config_of(folder)
    c = {**c, **c.get("text_config", {})}
    solar, mtp = c["model_type"] == "solar_open", mtp and "num_nextn_predict_layers" in c
    nextn = c["num_nextn_predict_layers"] if mtp else 0
    scaling = c.get("rope_scaling") or {}
    yarn = [("rope.scaling.type", "yarn"), ("rope.scaling.factor", scaling["factor"]),
            ("rope.scaling.original_context_length", scaling["original_max_position_embeddings"])] if "factor" in scaling else []
    sections = [("rope.dimension_sections", scaling["mrope_section"] + [0])] if "mrope_section" in scaling else []
    gating = [("expert_gating_func", 2)]
    keys = [("block_count", c["num_hidden_layers"] + nextn), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"]), *yarn, *sections,
            ("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["n_routed_experts"]), ("expert_used_count", c["num_experts_per_tok"]),
            *([("expert_group_count", c["n_group"]), ("expert_group_used_count", c["topk_group"])] if "n_group" in c else []),
            *(gating if "scoring_func" in c else []),
            ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
            ("rope.dimension_count", int(c["head_dim"] * c["partial_rotary_factor"])),
            ("expert_feed_forward_length", c["moe_intermediate_size"]), ("expert_shared_count", c["n_shared_experts"]),
            ("leading_dense_block_count", c["first_k_dense_replace"]), *([] if "scoring_func" in c else gating),
            ("expert_weights_scale", float(c["routed_scaling_factor"])), ("expert_weights_norm", c["norm_topk_prob"]),
            *([("nextn_predict_layers", nextn)] if mtp else [])]
    return [("glm4moe." + k, v) for k, v in keys] + (solar_tokenizer if solar else glm_tokenizer)(folder)


def expected_ling(folder, mtp):
    c = config_of(folder)
    nextn, yarn = c.get("num_nextn_predict_layers") if mtp else None, c["rope_scaling"]
    keys = [("block_count", c["num_hidden_layers"] + (nextn or 0)), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"]),
            *([("rope.scaling.type", "yarn"), ("rope.scaling.factor", yarn["factor"]),
               ("rope.scaling.original_context_length", yarn["original_max_position_embeddings"])] if yarn else []),
            ("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["num_experts"]), ("expert_used_count", c["num_experts_per_tok"]),
            ("expert_group_count", c["n_group"]), ("expert_group_used_count", c["topk_group"]),
            ("expert_gating_func", {"softmax": 1, "sigmoid": 2}[c["score_function"]]),
            ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
            ("rope.dimension_count", int(c["head_dim"] * c["partial_rotary_factor"])),
            ("leading_dense_block_count", c["first_k_dense_replace"]), ("vocab_size", c["vocab_size"]),
            ("expert_feed_forward_length", c["moe_intermediate_size"]),
            ("expert_shared_feed_forward_length", c["moe_shared_expert_intermediate_size"]),
            ("expert_weights_scale", float(c["routed_scaling_factor"])), ("expert_shared_count", c["num_shared_experts"]),
            ("expert_weights_norm", c["norm_topk_prob"]), *([] if nextn is None else [("nextn_predict_layers", nextn)])]
    return [("bailingmoe2." + k, v) for k, v in keys] + tokenizer_keys(folder, "bailingmoe2", c["vocab_size"]) + special_keys(folder)


def expected_qwen3(folder):
    c = config_of(folder)
    rs, moe = c["rope_scaling"], "num_experts" in c
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"])]
    if rs:
        keys += [("rope.scaling.type", "yarn"), ("rope.scaling.factor", rs["factor"]),
                 ("rope.scaling.original_context_length", rs["original_max_position_embeddings"]),
                 ("rope.scaling.yarn_attn_factor", rs["attn_factor"])]
    keys += [("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"])]
    if moe:
        keys += [("expert_count", c["num_experts"]), ("expert_used_count", c["num_experts_per_tok"])]
    keys += [("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"])]
    if moe:
        keys += [("expert_feed_forward_length", c["moe_intermediate_size"])]
    return [(("qwen3moe." if moe else "qwen3.") + k, v) for k, v in keys]


def cmd_v32(a):
    return same_keys(a.files[0], "deepseek32.", expected_indexed(a.dir, not a.no_mtp, "deepseek32."))


def cmd_glm(a):
    return same_keys(a.files[0], ("glm-dsa.", "tokenizer."), expected_indexed(a.dir, not a.no_mtp, "glm-dsa.") + glm_tokenizer(a.dir))


def cmd_flash(a):
    return same_keys(a.files[0], ("deepseek2.", "tokenizer."), expected_indexed(a.dir, not a.no_mtp, "deepseek2.") + glm_tokenizer(a.dir))


def cmd_glm4(a):
    return same_keys(a.files[0], ("glm4moe.", "tokenizer."), expected_glm4(a.dir, not a.no_mtp))


def cmd_minimax(a):
    """MiniMax-M2's keys; of M3's text model, which may be inside, its own."""
    c = config_of(a.dir)
    c = c.get("text_config", c)
    m3 = "sparse_attention_config" in c
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["dense_intermediate_size" if m3 else "intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"]),
            ("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["num_local_experts"]), ("expert_used_count", c["num_experts_per_tok"]), ("expert_gating_func", 2),
            ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
            ("expert_feed_forward_length", c["intermediate_size"]), ("rope.dimension_count", c["rotary_dim"])]
    if m3:
        s = c["sparse_attention_config"]
        keys += [("expert_shared_count", c["n_shared_experts"]), ("expert_weights_scale", c["routed_scaling_factor"]),
                 ("expert_weights_norm", True), ("attention.indexer.head_count", s["sparse_num_index_heads"]),
                 ("attention.indexer.key_length", s["sparse_index_dim"]), ("attention.indexer.top_k", s["sparse_topk_blocks"]),
                 ("attention.indexer.block_size", s["sparse_block_size"]), ("attention.indexer.local_blocks", s["sparse_local_block"]),
                 ("leading_dense_block_count", c["moe_layer_freq"].index(1))]
    arch = "minimax-m3." if m3 else "minimax-m2."
    return same_keys(a.files[0], (arch, "tokenizer."), [(arch + k, v) for k, v in keys]
                     + tokenizer_keys(a.dir, "minimax-m2", c["vocab_size"]) + special_keys(a.dir))


def cmd_ling(a):
    return same_keys(a.files[0], ("bailingmoe2.", "tokenizer."), expected_ling(a.dir, not a.no_mtp))


def cmd_qwen3(a):
    return same_keys(a.files[0], "qwen3", expected_qwen3(a.dir))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "no-mtp"))
