#!/usr/bin/env python3
"""Checkpoints in Kimi-K2's form, and what must become of their tokenizer: computed here from the
format's rules, sharing nothing with Sluice. DeepSeek-V3.2's, Qwen3's, MiniMax-M2's and GLM's keys as well, and
checkpoints in GLM-5.2's form.

  kimi.py make DIR [--text FILE]   turns a generated DeepSeek checkpoint into one: a BPE trained on
                                   FILE as tiktoken.model, config.json, tokenizer_config.json
  kimi.py wrap DIR                 makes a checkpoint in Kimi-K2.5's form, or MiniMax-M3's, of it: the text model inside,
                                   tensors of a vision part beside it
  kimi.py compare DIR FILE.gguf    FILE's metadata are what the converter would write
  kimi.py v32 DIR FILE.gguf        the same of DeepSeek-V3.2, but for the tokenizer; --no-mtp: without those layers
  kimi.py qwen3 DIR FILE.gguf      the same of Qwen3, with experts or without
  kimi.py minimax DIR FILE.gguf    the same of MiniMax-M2 and M3, with the tokenizer
  kimi.py glm DIR                  turns one in DeepSeek-V3.2's form, in one shard, into one in GLM-5.2's: an indexer
                                   in some layers, the last one's embedding and head left out, GLM's tokens
  kimi.py glm_keys DIR FILE.gguf   the same as v32 of GLM-5.2, with the tokenizer
  kimi.py glm4_keys DIR FILE.gguf  the same of GLM-4.5 and those after it
  kimi.py flash DIR                turns one in DeepSeek-V3's form, not quantized, into one in GLM-4.7-Flash's
  kimi.py flash_keys DIR FILE.gguf the same as glm_keys of it
  kimi.py tokenize DIR FILE.gguf   llama.cpp splits texts as BPE by ranks does
"""
import argparse
import base64
import heapq
import json
import os
import sys
import unicodedata

from gguf_same import same_keys

BASE, VOCAB, SPECIAL = 900, 1200, 258
NAMES = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 7: "[EOT]",
         10: "<|im_system|>", 17: "<|im_middle|>", 254: "[UNK]", 255: "[PAD]"}
TEXTS = ["Sluice reads a huge checkpoint and writes one file; what isn't there can't be lost.",
         "don't, DON'T, we'll I've it's you'd",
         "年号は平成です。漢字と仮名 mixed with English中文字",
         "1234567 + 89 = 1234656, 3.14159",
         "  indented\n\n\tand\ttabs   \n trailing  ",
         "Größe, façade, naïve, Ünïcödé, 한국어 и русский",
         "[BOS]<|im_user|>user<|im_middle|>hi<|im_end|>",
         "\u2581\u00e9\u00e8 \U0001f600\U0001f680!!! ...\r\n-- x_y CamelCaseWords HTTPServer",
         ""]
TEXT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../READERS.md")
HELD = ["Quixotic zebras juxtapose phenomenological jargon; 98765432109 ÆØÅ þorn", "翻訳機能をテスト123します。Привет, мир!",
        "def f(x):\n    return {'a': x**2}  # ok\n\n\nclass KimiK2Model(nn.Module): pass"]  # not in TEXT
PATTERNS = r"""pat_str = "|".join([
    r"[\p{Han}]+",
    r"\p{N}{1,3}",
])
"""


# ---- splitting, by the eight rules in order

def han(c):
    return unicodedata.name(c, "").startswith(("CJK UNIFIED", "CJK COMPATIBILITY IDEO")) or c in "々〇"


def upper(c):
    return unicodedata.category(c) in ("Lu", "Lt", "Lm", "Lo", "Mn", "Mc", "Me") and not han(c)


def lower(c):
    return unicodedata.category(c) in ("Ll", "Lm", "Lo", "Mn", "Mc", "Me") and not han(c)


def letter_or_number(c):
    return unicodedata.category(c)[0] in "LN"


def run(text, at, test, most=1 << 30):
    end = at
    while end < len(text) and end - at < most and test(text[end]):
        end += 1
    return end


def contraction(text, at):
    for s in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
        if text[at:at + len(s)].lower() == s:
            return at + len(s)
    return at


