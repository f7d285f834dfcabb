#!/usr/bin/env python3
"""Checkpoints in Qwen3.5's form, and their GGUF computed in numpy, sharing nothing with Sluice.

  qwen35.py make DIR [--dense | --next] [--fp8] [--apart | --joined] [--mtp 0|1] [--text] [--set NAME=VALUE...]
      a small checkpoint: experts in one tensor, or apart with --apart, or --fp8 but --joined; --text: the text model alone; --next: in Qwen3-Next's form;
      --set: an entry of the text model's config
  qwen35.py keys DIR FILE.gguf [--no-mtp]     the architecture's keys and their order
  qwen35.py compare DIR FILE.gguf...          each tensor's bytes: F32, or F16 or BF16 of it
"""
import json
import os
import sys

import numpy as np

from gguf_same import same_keys, same_values
from reference import Checkpoint
from shard_maker import ShardMaker, config_of, do_verb, qwen2_tokenizer, set_entries

RULES = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")
TEXT = {
    "attention_bias": False, "attn_output_gate": True, "bos_token_id": None, "dtype": "bfloat16", "eos_token_id": 1,
    "full_attention_interval": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 256, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32", "max_position_embeddings": 262144, "mtp_num_hidden_layers": 1, "num_attention_heads": 4,
    "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "vocab_size": 4096,
    "rope_parameters": {"mrope_interleaved": True, "mrope_section": [3, 3, 2], "partial_rotary_factor": 0.25,
                        "rope_theta": 10000000, "rope_type": "default"},
}
MOE = {"moe_intermediate_size": 256, "num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 256}
NAMES = {
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "post_attention_norm.weight",
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight", "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight", "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.in_proj_ba.weight": "ssm_ba.weight", "linear_attn.A_log": "ssm_a", "linear_attn.dt_bias": "ssm_dt.bias", "linear_attn.conv1d.weight": "ssm_conv1d.weight",
    "linear_attn.norm.weight": "ssm_norm.weight", "linear_attn.out_proj.weight": "ssm_out.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight", "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
}
NAMES.update({f"self_attn.{k}_norm.weight": f"attn_{k}_norm.weight" for k in "qk"})
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
for part in ("gate", "up", "down"):
    NAMES[f"mlp.{part}_proj.weight"] = f"ffn_{part}.weight"
    NAMES[f"mlp.shared_expert.{part}_proj.weight"] = f"ffn_{part}_shexp.weight"
MTP = {"fc.weight": "nextn.eh_proj.weight", "norm.weight": "nextn.shared_head_norm.weight",
       "pre_fc_norm_embedding.weight": "nextn.enorm.weight", "pre_fc_norm_hidden.weight": "nextn.hnorm.weight"}
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


class Maker(ShardMaker):
    def __init__(self, fp8, apart, following):
        super().__init__(35)
        self.fp8, self.apart, self.next = fp8, apart, following

    def norm(self, name, n):
        self.add_bf16(name, np.float32(0.1) * self.gauss(n))

    def linear(self, name, rows, cols):
        self.stack(name + ".weight", rows, cols)

    def stack(self, name, *shape):
        self.blocks(name, *shape, scales="BF16") if self.fp8 else self.bf16(name, *shape)

    def delta(self, c, p):
        n, kh, vh, d = c["hidden_size"], c["linear_num_key_heads"], c["linear_num_value_heads"], c["linear_value_head_dim"]
        channels = 2 * kh * c["linear_key_head_dim"] + vh * d
        self.add(p + "A_log", "F32", np.log(self.rng.uniform(0.01, 16, vh)).astype(np.float32))
        self.bf16(p + "conv1d.weight", channels, 1, c["linear_conv_kernel_dim"])
        self.bf16(p + "dt_bias", vh, fan=1)
        if self.next:
            self.bf16(p + "in_proj_ba.weight", 2 * vh, n)
            self.linear(p + "in_proj_qkvz", channels + vh * d, n)
        else:
            self.bf16(p + "in_proj_a.weight", vh, n)
            self.bf16(p + "in_proj_b.weight", vh, n)
            self.linear(p + "in_proj_qkv", channels, n)
            self.linear(p + "in_proj_z", vh * d, n)
        self.add(p + "norm.weight", "F32", 1 + np.float32(0.1) * self.gauss(d))
        self.linear(p + "out_proj", n, vh * d)

    def attention(self, c, p):
        n, d = c["hidden_size"], c["head_dim"]
        self.norm(p + "k_norm.weight", d)
        self.linear(p + "k_proj", c["num_key_value_heads"] * d, n)
        self.linear(p + "o_proj", n, c["num_attention_heads"] * d)
        self.norm(p + "q_norm.weight", d)
        self.linear(p + "q_proj", 2 * c["num_attention_heads"] * d, n)
        self.linear(p + "v_proj", c["num_key_value_heads"] * d, n)

    def network(self, p, ff, n):
        self.linear(p + "down_proj", n, ff)
        self.linear(p + "gate_proj", ff, n)
        self.linear(p + "up_proj", ff, n)

    def layer(self, c, p, full):
        n = c["hidden_size"]
        self.norm(p + "input_layernorm.weight", n)
        self.norm(p + "post_attention_layernorm.weight", n)
        if full:
            self.attention(c, p + "self_attn.")
        else:
            self.delta(c, p + "linear_attn.")
        if "num_experts" not in c:
            return self.network(p + "mlp.", c["intermediate_size"], n)
        ff, experts = c["moe_intermediate_size"], c["num_experts"]
        self.bf16(p + "mlp.gate.weight", experts, n)
        if self.apart:
            for e in range(experts):
                self.network(f"{p}mlp.experts.{e}.", ff, n)
        else:
            self.stack(p + "mlp.experts.gate_up_proj", experts, 2 * ff, n)
            self.stack(p + "mlp.experts.down_proj", experts, n, ff)
        self.network(p + "mlp.shared_expert.", c["shared_expert_intermediate_size"], n)
        self.bf16(p + "mlp.shared_expert_gate.weight", 1, n)


def config(a):
    c = json.loads(json.dumps(TEXT))
    c.update({"intermediate_size": 512} if a.dense else MOE)
    c["mtp_num_hidden_layers"] = a.mtp
    set_entries(c, a.set)
    c = {k: v for k, v in c.items() if v is not None or k == "bos_token_id"}
    kind, every = "qwen3_5" if a.dense else "qwen3_5_moe", c.get("full_attention_interval", 4)
    c["layer_types"] = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(c["num_hidden_layers"])]
    name = "Qwen3_5" if a.dense else "Qwen3_5Moe"
    if a.next:
        rope = c.pop("rope_parameters")
        c.pop("mtp_num_hidden_layers", None)
        c.update(rope_theta=rope["rope_theta"], partial_rotary_factor=rope["partial_rotary_factor"], rope_scaling=None,
                 decoder_sparse_step=1, mlp_only_layers=[], bos_token_id=0)
        c.setdefault("intermediate_size", 640)
        c.pop("layer_types")
        whole = dict(c, architectures=["Qwen3NextForCausalLM"], model_type="qwen3_next", tie_word_embeddings=False)
    elif a.text:
        whole = dict(c, architectures=[name + "ForCausalLM"], model_type=kind + "_text", tie_word_embeddings=False)
    else:
        whole = {"architectures": [name + "ForConditionalGeneration"], "image_token_id": 5, "model_type": kind,
                 "text_config": dict(c, model_type=kind + "_text"), "tie_word_embeddings": False, "transformers_version": "4.57.0.dev0",
                 "video_token_id": 6, "vision_config": {"depth": 1, "hidden_size": 32, "model_type": kind}}
    if a.fp8:
        whole["quantization_config"] = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
                                        "modules_to_not_convert": ["lm_head", "model.visual", "mtp.fc"]}
    return c, whole


