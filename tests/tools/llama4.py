#!/usr/bin/env python3
"""Checkpoints in Llama-4's form, and their GGUF computed in numpy, sharing nothing with Sluice.

  llama4.py make DIR [--fp8] [--alone] [--set NAME=VALUE...]
      a small checkpoint in BF16, as Scout: within a model that sees, a layer's experts in two tensors; --fp8: as Maverick in FP8,
      experts apart, in every second layer; --alone: no model around it; --set: an entry of the text model's config
  llama4.py make DIR --fbgemm
      makes a Llama 3 in FP8 with a scale for each row what Llama-3.1-405B-Instruct-FP8 is: attention, the first layer's network and
      the last one's in BF16, bounds of activations beside the others
  llama4.py keys DIR FILE.gguf         the architecture's keys and the tokenizer's, and their order
  llama4.py compare DIR FILE.gguf...   each tensor's bytes: F32, or F16 or BF16 of it
"""
import json
import os
import sys

import numpy as np

from gguf_same import same_keys, same_values
from model_keys import special_keys, tokenizer_keys
from reference import Checkpoint
from shard_maker import TINY, ShardMaker, do_verb, set_entries, text_config, write_json

WORD = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]%s[\p{Ll}\p{Lm}\p{Lo}\p{M}]%s(?i:'s|'t|'re|'ve|'m|'ll|'d)?|")
RULES = WORD % ("*", "+") + WORD % ("+", "*") + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXT = {
    "attention_bias": False, "attention_chunk_size": 8192, "attention_dropout": 0.0, "attn_scale": 0.1, "attn_temperature_tuning": True,
    "bos_token_id": 0, "eos_token_id": [1, 2], "floor_scale": 8192, "head_dim": 64, "hidden_act": "silu", "hidden_size": 256,
    "intermediate_size": 256, "intermediate_size_mlp": 512, "interleave_moe_layer_step": 1, "max_position_embeddings": 10485760,
    "model_type": "llama4_text", "no_rope_layers": [], "num_attention_heads": 4, "num_experts_per_tok": 1, "num_hidden_layers": 5,
    "num_key_value_heads": 2, "num_local_experts": 4, "output_router_logits": False, "pad_token_id": 3, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
                     "rope_type": "llama3"}, "rope_theta": 500000.0, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
    "torch_dtype": "bfloat16", "use_cache": True, "use_qk_norm": True, "vocab_size": 4200,
}
# Rows of 64 weights keep the 128 experts small.
MAVERICK = {"intermediate_size": 64, "interleave_moe_layer_step": 2, "max_position_embeddings": 1048576, "num_hidden_layers": 4,
            "num_local_experts": 128, "rope_scaling": None, "use_qk_norm": False}
FP8 = {"config_groups": {"group_0": {
           "input_activations": {"dynamic": True, "num_bits": 8, "strategy": "token", "symmetric": True, "type": "float"},
           "targets": ["Linear"],
           "weights": {"dynamic": False, "group_size": None, "num_bits": 8, "strategy": "channel", "symmetric": True, "type": "float"}}},
       "format": "float-quantized", "ignore": ["re:.*lm_head", "re:.*self_attn", "re:.*router", "re:.*shared_expert",
                                               r"re:.*feed_forward\.(gate|up|down)_proj", "re:.*vision_model", "re:.*multi_modal_projector"],
       "quant_method": "compressed-tensors", "quantization_status": "compressed"}
NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output",
         "feed_forward.router": "ffn_gate_inp"}
NAMES.update({f"self_attn.{k}_proj": f"attn_{k}" for k in "qkv"})
for part in ("gate", "up", "down"):
    NAMES.update({f"feed_forward.{part}_proj": f"ffn_{part}", f"feed_forward.shared_expert.{part}_proj": f"ffn_{part}_shexp"})
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
OF_TEXT = "language_model."


