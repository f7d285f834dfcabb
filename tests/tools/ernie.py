#!/usr/bin/env python3
"""Checkpoints in the form of ERNIE-4.5 with experts, and their GGUF computed in numpy, sharing nothing with Sluice.

  ernie.py make DIR [--fp8] [--set NAME=VALUE...]
      a small checkpoint of 21B-A3B's form, with what belongs to multi-token prediction; --fp8: in blocks; --set: an entry of
      config.json, null: none
  ernie.py keys DIR FILE.gguf         the architecture's keys and the tokenizer's, and their order
  ernie.py compare DIR FILE.gguf...   each tensor's bytes: F32, or F16 or BF16 of it
"""
import collections
import json
import os
import struct
import sys

import numpy as np

from gguf_same import same_keys, same_values
from kimi import TEXT
from model_keys import special_keys
from reference import Checkpoint
from shard_maker import ShardMaker, config_of, do_verb, set_entries, write_json

VOCAB, PIECES = 1100, 1000
CONFIG = {"architectures": ["Ernie4_5_MoeForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 256,
          "intermediate_size": 512, "max_position_embeddings": 131072, "model_type": "ernie4_5_moe", "moe_capacity": [8, 8, 8],
          "moe_gate": "topk", "moe_intermediate_size": 128, "moe_k": 3, "moe_layer_end_index": 2, "moe_layer_interval": 1,
          "moe_layer_start_index": 1, "moe_num_experts": 8, "moe_num_shared_experts": 2, "moe_use_aux_free": True, "num_attention_heads": 4,
          "num_hidden_layers": 3, "num_key_value_heads": 2, "num_nextn_predict_layers": 1, "pad_token_id": 0, "rms_norm_eps": 1e-05,
          "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_bias": False,
          "use_cache": True, "vocab_size": VOCAB}
NAMES = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
         "self_attn.o_proj.weight": "attn_output.weight", "mlp.gate.weight": "ffn_gate_inp.weight",
         "mlp.moe_statics.e_score_correction_bias": "exp_probs_b.bias"}
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
NAMES.update({f"mlp.{k}_proj.weight": f"ffn_{k}.weight" for k in ("gate", "up", "down")})
NAMES.update({f"mlp.shared_experts.{k}_proj.weight": f"ffn_{k}_shexp.weight" for k in ("gate", "up", "down")})
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


class Maker(ShardMaker):
    def __init__(self, fp8):
        super().__init__(11)
        self.fp8 = fp8

    def weight(self, name, *shape):
        (self.blocks if self.fp8 else self.bf16)(name, *shape)

    def layer(self, p, c, moe):
        n, d, ff = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"], c["moe_intermediate_size"]
        self.norm(p + "input_layernorm.weight", n)
        self.norm(p + "post_attention_layernorm.weight", n)
        for k, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
            self.weight(f"{p}self_attn.{k}_proj.weight", c[heads] * d, n)
        self.weight(p + "self_attn.o_proj.weight", n, c["num_attention_heads"] * d)
        if not moe:
            return self.network(p + "mlp.", c["intermediate_size"], n)
        self.add(p + "mlp.gate.weight", "F32", self.gauss(c["moe_num_experts"], n) / np.float32(16))
        self.add(p + "mlp.moe_statics.e_score_correction_bias", "F32", np.float32(0.05) * self.gauss(1, c["moe_num_experts"]))
        for e in range(c["moe_num_experts"]):
            self.network(f"{p}mlp.experts.{e}.", ff, n)
        if c["moe_num_shared_experts"]:
            self.network(p + "mlp.shared_experts.", ff * c["moe_num_shared_experts"], n)


# ---- SentencePiece's file

