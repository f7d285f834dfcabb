#!/usr/bin/env python3
"""Checkpoints in Qwen3-VL's form, and their GGUF computed in numpy, sharing nothing with Sluice.

  qwen_vl.py make DIR [--dense] [--fp8] [--apart] [--set NAME=VALUE...]
      a small checkpoint whose layers each have their experts in one tensor, transposed, or apart with --apart; --dense: without
      experts, the embedding as the head; --set: an entry of the text model's config, null: none
  qwen_vl.py keys DIR FILE.gguf         the architecture's keys and the tokenizer's, and their order
  qwen_vl.py compare DIR FILE.gguf...   each tensor's bytes: F32, or F16 or BF16 of it
"""
import sys

import numpy as np

from gguf_same import same_keys, same_values
from mimo import RULES
from model_keys import special_keys, tokenizer_keys
from reference import Checkpoint
from shard_maker import ShardMaker, do_verb, qwen2_tokenizer, set_entries, text_config

TEXT = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "dtype": "bfloat16", "eos_token_id": 1, "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02, "intermediate_size": 768, "max_position_embeddings": 262144,
    "num_attention_heads": 6, "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default"}, "rope_theta": 5000000,
    "use_cache": True, "vocab_size": 4200,
}
MOE = {"decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 128, "norm_topk_prob": True, "num_experts": 8,
       "num_experts_per_tok": 2}
NAMES = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
         "self_attn.o_proj.weight": "attn_output.weight", "mlp.gate.weight": "ffn_gate_inp.weight"}
NAMES.update({f"self_attn.{k}_norm.weight": f"attn_{k}_norm.weight" for k in "qk"})
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
NAMES.update({f"mlp.{k}_proj.weight": f"ffn_{k}.weight" for k in ("gate", "up", "down")})
ONCE = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
TOP = "model.language_model."


def head_of(c):
    return c.get("head_dim", c["hidden_size"] // c["num_attention_heads"] if "num_experts" in c else 128)


class Maker(ShardMaker):
    def __init__(self, fp8):
        super().__init__(5)
        self.fp8 = fp8

    def weight(self, name, *shape, fan=None):
        if self.fp8:
            return self.blocks(name, *shape)
        self.bf16(name, *shape, fan=fan)

    def layer(self, p, c, apart):
        n, d = c["hidden_size"], head_of(c)
        self.norm(p + "input_layernorm.weight", n)
        self.norm(p + "post_attention_layernorm.weight", n)
        for k, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
            self.weight(f"{p}self_attn.{k}_proj.weight", c[heads] * d, n)
            if k != "v":
                self.norm(f"{p}self_attn.{k}_norm.weight", d)
        self.weight(p + "self_attn.o_proj.weight", n, c["num_attention_heads"] * d)
        if "num_experts" not in c:
            return self.network(p + "mlp.", c["intermediate_size"], n)
        ff, experts = c["moe_intermediate_size"], c["num_experts"]
        self.bf16(p + "mlp.gate.weight", experts, n)
        for e in range(experts if apart else 0):
            self.network(f"{p}mlp.experts.{e}.", ff, n)
        if not apart:
            self.weight(p + "mlp.experts.down_proj", experts, ff, n, fan=ff)
            self.weight(p + "mlp.experts.gate_up_proj", experts, n, 2 * ff, fan=n)


def cmd_make(a):
    c = {**TEXT, **({} if a.dense else MOE)}
    set_entries(c, a.set)
    c = {k: v for k, v in c.items() if v is not None}
    kind, n = "qwen3_vl" + "_moe" * (not a.dense), c["hidden_size"]
    whole = {"architectures": ["Qwen3VL" + "Moe" * (not a.dense) + "ForConditionalGeneration"], "image_token_id": 5, "model_type": kind,
             "text_config": dict(c, model_type=kind + "_text"), "tie_word_embeddings": a.dense, "transformers_version": "4.57.0.dev0",
             "video_token_id": 6, "vision_end_token_id": 4, "vision_start_token_id": 3,
             "vision_config": {"deepstack_visual_indexes": [8, 16] if a.dense else [8, 16, 24], "depth": 27, "hidden_size": 32, "model_type": kind,
                               "out_hidden_size": n}}
    if a.fp8:
        whole["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
                                        "modules_to_not_convert": ["lm_head", "model.visual.merger.linear_fc1"]}
    m = Maker(a.fp8)
    if not a.dense:
        m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16(TOP + "embed_tokens.weight", c["vocab_size"], n, fan=1)
    for i in range(c["num_hidden_layers"]):
        m.layer(f"{TOP}layers.{i}.", c, a.apart)
    m.norm(TOP + "norm.weight", n)
    for name in ("patch_embed.proj.bias", "deepstack_merger_list.0.norm.weight", "merger.linear_fc1.bias"):
        m.bf16("model.visual." + name, 32)
    m.write_model(a.dir, whole)
    qwen2_tokenizer(a.dir, RULES, True)


def expected_keys(c):
    rs, moe = c.get("rope_parameters") or c["rope_scaling"], "num_experts" in c
    yarn = [("rope.scaling.type", "yarn"), ("rope.scaling.factor", float(rs["factor"])),
            ("rope.scaling.original_context_length", rs["original_max_position_embeddings"])] if rs["rope_type"] == "yarn" else []
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c.get("max_position_embeddings", 128000)),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"]), *yarn,
            ("rope.dimension_sections", (rs["mrope_section"] + [0] * 4)[:4]), ("rope.freq_base", float(rs.get("rope_theta", c.get("rope_theta", 5e6)))),
            ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"])]
    keys += [("expert_count", c["num_experts"]), ("expert_used_count", c.get("num_experts_per_tok", 4))] if moe else []
    keys += [("attention.key_length", head_of(c)), ("attention.value_length", head_of(c))]
    keys += [("expert_feed_forward_length", c["moe_intermediate_size"])] if moe else []
    keys += [("n_deepstack_layers", len(c["vision_config"].get("deepstack_visual_indexes", range(3))))]
    return [(("qwen3vlmoe." if moe else "qwen3vl.") + k, v) for k, v in keys]


