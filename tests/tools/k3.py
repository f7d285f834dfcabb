#!/usr/bin/env python3
"""A small checkpoint in Kimi-K3's form, and what llama.cpp's converter makes of such a one, in numpy.

  k3.py make DIR [--bf16] [--odd]     one shard, config.json and tokenizer; bf16: the experts, too; odd: q in one matrix, experts
                                      in the model's own space and none shared, other names and places of config.json's entries
  k3.py keys DIR FILE.gguf            metadata and their order
  k3.py compare DIR FILE.gguf...      each tensor's exact bytes: F32, BF16 or F16 of its values, gguf-py's q8_0, MXFP4

Layers 3 and 5 have full attention, the others delta attention; layer 1 is dense. Experts are MXFP4, as
compressed-tensors packs them. Two tensors of a vision part are beside the text model.
"""
import json
import os
import sys

import numpy as np

from gguf_same import same_keys, same_tensors
from kimi import BASE, VOCAB, make_tokenizer, tiktoken_keys
from reference import Checkpoint
from shard_maker import config_of, do_verb
from v4 import FP4, Maker, bytes_of

TEXT_CONFIG = {
    "activation_situ_beta": 4.0, "activation_situ_linear_beta": 25.0, "attn_res_block_size": 2, "eos_token_id": BASE + 2,
    "first_k_dense_replace": 1, "hidden_act": "situ", "hidden_size": 512, "intermediate_size": 768, "kv_lora_rank": 256,
    "latent_moe_use_norm": True,
    "linear_attn_config": {"full_attn_layers": [3, 5], "gate_lower_bound": -5.0, "head_dim": 64, "kda_layers": [1, 2, 4],
                           "num_heads": 4, "short_conv_kernel_size": 4, "use_full_rank_gate": True},
    "max_position_embeddings": 1048576, "mla_use_nope": True, "mla_use_output_gate": True, "model_type": "kimi_linear",
    "moe_intermediate_size": 256, "moe_layer_freq": 1, "moe_renormalize": True, "moe_router_activation_func": "sigmoid",
    "num_attention_heads": 4, "num_expert_group": 1, "num_experts": 16, "num_experts_per_token": 4, "num_hidden_layers": 5,
    "num_key_value_heads": 4, "num_nextn_predict_layers": 0, "num_shared_experts": 2, "q_lora_rank": 256,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {
        "config_groups": {"group_0": {"format": "mxfp4-pack-quantized", "input_activations": None, "targets": ["Linear"], "weights": {
            "actorder": None, "dynamic": False, "group_size": 32, "num_bits": 4, "scale_dtype": "torch.uint8", "strategy": "group",
            "symmetric": True, "type": "float"}}},
        "format": "mxfp4-pack-quantized", "quant_method": "compressed-tensors", "quantization_status": "compressed",
        "ignore": ["re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*", "re:.*lm_head.*"]},
    "rms_norm_eps": 1e-05, "routed_expert_hidden_size": 256, "routed_scaling_factor": 2.5, "tie_word_embeddings": False,
    "topk_group": 1, "topk_method": "noaux_tc", "use_grouped_topk": True, "v_head_dim": 128, "vocab_size": VOCAB,
}
CONFIG = {"architectures": ["KimiK3ForConditionalGeneration"], "bos_token_id": BASE, "eos_token_id": BASE + 2, "model_type": "kimi_k3",
          "pad_token_id": BASE + 255, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vision_config": {"patch_size": 14}}
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight", "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.f_a_proj.weight": "ssm_f_a.weight", "self_attn.f_b_proj.weight": "ssm_f_b.weight",
    "self_attn.b_proj.weight": "ssm_beta.weight", "self_attn.A_log": "ssm_a", "self_attn.dt_bias": "ssm_dt.bias",
    "self_attn.o_norm.weight": "ssm_norm.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight", "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight", "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "block_sparse_moe.gate.weight": "ffn_gate_inp.weight", "block_sparse_moe.gate.e_score_correction_bias": "exp_probs_b.bias",
    "block_sparse_moe.routed_expert_norm.weight": "ffn_routed_norm.weight",
}
for k in ("q", "k", "v"):
    NAMES[f"self_attn.{k}_conv1d.weight"] = f"ssm_conv1d_{k}.weight"
