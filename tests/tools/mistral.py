#!/usr/bin/env python3
"""Checkpoints in Mistral's own format, in Mistral-Large-3's form, and what must become of their metadata: computed here from the
format's rules, sharing nothing with Sluice.

  mistral.py make DIR                 turns a generated checkpoint of DeepSeek-V3's form into one: params.json, tekken.json (a BPE
                                      trained on READERS.md), consolidated shards with its names; a vision part beside the text model. With
                                      scales of blocks as it was published: some matrices stay BF16
  mistral.py compare DIR FILE.gguf    FILE's metadata are what the converter would write
  mistral.py back DIR OUT             the text model in DeepSeek's names and with its config.json, for reference.py
"""
import base64
import json
import os
import re
import sys

import numpy as np

from gguf_same import same_keys
from kimi import TEXT, TEXTS, shown, train
from model_forms import read_shard, write_shard
from reference import Checkpoint, to_bf16
from shard_maker import config_of, do_verb

VOCAB, INNER, MORE = 640, 600, 20  # ids; those of ordinary tokens; tokens of tekken.json that have none
NAMED = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
         "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
         "[TOOL_CONTENT]", *(f"<SPECIAL_{i}>" for i in range(20, 32)), "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"]
PATTERN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
           r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
NAMES = [("model.embed_tokens.", "tok_embeddings."), ("model.norm.", "norm."), ("lm_head.", "output."), ("model.layers.", "layers."),
         (".input_layernorm.", ".attention_norm."), (".post_attention_layernorm.", ".ffn_norm."),
         (".self_attn.q_a_proj.", ".attention.wq_a."), (".self_attn.q_a_layernorm.", ".attention.q_a_norm."),
         (".self_attn.q_b_proj.", ".attention.wq_b."), (".self_attn.kv_a_proj_with_mqa.", ".attention.wkv_a_with_mqa."),
         (".self_attn.kv_a_layernorm.", ".attention.kv_a_norm."), (".self_attn.kv_b_proj.", ".attention.wkv_b."),
         (".self_attn.o_proj.", ".attention.wo."), (".mlp.shared_experts.", ".shared_experts."), (".mlp.experts.", ".experts."),
         (".mlp.gate.", ".gate."), (".mlp.", ".feed_forward."), (".gate_proj.", ".w1."), (".down_proj.", ".w2."), (".up_proj.", ".w3."),
         (".weight_scale_inv", ".qscale_weight")]
ENTRIES = [("hidden_size", "dim"), ("num_hidden_layers", "n_layers"), ("intermediate_size", "hidden_dim"), ("num_attention_heads", "n_heads"),
           ("num_key_value_heads", "n_kv_heads"), ("rms_norm_eps", "norm_eps"), ("tie_word_embeddings", "tied_embeddings"),
           *((k, k) for k in ("vocab_size", "rope_theta", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))]
EXPERTS = [("moe_layer_freq", "route_every_n"), ("first_k_dense_replace", "first_k_dense_replace"), ("num_experts_per_tok", "num_experts_per_tok"),
           ("n_routed_experts", "num_experts"), ("moe_intermediate_size", "expert_hidden_dim"), ("routed_scaling_factor", "routed_scale"),
           ("n_shared_experts", "num_shared_experts"), ("n_group", "num_expert_groups"), ("topk_group", "num_expert_groups_per_tok")]
SEES = [("vision_encoder.patch_conv.weight", [4, 3, 2, 2]), ("vision_encoder.transformer.layers.0.attention.wq.weight", [4, 4]),
        ("vision_language_adapter.w_in.weight", [4, 4]), ("patch_merger.merging_layer.weight", [4, 16]), ("pre_mm_projector_norm.weight", [4])]


BLOCKS = {"config_groups": {"group_0": {
    "input_activations": {"dynamic": True, "num_bits": 8, "strategy": "group", "group_size": 128, "type": "float"},
    "output_activations": None, "targets": ["Linear"],
    "weights": {"block_structure": [128, 128], "dynamic": False, "num_bits": 8, "strategy": "block", "symmetric": True, "type": "float"}}},
    "format": "float-quantized", "quant_method": "compressed-tensors", "quantization_status": "compressed",
    "ignore": ["model.embed_tokens", "re:patch_merger.*", "re:vision_encoder.*", "re:vision_language_adapter.*",
               "re:.*kv_a_proj_with_mqa$", "re:.*q_a_proj$", "re:.*gate$", "lm_head"]}


