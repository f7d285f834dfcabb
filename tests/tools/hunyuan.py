#!/usr/bin/env python3
"""Checkpoints in the form of Hunyuan-A13B and of Hy3, and their GGUF computed in numpy, sharing nothing with Sluice.

  hunyuan.py make DIR [--hy3] [--fp8] [--set NAME=VALUE...]
      a small checkpoint; --hy3: Hy3's, with a dense layer and one for multi-token prediction; --fp8: as published, with a scale for
      each tensor; --set: an entry of config.json, null: none
  hunyuan.py keys DIR FILE.gguf [--no-mtp]         the architecture's keys and the tokenizer's, and their order
  hunyuan.py compare DIR FILE.gguf... [--no-mtp]   each tensor's bytes: F32, or F16 or BF16 of it
"""
import base64
import json
import os
import sys

import numpy as np

from gguf_same import same_keys, same_values
from kimi import TEXT, joined, shown, train
from model_keys import special_keys, tokenizer_keys
from reference import Checkpoint, to_bf16
from shard_maker import TINY, ShardMaker, config_of, do_verb, set_entries, write_json

BASE, EXTRAS = 900, 205
BOTH = {"attention_bias": False, "hidden_act": "silu", "hidden_size": 256, "initializer_range": 0.02, "mlp_bias": False, "num_experts": 8,
        "num_hidden_layers": 3, "rms_norm_eps": 1e-05, "use_cache": True}
A13B = {**BOTH, "architectures": ["HunYuanMoEV1ForCausalLM"], "attention_head_dim": 128, "bos_token_id": 1, "cla_share_factor": 2,
        "eod_token_id": 907, "eos_token_id": 903, "group_limited_greedy": False, "head_dim": 128, "intermediate_size": 256,
        "max_position_embeddings": 32768, "model_type": "hunyuan_v1_moe", "moe_intermediate_size": [256] * 3, "moe_layer_num_skipped": 0,
        "moe_topk": [2] * 3, "n_group": None, "norm_topk_prob": True, "num_attention_heads": 2, "num_key_value_heads": 1,
        "num_shared_expert": [1] * 3, "pad_token_id": 904, "rope_theta": 10000.0,
        "rope_scaling": {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "dynamic"},
        "sep_token_id": 905, "tie_word_embeddings": True, "topk_group": None, "torch_dtype": "bfloat16", "use_cla": False,
        "use_mixed_mlp_moe": True, "use_mla": False, "use_qk_norm": True, "vocab_size": BASE + 5 + EXTRAS}
HY3 = {**BOTH, "architectures": ["HYV3ForCausalLM"], "bos_token_id": 0, "dtype": "bfloat16", "eod_token_id": 2, "eos_token_id": 1,
       "expert_hidden_dim": 128, "first_k_dense_replace": 1, "head_dim": 64, "intermediate_size": 512, "max_position_embeddings": 262144,
       "model_type": "hy_v3", "moe_intermediate_size": 128, "moe_router_enable_expert_bias": True, "moe_router_use_sigmoid": True,
       "num_attention_heads": 6, "num_experts_per_tok": 2, "num_key_value_heads": 2, "num_nextn_predict_layers": 1, "num_shared_experts": 1,
       "pad_token_id": 2, "qk_norm": True, "rope_parameters": {"rope_theta": 11158840.0, "rope_type": "default"}, "route_norm": True,
       "router_scaling_factor": 2.826, "tie_word_embeddings": False, "vocab_size": 4200}
FP8 = {"activation_scheme": "static", "ignored_layers": ["lm_head", "model.embed_tokens"], "kv_cache_scheme": "static", "quant_method": "fp8"}
NAMES = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
         "self_attn.o_proj.weight": "attn_output.weight", "mlp.gate.wg.weight": "ffn_gate_inp.weight",
         "mlp.router.gate.weight": "ffn_gate_inp.weight", "mlp.expert_bias": "exp_probs_b", "final_layernorm.weight": "nextn.shared_head_norm.weight"}
NAMES.update({f"self_attn.{k}_norm.weight": f"attn_{k}_norm.weight" for k in "qk"})
NAMES.update({f"self_attn.{k}_layernorm.weight": f"attn_{k[0]}_norm.weight" for k in ("query", "key")})
NAMES.update({f"self_attn.{k}_proj.weight": f"attn_{k}.weight" for k in "qkv"})
NAMES.update({f"mlp.{k}_proj.weight": f"ffn_{k}.weight" for k in ("gate", "up", "down")})
NAMES.update({f"mlp.shared_mlp.{k}_proj.weight": f"ffn_{k}_shexp.weight" for k in ("gate", "up", "down")})
NAMES.update({f"{k}.weight": f"nextn.{k}.weight" for k in ("eh_proj", "enorm", "hnorm")})
ONCE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
PATTERN = r'''
PAT_STR = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
EXTRAS = tuple((f"<|extra_{i}|>" for i in range(205)))
'''


