#!/usr/bin/env python3
"""Tensors in NVFP4, computed apart: a code of E2M1 x the E4M3 scale of its 16 weights x the tensor's own scale.

  nvfp4.py gguf IN.gguf OUT.gguf PATTERN [bare]   an F32 file, in which the tensors whose names match become nvfp4 under
                                                  NAME.scale (of experts one each), with a NAME.input_scale; bare: without
"""
import argparse
import re

import numpy as np

from reference import E2M1, E4M3

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


def copy_keys(reader, writer):
    import gguf
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "sluice.")) or key == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=sub)


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
    p.add_argument("verb", choices=["gguf"])
    p.add_argument("args", nargs="+")
    a = p.parse_args()
    make_gguf(*a.args)


if __name__ == "__main__":
    main()
