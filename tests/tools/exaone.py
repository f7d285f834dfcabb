#!/usr/bin/env python3
"""Checkpoints in K-EXAONE's form, and their GGUF computed in numpy, sharing nothing with Sluice.

  exaone.py make DIR [--bf16] [--blocks] [--no-mtp] [--set NAME=VALUE...]
      a small checkpoint in FP8 with a scale for each row, or with --blocks for each block, as compressed-tensors has them; --no-mtp:
      without the layer for multi-token prediction; --set: an entry of config.json, null: none
  exaone.py keys DIR FILE.gguf [--no-mtp]     the architecture's keys and the tokenizer's, and their order
  exaone.py compare DIR FILE.gguf... [--no-mtp]   each tensor's bytes: F32, or F16 or BF16 of it
"""
import sys

import numpy as np

from gguf_same import same_keys, same_values
from model_keys import special_keys, tokenizer_keys
from reference import Checkpoint
from shard_maker import ShardMaker, config_of, do_verb, qwen2_tokenizer, set_entries

RULES = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
         r"|\s+(?!\S)|\s+")
CONFIG = {
    "architectures": ["ExaoneMoEForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "dtype": "bfloat16", "eos_token_id": 53,
    "first_k_dense_replace": 1, "head_dim": 64, "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02,
    "intermediate_size": 512, "is_moe_layer": [False] + [True] * 4, "layer_types": ["sliding_attention"] * 3 + ["full_attention", "sliding_attention"],
    "max_position_embeddings": 262144, "model_type": "exaone_moe", "moe_intermediate_size": 256, "n_group": 1, "norm_topk_prob": True,
    "num_attention_heads": 6, "num_experts": 8, "num_experts_per_tok": 2, "num_hidden_layers": 5, "num_key_value_heads": 2,
    "num_nextn_predict_layers": 1, "num_shared_experts": 1, "pad_token_id": 0, "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "sliding_window": 8, "sliding_window_pattern": "LLLG", "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer",
    "topk_group": 1, "topk_method": "noaux_tc", "use_cache": True, "vocab_size": 4200,
}
NAMES = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
         "self_attn.o_proj.weight": "attn_output.weight", "mlp.gate.weight": "ffn_gate_inp.weight",
         "mlp.e_score_correction_bias": "exp_probs_b.bias"}
NAMES.update({f"self_attn.{k}_norm.weight": f"attn_{k}_norm.weight" for k in "qk"})
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
for part in ("gate", "up", "down"):
    NAMES.update({f"mlp.{part}_proj.weight": f"ffn_{part}.weight", f"mlp.shared_experts.{part}_proj.weight": f"ffn_{part}_shexp.weight"})
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
MTP = {"mtp.fc.weight": "eh_proj", "mtp.pre_fc_norm_embedding.weight": "enorm", "mtp.pre_fc_norm_hidden.weight": "hnorm",
       "mtp.norm.weight": "shared_head_norm"}