def word(text, at):
    """Rules 2 and 3: capitals, then small letters; the second without small ones."""
    for must in (True, False):
        for skip in (1, 0):
            p = at + skip
            if skip and (at >= len(text) or text[at] in "\r\n" or letter_or_number(text[at])):
                continue
            top = run(text, p, upper)
            if not must:
                if top > p:
                    return contraction(text, run(text, top, lower))
                continue
            for u in range(top, p - 1, -1):
                end = run(text, u, lower)
                if end > u:
                    return contraction(text, end)
    return at


def pieces(text):
    at = 0
    while at < len(text):
        end = run(text, at, han)
        if end == at:
            end = word(text, at)
        if end == at:
            end = run(text, at, lambda c: unicodedata.category(c)[0] == "N", 3)
        if end == at:
            p = at + (text[at] == " ")
            e = run(text, p, lambda c: not c.isspace() and not letter_or_number(c))
            end = run(text, e, lambda c: c in "\r\n") if e > p else at
        if end == at:
            blank = run(text, at, str.isspace)
            breaks = [i for i in range(at, blank) if text[i] in "\r\n"]
            if breaks:
                end = breaks[-1] + 1
            elif blank == len(text) or blank == at + 1:
                end = blank
            else:
                end = blank - 1
        assert end > at, (text, at)
        yield text[at:end]
        at = end


# ---- BPE

def byte_chars():
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    chars, extra = {}, 0
    for b in range(256):
        chars[b] = chr(b) if b in shown else chr(256 + extra)
        extra += b not in shown
    return chars


CHARS = byte_chars()


def shown(token):
    return "".join(CHARS[b] for b in token)


def train(text, n):
    """The most frequent pair becomes a token, n times over."""
    words = {}
    for p in pieces(text):
        key = tuple(bytes([b]) for b in p.encode())
        words[key] = words.get(key, 0) + 1
    # Not in the order of bytes: letters first, as tiktoken's files have it.
    tokens = sorted((bytes([b]) for b in range(256)), key=lambda t: (not 33 <= t[0] <= 126, t))
    while len(tokens) < n - 1:
        count = {}
        for w, k in words.items():
            for a, b in zip(w, w[1:]):
                count[a, b] = count.get((a, b), 0) + k
        a, b = max(count, key=lambda p: (count[p], p))
        if a + b not in tokens:
            tokens.append(a + b)
        new = {}
        for w, k in words.items():
            out, i = [], 0
            while i < len(w):
                if w[i:i + 2] == (a, b):
                    out.append(a + b)
                    i += 2
                else:
                    out.append(w[i])
                    i += 1
            new[tuple(out)] = new.get(tuple(out), 0) + k
        words = new
    return tokens + [b"\1\2\3\4\5"]  # which joining never makes


def joined(ranks, token, below=None):
    """BPE with a heap of candidates and a linked list: the lowest rank, the leftmost first."""
    part = {i: token[i:i + 1] for i in range(len(token))}
    after = {i: i + 1 for i in part}
    before = {i: i - 1 for i in part}
    heap = []

    def offer(i):
        j = after.get(i)
        if i in part and j in part and part[i] + part[j] in ranks:
            heapq.heappush(heap, (ranks[part[i] + part[j]], i, part[i], part[j]))

    for i in range(len(token) - 1):
        offer(i)
    while heap:
        rank, i, a, b = heapq.heappop(heap)
        if below is not None and rank >= below:
            break
        if part.get(i) != a or part.get(after[i]) != b:
            continue
        j = after[i]
        part[i] = a + part.pop(j)
        after[i] = after[j]
        before[after[i]] = i
        offer(before[i])
        offer(i)
    return [part[i] for i in sorted(part)]


def read_ranks(folder):
    ranks = {}
    for line in open(os.path.join(folder, "tiktoken.model"), "rb"):
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    return ranks


def encode(ranks, special, text):
    out, at = [], 0
    while at < len(text):
        first = min(((text.find(s, at), s) for s in special if text.find(s, at) >= 0), default=(len(text), ""))
        for piece in pieces(text[at:first[0]]):
            data = piece.encode()
            out += [ranks[data]] if data in ranks else [ranks[t] for t in joined(ranks, data)]
        if first[1]:
            out.append(special[first[1]])
        at = first[0] + len(first[1])
    return out


