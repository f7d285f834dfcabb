#!/usr/bin/env python3
"""Checkpoints whose matrices are integers packed in words.

  packed.py make CHECKPOINT OUT FORM       a BF16 checkpoint whose matrices in layers are quantized as FORM says
  packed.py compare OUT FILE.gguf...       FILE must hold each tensor's exact values, computed apart: (code - zero) x scale in F32

Facts: compressed-tensors packs rows: in X.weight_packed [rows, cols / n] the first weight of n is in a word's lowest bits;
X.weight_zero_point [rows / n, groups] is packed down its columns, X.weight_g_idx [cols] holds each column's group. Without zero
points half of the codes' range is taken. GPTQ packs columns of the transposed matrix: X.qweight [cols / n, rows], beside it X.scales [groups, rows],
X.qzeros [groups, rows / n], packed along its rows and, but in checkpoint_format gptq_v2, less one, and X.g_idx [cols]. AWQ packs rows of the transposed matrix: X.qweight [cols, rows / 8], in a
word rows 0, 2, 4, 6, 1, 3, 5, 7, as zero points in X.qzeros, which are as they are.
"""
import json
import os
import shutil
import sys

import numpy as np

import reference
from reference import Checkpoint
from shard_maker import ShardMaker

# Bits; weights of a row under one scale, 0: all; zero points; columns whose groups are in no order; what scales are.
FORMS = {
    "ct-w4-asym": (4, 32, True, False, "BF16"),
    "ct-w4-order": (4, 64, True, True, "F16"),
    "ct-w4-rows": (4, 0, False, False, "F32"),
    "ct-w8": (8, 128, False, False, "BF16"),
    "ct-w8-asym-rows": (8, 0, True, False, "F16"),
    "gptq-2": (2, 32, True, False, "F16"),
    "gptq-2-act-v2": (2, 64, False, True, "F16"),
    "gptq-4": (4, 32, True, False, "F16"),
    "gptq-4-act": (4, 64, False, True, "BF16"),
    "gptq-8-v2": (8, 0, True, False, "F16"),
    "awq": (4, 64, True, False, "F16"),
}


AWQ = [0, 2, 4, 6, 1, 3, 5, 7]


def pack(codes, bits, axis):
    """Codes along an axis, the first in a word's lowest bits; the last word is filled up with zeros."""
    n, codes = 32 // bits, np.moveaxis(codes.astype(np.uint32), axis, -1)
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % n)])
    words = np.zeros((*codes.shape[:-1], codes.shape[-1] // n), np.uint32)
    for i in range(n):
        words |= codes[..., i::n] << np.uint32(bits * i)
    return np.moveaxis(words, -1, axis).view(np.int32)


def unpack(words, bits, axis):
    words, n = np.moveaxis(words.view(np.uint32), axis, -1), 32 // bits
    codes = np.stack([words >> np.uint32(bits * i) & np.uint32(2 ** bits - 1) for i in range(n)], -1)
    return np.moveaxis(codes.reshape(*words.shape[:-1], -1), -1, axis).astype(np.int32)


def quantize(x, bits, group, zeros, stored):
    """Codes, scales as they are stored, zero points; by groups of columns."""
    most, rows = 2 ** bits - 1, x.shape[0]
    count = group.max() + 1
    low = np.stack([np.minimum(x[:, group == g].min(1), 0) for g in range(count)], 1)
    high = np.stack([np.maximum(x[:, group == g].max(1), 0) for g in range(count)], 1)
    if not zeros:
        high = np.maximum(high, -low)
        low = -high
    scale = np.maximum((high - low) / most, 2.0 ** -14)
    if stored == "BF16":
        kept = reference.to_bf16(scale.astype(np.float32)).reshape(rows, count)
        scale = (kept.astype(np.uint32) << 16).view(np.float32)
    else:
        scale = kept = scale.astype(np.float16 if stored == "F16" else np.float32)
    zero = np.clip(np.rint(-low / scale.astype(np.float64)), 0, most) if zeros else np.full(scale.shape, 2 ** (bits - 1))
    codes = np.clip(np.rint(x / scale.astype(np.float64)[:, group]) + zero[:, group], 0, most)
    return codes, kept, zero


def method(form):
    bits, group, zeros, order, _ = FORMS[form]
    if form == "awq":
        return {"quant_method": "awq", "bits": bits, "group_size": group, "zero_point": True, "version": "gemm",
                "modules_to_not_convert": ["layers.0.mlp.down", "layers.0.mlp.experts.0.down"]}
    if form.startswith("gptq"):
        return {"quant_method": "gptq", "bits": bits, "group_size": group or -1, "desc_act": order, "sym": not zeros, "lm_head": False,
                "dynamic": {r"-:.*layers\.0\..*down_proj": {}}, **({"checkpoint_format": "gptq_v2", "pack_dtype": "int32"} if form.endswith("v2") else {})}
    weights = {"actorder": "group" if order else None, "block_structure": None, "dynamic": False, "group_size": group or None, "num_bits": bits,
               "strategy": "group" if group else "channel", "symmetric": not zeros, "type": "int"}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"format": "pack-quantized", "targets": ["Linear"], "input_activations": None, "weights": weights}}}