def cmd_keys(a):
    c = text_config(a.dir)
    return same_keys(a.files[0], ("qwen3vl", "tokenizer."), expected_keys(c) + tokenizer_keys(a.dir, "qwen2", c["vocab_size"]) + special_keys(a.dir))


def wanted(ck, c):
    """{GGUF name: a function that gives the values}"""
    want = {}
    for name in ck.where:
        if name.endswith("_scale_inv") or "visual." in name:
            continue
        rest = name.removeprefix(TOP)
        if not rest.startswith("layers."):
            want[ONCE.get(rest, "output.weight")] = lambda name=name: ck.f32(name)
            continue
        _, number, rest = rest.split(".", 2)
        p, ff = f"blk.{number}.", c.get("moe_intermediate_size")
        if rest == "mlp.experts.gate_up_proj":
            for kind, half in (("gate", slice(0, ff)), ("up", slice(ff, None))):
                want[f"{p}ffn_{kind}_exps.weight"] = lambda name=name, half=half: ck.f32(name)[:, :, half].swapaxes(1, 2)
        elif rest == "mlp.experts.down_proj":
            want[p + "ffn_down_exps.weight"] = lambda name=name: ck.f32(name).swapaxes(1, 2)
        elif rest.startswith("mlp.experts."):
            _, _, e, kind, _ = rest.split(".")
            if e == "0":
                want[f"{p}ffn_{kind[:-5]}_exps.weight"] = lambda name=name: np.stack(
                    [ck.f32(name.replace("experts.0.", f"experts.{e}.")) for e in range(c["num_experts"])])
        else:
            want[p + NAMES[rest]] = lambda name=name: ck.f32(name)
    return want


def cmd_compare(a):
    ck = Checkpoint(a.dir)
    return same_values(a.files, lambda: wanted(ck, text_config(a.dir)))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "dense", "fp8", "apart"))