# ---- the verbs

def make_tokenizer(folder, text):
    tokens = train(open(text, encoding="utf-8").read() + " ".join(TEXTS * 3), BASE)
    with open(os.path.join(folder, "tiktoken.model"), "wb") as f:
        for rank, t in enumerate(tokens):
            f.write(base64.b64encode(t) + b" %d\n" % rank)
    added = {str(BASE + k): {"content": v, "lstrip": False, "normalized": False, "rstrip": False,
                             "single_word": False, "special": True} for k, v in NAMES.items()}
    json.dump({"added_tokens_decoder": added, "bos_token": "[BOS]", "eos_token": "[EOS]", "unk_token": "[UNK]",
               "pad_token": "[PAD]", "additional_special_tokens": ["<|im_end|>"], "model_max_length": int(1e30),
               "tokenizer_class": "TikTokenTokenizer", "chat_template": "{{ messages }}",
               "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]}},
              open(os.path.join(folder, "tokenizer_config.json"), "w"))
    open(os.path.join(folder, "tokenization_kimi.py"), "w").write(PATTERNS)


def cmd_make(a):
    make_tokenizer(a.dir, a.text)
    os.remove(os.path.join(a.dir, "tokenizer.json"))
    path = os.path.join(a.dir, "config.json")
    c = json.load(open(path))
    assert c["vocab_size"] == VOCAB
    c.update(model_type="kimi_k2", rope_theta=50000.0, routed_scaling_factor=2.827, max_position_embeddings=131072,
             bos_token_id=BASE, eos_token_id=BASE + 2, pad_token_id=BASE + 255, num_nextn_predict_layers=0)
    c["rope_scaling"].update(beta_fast=1.0, beta_slow=1.0, factor=32.0)
    json.dump(c, open(path, "w"))


def cmd_wrap(a):
    path_c = os.path.join(a.dir, "config.json")
    text = json.load(open(path_c))
    m3 = text["architectures"][0].startswith("MiniMaxM3")
    sees = [("vision_tower.vision_model.pre_layrnorm.weight", [24]), ("multi_modal_projector.linear_1.weight", [6, 4]),
            ("patch_merge_mlp.linear_2.bias", [24])] if m3 else \
        [("vision_tower.encoder.blocks.0.wqkv.weight", [6, 4]), ("mm_projector.proj.0.bias", [24])]
    names = sorted(n for n in os.listdir(a.dir) if n.endswith(".safetensors"))
    for name in names:
        path = os.path.join(a.dir, name)
        data = open(path, "rb").read()
        n = int.from_bytes(data[:8], "little")
        old, data = json.loads(data[8:8 + n]), data[8 + n:]
        new = {"language_model." + k: v for k, v in old.items() if k != "__metadata__"}
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
    else:
        outer = {k: text[k] for k in ("bos_token_id", "eos_token_id")}
        outer.update(architectures=["KimiK25ForConditionalGeneration"], model_type="kimi_k25", tie_word_embeddings=False)
    outer.update(text_config=text, hidden_size=1, vision_config={"hidden_size": 1152}, rope_theta=1.0)
    json.dump(outer, open(path_c, "w"))


def read_header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(int.from_bytes(f.read(8), "little")))


def special_keys(folder):
    """Ids of special tokens and the chat template, found by gguf-py's own code."""
    import gguf

    class Told:
        def __init__(self):
            self.kv = []

        def __getattr__(self, name):
            return getattr(gguf.GGUFWriter, name).__get__(self)

        def add_key_value(self, key, val, vtype, sub_type=None):
            self.kv.append((key, val))

    told = Told()
    gguf.SpecialVocab(folder, load_merges=False).add_to_gguf(told, quiet=True)
    return told.kv


