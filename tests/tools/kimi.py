#!/usr/bin/env python3
"""Checkpoints in Kimi-K2's form, and what must become of their tokenizer: computed here from the
format's rules, sharing nothing with Sluice.

  kimi.py make DIR                 turns a generated DeepSeek checkpoint into one: a BPE trained on
                                   READERS.md as tiktoken.model, config.json, tokenizer_config.json
  kimi.py compare DIR FILE.gguf    FILE's metadata are what the converter would write
  kimi.py tokenize DIR FILE.gguf   llama.cpp splits texts as BPE by ranks does
"""
import base64
import heapq
import json
import os
import sys
import unicodedata

from gguf_same import same_keys
from model_keys import deepseek_keys, special_keys
from shard_maker import config_of, do_verb

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

def make_tokenizer(folder):
    tokens = train(open(TEXT, encoding="utf-8").read() + " ".join(TEXTS * 3), BASE)
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
    make_tokenizer(a.dir)
    os.remove(os.path.join(a.dir, "tokenizer.json"))
    path = os.path.join(a.dir, "config.json")
    c = json.load(open(path))
    assert c["vocab_size"] == VOCAB
    c.update(model_type="kimi_k2", rope_theta=50000.0, routed_scaling_factor=2.827, max_position_embeddings=131072,
             bos_token_id=BASE, eos_token_id=BASE + 2, pad_token_id=BASE + 255, num_nextn_predict_layers=0)
    c["rope_scaling"].update(beta_fast=1.0, beta_slow=1.0, factor=32.0)
    json.dump(c, open(path, "w"))


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
    c = config_of(folder)
    c = c.get("text_config", c)
    return [("deepseek2." + k, v) for k, v in deepseek_keys(c)] + tiktoken_keys(folder, c["vocab_size"])


def cmd_compare(a):
    return same_keys(a.files[0], ("deepseek2.", "tokenizer."), expected(a.dir))


def cmd_tokenize(a):
    import llama
    ranks = read_ranks(a.dir)
    special = {v: BASE + k for k, v in NAMES.items()}
    m = llama.Model(llama.Llama(), a.files[0], 1)
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


if __name__ == "__main__":
    sys.exit(do_verb(globals()))
