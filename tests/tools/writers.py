#!/usr/bin/env python3
"""Checkpoints in the shapes that programs write: names, scales and config.json as theirs, values made here.

  writers.py make CHECKPOINT OUT FORM      a BF16 checkpoint whose matrices in layers are quantized as FORM says
  writers.py compare OUT FILE.gguf...      FILE must hold each tensor's exact values, computed apart
"""
import json
import os
import shutil
import sys

import numpy as np

import reference
from nvfp4 import nearest, LEVELS
from reference import E4M3, Checkpoint
from shard_maker import ShardMaker

CODES = E4M3[:127].astype(np.float64)


def compressed(fmt, **weights):
    return {"quant_method": "compressed-tensors", "format": fmt, "quantization_status": "compressed", "kv_cache_scheme": None,
            "ignore": ["lm_head"], "sparsity_config": {}, "transform_config": {},
            "config_groups": {"group_0": {"format": fmt, "targets": ["Linear"], "input_activations": None, "output_activations": None,
                                          "weights": {"actorder": None, "block_structure": None, "dynamic": False, "group_size": None,
                                                      "symmetric": True, **weights}}}}


def modelopt(algo):
    return {"quant_method": "modelopt", "quant_algo": algo, "ignore": ["lm_head"], "producer": {"name": "modelopt", "version": "0.47.0"}}


def quark(dtype, **more):
    return {"quant_method": "quark", "quant_mode": "eager_mode", "version": "0.13", "algo_config": None, "exclude": ["lm_head"],
            "export": {"pack_method": "reorder", "weight_format": "real_quantized"}, "layer_quant_config": {},
            "global_quant_config": {"bias": None, "input_tensors": None, "output_tensors": None, "weight": {"dtype": dtype, **more}}}


# What config.json says; codes, of which the largest is max; rows and columns of a block, 0: all; and how scales are stored.
FORMS = {
    "ct-mxfp8": (compressed("mxfp8-quantized", num_bits=8, type="float", strategy="group", group_size=32), "F8_E4M3", 448, 1, 32, "U8"),
    "ct-int8-group": (compressed("int-quantized", num_bits=4, type="int", strategy="group", group_size=128), "I8", 7, 1, 128, "BF16"),
    "ct-fp8-group": (compressed("float-quantized", num_bits=8, type="float", strategy="group", group_size=64), "F8_E4M3", 448, 1, 64, "BF16"),
    "ct-fp8": (compressed("float-quantized", num_bits=8, type="float", strategy="channel"), "F8_E4M3", 448, 1, 0, "BF16"),
    "mo-mxfp8": (modelopt("MXFP8"), "F8_E4M3", 448, 1, 32, "U8"),
    "mo-mxfp4": (modelopt("mxfp4"), "U8", 6, 1, 32, "U8"),
    "mo-fp8-blocks": (modelopt("fp8_pb_wo"), "F8_E4M3", 448, 128, 128, "F32"),
    "quark-mxfp4": (quark("fp4", group_size=32, qscheme="per_group", scale_format="e8m0"), "U8", 6, 1, 32, "U8"),
    "quark-fp8": (quark("fp8_e4m3", qscheme="per_channel", ch_axis=0), "F8_E4M3", 448, 1, 0, "F32"),
    "fbgemm": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}, "F8_E4M3", 448, 1, 0, "F32"),
}

# The first layer's attention is left out, as these lists say it.
LEFT_OUT = {
    "fp8-left-out": ({"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head", "layers.0.self_attn"]}, "fp8"),
    "mo-fp8-left-out": ({**modelopt("fp8_pb_wo"), "exclude_modules": ["*.layers.0.self*"]}, "mo-fp8-blocks"),
    "quark-mxfp4-left-out": ({**quark("fp4", group_size=32, qscheme="per_group", scale_format="e8m0"),
                              "exclude": [r"re:model\.layers\.0\.self_attn\."]}, "quark-mxfp4"),
}
# Groups of layers with blocks of their own, by a part of the names.
GROUPS = {"v_proj": (1, 64), "self_attn": (64, 128), "mlp": (128, 128)}
FORMS["ct-fp8-unlike"] = (compressed("float-quantized"), "F8_E4M3", 448, 0, 0, "BF16")
FORMS["ct-fp8-unlike"][0]["config_groups"] = {
    part: {"format": "float-quantized", "targets": [f"re:.*{part}.*"],
           "weights": {"num_bits": 8, "type": "float", "dynamic": False, "symmetric": True,
                       **({"strategy": "group", "group_size": size[1]} if size[0] == 1 else {"strategy": "block", "block_structure": size})}}
    for part, size in GROUPS.items()}

