#!/usr/bin/env python3
"""Checkpoints in MiMo-V2's form, and their GGUF computed in numpy, sharing nothing with Sluice.

  mimo.py make DIR [--parts 4|8] [--bf16 | --mxfp4] [--no-mtp] [--set NAME=VALUE...]
      a small checkpoint in FP8, as MiMo-V2-Flash; --parts: as V2.5, its queries, keys and values in one matrix of so many
      parts, within a model that sees and hears; --mxfp4: experts as V2.6's; --set: an entry of config.json
  mimo.py keys DIR FILE.gguf [--no-mtp]     the architecture's keys and the tokenizer's, and their order
  mimo.py compare DIR FILE.gguf... [--no-mtp]   each tensor's bytes: F32, F16, BF16 or gguf-py's q8_0 of it, MXFP4 as it is
"""
import json
import sys

import numpy as np

from gguf_same import same_keys, same_tensors
from model_keys import special_keys, tokenizer_keys
from reference import E4M3, Checkpoint, to_bf16
from shard_maker import ShardMaker, config_of, do_verb, qwen2_tokenizer, set_entries, write_json

RULES = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CONFIG = {
    "add_full_attention_sink_bias": False, "add_swa_attention_sink_bias": True, "attention_bias": False, "attention_chunk_size": 8,
    "attention_value_scale": 0.707, "dtype": "bfloat16", "eos_token_id": 1, "head_dim": 96, "hidden_act": "silu", "hidden_size": 256,
    "hybrid_block_size": None, "hybrid_layer_pattern": [0, 1, 1, 0], "intermediate_size": 512, "layernorm_epsilon": 1e-05,
    "max_position_embeddings": 262144, "moe_intermediate_size": 256, "moe_layer_freq": [0, 1, 1, 1], "n_group": 1,
    "n_routed_experts": 8, "n_shared_experts": None, "norm_topk_prob": True, "num_attention_heads": 8, "num_experts_per_tok": 2,
    "num_hidden_layers": 4, "num_key_value_heads": 2, "partial_rotary_factor": 0.334, "rope_theta": 5000000,
    "routed_scaling_factor": None, "scoring_func": "sigmoid", "sliding_window": 8, "sliding_window_size": 8, "swa_head_dim": 96,
    "swa_num_attention_heads": 8, "swa_num_key_value_heads": 4, "swa_rope_theta": 10000, "swa_v_head_dim": 64,
    "tie_word_embeddings": False, "topk_group": 1, "topk_method": "noaux_tc", "v_head_dim": 64, "vocab_size": 4200,
}
NAMES = {
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
    "pre_mlp_layernorm.weight": "ffn_norm.weight", "final_layernorm.weight": "layer_output_norm.weight",
    "self_attn.qkv_proj.weight": "attn_qkv.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.attention_sink_bias": "attn_sinks.weight", "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
}
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
NAMES.update({f"mlp.{k}_proj.weight": f"ffn_{k}.weight" for k in ("gate", "up", "down")})
NAMES.update({f"{k}.weight": f"nextn.{k}.weight" for k in ("eh_proj", "enorm", "hnorm")})
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
MTP = "model.mtp.layers."


def heads_of(c, window):
    return c["swa_num_key_value_heads" if window else "num_key_value_heads"]


def rows_of(c, window):
    return [c["num_attention_heads"] * c["head_dim"], heads_of(c, window) * c["head_dim"], heads_of(c, window) * c["v_head_dim"]]