def shown_as(token):
    try:
        return token.decode() # the first one's is a NUL
    except UnicodeDecodeError:
        return None


def tekken():
    tokens = train(open(TEXT, encoding="utf-8").read() + " ".join(TEXTS * 3), INNER + MORE + 1)[:-1]
    tokens = [bytes([b]) for b in range(256)] + [t for t in tokens if len(t) > 1]
    return {"config": {"pattern": PATTERN, "num_vocab_tokens": len(tokens), "default_vocab_size": VOCAB,
                       "default_num_special_tokens": VOCAB - INNER, "version": "v13"},
            "vocab": [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": shown_as(t)} for i, t in enumerate(tokens)],
            "special_tokens": [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(NAMED)],
            "image": {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}}


def shards(folder):
    return sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))


def renamed(name, pairs):
    for a, b in pairs:
        name = name.replace(a, b)
    return name


def cmd_make(a):
    c = config_of(a.dir)
    names, where, ck = shards(a.dir), {}, Checkpoint(a.dir)
    fp8 = any("_scale" in k for k in ck.where)
    blocks = fp8 and "weight_block_size" in c["quantization_config"]
    for i, old in enumerate(names):
        tensors = {}
        for name, (dtype, shape, data) in read_shard(os.path.join(a.dir, old)).items():
            plain = blocks and re.search(r"\.(q_a_proj|kv_a_proj_with_mqa)\.", name)
            if "e_score_correction" in name or plain and not name.endswith(".weight"):
                continue
            if plain:
                dtype, data = "BF16", to_bf16(ck.f32(name)).tobytes()
            name = renamed(name, NAMES)
            scale = name.endswith(".qscale_weight")
            tensors[name] = (dtype, [] if scale else shape, data)
            if scale:
                tensors[name[:-len("weight")] + "act"] = ("F32", [], np.float32(0.5).tobytes())
        for name, shape in SEES if i + 1 == len(names) else ():
            tensors[name] = ("BF16", shape, bytes(2 * int(np.prod(shape))))
        new = f"consolidated-{i + 1:05}-of-{len(names):05}.safetensors"
        write_shard(os.path.join(a.dir, new), tensors)
        os.remove(os.path.join(a.dir, new + ".index.json"))
        where.update(dict.fromkeys(tensors, new))
    json.dump({"metadata": {}, "weight_map": where}, open(os.path.join(a.dir, "consolidated.safetensors.index.json"), "w"))
    yarn = {"original_max_position_embeddings": 8192, "factor": 36, "apply_scale": False, "beta": 32, "alpha": 1}
    params = {new: c[old] for old, new in ENTRIES}
    params.update(head_dim=c["qk_nope_head_dim"] + c["qk_rope_head_dim"], max_position_embeddings=294912, max_seq_len=262144, yarn=yarn,
                  moe={"expert_parallel": 1, **{new: c[old] for old, new in EXPERTS}},
                  llama_4_scaling={"original_max_position_embeddings": 8192, "beta": 0.1},
                  vision_encoder={"hidden_size": 4, "num_hidden_layers": 1})
    if blocks:
        params["quantization_config"] = BLOCKS
    elif fp8:
        params["quantization"] = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    json.dump(params, open(os.path.join(a.dir, "params.json"), "w"))
    json.dump(tekken(), open(os.path.join(a.dir, "tekken.json"), "w"))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", *names):
        if os.path.exists(os.path.join(a.dir, name)):
            os.remove(os.path.join(a.dir, name))


def cmd_back(a):
    p = json.load(open(os.path.join(a.dir, "params.json")))
    c = {"architectures": ["DeepseekV3ForCausalLM"], "quantization_config": {"weight_block_size": [128, 128]}, **{old: p[new] for old, new in ENTRIES}, **{old: p["moe"][new] for old, new in EXPERTS}}
    os.makedirs(a.files[0], exist_ok=True)
    json.dump(c, open(os.path.join(a.files[0], "config.json"), "w"))
    for name in shards(a.dir):
        tensors = read_shard(os.path.join(a.dir, name))
        back = [(b, o) for o, b in NAMES]
        # The dense layers' names and those of experts share w1 to w3: what is most particular first.
        order = sorted(back, key=lambda x: -len(x[0]))
        new = {}
        for k, v in tensors.items():
            if k.startswith(("vision", "patch", "pre_mm")) or k.endswith("qscale_act"):
                continue
            k = re.sub(r"^norm\.", "model.norm.", k)
            k = re.sub(r"^output\.", "lm_head.", k)
            new[renamed(k, [x for x in order if x[0] not in ("norm.", "output.", ".mlp.")])] = v
        write_shard(os.path.join(a.files[0], name), new)


