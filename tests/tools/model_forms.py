#!/usr/bin/env python3
"""Turns generated checkpoints into other models' forms.

  model_forms.py wrap DIR   one in Kimi-K2's form, MiniMax-M3's or GLM-4.5's into that of Kimi-K2.5, of M3 as it was published or of
                            GLM-4.5V: the text model inside, tensors of a vision part beside it
  model_forms.py glm DIR    one in DeepSeek-V3.2's, in one shard, into GLM-5.2's: an indexer in some layers, the last one's
                            embedding and head left out, GLM's tokens
  model_forms.py flash DIR  one in DeepSeek-V3's, not quantized, into GLM-4.7-Flash's
  model_forms.py solar DIR  one in GLM-4.5's, not quantized, in one shard, without norms on heads, into Solar-Open's
  model_forms.py join DIR   one whose experts are apart, not quantized, in one shard, into one with a layer's in two tensors
"""
import json
import os
import sys

from shard_maker import do_verb

GLM_NAMES = ["[gMASK]", "<|endoftext|>", "[sMASK]", "<sop>", "<think>", "<|user|>", "<|assistant|>", "<|observation|>"]
GLM_RULE = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+")


def read_header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(int.from_bytes(f.read(8), "little")))


def read_shard(path):
    """{name: (dtype, shape, bytes)}"""
    data, header = open(path, "rb").read(), read_header(path)
    base = 8 + int.from_bytes(data[:8], "little")
    return {k: (v["dtype"], v["shape"], data[base + v["data_offsets"][0]:base + v["data_offsets"][1]])
            for k, v in header.items() if k != "__metadata__"}


def write_shard(path, tensors):
    """With an index beside it."""
    header, at = {}, 0
    for k, (dtype, shape, data) in tensors.items():
        header[k] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))
    json.dump({"weight_map": dict.fromkeys(tensors, os.path.basename(path))}, open(path + ".index.json", "w"))


def cmd_wrap(a):
    path_c = os.path.join(a.dir, "config.json")
    text = json.load(open(path_c))
    m3, glm = (text["architectures"][0].startswith(k) for k in ("MiniMaxM3", "Glm4Moe"))
    sees = [("vision_tower.vision_model.pre_layrnorm.weight", [24]), ("multi_modal_projector.linear_1.weight", [6, 4]),
            ("patch_merge_mlp.linear_2.bias", [24])] if m3 else [("model.visual.embeddings.position_embedding.weight", [6, 4]), ("model.visual.merger.norm.bias", [24])] if glm else \
        [("vision_tower.encoder.blocks.0.wqkv.weight", [6, 4]), ("mm_projector.proj.0.bias", [24])]
    names = sorted(n for n in os.listdir(a.dir) if n.endswith(".safetensors"))
    for name in names:
        path = os.path.join(a.dir, name)
        data = open(path, "rb").read()
        n = int.from_bytes(data[:8], "little")
        old, data = json.loads(data[8:8 + n]), data[8 + n:]
        new = {k.replace("model.", "model.language_model.", 1) if glm else "language_model." + k: v for k, v in old.items() if k != "__metadata__"}
        if name == names[-1]:
            for k, shape in sees:
                new[k] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + 48]}
                data += bytes(48)
        header = json.dumps(new).encode()
        open(path, "wb").write(len(header).to_bytes(8, "little") + header + data)
    where = {k: n for n in names for k in read_header(os.path.join(a.dir, n))}
    json.dump({"weight_map": where}, open(os.path.join(a.dir, "model.safetensors.index.json"), "w"))
    if m3:
        outer = {k: text.pop(k) for k in ("quantization_config", "torch_dtype")}
        text.pop("model_type")
        outer.update(architectures=["MiniMaxM3SparseForConditionalGeneration"], model_type="minimax_m3_vl")
    elif glm:
        outer = {k: text.pop(k) for k in ("quantization_config",) if k in text}
        for k in ("num_nextn_predict_layers", "architectures"):
            text.pop(k)
        text.update(model_type="glm4v_moe_text", rope_scaling={"rope_type": "default", "mrope_section": [4, 6, 6]})
        outer.update(architectures=["Glm4vMoeForConditionalGeneration"], model_type="glm4v_moe", tie_word_embeddings=False)
    else:
        outer = {k: text[k] for k in ("bos_token_id", "eos_token_id")}
        outer.update(architectures=["KimiK25ForConditionalGeneration"], model_type="kimi_k25", tie_word_embeddings=False)
    outer.update(text_config=text, vision_config={"hidden_size": 1152}, **({} if glm else {"hidden_size": 1, "rope_theta": 1.0}))
    json.dump(outer, open(path_c, "w"))


