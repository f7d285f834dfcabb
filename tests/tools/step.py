#!/usr/bin/env python3
"""Checkpoints in Step-3.5-Flash's form, and their GGUF computed in numpy, sharing nothing with Sluice.

  step.py make DIR [--bf16] [--text] [--mtp N]
      a small checkpoint in FP8; --text: within a model that sees, as Step-3.7
  step.py keys DIR FILE.gguf [--no-mtp]     the architecture's keys and the tokenizer's, and their order
  step.py compare DIR FILE.gguf... [--no-mtp]   each tensor's bytes: F32, or F16 or BF16 of it
"""
import json
import math
import os
import sys

import numpy as np

from gguf_same import same_keys, same_values
from model_keys import special_keys, tokenizer_keys
from reference import Checkpoint
from shard_maker import TINY, ShardMaker, do_verb, text_config, write_json

CONFIG = {
    "att_impl_type": "GQA", "attention_other_setting": {"attention_type": "sliding_attention", "head_dim": 64, "num_attention_groups": 2,
                                                        "num_attention_heads": 6},
    "bos_token_id": 0, "eos_token_id": [1, 2], "head_dim": 64, "hidden_size": 256, "intermediate_size": 512,
    "max_position_embeddings": 262144, "max_seq_len": 262144, "moe_every_n_layer": 1, "moe_intermediate_size": 256, "moe_layer_offset": 0,
    "moe_layers_enum": "1,2,3,4", "moe_num_experts": 8, "moe_router_activation": "sigmoid", "moe_router_scaling_factor": 3.0,
    "moe_top_k": 2, "need_fp32_gate": True, "norm_expert_weight": True, "num_attention_groups": 2, "num_attention_heads": 4,
    "num_hidden_layers": 5, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 2.0, "high_freq_factor": 32.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64, "rope_type": "llama3"}, "share_expert_dim": 128, "sliding_window": 8,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_head_wise_attn_gate": True, "use_moe": True,
    "use_moe_router_bias": True, "use_qk_norm": True, "vocab_size": 4200, "yarn_only_types": ["full_attention"],
}
NAMES = {
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.g_proj.weight": "attn_gate.weight", "self_attn.o_proj.weight": "attn_output.weight", "moe.gate.weight": "ffn_gate_inp.weight",
    "moe.router_bias": "exp_probs_b.bias", "transformer.shared_head.norm.weight": "nextn.shared_head_norm.weight",
    "transformer.shared_head.output.weight": "nextn.shared_head_head.weight",
}
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
NAMES.update({f"self_attn.{k}_norm.weight": f"attn_{k}_norm.weight" for k in "qk"})
for part in ("gate", "up", "down"):
    NAMES.update({f"mlp.{part}_proj.weight": f"ffn_{part}.weight", f"moe.{part}_proj.weight": f"ffn_{part}_exps.weight",
                  f"share_expert.{part}_proj.weight": f"ffn_{part}_shexp.weight"})
NAMES.update({f"{k}.weight": f"nextn.{k}.weight" for k in ("eh_proj", "enorm", "hnorm")})
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def windows_of(c, n):
    return [t == "sliding_attention" for t in c["layer_types"]][:n]