for k in ("gate", "up", "down"):
    NAMES[f"mlp.{k}_proj.weight"] = f"ffn_{k}.weight"
    NAMES[f"block_sparse_moe.shared_experts.{k}_proj.weight"] = f"ffn_{k}_shexp.weight"
    NAMES[f"block_sparse_moe.routed_expert_{k}_proj.weight"] = f"ffn_routed_{k}.weight"
SCORES = {"model.output_attn": "output", "self_attention": "attn", "mlp": "ffn"}


class K3Maker(Maker):
    def expert(self, name, rows, cols):
        if self.experts == "bf16":
            return self.bf16(name + ".weight", rows, cols)
        code = np.abs(2 * self.gauss(rows, cols)[..., None] - FP4).argmin(-1).astype(np.uint8)
        self.add(name + ".weight_packed", "U8", code[:, ::2] | code[:, 1::2] << 4)
        self.add(name + ".weight_scale", "U8", self.exponents(rows, cols // 32, cols, 2))

    def score(self, name, n):
        self.norm(name + "_res_norm.weight", n)
        self.bf16(name + "_res_proj.weight", *([n] if self.odd else [1, n]))

    def delta(self, c, p):
        n, lin = c["hidden_size"], c["linear_attn_config"]
        d, wide = lin["head_dim"], lin["head_dim"] * c["num_attention_heads"]
        for k in "qkv":
            self.bf16(f"{p}{k}_proj.weight", wide, n)
            shape = (wide, lin["short_conv_kernel_size"]) if self.odd else (wide, 1, lin["short_conv_kernel_size"])
            self.f32(f"{p}{k}_conv1d.weight", *shape, sigma=0.5) if self.odd else self.bf16(f"{p}{k}_conv1d.weight", *shape)
        self.bf16(p + "f_a_proj.weight", d, n)
        self.bf16(p + "f_b_proj.weight", wide, d)
        self.bf16(p + "b_proj.weight", c["num_attention_heads"], n)
        self.bf16(p + "g_proj.weight", wide, n)
        self.bf16(p + "o_proj.weight", n, wide)
        self.f32(p + "A_log", c["num_attention_heads"] * (1 if self.odd else 2), sigma=1.0)
        self.f32(p + "dt_bias", wide)
        self.norm(p + "o_norm.weight", d)

    def full(self, c, p):
        n, h, rope = c["hidden_size"], c["num_attention_heads"], c["qk_rope_head_dim"]
        q = h * (c["qk_nope_head_dim"] + rope)
        if c.get("q_lora_rank"):
            self.bf16(p + "q_a_proj.weight", c["q_lora_rank"], n)
            self.norm(p + "q_a_layernorm.weight", c["q_lora_rank"])
            self.bf16(p + "q_b_proj.weight", q, c["q_lora_rank"])
        else:
            self.bf16(p + "q_proj.weight", q, n)
        self.bf16(p + "kv_a_proj_with_mqa.weight", c["kv_lora_rank"] + rope, n)
        self.norm(p + "kv_a_layernorm.weight", c["kv_lora_rank"])
        self.bf16(p + "kv_b_proj.weight", h * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"])
        if c["mla_use_output_gate"]:
            self.bf16(p + "g_proj.weight", h * c["v_head_dim"], n)
        self.bf16(p + "o_proj.weight", n, h * c["v_head_dim"])

    def network(self, p, ff, n):
        for k, rows, cols in (("gate", ff, n), ("up", ff, n), ("down", n, ff)):
            self.bf16(f"{p}{k}_proj.weight", rows, cols)

    def layer(self, c, i):
        p, n, ff = f"language_model.model.layers.{i}.", c["hidden_size"], c["moe_intermediate_size"]
        latent = c.get("routed_expert_hidden_size") or n
        self.norm(p + "input_layernorm.weight", n)
        self.norm(p + "post_attention_layernorm.weight", n)
        self.score(p + "self_attention", n)
        self.score(p + "mlp", n)
        (self.full if i + 1 in c["linear_attn_config"]["full_attn_layers"] else self.delta)(c, p + "self_attn.")
        if i < c["first_k_dense_replace"]:
            return self.network(p + "mlp.", c["intermediate_size"], n)
        p += "block_sparse_moe."
        self.bf16(p + "gate.weight", c["num_experts"], n)
        self.f32(p + "gate.e_score_correction_bias", c["num_experts"])
        if latent != n:
            self.bf16(p + "routed_expert_down_proj.weight", latent, n)
            self.bf16(p + "routed_expert_up_proj.weight", n, latent)
            if c["latent_moe_use_norm"]:
                self.norm(p + "routed_expert_norm.weight", latent)
        for e in range(c["num_experts"]):
            for w, rows, cols in (("w1", ff, latent), ("w2", latent, ff), ("w3", ff, latent)):
                self.expert(f"{p}experts.{e}.{w}", rows, cols)
        if c["num_shared_experts"]:
            self.network(p + "shared_experts.", c["num_shared_experts"] * ff, n)


def cmd_make(a):
    c = json.loads(json.dumps(TEXT_CONFIG))
    if a.bf16:
        c.pop("quantization_config")
    if a.odd:
        for k in ("q_lora_rank", "routed_expert_hidden_size", "max_position_embeddings"):
            c.pop(k)
        c["linear_attn_config"].pop("gate_lower_bound")
        c["linear_attn_config"]["full_attn_layers"] = [1, 4]
        c.update(num_shared_experts=0, model_max_length=4096, head_dim=72, rope_theta=50000.0, mla_use_output_gate=False,
                 num_experts_per_tok=2, n_group=1, moe_renormalize=False, rms_norm_eps=1e-6, first_k_dense_replace=2)
    make(a.dir, c, a.bf16, a.odd)


def make(folder, c, bf16, odd):
    m, n = K3Maker("bf16" if bf16 else "fp4", odd), c["hidden_size"]
    m.bf16("language_model.model.embed_tokens.weight", c["vocab_size"], n)
    m.norm("language_model.model.norm.weight", n)
    m.bf16("language_model.lm_head.weight", c["vocab_size"], n)
    m.score("language_model.model.output_attn", n)
    for i in range(c["num_hidden_layers"]):
        m.layer(c, i)
    m.bf16("vision_tower.encoder.blocks.0.wqkv.weight", 6, 4)
    m.bf16("mm_projector.proj.0.bias", 24)
    m.write(folder)
    json.dump(dict(CONFIG, text_config=c), open(os.path.join(folder, "config.json"), "w"))
    make_tokenizer(folder)
    path = os.path.join(folder, "tokenizer_config.json")
    t = json.load(open(path))
    t.pop("chat_template")
    json.dump(t, open(path, "w"))


def expected_keys(folder):
    c = config_of(folder)
    c = {**c, **c["text_config"]}
    lin, lora, rope = c["linear_attn_config"], c["kv_lora_rank"], c["qk_rope_head_dim"]
    lengths = [("attention.key_length", lora + rope), ("attention.value_length", lora)]
    keys = [
        ("block_count", c["num_hidden_layers"]), ("context_length", c.get("max_position_embeddings", c.get("model_max_length"))),
        ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
        ("attention.head_count", c["num_attention_heads"]),
        ("attention.head_count_kv", [int(i + 1 in lin["full_attn_layers"]) for i in range(c["num_hidden_layers"])]),
        ("rope.freq_base", c.get("rope_theta")), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
        ("expert_count", c["num_experts"]), ("expert_used_count", c.get("num_experts_per_tok", c["num_experts_per_token"])),
        ("expert_group_count", c.get("n_group")), ("expert_group_used_count", c.get("topk_group")), ("expert_gating_func", 2),
        *(lengths if "head_dim" in c else []), ("vocab_size", c["vocab_size"]), ("ssm.conv_kernel", lin["short_conv_kernel_size"]),
        ("kda.head_dim", lin["head_dim"]), ("kda.gate_lower_bound", lin.get("gate_lower_bound")),
        ("attention.q_lora_rank", c.get("q_lora_rank")), ("attention.kv_lora_rank", lora), ("rope.dimension_count", rope),
        *([] if "head_dim" in c else lengths), ("attention.key_length_mla", c["qk_nope_head_dim"] + rope),
        ("attention.value_length_mla", c["v_head_dim"]), ("expert_feed_forward_length", c["moe_intermediate_size"]),
        ("expert_shared_count", c["num_shared_experts"]), ("leading_dense_block_count", c["first_k_dense_replace"]),
        ("expert_weights_scale", c["routed_scaling_factor"]), ("expert_weights_norm", c["moe_renormalize"]),
        ("expert_latent_length", c.get("routed_expert_hidden_size")), ("activation.situ_beta", c["activation_situ_beta"]),
        ("activation.situ_linear_beta", c["activation_situ_linear_beta"]), ("attn_res.block_size", c["attn_res_block_size"])]
    tokens = [(k, c["eos_token_id"] if k == "tokenizer.ggml.eos_token_id" else v) for k, v in tiktoken_keys(folder, c["vocab_size"])]
    return [("kimi-k3." + k, v) for k, v in keys if v is not None] + tokens


def cmd_keys(a):
    return same_keys(a.files[0], ("kimi-k3.", "tokenizer."), expected_keys(a.dir))


class K3(Checkpoint):
    """Values and, of experts in 4 bits, ggml's blocks: the scale, then element i beside element i + 16."""

    def codes(self, name):
        p = self.raw(name + "_packed")[1]
        return np.stack([p & 15, p >> 4], -1).reshape(p.shape[0], -1)

    def f32(self, name):
        if name.endswith(".weight") and name + "_packed" in self.where:
            return FP4[self.codes(name)] * np.repeat(np.exp2(self.raw(name + "_scale")[1].astype(np.float32) - 127), 32, 1)
        return super().f32(name)

    def blocks(self, name):
        q = self.codes(name)
        q = q.reshape(q.shape[0], -1, 2, 16)
        return np.concatenate([self.raw(name + "_scale")[1][..., None], q[:, :, 0] | q[:, :, 1] << 4], -1).astype(np.uint8)


def sources(ck):
    """{GGUF name: (the checkpoint's tensors, one or an expert each, what becomes of the first one's values)}"""
    c, want = ck.config["text_config"], {}
    heads, nope, v = c["num_attention_heads"], c["qk_nope_head_dim"], c["v_head_dim"]
    full = c["linear_attn_config"]["full_attn_layers"]

    def k_b(x):
        return x.reshape(heads, nope + v, -1)[:, :nope].transpose(0, 2, 1)

    def v_b(x):
        return x.reshape(heads, nope + v, -1)[:, nope:]

    for name in ck.where:
        rest = name.removeprefix("language_model.").replace(".weight_packed", ".weight")
        if not name.startswith("language_model.") or name.endswith(("_scale", "_res_proj.weight")):
            continue
        name, p, i = "language_model." + rest, "", 0
        if rest.startswith("model.layers."):
            _, _, i, rest = rest.split(".", 3)
            p = f"blk.{i}."
        if rest.endswith("_res_norm.weight"):
            stem = rest.removesuffix("_res_norm.weight")
            other = ck.f32(name.replace("_norm.weight", "_proj.weight")).ravel()
            want[f"{p}{SCORES[stem]}_res_score.weight"] = [name], lambda x, other=other: x * other
        elif ".experts." in rest:
            w = {"w1": "gate", "w2": "down", "w3": "up"}[rest.split(".")[3]]
            want.setdefault(f"{p}ffn_{w}_exps.weight", ([], None))[0].append((int(rest.split(".")[2]), name))
        elif rest == "self_attn.kv_b_proj.weight":
            want[p + "attn_k_b.weight"], want[p + "attn_v_b.weight"] = ([name], k_b), ([name], v_b)
        elif rest == "self_attn.g_proj.weight":
            want[p + ("attn_gate.weight" if int(i) + 1 in full else "ssm_g.weight")] = [name], None
        elif rest == "self_attn.A_log":
            want[p + NAMES[rest]] = [name], lambda x: -np.exp(x[:heads].astype(np.float64)).astype(np.float32)
        else:
            want[p + NAMES[rest]] = [name], None
    return {k: ([n[1] if isinstance(n, tuple) else n for n in sorted(v)], f) for k, (v, f) in want.items()}


class Made:
    """A source of bytes_of whose first tensor's values are changed."""

    def __init__(self, ck, change):
        self.blocks, self.raw = ck.blocks, ck.raw
        self.f32 = (lambda name: change(ck.f32(name))) if change else ck.f32


def cmd_compare(a):
    ck = K3(a.dir)
    return same_tensors(a.files, lambda: {name: lambda kind, names=names, change=change: bytes_of(Made(ck, change), names, kind)
                                          for name, (names, change) in sources(ck).items()})


if __name__ == "__main__":
    sys.exit(do_verb(globals(), "bf16", "odd"))