def give_glm_tokens(folder):
    """GLM's special tokens and rules, in place of DeepSeek's in a generated checkpoint."""
    path = os.path.join(folder, "tokenizer.json")
    t = json.load(open(path))
    for token, name in zip(t["added_tokens"], GLM_NAMES):
        t["model"]["vocab"] = {name if k == token["content"] else k: v for k, v in t["model"]["vocab"].items()}
        token.update(content=name, special=name != "<think>", normalized=False)
    t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": GLM_RULE}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    t.update(normalizer=None, post_processor=None)
    json.dump(t, open(path, "w"))
    json.dump({"backend": "tokenizers", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
               "extra_special_tokens": GLM_NAMES, "model_max_length": 202752,
               "padding_side": "left", "tokenizer_class": "TokenizersBackend"},
              open(os.path.join(folder, "tokenizer_config.json"), "w"))
    open(os.path.join(folder, "chat_template.jinja"), "w").write("[gMASK]<sop>{{ messages }}\n")


def cmd_glm(a):
    path = os.path.join(a.dir, "model.safetensors")
    path_c = os.path.join(a.dir, "config.json")
    c = json.load(open(path_c))
    layers = c["num_hidden_layers"]
    types = ["full" if i % 2 == 0 else "shared" for i in range(layers)]
    drop = [f"layers.{i}.self_attn.indexer." for i in range(layers) if types[i] == "shared"]
    drop += [f"layers.{layers}.{s}" for s in ("embed_tokens.", "shared_head.head.")]
    write_shard(path, {k: v for k, v in read_shard(path).items() if not any(d in k for d in drop)})
    for k in ("rope_scaling", "rope_theta", "bos_token_id"):
        c.pop(k)
    c.update(architectures=["GlmMoeDsaForCausalLM"], model_type="glm_moe_dsa", head_dim=192, indexer_types=types,
             mlp_layer_types=["dense"] * c["first_k_dense_replace"] + ["sparse"] * (layers - c["first_k_dense_replace"]),
             rope_parameters={"rope_theta": 8000000, "rope_type": "default"}, eos_token_id=[1, 4093, 4095], pad_token_id=1)
    json.dump(c, open(path_c, "w"))
    give_glm_tokens(a.dir)


def cmd_flash(a):
    path = os.path.join(a.dir, "config.json")
    c = json.load(open(path))
    for k in ("quantization_config", "scoring_func", "bos_token_id"):
        c.pop(k)
    c.update(architectures=["Glm4MoeLiteForCausalLM"], model_type="glm4_moe_lite", partial_rotary_factor=1.0, rope_scaling=None,
             rope_theta=1000000, rms_norm_eps=1e-05, n_group=1, topk_group=1, routed_scaling_factor=1.8,
             max_position_embeddings=202752, eos_token_id=[1, 4093, 4095], pad_token_id=1)
    json.dump(c, open(path, "w"))
    give_glm_tokens(a.dir)


def cmd_solar(a):
    path, path_c, path_t, path_tc = (os.path.join(a.dir, n) for n in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"))
    write_shard(path, {k: v for k, v in read_shard(path).items() if not k.endswith("_proj.bias")})
    c, t = json.load(open(path_c)), json.load(open(path_t))
    for k in ("num_nextn_predict_layers", "n_group", "topk_group", "use_qk_norm", "attention_bias"):
        c.pop(k)
    c.update(architectures=["SolarOpenForCausalLM"], model_type="solar_open", partial_rotary_factor=1.0, rope_theta=1000000,
             eos_token_id=[2, 24, 25], rope_scaling={"factor": 2.0, "original_max_position_embeddings": 65536, "type": "yarn"})
    json.dump(c, open(path_c, "w"))
    for token, name in zip(t["added_tokens"], ["<unk>", "<|startoftext|>", "<|endoftext|>", "<|end|>"]):
        token.update(content=name)
    t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = GLM_RULE.replace("{1,3}", "")
    json.dump(t, open(path_t, "w"))
    json.dump({"eos_token": "<|end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}, open(path_tc, "w"))


def cmd_join(a):
    path = os.path.join(a.dir, "model.safetensors")
    old = read_shard(path)
    new = {k: v for k, v in old.items() if ".experts." not in k}
    for p in {k[:k.index(".experts.") + 9] for k in old if k not in new}:
        n = sum(k.startswith(p) for k in old) // 3
        for name, words in (("gate_up_proj", ("gate", "up")), ("down_proj", ("down",))):
            all_ = [old[f"{p}{e}.{w}_proj.weight"] for e in range(n) for w in words]
            dtype, (rows, cols), _ = all_[0]
            new[p + name] = dtype, [n, len(words) * rows, cols], b"".join(x[2] for x in all_)
    write_shard(path, new)


if __name__ == "__main__":
    sys.exit(do_verb(globals()))
