#!/usr/bin/env python3
"""A second conversion from Hugging Face to GGUF, in numpy, sharing nothing
with Sluice: the tests hold Sluice's output against it.

  reference.py write CHECKPOINT OUT.gguf [--layout mla|legacy]
      writes an F32 GGUF (tensors, and metadata enough for llama.cpp)
  reference.py compare CHECKPOINT FILE.gguf... [--layout mla|legacy]
      FILE must hold each tensor's exact bytes: F32, or F16 or BF16 of it
      rounded to nearest even, or MXFP4 as the checkpoint has it; other types are an error

Facts: safetensors (u64 header length, JSON, data), e4m3fn (no infinity, 0x7f
and 0xff are NaN), weight = value x scale of its 128 x 128 block; packed weights:
(nibble - 8) x scale of its group, the first nibble in the lowest bits; INT8: code x
scale, as of FP8; MXFP4:
the value of an E2M1 code x 2^(e - 127), two codes a byte, the first in the low
half; -0 is 0, as in ggml.
"""
import argparse
import json
import os
import re
import struct
import sys

import numpy as np

DTYPES = {"F8_E4M3": np.uint8, "F8_E8M0": np.uint8, "U8": np.uint8, "BF16": np.uint16,
          "F16": np.float16, "F32": np.float32, "I8": np.uint8, "I32": np.int32, "I64": np.int64}


def e4m3_table():
    t = np.zeros(256, np.float32)
    for code in range(256):
        sign, exponent, mantissa = code >> 7, (code >> 3) & 15, code & 7
        if exponent == 15 and mantissa == 7:
            t[code] = np.nan
        elif exponent == 0:
            t[code] = mantissa * 2.0 ** -9
        else:
            t[code] = (8 + mantissa) * 2.0 ** (exponent - 10)
        if sign:
            t[code] = -t[code]
    return t


E4M3 = e4m3_table()
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6])