class Maker(ShardMaker):
    def __init__(self, c, fp8):
        super().__init__(3)
        self.c, self.fp8 = c, fp8

    def norm(self, name, n=None):
        self.add_bf16(name, np.float32(0.1) * self.gauss(n or self.c["hidden_size"]))

    def linear(self, name, *shape):
        if not self.fp8:
            return self.bf16(name + ".weight", *shape)
        self.blocks(name + ".weight", *shape)

    def network(self, p, ff, *stack):
        n = self.c["hidden_size"]
        self.linear(p + "down_proj", *stack, n, ff)
        self.linear(p + "gate_proj", *stack, ff, n)
        self.linear(p + "up_proj", *stack, ff, n)

    def layer(self, p, window, moe):
        c = self.c
        n, d, of = c["hidden_size"], c["head_dim"], c["attention_other_setting"] if window else c
        heads, groups = of["num_attention_heads"], of["num_attention_groups"]
        self.norm(p + "input_layernorm.weight")
        self.norm(p + "post_attention_layernorm.weight")
        for k, rows in (("q", heads), ("k", groups), ("v", groups)):
            self.linear(f"{p}self_attn.{k}_proj", rows * d, n)
        self.norm(p + "self_attn.q_norm.weight", d)
        self.norm(p + "self_attn.k_norm.weight", d)
        self.bf16(p + "self_attn.g_proj.weight", heads, n)
        self.linear(p + "self_attn.o_proj", n, heads * d)
        if not moe:
            return self.network(p + "mlp.", c["intermediate_size"])
        self.bf16(p + "moe.gate.weight", c["moe_num_experts"], n)
        self.add(p + "moe.router_bias", "F32", np.float32(0.02) * self.gauss(c["moe_num_experts"]))
        self.network(p + "moe.", c["moe_intermediate_size"], c["moe_num_experts"])
        self.network(p + "share_expert.", c["share_expert_dim"])


def config(a):
    c = json.loads(json.dumps(CONFIG))
    c["num_nextn_predict_layers"] = a.mtp
    n = c["num_hidden_layers"] + a.mtp
    c["layer_types"] = ["sliding_attention" if i % 4 else "full_attention" for i in range(n)]
    c["partial_rotary_factors"] = [1.0 if t == "sliding_attention" else 0.5 for t in c["layer_types"]]
    c["rope_theta"] = [10000.0 if t == "sliding_attention" else 5000000.0 for t in c["layer_types"]]
    c["swiglu_limits"] = [0.0] * (n - a.mtp - 2) + [7, None] + [0.0] * a.mtp
    c["swiglu_limits_shared"] = [0.0] * (n - a.mtp - 1) + [16.5]
    quant = {} if a.bf16 else {"quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                                       "weight_block_size": [128, 128]}}
    if a.text:
        return c, dict(quant, architectures=["Step3p7ForConditionalGeneration"], model_type="step3p7", text_config=dict(
            c, architectures=["Step3p5ForCausalLM"], model_type="step3p5"), vision_config={"width": 32}, tie_word_embeddings=False)
    return c, dict(c, architectures=["Step3p5ForCausalLM"], model_type="step3p5", **quant)


def tokenizer(folder):
    t, c = (json.load(open(os.path.join(TINY, name), encoding="utf-8")) for name in ("tokenizer.json", "tokenizer_config.json"))
    for x in t["added_tokens"]:
        x["special"] = True
    c["chat_template"] = "{{ messages }}"
    write_json(folder, {"tokenizer.json": t, "tokenizer_config.json": c})


def cmd_make(a):
    c, whole = config(a)
    m, n, p = Maker(c, not a.bf16), c["hidden_size"], "model.language_model." if a.text else "model."
    moe = [int(x) for x in c["moe_layers_enum"].split(",")]
    m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16(p + "embed_tokens.weight", c["vocab_size"], n, fan=1)
    for i, window in enumerate(windows_of(c, c["num_hidden_layers"] + a.mtp)):
        m.layer(f"{p}layers.{i}.", window, i in moe)
        if i >= c["num_hidden_layers"]:
            m.bf16(f"{p}layers.{i}.eh_proj.weight", n, 2 * n)
            for name in ("enorm", "hnorm", "transformer.shared_head.norm"):
                m.norm(f"{p}layers.{i}.{name}.weight")
            m.bf16(f"{p}layers.{i}.transformer.shared_head.output.weight", c["vocab_size"], n)
    m.norm(p + "norm.weight")
    for name in ("model.vision_model.conv1.weight", "model.vit_large_projector.weight") if a.text else ():
        m.bf16(name, 32, 32)
    m.write_model(a.dir, whole)
    tokenizer(a.dir)


def expected_keys(c, mtp):
    mtp = c["num_nextn_predict_layers"] if mtp else 0
    n, of = c["num_hidden_layers"] + mtp, c["attention_other_setting"]
    windows = windows_of(c, n)
    clamps = lambda name: [float(np.float32(x or 0)) for x in (c[name] + [0] * n)[:n]]
    keys = [("block_count", n), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"]),
            ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", [(of if w else c)["num_attention_heads"] for w in windows]),
            ("rope.freq_base", c["rope_theta"][0]), ("rope.freq_base_swa", c["rope_theta"][1]),
            ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]), ("expert_gating_func", 2), ("attention.key_length", c["head_dim"]),
            ("attention.value_length", c["head_dim"]), ("attention.head_count_kv", [(of if w else c)["num_attention_groups"] for w in windows]),
            ("attention.sliding_window", c["sliding_window"]), ("attention.sliding_window_pattern", windows),
            ("expert_count", c["moe_num_experts"]), ("expert_used_count", c["moe_top_k"]),
            ("expert_feed_forward_length", c["moe_intermediate_size"]), ("expert_shared_feed_forward_length", c["share_expert_dim"]),
            ("expert_weights_scale", c["moe_router_scaling_factor"]), ("expert_weights_norm", c["norm_expert_weight"]),
            ("leading_dense_block_count", min(map(int, c["moe_layers_enum"].split(",")))), ("moe_every_n_layers", c["moe_every_n_layer"]),
            ("swiglu_clamp_exp", clamps("swiglu_limits")), ("swiglu_clamp_shexp", clamps("swiglu_limits_shared"))]
    keys += [("nextn_predict_layers", mtp)] if mtp else []
    return [("step35." + k, v) for k, v in keys]