def cmd_make(a):
    c, whole = config(a)
    m, n, p = Maker(a.fp8, (a.fp8 and not a.joined) or a.apart or a.next, a.next), c["hidden_size"], "model." if a.text or a.next else "model.language_model."
    m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16(p + "embed_tokens.weight", c["vocab_size"], n, fan=1)
    for i in range(c["num_hidden_layers"]):
        m.layer(c, f"{p}layers.{i}.", (i + 1) % c.get("full_attention_interval", 4) == 0)
    m.norm(p + "norm.weight", n)
    if not a.text and not a.next:
        m.bf16("model.visual.blocks.0.mlp.linear_fc1.weight", 32, 32)
        m.bf16("model.visual.patch_embed.proj.bias", 32)
    if a.mtp:
        m.bf16("mtp.fc.weight", n, 2 * n)
        m.layer(c, "mtp.layers.0.", True)
        for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
            m.norm(f"mtp.{name}.weight", n)
    m.write_model(a.dir, whole)
    qwen2_tokenizer(a.dir, RULES, False)


def text_config(folder):
    c = config_of(folder)
    c = {**c, **c.get("text_config", {})}
    if c["model_type"] == "qwen3_next":
        c["rope_parameters"] = {k: c[k] for k in ("rope_theta", "partial_rotary_factor")}
        c["mtp_num_hidden_layers"] = int("mtp.fc.weight" in json.load(open(os.path.join(folder, "model.safetensors.index.json")))["weight_map"])
    return c