def arch_keys(c):
    """The architecture's key-values in the converter's order, where no configuration class reads config.json."""
    rs = c.get("rope_scaling")
    yarn = [("rope.scaling.type", "yarn"), ("rope.scaling.factor", rs["factor"]),
            ("rope.scaling.original_context_length", rs["original_max_position_embeddings"]),
            ("rope.scaling.yarn_beta_fast", rs["beta_fast"]), ("rope.scaling.yarn_beta_slow", rs["beta_slow"])] if rs else []
    mscale = [("rope.scaling.yarn_log_multiplier", 0.1 * rs["mscale_all_dim"])] if rs else []
    theta = c["rope_theta"] if "rope_theta" in c else c["rope_parameters"]["rope_theta"]
    lengths = [("attention.key_length", c["kv_lora_rank"] + c["qk_rope_head_dim"]),
               ("attention.value_length", c["kv_lora_rank"])]
    early = "head_dim" in c
    return [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", 1), *yarn,
            ("rope.freq_base", float(theta)), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["n_routed_experts"]), ("expert_used_count", c["num_experts_per_tok"]),
            ("expert_group_count", c["n_group"]), ("expert_group_used_count", c["topk_group"]),
            ("expert_gating_func", 2), *lengths * early, ("leading_dense_block_count", c["first_k_dense_replace"]),
            ("vocab_size", c["vocab_size"]), ("attention.q_lora_rank", c["q_lora_rank"]),
            ("attention.kv_lora_rank", c["kv_lora_rank"]), *lengths * (not early),
            ("attention.key_length_mla", c["qk_nope_head_dim"] + c["qk_rope_head_dim"]),
            ("attention.value_length_mla", c["v_head_dim"]),
            ("expert_feed_forward_length", c["moe_intermediate_size"]), ("expert_shared_count", c["n_shared_experts"]),
            ("expert_weights_scale", c["routed_scaling_factor"]), ("expert_weights_norm", True),
            ("rope.dimension_count", c["qk_rope_head_dim"]), *mscale]


def tiktoken_keys(folder, vocab):
    t = json.load(open(os.path.join(folder, "tokenizer_config.json")))
    ranks = read_ranks(folder)
    special = {t["added_tokens_decoder"].get(str(i), {}).get("content", f"<|reserved_token_{i}|>"): i
               for i in range(len(ranks), len(ranks) + SPECIAL)}
    of_id = {i: s for s, i in {**{shown(b): i for b, i in ranks.items()}, **special}.items()}
    ids = set(special.values())
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1:
            pair = joined(ranks, token, rank)
            if len(pair) == 2:
                merges.append(" ".join(map(shown, pair)))
    return [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "kimi-k2"),
            ("tokenizer.ggml.tokens", [of_id.get(i, f"[PAD{i}]") for i in range(vocab)]),
            ("tokenizer.ggml.token_type", [5 if i not in of_id else 3 if i in ids else 1 for i in range(vocab)]),
            ("tokenizer.ggml.merges", merges)] + special_keys(folder)


def expected(folder):
    """Key-values from the architecture on, in the converter's order."""
    c = json.load(open(os.path.join(folder, "config.json")))
    c = c.get("text_config", c)
    return [("deepseek2." + k, v) for k, v in arch_keys(c)] + tiktoken_keys(folder, c["vocab_size"])


def expected_v32(folder, mtp, arch="deepseek32."):
    c = json.load(open(os.path.join(folder, "config.json")))
    more = [("nextn_predict_layers", c["num_nextn_predict_layers"])] if mtp else []
    if mtp:
        c["num_hidden_layers"] += c["num_nextn_predict_layers"]
    if "index_n_heads" in c:
        more += [("attention.indexer.head_count", c["index_n_heads"]), ("attention.indexer.key_length", c["index_head_dim"]),
                 ("attention.indexer.top_k", c["index_topk"])]
    if "indexer_types" in c:
        more.append(("attention.indexer.types", [t == "full" for t in c["indexer_types"]]))
    return [(arch + k, v) for k, v in arch_keys(c) + more]


GLM_NAMES = ["[gMASK]", "<|endoftext|>", "[sMASK]", "<sop>", "<think>", "<|user|>", "<|assistant|>", "<|observation|>"]
GLM_RULE = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+")