def add_compressed(shard, name, codes, scale, zero, group, form):
    bits, _, zeros, order, stored = FORMS[form]
    shard.add(name + "_packed", "I32", pack(codes, bits, 1))
    shard.add(name + "_scale", stored, scale)
    shard.add(name + "_shape", "I64", np.array(codes.shape))
    if zeros:
        shard.add(name + "_zero_point", "I32", pack(zero, bits, 0))
    if order:
        shard.add(name + "_g_idx", "I32", group.astype(np.int32))


def add_gptq(shard, name, codes, scale, zero, group, form):
    bits, stem = FORMS[form][0], name[:-len("weight")]
    shard.add(stem + "qweight", "I32", pack(codes.T, bits, 0))
    shard.add(stem + "scales", FORMS[form][4], np.ascontiguousarray(scale.T))
    shard.add(stem + "qzeros", "I32", pack((zero - (not form.endswith("v2"))).astype(np.int64).T % 2 ** bits, bits, 1))
    shard.add(stem + "g_idx", "I32", group.astype(np.int32))


def add_awq(shard, name, codes, scale, zero, group, form):
    stem, order = name[:-len("weight")], lambda a: a.reshape(a.shape[0], -1, 8)[:, :, AWQ].reshape(a.shape)
    shard.add(stem + "qweight", "I32", pack(order(codes.T), 4, 1))
    shard.add(stem + "scales", FORMS[form][4], np.ascontiguousarray(scale.T))
    shard.add(stem + "qzeros", "I32", pack(order(zero.T), 4, 1))


def make(source, out, form):
    bits, size, zeros, order, stored = FORMS[form]
    ck, shard = Checkpoint(source), ShardMaker(7)
    for name in sorted(ck.where):
        kind, a = ck.raw(name)
        left_out = not form.startswith("ct") and ".layers.0." in name and "down_proj" in name
        if left_out or a.ndim != 2 or ".layers." not in name or name.endswith((".gate.weight", "norm.weight")):
            shard.add(name, kind, a)
            continue
        x = ck.f32(name).astype(np.float64)
        group = np.arange(x.shape[1]) // (size or x.shape[1])
        if order:
            shard.rng.shuffle(group)
        add = add_awq if form == "awq" else add_gptq if form.startswith("gptq") else add_compressed
        add(shard, name, *quantize(x, bits, group, zeros, stored), group, form)
    shard.write(out)
    for name in os.listdir(source):
        if name.endswith(".json") and "index" not in name:
            shutil.copy(os.path.join(source, name), out)
    json.dump(dict(ck.config, quantization_config=method(form)), open(os.path.join(out, "config.json"), "w"))


class Packed(Checkpoint):
    def values(self, codes, zero, scale, group):
        return (codes - zero[:, group]).astype(np.float32) * scale[:, group]

    def has(self, name):
        return super().has(name) or name.replace(".weight", ".qweight") in self.where

    def f32(self, name):
        stem = name[:-len("weight")]
        if stem + "qweight" not in self.where:
            return super().f32(name)
        q, scale = self.config["quantization_config"], super().f32(stem + "scales").T
        if q["quant_method"] == "awq":
            codes, zero = (unpack(self.raw(stem + x)[1], 4, 1) for x in ("qweight", "qzeros"))
            codes, zero = (a.reshape(a.shape[0], -1, 8)[:, :, np.argsort(AWQ)].reshape(a.shape).T for a in (codes, zero))
            return self.values(codes, zero, scale, np.arange(codes.shape[1]) // (codes.shape[1] // scale.shape[1]))
        codes, zero = unpack(self.raw(stem + "qweight")[1], q["bits"], 0), unpack(self.raw(stem + "qzeros")[1], q["bits"], 1)
        zero = zero + (q.get("checkpoint_format", "gptq") == "gptq")
        return self.values(codes.T, zero.T, scale, self.raw(stem + "g_idx")[1])

    def packed(self, name):
        q = self.config["quantization_config"]["config_groups"]["group_0"]["weights"]
        bits, (rows, cols) = q["num_bits"], self.raw(name + "_shape")[1]
        scale = self.f32(name + "_scale")
        zero = np.full(scale.shape, 2 ** (bits - 1), np.int32)
        group = np.arange(cols) // (cols // scale.shape[1])
        if name + "_zero_point" in self.where:
            zero = unpack(self.raw(name + "_zero_point")[1], bits, 0)[:rows]
        if name + "_g_idx" in self.where:
            group = self.raw(name + "_g_idx")[1]
        return self.values(unpack(self.raw(name + "_packed")[1], bits, 1), zero, scale, group)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:5])
    else:
        sys.exit(reference.compare(Packed(sys.argv[2]), sys.argv[3:], "mla"))