def arch_of(c):
    return "qwen3next" if c["model_type"] == "qwen3_next" else "qwen35moe" if "num_experts" in c else "qwen35"


def expected_keys(c, no_mtp):
    rp, n, mtp = c["rope_parameters"], c["num_hidden_layers"], 0 if no_mtp else c.get("mtp_num_hidden_layers", 0)
    sections = ("rope.dimension_sections", (rp.get("mrope_section", [11, 11, 10]) + [0] * 4)[:4])
    early = "mrope_section" in rp
    keys = [("block_count", n + mtp), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"])]
    keys += [("feed_forward_length", c["intermediate_size"])] if "intermediate_size" in c else []
    keys += [("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"])]
    keys += [sections] if early else []
    keys += [("rope.freq_base", float(rp["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"])]
    keys += [("expert_count", c["num_experts"]), ("expert_used_count", c["num_experts_per_tok"])] if "num_experts" in c else []
    keys += [("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"])]
    if "num_experts" in c:
        keys += [("expert_feed_forward_length", c["moe_intermediate_size"]),
                 ("expert_shared_feed_forward_length", c["shared_expert_intermediate_size"])]
    keys += [("nextn_predict_layers", mtp)] if mtp else []
    keys += [("ssm.conv_kernel", c["linear_conv_kernel_dim"]), ("ssm.state_size", c["linear_key_head_dim"]),
             ("ssm.group_count", c["linear_num_key_heads"]), ("ssm.time_step_rank", c["linear_num_value_heads"]),
             ("ssm.inner_size", c["linear_value_head_dim"] * c["linear_num_value_heads"]),
             ("full_attention_interval", c.get("full_attention_interval", 4)),
             ("rope.dimension_count", int(c["head_dim"] * rp["partial_rotary_factor"]))]
    keys += [] if early or arch_of(c) == "qwen3next" else [sections]
    return [(f"{arch_of(c)}.{k}", v) for k, v in keys]


def cmd_keys(a):
    c = text_config(a.dir)
    return same_keys(a.files[0], arch_of(c) + ".", expected_keys(c, a.no_mtp))