class Maker(ShardMaker):
    def __init__(self, c, fp8):
        super().__init__(4)
        self.c, self.fp8 = c, fp8

    def norm(self, name):
        self.add_bf16(name, np.float32(1) + np.float32(0.1) * self.gauss(self.c["hidden_size"]))

    def row_scaled(self, name, rows, cols):
        self.e4m3(name + ".weight", rows, cols)
        s = (0.75 + 0.5 * self.rng.random((rows, 1))) / (60 * cols ** 0.5)
        self.add(name + ".weight_scale", "F32", s.astype(np.float32))

    def network(self, p, ff, linear):
        n = self.c["hidden_size"]
        for name, rows, cols in (("down_proj", n, ff), ("gate_proj", ff, n), ("up_proj", ff, n)):
            linear(p + name, rows, cols)

    def plain(self, name, rows, cols):
        self.bf16(name + ".weight", rows, cols)

    def layer(self, p, moe):
        c = self.c
        n, d, ff, of = c["hidden_size"], c["head_dim"], c["intermediate_size"], p + "feed_forward."
        self.norm(p + "input_layernorm.weight")
        self.norm(p + "post_attention_layernorm.weight")
        for k, heads in (("q", c["num_attention_heads"]), ("k", c["num_key_value_heads"]), ("v", c["num_key_value_heads"])):
            self.bf16(f"{p}self_attn.{k}_proj.weight", heads * d, n)
        self.bf16(p + "self_attn.o_proj.weight", n, c["num_attention_heads"] * d)
        if not moe:
            return self.network(of, c["intermediate_size_mlp"], self.plain)
        self.bf16(of + "router.weight", c["num_local_experts"], n)
        self.network(of + "shared_expert.", ff, self.plain)
        for i in range(c["num_local_experts"] if self.fp8 else 0):
            self.network(f"{of}experts.{i}.", ff, self.row_scaled)
        if not self.fp8:
            self.bf16(of + "experts.gate_up_proj", c["num_local_experts"], n, 2 * ff, fan=n)
            self.bf16(of + "experts.down_proj", c["num_local_experts"], ff, n, fan=ff)


def config(a):
    c = json.loads(json.dumps({**TEXT, **(MAVERICK if a.fp8 else {})}))
    set_entries(c, a.set)
    whole = {"architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 4, "eoi_token_index": 5, "image_token_index": 6,
             "model_type": "llama4", "text_config": c, "torch_dtype": "bfloat16", "vision_config": {"model_type": "llama4_vision_model"}}
    if a.alone:
        whole = dict(c, architectures=["Llama4ForCausalLM"])
    return c, dict(whole, quantization_config=FP8) if a.fp8 else whole


def tokenizer(folder):
    t, c = (json.load(open(os.path.join(TINY, name), encoding="utf-8")) for name in ("tokenizer.json", "tokenizer_config.json"))
    for x in t["added_tokens"]:
        x["special"] = True
    t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": RULES}, "behavior": "Removed", "invert": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    c.update(chat_template="{{ messages }}", tokenizer_class="PreTrainedTokenizerFast")
    write_json(folder, {"tokenizer.json": t, "tokenizer_config.json": c})


def cmd_make(a):
    if a.fbgemm:
        return fbgemm(a.dir)
    c, whole = config(a)
    m, p = Maker(c, a.fp8), "" if a.alone else OF_TEXT
    m.bf16(p + "lm_head.weight", c["vocab_size"], c["hidden_size"])
    m.bf16(p + "model.embed_tokens.weight", c["vocab_size"], c["hidden_size"], fan=1)
    for i in range(c["num_hidden_layers"]):
        m.layer(f"{p}model.layers.{i}.", (i + 1) % c["interleave_moe_layer_step"] == 0)
    m.norm(p + "model.norm.weight")
    for name in () if a.alone else ("vision_model.layernorm_pre.weight", "vision_model.model.layers.0.mlp.fc1.weight",
                                    "multi_modal_projector.linear_1.weight"):
        m.bf16(name, 32, 32)
    m.write_model(a.dir, whole)
    tokenizer(a.dir)