def cmd_keys(a):
    c = text_config(a.dir)
    return same_keys(a.files[0], ("step35.", "tokenizer."), expected_keys(c, not a.no_mtp)
                     + tokenizer_keys(a.dir, "deepseek-v3", c["vocab_size"]) + special_keys(a.dir))


def rope_freqs(c):
    rs, half = c["rope_scaling"], c["head_dim"] // 2
    out = []
    for f in np.float32(1) / np.float32(c["rope_theta"][0]) ** (np.arange(0, half, 2, dtype=np.float32) / np.float32(half)):
        wave, old = 2 * math.pi / float(f), rs["original_max_position_embeddings"]
        smooth = (old / wave - rs["low_freq_factor"]) / (rs["high_freq_factor"] - rs["low_freq_factor"])
        out.append(1.0 if wave < old / rs["high_freq_factor"] else rs["factor"] if wave > old / rs["low_freq_factor"]
                   else 1.0 / ((1.0 - smooth) / rs["factor"] + smooth))
    return np.array(out + [1.0] * (half - len(out)), np.float32)


def wanted(ck, c, mtp):
    """{GGUF name: a function that gives the values}"""
    value = lambda name: ck.f32(name) + np.float32(1) if name.endswith("norm.weight") else ck.f32(name)
    want = {"rope_freqs.weight": lambda: rope_freqs(c)}
    for name in ck.where:
        short = name.replace("language_model.", "")
        if name.endswith("_scale_inv") or "vision_model." in name or "_projector." in name:
            continue
        if short in ONCE:
            want[ONCE[short]] = lambda name=name: value(name)
            continue
        number, rest = short.split("layers.", 1)[1].split(".", 1)
        if mtp or int(number) < c["num_hidden_layers"]:
            want[f"blk.{number}.{NAMES[rest]}"] = lambda name=name: value(name)
    return want


def cmd_compare(a):
    ck, c = Checkpoint(a.dir), text_config(a.dir)
    return same_values(a.files, lambda: wanted(ck, c, not a.no_mtp))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "bf16", "text", "no-mtp", mtp=3))