def cmd_glm(a):
    path = os.path.join(a.dir, "model.safetensors")
    data = open(path, "rb").read()
    old = read_header(path)
    base = 8 + int.from_bytes(data[:8], "little")
    path_c = os.path.join(a.dir, "config.json")
    c = json.load(open(path_c))
    layers = c["num_hidden_layers"]
    types = ["full" if i % 2 == 0 else "shared" for i in range(layers)]
    drop = [f"layers.{i}.self_attn.indexer." for i in range(layers) if types[i] == "shared"]
    drop += [f"layers.{layers}.{s}" for s in ("embed_tokens.", "shared_head.head.")]
    new, parts, at = {}, [], 0
    for k, v in old.items():
        if k == "__metadata__" or any(d in k for d in drop):
            continue
        begin, end = v["data_offsets"]
        parts.append(data[base + begin:base + end])
        new[k] = dict(v, data_offsets=[at, at + end - begin])
        at += end - begin
    header = json.dumps(new).encode()
    open(path, "wb").write(len(header).to_bytes(8, "little") + header + b"".join(parts))
    json.dump({"weight_map": dict.fromkeys(new, "model.safetensors")}, open(path + ".index.json", "w"))
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


def tokenizer_keys(folder, pre, n):
    t = json.load(open(os.path.join(folder, "tokenizer.json")))
    of_id = {i: (s, 1) for s, i in t["model"]["vocab"].items()}
    for x in t["added_tokens"]:
        of_id[x["id"]] = (x["content"], 3 if x["special"] else 4)
    tokens = [of_id.get(i, (f"[PAD{i}]", 5)) for i in range(n)]
    return [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", pre), ("tokenizer.ggml.tokens", [s for s, _ in tokens]),
            ("tokenizer.ggml.token_type", [k for _, k in tokens]),
            ("tokenizer.ggml.merges", [m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]])]


def glm_tokenizer(folder):
    c = json.load(open(os.path.join(folder, "config.json")))
    ids = {x["content"]: x["id"] for x in json.load(open(os.path.join(folder, "tokenizer.json")))["added_tokens"]}
    special = [("eos", ids["<|endoftext|>"]), ("padding", ids["<|endoftext|>"]), ("bos", ids["[gMASK]"]), ("eot", ids["<|user|>"]),
               ("unknown", ids["<|endoftext|>"]), ("eom", ids["<|observation|>"])]
    path = os.path.join(folder, "chat_template.jinja")
    return tokenizer_keys(folder, "glm4", c["vocab_size"]) + [
        *((f"tokenizer.ggml.{k}_token_id", v) for k, v in special),
        *([("tokenizer.chat_template", open(path).read())] if os.path.exists(path) else [])]


def expected_glm4(folder, mtp):
    c = json.load(open(os.path.join(folder, "config.json")))
    nextn = c["num_nextn_predict_layers"] if mtp else 0
    gating = [("expert_gating_func", 2)]
    keys = [("block_count", c["num_hidden_layers"] + nextn), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"]),
            ("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["n_routed_experts"]), ("expert_used_count", c["num_experts_per_tok"]),
            ("expert_group_count", c["n_group"]), ("expert_group_used_count", c["topk_group"]),
            *(gating if "scoring_func" in c else []),
            ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
            ("rope.dimension_count", int(c["head_dim"] * c["partial_rotary_factor"])),
            ("expert_feed_forward_length", c["moe_intermediate_size"]), ("expert_shared_count", c["n_shared_experts"]),
            ("leading_dense_block_count", c["first_k_dense_replace"]), *([] if "scoring_func" in c else gating),
            ("expert_weights_scale", float(c["routed_scaling_factor"])), ("expert_weights_norm", c["norm_topk_prob"]),
            *([("nextn_predict_layers", nextn)] if mtp else [])]
    return [("glm4moe." + k, v) for k, v in keys] + glm_tokenizer(folder)


def cmd_glm4_keys(a):
    return same_keys(a.file, ("glm4moe.", "tokenizer."), expected_glm4(a.dir, not a.no_mtp))


def cmd_flash_keys(a):
    return same_keys(a.file, ("deepseek2.", "tokenizer."), expected_v32(a.dir, not a.no_mtp, "deepseek2.") + glm_tokenizer(a.dir))


def cmd_glm_keys(a):
    return same_keys(a.file, ("glm-dsa.", "tokenizer."), expected_v32(a.dir, not a.no_mtp, "glm-dsa.") + glm_tokenizer(a.dir))


def expected_qwen3(folder):
    c = json.load(open(os.path.join(folder, "config.json")))
    rs, moe = c["rope_scaling"], "num_experts" in c
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"])]
    if rs:
        keys += [("rope.scaling.type", "yarn"), ("rope.scaling.factor", rs["factor"]),
                 ("rope.scaling.original_context_length", rs["original_max_position_embeddings"]),
                 ("rope.scaling.yarn_attn_factor", rs["attn_factor"])]
    keys += [("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"])]
    if moe:
        keys += [("expert_count", c["num_experts"]), ("expert_used_count", c["num_experts_per_tok"])]
    keys += [("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"])]
    if moe:
        keys += [("expert_feed_forward_length", c["moe_intermediate_size"])]
    return [(("qwen3moe." if moe else "qwen3.") + k, v) for k, v in keys]