def fbgemm(folder):
    ck, m = Checkpoint(folder), ShardMaker(0)
    layers = ck.config["num_hidden_layers"]
    kept = [f"model.layers.{i}.self_attn.{k}_proj" for i in range(layers) for k in "qkvo"]
    kept += [f"model.layers.{i}.mlp.{k}_proj" for i in (0, layers - 1) for k in ("gate", "up", "down")]
    for name in sorted(ck.where):
        layer, (dtype, data) = name.rsplit(".", 1)[0], ck.raw(name)
        if layer in kept and dtype == "F8_E4M3":
            m.add_bf16(name, ck.f32(name))
        elif layer not in kept or not name.endswith("_scale"):
            m.add(name, dtype, data)
        if layer not in kept and dtype == "F8_E4M3":
            m.add(layer + ".input_scale_ub", "F32", np.array([1200], np.float32))
    m.write_model(folder, dict(ck.config, quantization_config={
        "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head", *kept], "quant_method": "fbgemm_fp8"}))


def cmd_keys(a):
    c = text_config(a.dir)
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"]),
            ("feed_forward_length", c["intermediate_size_mlp"]), ("attention.head_count", c["num_attention_heads"]),
            ("attention.head_count_kv", c["num_key_value_heads"]), ("rope.freq_base", c["rope_theta"]),
            ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]), ("expert_count", c["num_local_experts"]),
            ("expert_used_count", c["num_experts_per_tok"]), ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
            ("vocab_size", c["vocab_size"]), ("rope.dimension_count", c["head_dim"]),
            ("interleave_moe_layer_step", c["interleave_moe_layer_step"]), ("expert_feed_forward_length", c["intermediate_size"])]
    return same_keys(a.files[0], ("llama4.", "tokenizer."), [("llama4." + k, v) for k, v in keys]
                     + tokenizer_keys(a.dir, "llama4", c["vocab_size"]) + special_keys(a.dir))


def rope_freqs(c):
    """Of the form with one limit: a frequency is whole or divided."""
    rs, d = c["rope_scaling"], c["head_dim"]
    wave = 2 * np.pi * np.float64(np.float32(c["rope_theta"]) ** (np.arange(0, d, 2, dtype=np.float32) / np.float32(d)))
    return np.where(wave > rs["original_max_position_embeddings"], np.float32(rs["factor"]), np.float32(1))


def wanted(ck, c):
    """{GGUF name: a function that gives the values}"""
    p = OF_TEXT if OF_TEXT + "model.norm.weight" in ck.where else ""
    n, ff = c["num_local_experts"], c["intermediate_size"]
    want = {name: lambda hf=hf: ck.f32(p + hf) for hf, name in ONCE.items()}
    if c["rope_scaling"]:
        want["rope_freqs.weight"] = lambda: rope_freqs(c)
    for i in range(c["num_hidden_layers"]):
        of = f"{p}model.layers.{i}."
        want.update({f"blk.{i}.{name}.weight": lambda hf=hf: ck.f32(hf) for hf, name in
                     ((f"{of}{hf}.weight", name) for hf, name in NAMES.items()) if hf in ck.where})
        e = of + "feed_forward.experts."
        if e + "gate_up_proj" in ck.where:
            turned = lambda name, part=slice(None), e=e: np.ascontiguousarray(ck.f32(e + name)[:, :, part].swapaxes(1, 2))
            want[f"blk.{i}.ffn_gate_exps.weight"] = lambda turned=turned: turned("gate_up_proj", slice(ff))
            want[f"blk.{i}.ffn_up_exps.weight"] = lambda turned=turned: turned("gate_up_proj", slice(ff, None))
            want[f"blk.{i}.ffn_down_exps.weight"] = lambda turned=turned: turned("down_proj")
        elif e + "0.up_proj.weight" in ck.where:
            for part in ("gate", "up", "down"):
                want[f"blk.{i}.ffn_{part}_exps.weight"] = lambda e=e, part=part: np.stack(
                    [ck.f32(f"{e}{x}.{part}_proj.weight") for x in range(n)])
    return want


def cmd_compare(a):
    ck, c = Checkpoint(a.dir), text_config(a.dir)
    return same_values(a.files, lambda: wanted(ck, c))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "fp8", "alone", "fbgemm"))