def tiled(c, x, before, each, axis=0):
    """Behind `before`, heads of `each` along that axis: from [key head][which] to [which][key head]."""
    kh, vh = c["linear_num_key_heads"], c["linear_num_value_heads"]
    first, rest = np.split(x, [before], axis)
    shape = rest.shape
    rest = rest.reshape(shape[:axis] + (kh, vh // kh, each) + shape[axis + 1:]).swapaxes(axis, axis + 1).reshape(shape)
    return np.concatenate([first, rest], axis)


def changed(c, name, x):
    d, before = c["linear_value_head_dim"], 2 * c["linear_num_key_heads"] * c["linear_key_head_dim"]
    part = name.split("linear_attn.")[-1] if "linear_attn." in name else ""
    if c["model_type"] == "qwen3_next" and part not in ("A_log", ""):
        return x.reshape(x.shape[0], -1) if part == "conv1d.weight" else x
    if part == "A_log":
        x = -np.exp(x.astype(np.float64)).astype(np.float32)
        if c["model_type"] == "qwen3_next":
            return x
    if part in ("A_log", "dt_bias", "in_proj_a.weight", "in_proj_b.weight"):
        return tiled(c, x, 0, 1)
    if part == "in_proj_qkv.weight" or part == "conv1d.weight":
        return tiled(c, x.reshape(x.shape[0], -1), before, d)
    if part == "in_proj_z.weight":
        return tiled(c, x, 0, d)
    if part == "out_proj.weight":
        return tiled(c, x, 0, d, 1)
    return x + np.float32(1) if not part and (name.endswith("norm.weight") or ".pre_fc_norm_" in name) else x


def split_rows(c, x):
    """Queries, keys and values of all heads, and the values' gates; each head of keys has its part of each."""
    kh, vh, d = c["linear_num_key_heads"], c["linear_num_value_heads"], c["linear_value_head_dim"]
    parts = np.split(x.reshape(kh, -1, x.shape[1]), np.cumsum([d, d, vh // kh * d]), 1)
    parts = [part.reshape(-1, x.shape[1]) for part in parts]
    return np.concatenate(parts[:3]), parts[3]


def wanted(ck, c, mtp):
    """{GGUF name: a function that gives the values}"""
    want = {}

    def put(key, *names, part=slice(None)):
        def values():
            x = [changed(c, n, ck.f32(n)) for n in names]
            x = np.stack(x) if ".experts.0." in names[0] else x[0]
            return x[:, part] if part != slice(None) else x
        want[key] = values

    layers = c["num_hidden_layers"]
    for name in ck.where:
        short = name.replace("language_model.", "")
        if name.endswith("_scale_inv") or "visual." in name or (short.startswith("mtp.") and not mtp):
            continue
        if short in ONCE:
            put(ONCE[short], name)
            continue
        if short.startswith("mtp.") and not short.startswith("mtp.layers."):
            put(f"blk.{layers}.{MTP[short[4:]]}", name)
            continue
        number, rest = short.split("layers.", 1)[1].split(".", 1)
        p = f"blk.{int(number) + (layers if short.startswith('mtp.') else 0)}."
        if rest == "mlp.experts.gate_up_proj":
            ff = c["moe_intermediate_size"]
            put(p + "ffn_gate_exps.weight", name, part=slice(0, ff))
            put(p + "ffn_up_exps.weight", name, part=slice(ff, 2 * ff))
        elif rest == "linear_attn.in_proj_qkvz.weight":
            for i, key in enumerate(("attn_qkv.weight", "attn_gate.weight")):
                want[p + key] = lambda name=name, i=i: split_rows(c, ck.f32(name))[i]
        elif rest == "mlp.experts.down_proj":
            put(p + "ffn_down_exps.weight", name)
        elif rest.startswith("mlp.experts."):
            _, _, e, kind, _ = rest.split(".")
            if e == "0":
                put(f"{p}ffn_{kind[:-5]}_exps.weight", *[name.replace("experts.0.", f"experts.{i}.") for i in range(c["num_experts"])])
        else:
            put(p + NAMES[rest], name)
    return want


def cmd_compare(a):
    ck, c = Checkpoint(a.dir), text_config(a.dir)
    return same_values(a.files, lambda: wanted(ck, c, c.get("mtp_num_hidden_layers") and not a.no_mtp))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "dense", "next", "fp8", "apart", "joined", "text", "no-mtp", mtp=1))