class Maker(ShardMaker):
    def __init__(self, fp8):
        super().__init__(9)
        self.fp8 = fp8

    def weight(self, name, *shape):
        if not self.fp8:
            return self.bf16(name, *shape)
        self.e4m3(name, *shape)
        self.add(name + "_scale", "BF16", to_bf16(np.float32((0.75 + 0.5 * self.rng.random()) / (60 * shape[-1] ** 0.5))).reshape(()))
        self.add_bf16(name[:-len("weight")] + "input_scale", np.ones(1, np.float32))

    def layer(self, i, c, hy3):
        p, n, d = f"model.layers.{i}.", c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        self.norm(p + "input_layernorm.weight", n)
        self.norm(p + "post_attention_layernorm.weight", n)
        for k, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
            self.weight(f"{p}self_attn.{k}_proj.weight", c[heads] * d, n)
        self.weight(p + "self_attn.o_proj.weight", n, c["num_attention_heads"] * d)
        for name in ("q_norm", "k_norm") if hy3 else ("query_layernorm", "key_layernorm"):
            self.norm(f"{p}self_attn.{name}.weight", d)
        for name in ("k_scale", "v_scale") if self.fp8 else ():
            self.add_bf16(f"{p}self_attn.{name}", np.ones(1, np.float32))
        if i >= c["num_hidden_layers"]:
            self.bf16(p + "eh_proj.weight", n, 2 * n)
            for name in ("enorm", "hnorm", "final_layernorm"):
                self.norm(f"{p}{name}.weight", n)
        if hy3 and i < c.get("first_k_dense_replace", 1):
            return self.network(p + "mlp.", c["intermediate_size"], n)
        ff = c["moe_intermediate_size"] if hy3 else c["intermediate_size"]
        if hy3:
            self.bf16(p + "mlp.router.gate.weight", c["num_experts"], n)
            self.add(p + "mlp.expert_bias", "F32", np.float32(0.1) * self.gauss(c["num_experts"]))
        else:
            self.add(p + "mlp.gate.wg.weight", "F32", self.gauss(c["num_experts"], n) / np.float32(16))
        for e in range(c["num_experts"]):
            self.network(f"{p}mlp.experts.{e}.", ff, n)
        self.network(p + "mlp.shared_mlp.", ff * (c.get("num_shared_experts", 1) if hy3 else 1), n)


def hy_tokenizer(folder):
    """Numbers that do not count, and a token that stands again."""
    tokens = train(open(TEXT, encoding="utf-8").read(), BASE)
    with open(os.path.join(folder, "hy.tiktoken"), "wb") as f:
        for at, t in enumerate(tokens[:300] + tokens[270:]):
            f.write(base64.b64encode(t) + b" %d\n" % at)
    write_json(folder, {"tokenizer_config.json": {
        "add_bos_token": False, "additional_special_tokens": ["<|startoftext|>", "<|extra_0|>"], "bos_token": "<|startoftext|>",
        "chat_template": "{{ messages }}", "eos_token": "<|eos|>", "pad_token": "<|pad|>", "tokenizer_class": "HYTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_hy.HYTokenizer", None]}}})
    open(os.path.join(folder, "tokenization_hy.py"), "w").write(PATTERN)


def cmd_make(a):
    c = dict(HY3 if a.hy3 else A13B)
    if a.fp8:
        c["quantization_config"] = FP8
        c["model_type"] = "hy_v3" if a.hy3 else "hunyuan"
    set_entries(c, a.set)
    c = {k: v for k, v in c.items() if v is not None or k.endswith("group")}
    m, n = Maker(a.fp8), c["hidden_size"]
    if not c["tie_word_embeddings"]:
        m.bf16("lm_head.weight", c["vocab_size"], n)
    m.bf16("model.embed_tokens.weight", c["vocab_size"], n)
    for i in range(c["num_hidden_layers"] + c.get("num_nextn_predict_layers", 0)):
        m.layer(i, c, a.hy3)
    m.norm("model.norm.weight", n)
    m.write_model(a.dir, c)
    if not a.hy3:
        return hy_tokenizer(a.dir)
    t = json.load(open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8"))
    for x in t["added_tokens"]:
        x["special"] = True
    write_json(a.dir, {"tokenizer.json": t, "tokenizer_config.json": {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>",
                                                 "chat_template": "{{ messages }}", "tokenizer_class": "PreTrainedTokenizerFast"}})


def hy_keys(folder, n):
    ranks = {}
    for line in open(os.path.join(folder, "hy.tiktoken"), "rb"):
        ranks.setdefault(base64.b64decode(line.split()[0]), len(ranks))
    special = [f"<|{s}|>" for s in ("endoftext", "startoftext", "bos", "eos", "pad")] + [f"<|extra_{i}|>" for i in range(EXTRAS)]
    pairs = [joined(ranks, t, rank) for t, rank in ranks.items() if len(t) > 1]
    named = special_keys(folder)
    bos = [("tokenizer.ggml.bos_token_id", len(ranks) + 2)]
    if "tokenizer.ggml.bos_token_id" in dict(named):
        named, bos = [bos[0] if k == bos[0][0] else (k, v) for k, v in named], []
    return [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "hunyuan"), ("tokenizer.ggml.tokens", [shown(t) for t in ranks] + special),
            ("tokenizer.ggml.token_type", [1] * len(ranks) + [3] * len(special)),
            ("tokenizer.ggml.merges", [" ".join(map(shown, p)) for p in pairs if len(p) == 2]), *named, *bos]