def cmd_qwen3(a):
    return same_keys(a.file, "qwen3", expected_qwen3(a.dir))


def cmd_minimax(a):
    """MiniMax-M2's keys; of M3's text model, which may be inside, its own."""
    c = json.load(open(os.path.join(a.dir, "config.json")))
    c = c.get("text_config", c)
    m3 = "sparse_attention_config" in c
    keys = [("block_count", c["num_hidden_layers"]), ("context_length", c["max_position_embeddings"]),
            ("embedding_length", c["hidden_size"]), ("feed_forward_length", c["dense_intermediate_size" if m3 else "intermediate_size"]),
            ("attention.head_count", c["num_attention_heads"]), ("attention.head_count_kv", c["num_key_value_heads"]),
            ("rope.freq_base", float(c["rope_theta"])), ("attention.layer_norm_rms_epsilon", c["rms_norm_eps"]),
            ("expert_count", c["num_local_experts"]), ("expert_used_count", c["num_experts_per_tok"]), ("expert_gating_func", 2),
            ("attention.key_length", c["head_dim"]), ("attention.value_length", c["head_dim"]),
            ("expert_feed_forward_length", c["intermediate_size"]), ("rope.dimension_count", c["rotary_dim"])]
    if m3:
        s = c["sparse_attention_config"]
        keys += [("expert_shared_count", c["n_shared_experts"]), ("expert_weights_scale", c["routed_scaling_factor"]),
                 ("expert_weights_norm", True), ("attention.indexer.head_count", s["sparse_num_index_heads"]),
                 ("attention.indexer.key_length", s["sparse_index_dim"]), ("attention.indexer.top_k", s["sparse_topk_blocks"]),
                 ("attention.indexer.block_size", s["sparse_block_size"]), ("attention.indexer.local_blocks", s["sparse_local_block"]),
                 ("leading_dense_block_count", c["moe_layer_freq"].index(1))]
    arch = "minimax-m3." if m3 else "minimax-m2."
    return same_keys(a.file, (arch, "tokenizer."), [(arch + k, v) for k, v in keys]
                     + tokenizer_keys(a.dir, "minimax-m2", c["vocab_size"]) + special_keys(a.dir))


def cmd_compare(a):
    return same_keys(a.file, ("deepseek2.", "tokenizer."), expected(a.dir))


def cmd_v32(a):
    return same_keys(a.file, "deepseek32.", expected_v32(a.dir, not a.no_mtp))


def cmd_tokenize(a):
    import llama
    ranks = read_ranks(a.dir)
    special = {v: BASE + k for k, v in NAMES.items()}
    m = llama.Model(llama.Llama(), a.file, 1)
    bad = []
    for text in TEXTS + HELD:
        got, want = m.tokenize(text, False), encode(ranks, special, text)
        if got != want:
            bad.append(f"{text!r}: {got}, expected {want}")
        back = b"".join(m.piece(t) for t in got)
        if back != text.encode():
            bad.append(f"{text!r} comes back as {back!r}")
    print("\n".join(bad) or f"equal {len(TEXTS + HELD)} texts")
    m.close()
    return 1 if bad else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("verb", choices=["make", "wrap", "compare", "v32", "qwen3", "minimax", "glm", "glm_keys", "glm4_keys", "flash",
                                    "flash_keys", "tokenize"])
    p.add_argument("dir")
    p.add_argument("file", nargs="?")
    p.add_argument("--text", default=TEXT)
    p.add_argument("--no-mtp", action="store_true")
    a = p.parse_args()
    return globals()["cmd_" + a.verb](a)


if __name__ == "__main__":
    sys.exit(main())