def tokens_of(folder):
    t = json.load(open(os.path.join(folder, "tekken.json")))
    n, special = t["config"]["default_vocab_size"], t["config"]["default_num_special_tokens"]
    tokens = [base64.b64decode(v["token_bytes"]) for v in t["vocab"][:n - special]]
    names = [s["token_str"] for s in t["special_tokens"]]
    return tokens, names + [f"<SPECIAL_{i}>" for i in range(len(names), special)]


def tokenizer_keys(folder):
    tokens, names = tokens_of(folder)
    ranks = {t: i for i, t in enumerate(tokens)}
    merges = []
    for t in tokens[256:]:
        pairs = [(ranks[t[:j]], ranks[t[j:]]) for j in range(1, len(t)) if t[:j] in ranks and t[j:] in ranks]
        merges += [shown(tokens[x]) + " " + shown(tokens[y]) for x, y in sorted(pairs)]
    path = os.path.join(folder, "chat_template.jinja")
    every = names + [shown(t) for t in tokens]
    keys = [("model", "gpt2"), ("pre", "tekken"), ("merges", merges), ("bos_token_id", names.index("<s>")), ("eos_token_id", names.index("</s>")),
            ("unknown_token_id", names.index("<unk>")), ("padding_token_id", names.index("<pad>")), ("tokens", every),
            ("scores", [0.0] * len(every)), ("token_type", [3] * len(names) + [1] * len(tokens)), ("add_bos_token", True), ("add_eos_token", False)]
    return [("tokenizer.ggml." + k, v) for k, v in keys] + ([("tokenizer.chat_template", open(path).read())] if os.path.exists(path) else [])


def cmd_compare(a):
    p = json.load(open(os.path.join(a.dir, "params.json")))
    m, y = p["moe"], p["yarn"]
    rank, rope, nope = p["kv_lora_rank"], p["qk_rope_head_dim"], p["qk_nope_head_dim"]
    lengths = [("attention.key_length", rank + rope), ("attention.value_length", rank)]
    early = p.get("head_dim") is not None
    keys = [("block_count", p["n_layers"]), ("context_length", p["max_position_embeddings"]), ("embedding_length", p["dim"]),
            ("feed_forward_length", p["hidden_dim"]), ("attention.head_count", p["n_heads"]), ("attention.head_count_kv", 1),
            ("rope.freq_base", float(p["rope_theta"])), ("attention.layer_norm_rms_epsilon", p["norm_eps"]), ("expert_count", m["num_experts"]),
            ("expert_used_count", m["num_experts_per_tok"]), ("expert_group_count", m["num_expert_groups"]),
            ("expert_group_used_count", m["num_expert_groups_per_tok"]), ("expert_gating_func", 1), *lengths * early,
            ("leading_dense_block_count", m["first_k_dense_replace"]), ("vocab_size", p["vocab_size"]), ("attention.q_lora_rank", p["q_lora_rank"]),
            ("attention.kv_lora_rank", rank), *lengths * (not early), ("attention.key_length_mla", nope + rope),
            ("attention.value_length_mla", p["v_head_dim"]), ("expert_feed_forward_length", m["expert_hidden_dim"]),
            ("expert_shared_count", m["num_shared_experts"]), ("expert_weights_scale", float(m["routed_scale"])), ("expert_weights_norm", True),
            ("rope.dimension_count", rope), ("rope.scaling.type", "yarn"), ("rope.scaling.factor", y["factor"]),
            ("rope.scaling.yarn_beta_fast", y["beta"]), ("rope.scaling.yarn_beta_slow", y["alpha"]), ("rope.scaling.yarn_log_multiplier", 0.1),
            ("rope.scaling.original_context_length", y["original_max_position_embeddings"]),
            *([("attention.temperature_scale", p["llama_4_scaling"]["beta"])] if p.get("llama_4_scaling") else []),
            ("attention.temperature_length", y["original_max_position_embeddings"])]
    return same_keys(a.files[0], ("deepseek2.", "tokenizer."), [("deepseek2." + k, v) for k, v in keys] + tokenizer_keys(a.dir))


if __name__ == "__main__":
    sys.exit(do_verb(globals()))