FORMS["fp8"] = (None, "F8_E4M3", 448, 128, 128, "F32")
FORMS.update({form: (config, *FORMS[of][1:]) for form, (config, of) in LEFT_OUT.items()})


def quantize(x, dtype, largest, rows, cols, stored):
    """Codes and scales of a matrix, and the scales as they are stored."""
    rows, cols = rows or x.shape[0], cols or x.shape[1]
    blocks = x.reshape(x.shape[0] // rows, rows, x.shape[1] // cols, cols)
    scale = np.maximum(np.abs(blocks).max((1, 3)) / largest, 2.0 ** -100)
    if stored == "U8":
        bits = np.ceil(np.log2(scale)).astype(np.int64) + 127
        scale, kept = 2.0 ** (bits - 127.0), bits.astype(np.uint8)
    elif stored == "BF16":
        kept = reference.to_bf16(scale)
        scale = (kept.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    else:
        kept = scale.astype(np.float32)
    y = (blocks / scale[:, None, :, None]).reshape(x.shape)
    if dtype == "I8":
        return np.clip(np.rint(y), -8, 7).astype(np.int8).view(np.uint8), kept
    codes = nearest(LEVELS if dtype == "U8" else CODES, np.abs(y)) | np.where(y < 0, 8 if dtype == "U8" else 128, 0).astype(np.uint8)
    if dtype == "U8":
        codes = codes[:, 0::2] | codes[:, 1::2] << 4
    return codes, kept


def make(source, out, form):
    config, dtype, largest, rows, cols, stored = FORMS[form]
    ck, shard = Checkpoint(source), ShardMaker(7)
    for name in sorted(ck.where):
        kind, a = ck.raw(name)
        if a.ndim != 2 or ".layers." not in name or name.endswith(".gate.weight") or (form in LEFT_OUT and ".layers.0.self_attn." in name):
            shard.add(name, kind, a)
            continue
        if form == "ct-fp8-unlike":
            rows, cols = next(size for part, size in GROUPS.items() if part in name)
        codes, scale = quantize(ck.f32(name).astype(np.float64), dtype, largest, rows, cols, stored)
        if ".block_sparse_moe.experts." in name:
            for number, part in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
                name = name.replace(f".{number}.", f".{part}.")
        shard.add(name, dtype, codes)
        shard.add(name + "_scale", stored, scale.reshape(scale.shape[0], 1, -1, 1) if form.startswith("mo-fp8-") else scale)
        if form == "ct-int8-group":
            shard.add(name[:-len("weight")] + "input_zero_point", "I8", np.zeros(1, np.uint8))
    shard.write(out)
    for name in os.listdir(source):
        if name.endswith(".json") and "index" not in name:
            shutil.copy(os.path.join(source, name), out)
    c = dict(ck.config, quantization_config=config)
    json.dump(c, open(os.path.join(out, "config.json"), "w"))


class Written(Checkpoint):
    """Scales are of as many blocks as their shape says; MiniMax' experts have other names."""

    def __init__(self, path):
        super().__init__(path)
        for name in [n for n in self.where if ".block_sparse_moe.experts." in n]:
            other = name.replace(".gate_proj.", ".w1.").replace(".down_proj.", ".w2.").replace(".up_proj.", ".w3.")
            self.where[other] = self.where.pop(name)

    def f32(self, name):
        dtype, a = self.raw(name)
        return self.mxfp4(a, name + "_scale")[0] if dtype == "U8" else super().f32(name)

    def scale(self, name, shape):
        dtype, s = self.raw(name)
        s = s.reshape(s.shape[0], -1)
        if dtype == "U8":
            s = 2.0 ** (s - 127.0)
        elif dtype == "BF16":
            s = (s.astype(np.uint32) << 16).view(np.float32)
        return np.repeat(np.repeat(s.astype(np.float32), shape[0] // s.shape[0], 0), shape[1] // s.shape[1], 1)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:5])
    else:
        sys.exit(reference.compare(Written(sys.argv[2]), sys.argv[3:], "mla"))
