#!/usr/bin/env python3
"""A small checkpoint in DeepSeek-V4's form, and what llama.cpp's converter makes of such a one, in numpy.

  v4.py make DIR [--experts fp8] [--odd]   one shard, config.json, index and tokenizer (tests/tiny-v3's); odd: tables
                                      in I32, a bias where they choose, which is to be dropped, the head in FP8, wo_a in BF16
  v4.py keys DIR FILE.gguf            metadata and their order
  v4.py compare DIR FILE.gguf...      each tensor's exact bytes: F32, BF16 or F16 of its values, gguf-py's q8_0, I32, MXFP4

Layers look at a window alone, or at tokens compressed 4 to one or 128 to one besides; in the first two a table chooses
the experts. Linear layers are FP8 under E8M0 scales named .scale, experts 4-bit floats, two a byte.
"""
import json
import os
import shutil
import sys

import numpy as np

from gguf_same import same_keys, same_tensors
from reference import DTYPES, E4M3, Checkpoint, to_bf16
from shard_maker import TINY, ShardMaker, config_of, do_verb, write_json

DTYPES.setdefault("I8", np.int8)
RATIOS = [0, 0, 4, 128, 4]
CONFIG = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "torch_dtype": "bfloat16", "bos_token_id": 0,
    "eos_token_id": 1, "expert_dtype": "fp4", "hc_eps": 1e-06, "hc_mult": 4, "hc_sinkhorn_iters": 20, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 256, "index_head_dim": 64, "index_n_heads": 4, "index_topk": 16,
    "max_position_embeddings": 1048576, "moe_intermediate_size": 256, "n_routed_experts": 8, "n_shared_experts": 1,
    "norm_topk_prob": True, "num_attention_heads": 4, "num_experts_per_tok": 3, "num_hash_layers": 2,
    "num_hidden_layers": len(RATIOS), "num_key_value_heads": 1, "num_nextn_predict_layers": 1, "o_groups": 2,
    "o_lora_rank": 128, "q_lora_rank": 256, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 16, "original_max_position_embeddings": 65536, "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 1.5, "scoring_func": "sqrtsoftplus", "sliding_window": 128,
    "swiglu_limit": 10.0, "tie_word_embeddings": False, "topk_method": "noaux_tc", "vocab_size": 4096,
    "compress_rope_theta": 160000, "compress_ratios": RATIOS + [0],
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "scale_fmt": "ue8m0",
                            "weight_block_size": [128, 128]},
}
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
NAMES = {
    "embed.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "head.weight": "output.weight",
    "hc_head_fn": "output_hc_fn.weight", "hc_head_base": "output_hc_base.weight", "hc_head_scale": "output_hc_scale.weight",
    "attn.attn_sink": "attn_sinks.weight", "attn.wq_a.weight": "attn_q_a.weight", "attn.wq_b.weight": "attn_q_b.weight",
    "attn.q_norm.weight": "attn_q_a_norm.weight", "attn.wkv.weight": "attn_kv.weight", "attn.kv_norm.weight": "attn_kv_a_norm.weight",
    "attn.wo_a.weight": "attn_output_a.weight", "attn.wo_b.weight": "attn_output_b.weight",
    "attn.indexer.wq_b.weight": "indexer.attn_q_b.weight", "attn.indexer.weights_proj.weight": "indexer.proj.weight",
    "attn_norm.weight": "attn_norm.weight", "ffn_norm.weight": "ffn_norm.weight", "ffn.gate.weight": "ffn_gate_inp.weight",
    "ffn.gate.bias": "exp_probs_b.bias", "ffn.gate.tid2eid": "ffn_gate_tid2eid.weight",
    "ffn.shared_experts.w1.weight": "ffn_gate_shexp.weight", "ffn.shared_experts.w2.weight": "ffn_down_shexp.weight",
    "ffn.shared_experts.w3.weight": "ffn_up_shexp.weight",
}
for part in ("fn", "base", "scale"):
    NAMES.update({f"hc_{k}_{part}": f"hc_{k}_{part}.weight" for k in ("attn", "ffn")})
for part, name in (("ape", "ape"), ("wkv.weight", "kv"), ("wgate.weight", "gate"), ("norm.weight", "norm")):
    NAMES[f"attn.compressor.{part}"] = f"attn_compressor_{name}.weight"
    NAMES[f"attn.indexer.compressor.{part}"] = f"indexer_compressor_{name}.weight"


