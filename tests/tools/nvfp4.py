#!/usr/bin/env python3
"""Tensors in NVFP4, computed apart: a code of E2M1 x the E4M3 scale of its 16 weights x the tensor's own scale.

  nvfp4.py make CHECKPOINT OUT PATTERN [FORM]     a BF16 checkpoint whose matrices with such names become NVFP4, by ModelOpt's
                                                  names; packed: as compressed-tensors packs them; w4a16: without scales of
                                                  inputs; some: of every other expert
  nvfp4.py compare CHECKPOINT FILE.gguf           each tensor that is NVFP4 there is so in the file, or F32 (code x the 16
                                                  weights' scale), and beside it is what scales the whole; the others' bytes
  nvfp4.py fold IN.gguf OUT.gguf                  an F32 file without what scales whole tensors, by which they are multiplied
  nvfp4.py gguf IN.gguf OUT.gguf PATTERN [bare]   an F32 file, in which the tensors whose names match become nvfp4 under
                                                  NAME.scale (of experts one each), with a NAME.input_scale; bare: without
"""
import argparse
import json
import os
import re
import shutil

import numpy as np

from reference import E2M1, E4M3, Checkpoint
from shard_maker import ShardMaker

LEVELS = E2M1[:8]
SCALES = E4M3[:127].astype(np.float64)


def nearest(table, x):
    at = np.clip(np.searchsorted(table, x), 1, len(table) - 1)
    return (at - (x - table[at - 1] <= table[at] - x)).astype(np.uint8)


def pack(x):
    """A matrix's codes, two a byte, the first in the low half; its scales as bytes; and its own scale."""
    x = x.astype(np.float64)
    groups = x.reshape(len(x), -1, 16)
    whole = np.float32(np.abs(x).max() / (6 * 448) or 1)
    scale = nearest(SCALES, np.abs(groups).max(-1) / 6 / whole)
    step = np.maximum(SCALES[scale], 2.0 ** -9) * whole
    q = nearest(LEVELS, np.abs(groups) / step[:, :, None]) | np.where(groups < 0, 8, 0).astype(np.uint8)
    q = q.reshape(len(x), -1, 2)
    return q[:, :, 0] | q[:, :, 1] << 4, scale, whole


def blocks(codes, scale):
    """ggml's: four scales and 32 bytes for 64 weights; in 16 weights' eight bytes, weight i stands beside i + 8."""
    q = np.stack([codes & 15, codes >> 4], -1).reshape(len(codes), -1, 4, 16)
    data = (q[..., :8] | q[..., 8:] << 4).reshape(len(codes), -1, 32)
    return np.concatenate([scale.reshape(len(codes), -1, 4), data], -1).reshape(len(codes), -1)


def write_config(ck, out, packed):
    groups = {"weights": {"num_bits": 4, "type": "float", "group_size": 16, "dynamic": False}, "targets": ["Linear"]}
    config = dict(ck.config)
    config["quantization_config"] = {"config_groups": {"group_0": groups}, "ignore": ["lm_head"], "quant_algo": "NVFP4",
                                     "producer": {"name": "modelopt"}, "quant_method": "modelopt"}
    if packed:
        groups["weights"].update(strategy="tensor_group", symmetric=True)
        config["quantization_config"] = {"config_groups": {"group_0": groups}, "ignore": ["lm_head"],
                                         "format": "nvfp4-pack-quantized", "quant_method": "compressed-tensors"}
    json.dump(config, open(os.path.join(out, "config.json"), "w"))


def make_checkpoint(source, out, pattern, form=""):
    ck, shard, packed = Checkpoint(source), ShardMaker(5), form == "packed"
    for name in sorted(ck.where):
        dtype, a = ck.raw(name)
        if not re.search(pattern, name):
            shard.add(name, dtype, a)
            continue
        codes, scale, whole = pack(ck.f32(name))
        scale[0, 0], codes[0, :8] = 0x80, 0  # a zero with a sign
        of_input = np.array(shard.rng.uniform(0.01, 0.1), np.float32)
        shard.add(name + "_packed" * packed, "U8", codes)
        shard.add(name + "_scale", "F8_E4M3", scale)
        if packed:
            shard.add(name + "_global_scale", "F32", np.array([1 / whole], np.float32))
            shard.add(name[:-len("weight")] + "input_global_scale", "F32", of_input.reshape(1))
        else:
            shard.add(name + "_scale_2", "F32", np.array(whole))
            if form == "w4a16" or form == "some" and re.search(r"experts\.\d*[02468]\.", name):
                continue
            shard.add(name[:-len("weight")] + "input_scale", "F32", of_input)
    shard.write(out)
    for name in os.listdir(source):
        if name.endswith(".json") and "index" not in name:
            shutil.copy(os.path.join(source, name), out)
    write_config(ck, out, packed)


NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
for which in ("gate", "up", "down"):
    NAMES[f"ffn_{which}"] = f"mlp.{which}_proj"
    NAMES[f"ffn_{which}_exps"] = f"mlp.experts.{{e}}.{which}_proj"
    NAMES[f"ffn_{which}_shexp"] = f"mlp.shared_experts.{which}_proj"


def sources(ck, stem):
    """A GGUF tensor's sources that are NVFP4, without ".weight"; None: it is none of these."""
    m = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if not m or m[2] not in NAMES:
        return None
    name = f"model.layers.{m[1]}.{NAMES[m[2]]}"
    names = [name.format(e=e) for e in range(10000) if e == 0 or "{e}" in name]
    names = [n for n in names if n + ".weight_scale" in ck.where]
    return names or None


def own(ck, name, of_input):
    what = "input" if of_input else "weight"
    if f"{name}.{what}_global_scale" in ck.where:
        return np.float32(1) / ck.raw(f"{name}.{what}_global_scale")[1].reshape(-1)[0]
    return ck.raw(f"{name}.input_scale" if of_input else f"{name}.weight_scale_2")[1].reshape(-1)[0]


def expected(ck, names, as_blocks, heads):
    out = []
    for n in names:
        codes = ck.raw(n + (".weight_packed" if n + ".weight_packed" in ck.where else ".weight"))[1]
        scale = ck.raw(n + ".weight_scale")[1] & 0x7f
        q = np.stack([codes & 15, codes >> 4], -1).reshape(len(codes), -1, 16)
        if heads:
            order = np.arange(len(codes)).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
            codes, scale, q = codes[order], scale[order], q[order]
        values = (E2M1[q] * E4M3[scale][:, :, None]).astype(np.float32).reshape(len(codes), -1)
        out.append(blocks(codes, scale) if as_blocks else values)
    return np.stack(out)


def compare(checkpoint, file):
    import gguf
    ck = Checkpoint(checkpoint)
    left = {n[:-len(".weight_scale")] for n in ck.where if n.endswith(".weight_scale")}
    bad = 0
    for t in gguf.GGUFReader(file).tensors:
        stem, kind = t.name.rsplit(".", 1)
        names = sources(ck, stem)
        if not names:
            continue
        left -= set(names)
        llama = ck.config["model_type"] == "llama" and stem.rsplit(".", 1)[1] in ("attn_q", "attn_k")
        heads = ck.config["num_attention_heads" if stem.endswith("q") else "num_key_value_heads"] if llama else 0
        want = expected(ck, names, t.tensor_type.name == "NVFP4", heads) if kind == "weight" else \
            np.array([own(ck, n, kind == "input_scale") for n in names], np.float32)
        if want.tobytes() != t.data.tobytes():
            print(f"{t.name} ({t.tensor_type.name}): bytes differ")
            bad += 1
    print("equal" if not bad and not left else f"{bad} differ, missing: {sorted(left)[:5]}")


def copy_keys(reader, writer):
    import gguf
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "sluice.")) or key == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub)


def fold(source, out):
    import gguf
    reader = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    copy_keys(reader, w)
    scales = {t.name: t.data for t in reader.tensors if t.name.endswith(".scale")}
    for t in reader.tensors:
        s = scales.get(re.sub("weight$", "scale", t.name))
        if not t.name.endswith((".scale", ".input_scale")):
            w.add_tensor(t.name, t.data if s is None else t.data * (s if t.data.ndim == 2 else s[:, None, None]))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_gguf(source, out, pattern, bare=False):
    import gguf
    reader = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    copy_keys(reader, w)
    for t in reader.tensors:
        if not re.search(pattern, t.name):
            w.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
            continue
        packed = [pack(m) for m in t.data.reshape(-1, *t.data.shape[-2:])]
        data = np.stack([blocks(codes, scale) for codes, scale, _ in packed])
        stem = t.name[:-len("weight")]
        w.add_tensor(t.name, data if t.data.ndim == 3 else data[0], raw_dtype=gguf.GGMLQuantizationType.NVFP4)
        if bare:
            continue
        w.add_tensor(stem + "scale", np.array([p[2] for p in packed], np.float32))
        w.add_tensor(stem + "input_scale", np.full(len(packed), 0.25, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("verb", choices=["make", "compare", "fold", "gguf"])
    p.add_argument("args", nargs="+")
    a = p.parse_args()
    {"make": make_checkpoint, "compare": compare, "fold": fold, "gguf": make_gguf}[a.verb](*a.args)


if __name__ == "__main__":
    main()
