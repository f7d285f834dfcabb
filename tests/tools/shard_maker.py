"""A checkpoint made of random tensors: its shards, one or more, and the small files beside them."""
import argparse
import json
import os

import numpy as np

from reference import E4M3, to_bf16

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tiny-v3")


class ShardMaker:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.begin()
        self.codes = np.argsort(E4M3[:127], kind="stable")
        self.values = E4M3[:127][self.codes]

    def begin(self):
        """Another shard."""
        self.header, self.parts, self.at = {}, [], 0

    def add(self, name, dtype, a):
        data = np.ascontiguousarray(a).tobytes()
        self.header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [self.at, self.at + len(data)]}
        self.parts.append(data)
        self.at += len(data)

    def gauss(self, *shape):
        return self.rng.standard_normal(shape).astype(np.float32)

    def bf16(self, name, *shape, fan=None):
        self.add_bf16(name, self.gauss(*shape) / np.float32((fan or shape[-1]) ** 0.5))

    def add_bf16(self, name, x):
        self.add(name, "BF16", to_bf16(x).reshape(x.shape))

    def e4m3(self, name, *shape):
        """Random values, of about 60."""
        x = 60 * self.gauss(*shape)
        w = self.codes[np.searchsorted(self.values, np.minimum(np.abs(x), 448))].astype(np.uint8)
        self.add(name, "F8_E4M3", w | np.where(x < 0, 128, 0).astype(np.uint8))

    def norm(self, name, n):
        self.add_bf16(name, np.float32(1) + np.float32(0.1) * self.gauss(n))

    def network(self, p, ff, n):
        """Of a class with a method weight."""
        self.weight(p + "down_proj.weight", n, ff)
        self.weight(p + "gate_proj.weight", ff, n)
        self.weight(p + "up_proj.weight", ff, n)

    def blocks(self, name, *shape, parts=1, scales="F32"):
        """Random values in FP8 with scales of blocks of 128 x 128, which begin anew with each part of the rows."""
        self.e4m3(name, *shape)
        rows, cols = -(-(shape[-2] // parts) // 128), -(-shape[-1] // 128)
        s = ((0.75 + 0.5 * self.rng.random((*shape[:-2], parts * rows, cols))) / (60 * shape[-1] ** 0.5)).astype(np.float32)
        self.add_bf16(name + "_scale_inv", s) if scales == "BF16" else self.add(name + "_scale_inv", scales, s)

    def write(self, folder, name="model.safetensors"):
        os.makedirs(folder, exist_ok=True)
        header = json.dumps(self.header).encode()
        header += b" " * (-len(header) % 8)
        with open(os.path.join(folder, name), "wb") as f:
            f.write(len(header).to_bytes(8, "little") + header + b"".join(self.parts))

    def write_model(self, folder, config):
        """Of one shard, with config.json and the index."""
        self.write(folder)
        write_json(folder, {"config.json": config, "model.safetensors.index.json": {
            "metadata": {"total_size": self.at}, "weight_map": dict.fromkeys(self.header, "model.safetensors")}})


def write_json(folder, files):
    for name, content in files.items():
        json.dump(content, open(os.path.join(folder, name), "w"))


def qwen2_tokenizer(folder, rules, special):
    """tiny-v3's as one of Qwen2's class, with these rules; special: are the added tokens?"""
    text = open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8").read()
    t = json.loads(text.replace("<｜end▁of▁sentence｜>", "<|endoftext|>"))
    t["normalizer"] = {"type": "NFC"}
    for x in t["added_tokens"] if special else ():
        x["special"] = True
    t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": rules}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]}
    t["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    write_json(folder, {"tokenizer.json": t, "tokenizer_config.json": {
        "add_bos_token": False, "add_prefix_space": False, "bos_token": None, "chat_template": "{{ messages }}",
        "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}})


def do_verb(commands, *flags, **values):
    """Does `VERB DIR [FILE...]` by the module's cmd_VERB, commands its globals(). values: options by what they are without, whose type is
    theirs; --set NAME=VALUE is there for all. Returns an exit code."""
    p = argparse.ArgumentParser(description=commands["__doc__"], formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("verb", choices=[name[4:] for name in commands if name.startswith("cmd_")])
    p.add_argument("dir")
    p.add_argument("files", nargs="*")
    p.add_argument("--set", action="append", default=[])
    for name in flags:
        p.add_argument("--" + name, action="store_true")
    for name, value in values.items():
        p.add_argument("--" + name, type=type(value), default=value)
    a = p.parse_args()
    return commands["cmd_" + a.verb](a)


def set_entries(c, pairs):
    """Entries of a config by --set's pairs NAME=VALUE, the values as JSON."""
    for name, value in (pair.split("=", 1) for pair in pairs):
        c[name] = json.loads(value)


def config_of(folder):
    return json.load(open(os.path.join(folder, "config.json")))


def text_config(folder):
    """With what stands in text_config among the others."""
    c = config_of(folder)
    return {**c, **c.get("text_config", {})}