class Maker(ShardMaker):
    def __init__(self, c, form):
        super().__init__(7)
        self.c, self.form = c, form

    def norm(self, name, n=None):
        self.add_bf16(name, np.float32(1) + np.float32(0.1) * self.gauss(n or self.c["hidden_size"]))

    def linear(self, name, rows, cols):
        if self.form == "bf16":
            return self.bf16(name, rows, cols)
        self.e4m3(name, rows, cols)
        shape = (rows, 1) if self.form == "rows" else (-(-rows // 128), -(-cols // 128))
        self.add(name + "_scale", "F32", ((0.75 + 0.5 * self.rng.random(shape)) / (60 * cols ** 0.5)).astype(np.float32))

    def network(self, p, ff):
        n = self.c["hidden_size"]
        self.linear(p + "down_proj.weight", n, ff)
        self.linear(p + "gate_proj.weight", ff, n)
        self.linear(p + "up_proj.weight", ff, n)

    def layer(self, p, moe):
        c = self.c
        n, d = c["hidden_size"], c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
        self.norm(p + "input_layernorm.weight")
        self.norm(p + "post_attention_layernorm.weight")
        for k, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
            self.linear(f"{p}self_attn.{k}_proj.weight", c[heads] * d, n)
            if k != "v":
                self.norm(f"{p}self_attn.{k}_norm.weight", d)
        self.linear(p + "self_attn.o_proj.weight", n, c["num_attention_heads"] * d)
        if not moe:
            return self.network(p + "mlp.", c["intermediate_size"])
        self.bf16(p + "mlp.gate.weight", c["num_experts"], n)
        self.add(p + "mlp.e_score_correction_bias", "F32", np.float32(0.02) * self.gauss(c["num_experts"]))
        for e in range(c["num_experts"]):
            self.network(f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])
        self.network(p + "mlp.shared_experts.", c["moe_intermediate_size"] * c["num_shared_experts"])


def quantization(form):
    blocks = {"strategy": "block", "block_structure": [128, 128]} if form == "blocks" else {"strategy": "channel"}
    return {"config_groups": {"group_0": {"input_activations": {"dynamic": True, "num_bits": 8, "strategy": "token", "type": "float"},
                                          "targets": ["Linear"], "weights": dict(blocks, dynamic=False, num_bits=8, symmetric=True, type="float")}},
            "format": "float-quantized", "ignore": ["lm_head", "re:.*mlp\\.gate$", "mtp.fc"], "quant_method": "compressed-tensors"}


def dense_of(c):
    return c.get("first_k_dense_replace", c.get("first_last_k_dense_replace", 0))


def cmd_make(a):
    c = dict(CONFIG)
    if a.no_mtp:
        del c["num_nextn_predict_layers"]
    set_entries(c, a.set)
    c = {k: v for k, v in c.items() if v is not None}
    form = "bf16" if a.bf16 else "blocks" if a.blocks else "rows"
    m, n = Maker(c, form), c["hidden_size"]
    m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16("model.embed_tokens.weight", c["vocab_size"], n, fan=1)
    for i in range(c["num_hidden_layers"]):
        m.layer(f"model.layers.{i}.", i >= dense_of(c))
    m.norm("model.norm.weight")
    if not a.no_mtp:
        m.layer("mtp.layers.0.", False)
        m.bf16("mtp.fc.weight", n, 2 * n)
        for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
            m.norm(f"mtp.{name}.weight")
    m.write_model(a.dir, c if form == "bf16" else dict(c, quantization_config=quantization(form)))
    qwen2_tokenizer(a.dir, RULES, True)


def expected_keys(c, mtp):
    mtp = c.get("num_nextn_predict_layers", 0) if mtp else 0
    rope = c.get("rope_parameters") or {}
    near = rope.get("sliding_attention", {}).get("rope_theta", c.get("rope_local_base_freq"))
    letters, types = c.get("sliding_window_pattern"), c.get("layer_types")
    if types is None and letters:
        n = c["num_hidden_layers"]
        types = [(letters[i % len(letters)] == "L" if isinstance(letters, str) else (i + 1) % letters != 0) for i in range(n)]
    elif types:
        types = [t == "sliding_attention" for t in types]
    keys = [("block_count", c["num_hidden_layers"] + mtp), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"]),
            ("feed_forward_length", c["intermediate_size"]), ("attention.head_count", c["num_attention_heads"]),
            ("attention.head_count_kv", c["num_key_value_heads"]),
            ("rope.freq_base", float(rope.get("full_attention", rope).get("rope_theta", c.get("rope_theta")))),
            *([("rope.freq_base_swa", float(near))] if near else []),
            ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]), ("expert_count", c["num_experts"]),
            ("expert_used_count", c["num_experts_per_tok"]), *([("expert_group_count", c["n_group"])] if "n_group" in c else []),
            *([("expert_group_used_count", c["topk_group"])] if "topk_group" in c else []), ("expert_gating_func", 2),
            *([("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"])] if "head_dim" in c else []),
            ("vocab_size", c["vocab_size"]), ("attention.sliding_window", c["sliding_window"]),
            *([("attention.sliding_window_pattern", types)] if types else []),
            ("expert_feed_forward_length", c["moe_intermediate_size"]), ("expert_shared_count", c["num_shared_experts"]),
            ("expert_shared_feed_forward_length", c["moe_intermediate_size"] * c["num_shared_experts"]),
            ("expert_weights_scale", c["routed_scaling_factor"]), ("expert_weights_norm", c["norm_topk_prob"]),
            ("leading_dense_block_count", dense_of(c)), ("nextn_predict_layers", mtp), ("rope.scaling.type", "none")]
    return [("exaone-moe." + k, v) for k, v in keys]


def cmd_keys(a):
    c = config_of(a.dir)
    return same_keys(a.files[0], ("exaone-moe.", "tokenizer."), expected_keys(c, not a.no_mtp)
                     + tokenizer_keys(a.dir, "exaone-moe", c["vocab_size"]) + special_keys(a.dir))


def wanted(ck, mtp):
    """{GGUF name: a function that gives the values}"""
    want, n = {}, ck.config["num_hidden_layers"]
    for name in ck.where:
        if name.endswith("_scale") or (name.startswith("mtp.") and not mtp):
            continue
        value = lambda name=name: ck.f32(name)
        if name in ONCE or name in MTP:
            want[ONCE[name] if name in ONCE else f"blk.{n}.nextn.{MTP[name]}.weight"] = value
            continue
        top, number, rest = name.split("layers.")[0], *name.split("layers.")[1].split(".", 1)
        p = f"blk.{int(number) + (n if top == 'mtp.' else 0)}."
        if not rest.startswith("mlp.experts."):
            want[p + NAMES[rest]] = value
            continue
        _, _, e, kind, _ = rest.split(".")
        if e == "0":
            want[f"{p}ffn_{kind[:-5]}_exps.weight"] = lambda name=name: np.stack(
                [ck.f32(name.replace("experts.0.", f"experts.{e}.")) for e in range(ck.config["num_experts"])])
    return want


def cmd_compare(a):
    ck = Checkpoint(a.dir)
    ck.config.get("quantization_config", {})["weight_block_size"] = [128, 128]
    return same_values(a.files, lambda: wanted(ck, not a.no_mtp))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "bf16", "blocks", "no-mtp"))
