#!/usr/bin/env python3
"""The error of a recipe by proto/RECIPES.md, computed apart from Sluice: from an F32 GGUF, a
quantized one, and the importance matrix that was used, if any. Dequantizes with gguf-py.

  measure.py F32.gguf QUANTIZED.gguf [--imatrix FILE.gguf] [--layers N]"""
import argparse

import gguf
import numpy as np
from gguf.quants import dequantize

SAMPLE = 262144


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("f32")
    p.add_argument("quantized")
    p.add_argument("--imatrix")
    p.add_argument("--layers", type=int, required=True)
    a = p.parse_args()
    weights = {t.name: t.data for t in gguf.GGUFReader(a.imatrix).tensors} if a.imatrix else {}
    made = {t.name: t for t in gguf.GGUFReader(a.quantized).tensors}
    total = count = 0.0
    for t in gguf.GGUFReader(a.f32).tensors:
        name = t.name
        if t.data.ndim < 2 or not name.endswith("weight") or "_norm." in name or "ffn_gate_inp." in name:
            continue
        x = t.data.reshape(-1, t.data.shape[-2], t.data.shape[-1])
        matrices, rows, cols = x.shape
        m = made[name]
        y = dequantize(m.data, m.tensor_type).reshape(x.shape)
        n = min(-(-SAMPLE // cols), matrices * rows)
        ratios = {}
        for k in range(n):
            e, r = divmod(k * matrices * rows // n, rows)
            w = np.ones(cols)
            if name + ".in_sum2" in weights:
                w = (weights[name + ".in_sum2"].reshape(matrices, cols)[e]
                     / weights[name + ".counts"].reshape(-1)[e if weights[name + ".counts"].size > 1 else 0])
            d = x[e, r].astype(np.float64)
            lost, energy = ratios.get(e, (0.0, 0.0))
            ratios[e] = (lost + (w * (d - y[e, r]) ** 2).sum(), energy + (w * d ** 2).sum())
        error = np.mean([lost / energy for lost, energy in ratios.values() if energy > 0])
        c = (2 * a.layers if name == "output.weight" else a.layers if name == "token_embd.weight"
             else 0.5 if "_exps." in name or "_shexp." in name else 1)
        total += c * error
        count += c
    print("%.9g" % (total / count))


if __name__ == "__main__":
    main()
