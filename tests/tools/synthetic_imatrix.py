#!/usr/bin/env python3
"""What --imatrix synthetic stands for, computed apart from Sluice and written as an
ordinary importance matrix in GGUF: for each matrix of each tensor the mean square of its
columns over at most 64 rows, row i * rows // n of n.

  synthetic_imatrix.py CHECKPOINT OUT.gguf [--layout mla|legacy]"""
import argparse

import numpy as np

import imatrix_gguf
import reference


def energy(x):
    """x: [matrices, rows, columns] in F32. Sums run over rows in order, in F64."""
    rows = x.shape[1]
    n = min(rows, 64)
    pick = [i * rows // n for i in range(n)]
    total = np.zeros((x.shape[0], x.shape[2]))
    for r in pick:
        total += x[:, r, :].astype(np.float64) ** 2
    w = (total / n).astype(np.float32)
    w[~w.any(axis=1)] = 1
    return w


def entries(checkpoint, layout):
    for name, x in reference.tensors(reference.Checkpoint(checkpoint), layout):
        if x.ndim >= 2 and name.endswith(".weight"):
            sums = energy(np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-2], x.shape[-1]))
            yield name, sums, np.ones((len(sums), 1))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("checkpoint")
    p.add_argument("out")
    p.add_argument("--layout", choices=["mla", "legacy"], default="mla")
    a = p.parse_args()
    imatrix_gguf.write(a.out, "none", 1, 512, entries(a.checkpoint, a.layout))


if __name__ == "__main__":
    main()