def expected_keys(c, no_mtp):
    hy3, rope = "moe_topk" not in c, c.get("rope_parameters") or c.get("rope_scaling") or {}
    nextn = 0 if no_mtp or not hy3 else c.get("num_nextn_predict_layers", 0)
    stretched = rope.get("type") == "dynamic"
    theta = 10000 * 1000 ** (128 / 126) if stretched else rope.get("rope_theta", c.get("rope_theta", 10000))
    keys = [("block_count", c["num_hidden_layers"] + nextn), ("context_length", 262144 if stretched else c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"])]
    if rope.get("rope_type") == "yarn":
        keys += [("rope.scaling.type", "yarn"), ("rope.scaling.factor", rope["factor"]),
                 ("rope.scaling.original_context_length", rope["original_max_position_embeddings"])]
    keys += [("rope.freq_base", float(theta)), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]), ("expert_count", c["num_experts"])]
    keys += [("expert_used_count", c["num_experts_per_tok"])] if hy3 else []
    keys += [("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"])] if c.get("head_dim") else []
    if not hy3:
        keys += [("expert_shared_feed_forward_length", c["intermediate_size"]), ("expert_feed_forward_length", c["moe_intermediate_size"][0]),
                 ("expert_used_count", c["moe_topk"][0]), ("expert_shared_count", 1)]
        keys += [("rope.scaling.type", "none"), ("rope.scaling.factor", 1.0), ("rope.scaling.original_context_length", 262144)] if stretched else []
        return [("hunyuan-moe." + k, v) for k, v in keys]
    keys += [("expert_feed_forward_length", c["moe_intermediate_size"]),
             ("expert_shared_feed_forward_length", c["moe_intermediate_size"] * c.get("num_shared_experts", 1)),
             ("expert_weights_norm", c.get("route_norm", True)), ("expert_weights_scale", float(c.get("router_scaling_factor", 1))),
             ("expert_gating_func", 2), *([("nextn_predict_layers", nextn)] if nextn else [])]
    return [("hy_v3." + k, v) for k, v in keys]


def cmd_keys(a):
    c = config_of(a.dir)
    tokens = hy_keys(a.dir, c["vocab_size"]) if "moe_topk" in c else tokenizer_keys(a.dir, "hunyuan-dense", c["vocab_size"]) + special_keys(a.dir)
    return same_keys(a.files[0], ("hy", "hunyuan", "tokenizer."), expected_keys(c, a.no_mtp) + tokens)


def wanted(ck, c, no_mtp):
    """{GGUF name: a function that gives the values}"""
    want = {}
    for name in ck.where:
        if name.endswith("_scale"):
            continue
        if name in ONCE:
            want[ONCE[name]] = lambda name=name: ck.f32(name)
            continue
        _, _, number, rest = name.split(".", 3)
        p = f"blk.{number}."
        if no_mtp and int(number) >= c["num_hidden_layers"]:
            continue
        if not rest.startswith("mlp.experts."):
            want[p + NAMES[rest]] = lambda name=name: ck.f32(name)
        elif rest.startswith("mlp.experts.0."):
            want[f"{p}ffn_{rest.split('.')[3][:-5]}_exps.weight"] = lambda name=name: np.stack(
                [ck.f32(name.replace("experts.0.", f"experts.{e}.")) for e in range(c["num_experts"])])
    return want


def cmd_compare(a):
    ck = Checkpoint(a.dir)
    return same_values(a.files, lambda: wanted(ck, config_of(a.dir), a.no_mtp))


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "hy3", "fp8", "no-mtp"))