class Checkpoint:
    def __init__(self, path):
        self.path = path
        self.config = json.load(open(os.path.join(path, "config.json")))
        self.where = {}
        for name in sorted(n for n in os.listdir(path) if n.endswith(".safetensors")):
            file = os.path.join(path, name)
            with open(file, "rb") as f:
                length = struct.unpack("<Q", f.read(8))[0]
                header = json.loads(f.read(length))
            for key, info in header.items():
                if key != "__metadata__":
                    self.where[key] = (file, 8 + length, info)

    def raw(self, name):
        file, base, info = self.where[name]
        begin, end = info["data_offsets"]
        with open(file, "rb") as f:
            f.seek(base + begin)
            data = f.read(end - begin)
        return info["dtype"], np.frombuffer(data, DTYPES[info["dtype"]]).reshape(info["shape"])

    def has(self, name):
        return name in self.where or name + "_packed" in self.where

    def packed(self, name):
        group = self.config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"]
        words = self.raw(name + "_packed")[1].astype(np.int64)
        values = np.stack([(words >> 4 * i) % 16 - 8 for i in range(8)], -1)
        rows, cols = self.raw(name + "_shape")[1]
        scale = self.f32(name + "_scale")
        return (values.reshape(rows, cols // group, group).astype(np.float32) * scale[:, :, None]).reshape(rows, cols)

    def mxfp4(self, codes, scale):
        """The values; and the blocks of ggml's mxfp4, in which a half byte has weights i and i + 16."""
        rows, e = codes.shape[0], self.raw(scale)[1]
        q = np.stack([codes & 15, codes >> 4], -1).reshape(rows, -1, 32)
        blocks = np.concatenate([e[:, :, None], q[:, :, :16] | q[:, :, 16:] << 4], -1)
        return (E2M1[q] * 2.0 ** (e[:, :, None] - 127.0)).astype(np.float32).reshape(rows, -1), blocks

    def f32(self, name):
        if name + "_packed" in self.where:
            dtype, a = self.raw(name + "_packed")
            return self.packed(name) if dtype == "I32" else self.mxfp4(a, name + "_scale")[0]
        dtype, a = self.raw(name)
        if dtype == "I8" and name[:-len("weight")] + "scale" in self.where:
            return self.mxfp4(a, name[:-len("weight")] + "scale")[0]
        if dtype in ("F8_E4M3", "I8"):
            w = E4M3[a] if dtype == "F8_E4M3" else a.view(np.int8).astype(np.float32)
            for suffix in ("_scale_inv", "_scale"):
                if name + suffix in self.where:
                    return w * self.scale(name + suffix, a.shape)
            raise SystemExit(f"{name}: no scale")
        if dtype == "BF16":
            return (a.astype(np.uint32) << 16).view(np.float32)
        return a.astype(np.float32)

    def scale(self, name, shape):
        dtype, s = self.raw(name)
        if dtype in ("U8", "F8_E8M0"):
            bits = s.astype(np.uint32) << 23
            s = np.where(s == 0, np.uint32(0x00400000), bits).view(np.float32)
        elif dtype == "BF16":
            s = (s.astype(np.uint32) << 16).view(np.float32)
        s = s.astype(np.float32)
        if s.size == 1:
            return s.reshape(())
        if s.size == shape[0] and (s.ndim == 1 or s.shape[1] == 1):
            return s.reshape(-1, 1)
        rows, cols = self.config["quantization_config"]["weight_block_size"]
        return np.repeat(np.repeat(s, rows, -2), cols, -1)[..., :shape[-2], :shape[-1]]


DEEPSEEK = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
            "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm",
            "self_attn.q_b_proj": "attn_q_b", "self_attn.q_proj": "attn_q",
            "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
            "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.kv_b_proj": "attn_kv_b",
            "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
            "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
            "mlp.shared_experts.up_proj": "ffn_up_shexp",
            "mlp.shared_experts.down_proj": "ffn_down_shexp"}
V32 = dict(DEEPSEEK, **{"self_attn.indexer.wq_b": "indexer.attn_q_b", "self_attn.indexer.wk": "indexer.attn_k",
                        "self_attn.indexer.k_norm": "indexer.k_norm",
                        "self_attn.indexer.weights_proj": "indexer.proj", "eh_proj": "nextn.eh_proj",
                        "enorm": "nextn.enorm", "hnorm": "nextn.hnorm", "embed_tokens": "nextn.embed_tokens",
                        "shared_head.norm": "nextn.shared_head_norm",
                        "shared_head.head": "nextn.shared_head_head"})
DENSE = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate": "ffn_gate_inp",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
MINIMAX = dict(DENSE, **{"block_sparse_moe.gate": "ffn_gate_inp"},
               **{f"block_sparse_moe.shared_experts.{k}_proj": f"ffn_{k}_shexp" for k in ("gate", "up", "down")},
               **{f"self_attn.index_{k}": f"indexer.{k}" for k in ("q_proj", "k_proj", "q_norm", "k_norm")})
GLM4 = {**DENSE, **{hf: name for hf, name in V32.items() if "shared" in hf or "." not in hf},
        "post_attention_layernorm": "post_attention_norm"}
LING = {hf: name for hf, name in GLM4.items() if not hf.startswith("self_attn.") and "shared_head" not in hf}
LING.update({"post_attention_layernorm": "ffn_norm", "attention.query_key_value": "attn_qkv", "attention.query_layernorm": "attn_q_norm",
             "attention.key_layernorm": "attn_k_norm", "attention.dense": "attn_output", "final_layernorm": "layer_output_norm"})
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.word_embeddings.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
       "lm_head.weight": "output.weight"}