def varint(v):
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def block(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def pieces_of(n):
    """(text, score, kind): unknown, control, bytes, then what is frequent; one that a user defined, one that is unused."""
    text = open(TEXT, encoding="utf-8").read().replace(" ", "▁").replace("\n", "▁")
    count = collections.Counter(text[i:i + k] for k in range(2, 7) for i in range(len(text) - k))
    chars = sorted(set(text))
    first = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<reserved>", 5), ("▁▁▁", 4)] + [(f"<0x{b:02X}>", 6) for b in range(256)]
    often = [t for t, _ in sorted(count.items(), key=lambda x: (-x[1] * len(x[0]), x[0])) if t != "▁▁▁"]
    rest = [(t, 1) for t in often[:n - len(first) - len(chars)] + chars]
    return [(t, -float(i) / 3 if kind in (1, 4) else 0.0, kind) for i, (t, kind) in enumerate(first + rest)]


def write_tokenizer(folder):
    model = b""
    for text, score, kind in pieces_of(PIECES):
        item = block(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
        model += block(1, item + (varint(3 << 3) + varint(kind) if kind != 1 else b""))
    open(os.path.join(folder, "tokenizer.model"), "wb").write(model + block(2, varint(3 << 3) + varint(2) + varint(35 << 3) + varint(1)) + block(3, b""))
    write_json(folder, {
        "added_tokens.json": {"<|IMAGE|>": PIECES, "<mask:1>": PIECES + 1, "<mask:7>": PIECES + 5, "<far>": VOCAB + 9},
        "tokenizer_config.json": {
            "add_bos_token": True, "add_prefix_space": False, "bos_token": "<s>", "chat_template": "{{ messages }}", "eos_token": "</s>",
            "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "added_tokens_decoder": {
                "0": {"content": "<unk>", "special": True}, "4": {"content": "▁▁▁▁", "special": False},
                str(PIECES + 1): {"content": "<mask:1>", "special": True}, str(PIECES + 7): {"content": "<|im▁x|>", "special": False},
                str(VOCAB + 1): {"content": "<far:1>", "special": True}}}})


def read_pieces(folder):
    def fields(data):
        at = 0

        def number():
            nonlocal at
            v = shift = 0
            while True:
                at += 1
                v |= (data[at - 1] & 127) << shift
                shift += 7
                if data[at - 1] < 128:
                    return v
        while at < len(data):
            key = number()
            if key & 7 == 0:
                yield key >> 3, number()
            else:
                size = 4 if key & 7 == 5 else number()
                yield key >> 3, data[at:at + size]
                at += size
    for k, piece in fields(open(os.path.join(folder, "tokenizer.model"), "rb").read()):
        if k == 1:
            f = dict(fields(piece))
            yield f[1].decode(), struct.unpack("<f", f[2])[0], f.get(3, 1)


def tokenizer_keys(folder, n):
    tokens = [(f"[PAD{i}]", -10000.0, 5) for i in range(n)]
    for i, (text, score, kind) in enumerate(read_pieces(folder)):
        tokens[i] = (text, score, 1 if kind == 4 else kind)
    c = json.load(open(os.path.join(folder, "tokenizer_config.json")))
    for text, i in json.load(open(os.path.join(folder, "added_tokens.json"))).items():
        if i < n:
            tokens[i] = (text, -1000.0, 4)
    for i, x in c["added_tokens_decoder"].items():
        if int(i) < n:
            special = x["special"] or (x["content"].startswith("<|") and x["content"].endswith("|>"))
            tokens[int(i)] = (x["content"] if special else x["content"].replace("▁", " "), -1000.0, 3 if special else 4)
    return [("tokenizer.ggml.model", "llama"), ("tokenizer.ggml.pre", "default"), ("tokenizer.ggml.tokens", [t for t, _, _ in tokens]),
            ("tokenizer.ggml.scores", [s for _, s, _ in tokens]), ("tokenizer.ggml.token_type", [k for _, _, k in tokens]),
            *special_keys(folder), ("tokenizer.ggml.add_space_prefix", c["add_prefix_space"])]


def cmd_make(a):
    c = dict(CONFIG)
    if a.fp8:
        c["quantization_config"] = {"activation_scheme": "dynamic", "quant_method": "fp8", "weight_block_size": [128, 128]}
    set_entries(c, a.set)
    m, n = Maker(a.fp8), c["hidden_size"]
    if not c["tie_word_embeddings"]:
        m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16("model.embed_tokens.weight", c["vocab_size"], n)
    for i in range(c["num_hidden_layers"]):
        m.layer(f"model.layers.{i}.", c, i >= c["moe_layer_start_index"])
    m.norm("model.norm.weight", n)
    m.norm("model.mtp_emb_norm.0.weight", n)
    m.norm("model.mtp_hidden_norm.0.weight", n)
    m.bf16("model.mtp_linear_proj.0.weight", n, 2 * n)
    m.bf16("model.mtp_block.0.self_attn.q_proj.weight", n, n)
    m.write_model(a.dir, {k: v for k, v in c.items() if v is not None or k == "rope_scaling"})
    write_tokenizer(a.dir)


def expected_keys(c):
    shared, rope = c.get("moe_num_shared_experts", 2), c["rope_scaling"]
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]), ("embedding_length", c["hidden_size"]),
            ("feed_forward_length", c["intermediate_size"]), ("attention.head_count", c["num_attention_heads"]),
            ("attention.head_count_kv", c["num_key_value_heads"])]
    if rope:
        keys += [("rope.scaling.type", rope["rope_type"]), ("rope.scaling.factor", rope["factor"]),
                 ("rope.scaling.original_context_length", rope["original_max_position_embeddings"])]
    keys += [("rope.freq_base", float(c.get("rope_theta", 500000))), ("attention.layer_norm_rms_epsilon", c.get("rms_norm_eps", 1e-5))]
    keys += [("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"])] if c.get("head_dim") else []
    keys += [("expert_count", c["moe_num_experts"]), ("expert_used_count", c.get("moe_k", 6)), ("interleave_moe_layer_step", 1),
             ("leading_dense_block_count", c["moe_layer_start_index"]), ("expert_feed_forward_length", c["moe_intermediate_size"]),
             ("expert_shared_count", shared)]
    keys += [("expert_shared_feed_forward_length", shared * c["moe_intermediate_size"])] if shared else []
    return [("ernie4_5-moe." + k, v) for k, v in keys]


def cmd_keys(a):
    c = config_of(a.dir)
    return same_keys(a.files[0], ("ernie", "tokenizer."), expected_keys(c) + tokenizer_keys(a.dir, c["vocab_size"]))


def wanted(ck, c):
    """{GGUF name: a function that gives the values}"""
    want = {}
    for name in ck.where:
        if name.endswith("_scale_inv") or name.startswith("model.mtp_"):
            continue
        if name in ONCE:
            want[ONCE[name]] = lambda name=name: ck.f32(name)
            continue
        _, _, number, rest = name.split(".", 3)
        p = f"blk.{number}."
        if not rest.startswith("mlp.experts."):
            want[p + NAMES[rest]] = lambda name=name: ck.f32(name)
        elif rest.startswith("mlp.experts.0."):
            want[f"{p}ffn_{rest.split('.')[3][:-5]}_exps.weight"] = lambda name=name: np.stack(
                [ck.f32(name.replace("experts.0.", f"experts.{e}.")) for e in range(c["moe_num_experts"])])
    return want


def cmd_compare(a):
    ck = Checkpoint(a.dir)
    return same_values(a.files, lambda: wanted(ck, config_of(a.dir)))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "fp8"))