class Maker(ShardMaker):
    def __init__(self, c, fp8, parts):
        super().__init__(2)
        self.c, self.fp8, self.split = c, fp8, parts
        self.mxfp4 = c.get("quantization_config", {}).get("store_dtype") == "mxfp4"

    def norm(self, name):
        self.add_bf16(name, np.float32(1) + np.float32(0.1) * self.gauss(self.c["hidden_size"]))

    def linear(self, name, rows, cols, parts=1):
        if not self.fp8:
            return self.bf16(name + ".weight", rows, cols)
        self.blocks(name + ".weight", rows, cols, parts=parts)

    def codes4(self, name, rows, cols):
        """Eight values of each sign, 32 in a row under an exponent."""
        codes = self.rng.integers(0, 256, (rows, cols // 2)).astype(np.uint8)
        near = 127 - round(float(np.log2(2.5 * cols ** 0.5)))
        self.add(name + ".weight", "U8", codes)
        self.add(name + ".weight_scale", "U8", self.rng.integers(near - 1, near + 2, (rows, cols // 32)).astype(np.uint8))

    def network(self, p, ff):
        n, linear = self.c["hidden_size"], self.codes4 if self.mxfp4 and ".experts." in p else self.linear
        linear(p + "down_proj", n, ff)
        linear(p + "gate_proj", ff, n)
        linear(p + "up_proj", ff, n)

    def layer(self, p, window, dense, mtp=False):
        c = self.c
        n, rows = c["hidden_size"], rows_of(c, window)
        self.norm(p + "input_layernorm.weight")
        self.norm(p + ("pre_mlp_layernorm.weight" if mtp else "post_attention_layernorm.weight"))
        if c["add_swa_attention_sink_bias" if window else "add_full_attention_sink_bias"]:
            self.bf16(p + "self_attn.attention_sink_bias", c["num_attention_heads"], fan=1)
        if self.split:
            self.linear(p + "self_attn.qkv_proj", sum(rows), n, self.split)
        else:
            for k, r in zip("qkv", rows):
                self.linear(f"{p}self_attn.{k}_proj", r, n)
        self.bf16(p + "self_attn.o_proj.weight", n, c["num_attention_heads"] * c["v_head_dim"])
        if dense:
            return self.network(p + "mlp.", c["intermediate_size"])
        self.bf16(p + "mlp.gate.weight", c["n_routed_experts"], n)
        self.add(p + "mlp.gate.e_score_correction_bias", "F32", np.float32(0.02) * self.gauss(c["n_routed_experts"]))
        for e in range(c["n_routed_experts"]):
            self.network(f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])


def config(a):
    c = json.loads(json.dumps(CONFIG))
    set_entries(c, a.set)
    if a.parts:
        c.update(architectures=["MiMoV2ForCausalLM"], model_type="mimo_v2", attention_projection_layout="fused_qkv",
                 rope_scaling={"rope_type": "default", "type": "default"}, vision_config={"depth": 1, "hidden_size": 32},
                 audio_config={"input_local_layers": 1})
    else:
        c.update(architectures=["MiMoV2FlashForCausalLM"], model_type="mimo_v2_flash")
    if not a.bf16:
        c["quantization_config"] = {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
            "ignored_layers": [f"model.layers.{i}.self_attn.o_proj" for i in range(c["num_hidden_layers"])] + ["model.decoder.self_attn.o_proj"]}
        if a.mxfp4:
            c["quantization_config"].update(store_dtype="mxfp4", mxfp4_block_size=32)
    return c


def cmd_make(a):
    c = config(a)
    m, n = Maker(c, not a.bf16, a.parts), c["hidden_size"]
    m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16("model.embed_tokens.weight", c["vocab_size"], n, fan=1)
    for i in range(c["num_hidden_layers"]):
        m.layer(f"model.layers.{i}.", c["hybrid_layer_pattern"][i] == 1, c["moe_layer_freq"][i] == 0)
    m.norm("model.norm.weight")
    for name in ("visual.blocks.0.norm1.weight", "audio_encoder.input_local_transformer.norm.weight", "speech_embeddings.0.weight") if a.parts else ():
        m.bf16(name, 32)
    files = {"model_pp0_ep0_shard0.safetensors": list(m.header)}
    m.write(a.dir, "model_pp0_ep0_shard0.safetensors")
    if not a.no_mtp:
        m.begin()
        for i in range(3):
            p = f"{MTP}{i}."
            m.layer(p, True, True, True)
            m.bf16(p + "eh_proj.weight", n, 2 * n)
            for name in ("enorm", "hnorm", "final_layernorm"):
                m.norm(f"{p}{name}.weight")
        files["model_mtp.safetensors"] = list(m.header)
        m.write(a.dir, "model_mtp.safetensors")
    index = {"metadata": {"tp_size": a.parts or None}, "weight_map": {name: file for file, names in files.items() for name in names}}
    write_json(a.dir, {"config.json": c, "model.safetensors.index.json": index})
    qwen2_tokenizer(a.dir, RULES, True)


def expected_keys(c, mtp):
    n, extra = c["num_hidden_layers"], 3 if mtp else 0
    windows = c["hybrid_layer_pattern"] + [1] * extra
    keys = [("block_count", n + extra), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"]),
            ("feed_forward_length", c["intermediate_size"]), ("attention.head_count", c["num_attention_heads"]),
            ("attention.head_count_kv", [heads_of(c, w) for w in windows]), ("rope.freq_base", float(c["rope_theta"])),
            ("rope.freq_base_swa", float(c["swa_rope_theta"])), ("expert_count", c["n_routed_experts"]),
            ("expert_used_count", c["num_experts_per_tok"]), ("expert_group_count", c["n_group"]),
            ("expert_group_used_count", c["topk_group"]), ("expert_gating_func", 2), ("attention.key_length", c["head_dim"]),
            ("attention.value_length", c["v_head_dim"]), ("attention.sliding_window", c["sliding_window"]),
            ("attention.sliding_window_pattern", windows), ("expert_feed_forward_length", c["moe_intermediate_size"]),
            ("rope.dimension_count", int(c["head_dim"] * c["partial_rotary_factor"])),
            ("attention.layer_norm_rms_epsilon", c["layernorm_epsilon"]), ("attention.value_scale", c["attention_value_scale"])]
    keys += [("nextn_predict_layers", extra)] if extra else []
    return [("mimo2." + k, v) for k, v in keys]


def cmd_keys(a):
    c = config_of(a.dir)
    return same_keys(a.files[0], ("mimo2.", "tokenizer."), expected_keys(c, not a.no_mtp)
                     + tokenizer_keys(a.dir, "qwen2", c["vocab_size"]) + special_keys(a.dir))


def joined(ck, c, name, window):
    """Queries, keys and values of all parts, from a matrix of parts; the scales' blocks begin anew with each."""
    if name + "_scale_inv" not in ck.where:
        return ck.f32(name)
    codes, scale = ck.raw(name)[1], ck.raw(name + "_scale_inv")[1]
    parts = next(n for n in (8, 4) if n * -(-(codes.shape[0] // n) // 128) == scale.shape[0])
    each = codes.shape[0] // parts
    whole = []
    for part, s in zip(np.split(codes, parts), np.split(scale, parts)):
        s = np.repeat(np.repeat(s, 128, 0)[:each], 128, 1)[:, :codes.shape[1]]
        whole.append(np.split(E4M3[part] * s, np.cumsum(rows_of(c, window))[:2] // parts))
    return np.concatenate([x[i] for i in range(3) for x in whole])


def expert(ck, name, blocks):
    """Its values, or ggml's blocks of MXFP4."""
    dtype, codes = ck.raw(name)
    return ck.mxfp4(codes, name + "_scale")[blocks] if dtype == "U8" else ck.f32(name)


def wanted(ck, c, mtp):
    """{GGUF name: a function that gives the values, or True: blocks}"""
    want, layers = {}, c["num_hidden_layers"]
    for name in ck.where:
        if name.endswith(("_scale_inv", "_scale")) or name.startswith(("visual.", "audio_encoder.", "speech_embeddings.")):
            continue
        if name in ONCE:
            want[ONCE[name]] = lambda blocks, name=name: ck.f32(name)
            continue
        extra = name.startswith(MTP)
        if extra and not mtp:
            continue
        number, rest = name.split("layers.", 1)[1].split(".", 1)
        i = int(number) + (layers if extra else 0)
        if rest.startswith("mlp.experts."):
            _, _, e, kind, _ = rest.split(".")
            if e == "0":
                want[f"blk.{i}.ffn_{kind[:-5]}_exps.weight"] = lambda blocks, name=name: np.stack(
                    [expert(ck, name.replace("experts.0.", f"experts.{e}."), blocks) for e in range(c["n_routed_experts"])])
        elif rest == "self_attn.qkv_proj.weight":
            want[f"blk.{i}.attn_qkv.weight"] = lambda blocks, name=name, w=extra or c["hybrid_layer_pattern"][int(number)] == 1: joined(ck, c, name, w)
        else:
            want[f"blk.{i}.{NAMES[rest]}"] = lambda blocks, name=name: ck.f32(name)
    return want


def cmd_compare(a):
    ck = Checkpoint(a.dir)
    import gguf
    as_type = {"F32": lambda x: np.ascontiguousarray(x, np.float32), "BF16": to_bf16, "F16": lambda x: x.astype(np.float16),
               "MXFP4": lambda x: x, "Q8_0": lambda x: gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0)}
    return same_tensors(a.files, lambda: {name: lambda kind, values=values: as_type[kind](values(kind == "MXFP4"))
                                          for name, values in wanted(ck, ck.config, not a.no_mtp).items()})


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "bf16", "no-mtp", "mxfp4", parts=0))