class Maker(ShardMaker):
    def __init__(self, experts, odd):
        super().__init__(4)
        self.experts, self.odd = experts, odd

    def norm(self, name, n):
        self.add_bf16(name, 1 + 0.1 * self.gauss(n))

    def f32(self, name, *shape, sigma=0.1, mean=0.0):
        self.add(name, "F32", mean + np.float32(sigma) * self.gauss(*shape))

    def exponents(self, rows, cols, fan, level):
        near = 127 - round(float(np.log2(level * fan ** 0.5)))
        return self.rng.integers(near - 1, near + 2, (rows, cols)).astype(np.uint8)

    def fp8(self, name, rows, cols):
        self.e4m3(name + ".weight", rows, cols)
        self.add(name + ".scale", "F8_E8M0", self.exponents(-(-rows // 128), -(-cols // 128), cols, 60))

    def expert(self, name, rows, cols):
        if self.experts == "fp8":
            return self.fp8(name, rows, cols)
        code = np.abs(2 * self.gauss(rows, cols)[..., None] - FP4).argmin(-1).astype(np.uint8)
        self.add(name + ".weight", "I8", (code[:, ::2] | code[:, 1::2] << 4).view(np.int8))
        self.add(name + ".scale", "F8_E8M0", self.exponents(rows, cols // 32, cols, 2))

    def compressor(self, p, ratio, dim, hidden):
        wide = dim * (2 if ratio == 4 else 1)
        self.f32(p + "ape", ratio, wide)
        self.bf16(p + "wkv.weight", wide, hidden)
        self.bf16(p + "wgate.weight", wide, hidden)
        self.norm(p + "norm.weight", dim)

    def layer(self, c, p, ratio, hashed):
        n, hc, h, d = c["hidden_size"], c["hc_mult"], c["num_attention_heads"], c["head_dim"]
        for k in ("attn", "ffn"):
            self.f32(f"{p}hc_{k}_fn", (2 + hc) * hc, hc * n, sigma=0.02)
            self.f32(f"{p}hc_{k}_base", (2 + hc) * hc)
            self.f32(f"{p}hc_{k}_scale", 3, mean=0.5)
            self.norm(f"{p}{k}_norm.weight", n)
        self.f32(p + "attn.attn_sink", h)
        self.fp8(p + "attn.wq_a", c["q_lora_rank"], n)
        self.norm(p + "attn.q_norm.weight", c["q_lora_rank"])
        self.fp8(p + "attn.wq_b", h * d, c["q_lora_rank"])
        self.fp8(p + "attn.wkv", d, n)
        self.norm(p + "attn.kv_norm.weight", d)
        wo_a = (c["o_groups"] * c["o_lora_rank"], h * d // c["o_groups"])
        self.bf16(p + "attn.wo_a.weight", *wo_a) if self.odd else self.fp8(p + "attn.wo_a", *wo_a)
        self.fp8(p + "attn.wo_b", n, c["o_groups"] * c["o_lora_rank"])
        if ratio:
            self.compressor(p + "attn.compressor.", ratio, d, n)
        if ratio == 4:
            self.fp8(p + "attn.indexer.wq_b", c["index_n_heads"] * c["index_head_dim"], c["q_lora_rank"])
            self.bf16(p + "attn.indexer.weights_proj.weight", c["index_n_heads"], n)
            self.compressor(p + "attn.indexer.compressor.", ratio, c["index_head_dim"], n)
        self.bf16(p + "ffn.gate.weight", c["n_routed_experts"], n)
        if hashed:
            order = self.rng.random((c["vocab_size"], c["n_routed_experts"])).argsort(-1)
            self.add(p + "ffn.gate.tid2eid", "I32" if self.odd else "I64",
                     order[:, :c["num_experts_per_tok"]].astype(np.int32 if self.odd else np.int64))
        if not hashed or self.odd:
            self.f32(p + "ffn.gate.bias", c["n_routed_experts"])
        ff = c["moe_intermediate_size"]
        for e in range(c["n_routed_experts"]):
            for w, rows, cols in (("w1", ff, n), ("w2", n, ff), ("w3", ff, n)):
                self.expert(f"{p}ffn.experts.{e}.{w}", rows, cols)
        for w, rows, cols in (("w1", ff, n), ("w2", n, ff), ("w3", ff, n)):
            self.fp8(f"{p}ffn.shared_experts.{w}", rows, cols)

    def head(self, c, p):
        self.f32(p + "hc_head_fn", c["hc_mult"], c["hc_mult"] * c["hidden_size"], sigma=0.02)
        self.f32(p + "hc_head_base", c["hc_mult"])
        self.f32(p + "hc_head_scale", 1, mean=0.5)
        self.norm(p + "norm.weight", c["hidden_size"])


def cmd_make(a):
    c = dict(CONFIG)
    if a.experts == "fp8":
        c.pop("expert_dtype")
    m, n = Maker(a.experts, a.odd), c["hidden_size"]
    m.bf16("embed.weight", c["vocab_size"], n)
    m.fp8("head", c["vocab_size"], n) if a.odd else m.bf16("head.weight", c["vocab_size"], n)
    m.head(c, "")
    for i in range(c["num_hidden_layers"]):
        m.layer(c, f"layers.{i}.", c["compress_ratios"][i], i < c["num_hash_layers"])
    m.layer(c, "mtp.0.", 0, False)
    m.head(c, "mtp.0.")
    for k in ("e", "h"):
        m.fp8(f"mtp.0.{k}_proj", n, n)
        m.norm(f"mtp.0.{k}norm.weight", n)
    m.write_model(a.dir, c)
    shutil.copy(os.path.join(TINY, "tokenizer.json"), a.dir)
    t = json.load(open(os.path.join(TINY, "tokenizer_config.json")))
    t.pop("chat_template", None)
    write_json(a.dir, {"tokenizer_config.json": dict(t, add_bos_token=False, tokenizer_class="PreTrainedTokenizerFast")})


def expected_keys(folder):
    c = config_of(folder)
    rs, n = c["rope_scaling"], c["num_hidden_layers"]
    keys = [
        ("block_count", n), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"]),
        ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", 1), ("rope.scaling.type", "yarn"),
        ("rope.scaling.factor", float(rs["factor"])), ("rope.scaling.original_context_length", rs["original_max_position_embeddings"]),
        ("rope.scaling.yarn_beta_fast", float(rs["beta_fast"])), ("rope.scaling.yarn_beta_slow", float(rs["beta_slow"])),
        ("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
        ("expert_count", c["n_routed_experts"]), ("expert_used_count", c["num_experts_per_tok"]), ("expert_gating_func", 4),
        ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
        ("rope.dimension_count", c["qk_rope_head_dim"]), ("attention.q_lora_rank", c["q_lora_rank"]),
        ("attention.sliding_window", c["sliding_window"]), ("expert_feed_forward_length", c["moe_intermediate_size"]),
        ("expert_shared_count", c["n_shared_experts"]), ("expert_weights_scale", c["routed_scaling_factor"]),
        ("expert_weights_norm", c["norm_topk_prob"]), ("swiglu_clamp_exp", [c["swiglu_limit"]] * n),
        ("swiglu_clamp_shexp", [c["swiglu_limit"]] * n), ("attention.indexer.head_count", c["index_n_heads"]),
        ("attention.indexer.key_length", c["index_head_dim"]), ("attention.indexer.top_k", c["index_topk"]),
        ("attention.output_group_count", c["o_groups"]), ("attention.output_lora_rank", c["o_lora_rank"]),
        ("attention.compress_ratios", c["compress_ratios"]), ("attention.compress_rope_freq_base", float(c["compress_rope_theta"])),
        ("hyper_connection.count", c["hc_mult"]), ("hyper_connection.sinkhorn_iterations", c["hc_sinkhorn_iters"]),
        ("hyper_connection.epsilon", c["hc_eps"]), ("hash_layer_count", c["num_hash_layers"]),
        ("embedding_length_out", c["hidden_size"] * c["hc_mult"]),
    ]
    return [("deepseek4." + k, v) for k, v in keys]


def cmd_keys(a):
    return same_keys(a.files[0], "deepseek4.", expected_keys(a.dir))


class V4(Checkpoint):
    """Values and, of experts in 4 bits, ggml's blocks: the scale, then element i beside element i + 16."""

    def codes(self, name):
        p = self.raw(name)[1].view(np.uint8)
        return np.stack([p & 15, p >> 4], -1).reshape(p.shape[0], -1)

    def f32(self, name):
        dtype, w = self.raw(name)
        if dtype not in ("I8", "F8_E4M3"):
            return super().f32(name)
        s = np.exp2(self.raw(name[:-6] + "scale")[1].astype(np.float32) - 127)
        if dtype == "I8":
            return FP4[self.codes(name)] * np.repeat(s, 32, 1)
        return E4M3[w] * np.repeat(np.repeat(s, 128, 0), 128, 1)[:w.shape[0], :w.shape[1]]

    def blocks(self, name):
        q = self.codes(name)
        q = q.reshape(q.shape[0], -1, 2, 16)
        s = self.raw(name[:-6] + "scale")[1]
        return np.concatenate([s[..., None], q[:, :, 0] | q[:, :, 1] << 4], -1).astype(np.uint8)


def sources(ck):
    """{GGUF name: the checkpoint's tensors, one or an expert each}"""
    want = {}
    for name in ck.where:
        if name.endswith(".scale") or name.startswith("mtp."):
            continue
        p, rest = "", name
        if name.startswith("layers."):
            _, i, rest = name.split(".", 2)
            p = f"blk.{i}."
        if rest.startswith("ffn.experts."):
            w = {"w1": "gate", "w2": "down", "w3": "up"}[rest.split(".")[3]]
            want.setdefault(f"{p}ffn_{w}_exps.weight", []).append((int(rest.split(".")[2]), name))
        elif rest != "ffn.gate.bias" or int(name.split(".")[1]) >= ck.config["num_hash_layers"]:
            want[p + NAMES[rest]] = [(0, name)]
    return {k: [n for _, n in sorted(v)] for k, v in want.items()}


def bytes_of(ck, names, kind):
    import gguf
    if kind == "I32":
        return ck.raw(names[0])[1].astype(np.int32)
    if kind == "MXFP4":
        return np.stack([ck.blocks(n) for n in names])
    x = np.stack([ck.f32(n) for n in names])
    return {"F32": lambda: x, "BF16": lambda: to_bf16(x), "F16": lambda: x.astype(np.float16),
            "Q8_0": lambda: gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0)}[kind]()


def cmd_compare(a):
    ck = V4(a.dir)
    return same_tensors(a.files, lambda: {name: lambda kind, names=names: bytes_of(ck, names, kind)
                                          for name, names in sources(ck).items()})


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "odd", experts="fp4"))