def permute(w, heads):
    """Rotate-half order of rows to interleaved order, head by head."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def llama3_rope(c):
    rs = c["rope_scaling"]
    dim = c["hidden_size"] // c["num_attention_heads"]
    freqs = 1.0 / (c.get("rope_theta", 10000.0) ** (np.arange(0, dim, 2, dtype=np.float32) / dim))
    lo, hi, old = rs["low_freq_factor"], rs["high_freq_factor"], rs["original_max_position_embeddings"]
    out = []
    for f in freqs:
        wavelen = 2 * np.pi / f
        if wavelen < old / hi:
            out.append(1.0)
        elif wavelen > old / lo:
            out.append(rs["factor"])
        else:
            smooth = (old / wavelen - lo) / (hi - lo)
            out.append(1.0 / ((1 - smooth) / rs["factor"] + smooth))
    return np.array(out, np.float32)


def tensors(ck, layout):
    """Yields (GGUF name, F32 array), in no particular order."""
    c = ck.config
    arch = c["architectures"][0]
    v32 = arch in ("DeepseekV32ForCausalLM", "GlmMoeDsaForCausalLM", "Glm4MoeLiteForCausalLM")
    glm4, ling = arch in ("Glm4MoeForCausalLM", "SolarOpenForCausalLM"), arch == "BailingMoeV2ForCausalLM"
    table = V32 if v32 else GLM4 if glm4 else LING if ling else DEEPSEEK if arch.startswith("Deepseek") else \
        MINIMAX if arch.startswith("MiniMax") else DENSE
    layers = c["num_hidden_layers"] + (c.get("num_nextn_predict_layers") or 0 if v32 or glm4 or ling else 0)
    less_one = arch.startswith("MiniMaxM3")
    value = lambda name: ck.f32(name) + np.float32(1) if less_one and name.endswith("norm.weight") else ck.f32(name)
    for hf, name in TOP.items():
        if hf in ck.where:
            yield name, value(hf)
    if (c.get("rope_scaling") or {}).get("rope_type") == "llama3":
        yield "rope_freqs.weight", llama3_rope(c)
    for i in range(layers):
        p = f"model.layers.{i}."
        for hf in ("mlp.gate.e_score_correction_bias", "block_sparse_moe.e_score_correction_bias", "mlp.gate.expert_bias"):
            if p + hf in ck.where:
                yield f"blk.{i}.exp_probs_b.bias", ck.f32(p + hf)
        for hf, name in table.items():
            for kind in ("weight", "bias"):
                full = f"{p}{hf}.{kind}"
                if not ck.has(full):
                    continue
                w = value(full)
                if arch == "LlamaForCausalLM" and name in ("attn_q", "attn_k"):
                    heads = c["num_attention_heads" if name == "attn_q" else "num_key_value_heads"]
                    w = permute(w.reshape(w.shape[0], -1), heads).reshape(w.shape)
                if name == "attn_kv_b" and layout == "mla":
                    heads, nope, lora = c["num_key_value_heads"], c["qk_nope_head_dim"], c["kv_lora_rank"]
                    kv = w.reshape(heads, -1, lora)
                    yield f"blk.{i}.attn_k_b.weight", np.ascontiguousarray(kv[:, :nope].swapaxes(1, 2))
                    yield f"blk.{i}.attn_v_b.weight", np.ascontiguousarray(kv[:, nope:])
                    continue
                yield f"blk.{i}.{name}.{kind}", w
        sparse = table is MINIMAX and f"{p}block_sparse_moe.gate.weight" in ck.where
        for kind, w in (("gate", "w1"), ("down", "w2"), ("up", "w3")) if sparse else ():
            yield f"blk.{i}.ffn_{kind}_exps.weight", np.stack(
                [ck.f32(f"{p}block_sparse_moe.experts.{e}.{w}.weight") for e in range(c["num_local_experts"])])
        if ck.has(p + "mlp.experts.0.gate_proj.weight"):
            for kind in ("gate", "up", "down"):
                n = c["n_routed_experts"] if "n_routed_experts" in c else c["num_experts"]
                yield f"blk.{i}.ffn_{kind}_exps.weight", np.stack(
                    [ck.f32(f"{p}mlp.experts.{e}.{kind}_proj.weight") for e in range(n)])


def write(ck, out, layout):
    import gguf
    c = ck.config
    if not c["architectures"][0].startswith("Deepseek"):
        raise SystemExit("write: DeepSeek checkpoints only")
    w = gguf.GGUFWriter(out, "deepseek2")
    mla = layout == "mla"
    u32 = {"block_count": c["num_hidden_layers"], "context_length": c["max_position_embeddings"],
           "embedding_length": c["hidden_size"], "feed_forward_length": c["intermediate_size"],
           "attention.head_count": c["num_attention_heads"],
           "attention.head_count_kv": 1 if mla else c["num_key_value_heads"],
           "expert_used_count": c["num_experts_per_tok"], "vocab_size": c["vocab_size"],
           "leading_dense_block_count": c["first_k_dense_replace"],
           "attention.q_lora_rank": c["q_lora_rank"], "attention.kv_lora_rank": c["kv_lora_rank"],
           "expert_feed_forward_length": c["moe_intermediate_size"],
           "expert_count": c["n_routed_experts"], "expert_shared_count": c["n_shared_experts"],
           "expert_gating_func": 2, "expert_group_count": c["n_group"],
           "expert_group_used_count": c["topk_group"],
           "rope.dimension_count": c["qk_rope_head_dim"]}
    nope, rope, v, lora = (c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"],
                           c["kv_lora_rank"])
    if mla:
        u32.update({"attention.key_length": lora + rope, "attention.value_length": lora,
                    "attention.key_length_mla": nope + rope, "attention.value_length_mla": v})
    else:
        u32.update({"attention.key_length": nope + rope, "attention.value_length": v})
    rs = c["rope_scaling"]
    u32["rope.scaling.original_context_length"] = rs["original_max_position_embeddings"]
    for key, value in u32.items():
        w.add_uint32("deepseek2." + key, value)
    for key, value in {"rope.freq_base": c["rope_theta"], "rope.scaling.factor": rs["factor"],
                       "attention.layer_norm_rms_epsilon": c["rms_norm_eps"],
                       "expert_weights_scale": c["routed_scaling_factor"],
                       "rope.scaling.yarn_log_multiplier": 0.1 * rs["mscale_all_dim"],
                       "rope.scaling.yarn_beta_fast": rs["beta_fast"],
                       "rope.scaling.yarn_beta_slow": rs["beta_slow"]}.items():
        w.add_float32("deepseek2." + key, float(value))
    w.add_bool("deepseek2.expert_weights_norm", c["norm_topk_prob"])
    w.add_string("deepseek2.rope.scaling.type", "yarn")
    tk = json.load(open(os.path.join(ck.path, "tokenizer.json")))
    n = c["vocab_size"]
    tokens, types = [f"[PAD{i}]" for i in range(n)], [5] * n
    for t, i in tk["model"]["vocab"].items():
        tokens[i], types[i] = t, 1
    for a in tk["added_tokens"]:
        shape = a["content"].startswith("<｜") and a["content"].endswith("｜>")
        tokens[a["id"]], types[a["id"]] = a["content"], 3 if a["special"] or shape else 4
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("deepseek-v3")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(tk["model"]["merges"])
    w.add_bos_token_id(c["bos_token_id"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_add_bos_token(True)
    for name, a in tensors(ck, layout):
        w.add_tensor(name, np.ascontiguousarray(a, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def to_bf16(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((u + np.uint32(0x7fff) + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def mxfp4_experts(ck, name):
    layer, kind = re.fullmatch(r"blk\.(\d+)\.ffn_(\w+)_exps\.weight", name).groups()
    blocks = []
    for e in range(ck.config["n_routed_experts"]):
        weight = f"model.layers.{layer}.mlp.experts.{e}.{kind}_proj.weight"
        packed = weight + "_packed" in ck.where
        blocks.append(ck.mxfp4(ck.raw(weight + "_packed" * packed)[1], weight + "_scale" if packed else weight[:-6] + "scale")[1])
    return np.stack(blocks)


def compare(ck, files, layout):
    import gguf
    want = dict(tensors(ck, layout))
    bad = 0
    for file in files:
        for t in gguf.GGUFReader(file).tensors:
            kind = t.tensor_type.name
            if t.name not in want:
                print(f"{t.name}: not in the checkpoint")
                bad += 1
                continue
            x = want.pop(t.name)
            if list(t.shape) != list(reversed(x.shape)):
                print(f"{t.name}: shape {list(t.shape)}, expected {list(reversed(x.shape))}")
                bad += 1
            expected = {"F32": lambda: np.ascontiguousarray(x, np.float32), "BF16": lambda: to_bf16(x),
                        "F16": lambda: x.astype(np.float16)}.get(kind)
            if kind == "MXFP4":
                expected = lambda: mxfp4_experts(ck, t.name)
            if expected is None:
                print(f"{t.name}: {kind}, expected a float type")
                bad += 1
            elif expected().tobytes() != t.data.tobytes():
                print(f"{t.name}: bytes differ ({kind})")
                bad += 1
    for name in want:
        print(f"{name}: missing")
        bad += 1
    if bad:
        return 1
    print("equal")
    return 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("verb", choices=["write", "compare"])
    p.add_argument("checkpoint")
    p.add_argument("files", nargs="+")
    p.add_argument("--layout", choices=["mla", "legacy"], default="mla")
    a = p.parse_args()
    ck = Checkpoint(a.checkpoint)
    if a.verb == "write":
        return write(ck, a.files[0], a.layout)
    return compare(ck, a.files, a.layout)


if __name__ == "__main__":
    sys.exit(main())
