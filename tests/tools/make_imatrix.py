#!/usr/bin/env python3
"""Makes an importance matrix in GGUF for a GGUF model: sums and counts drawn from
a fixed generator, for every matrix in blk.*. Some experts have no data at all.

  make_imatrix.py MODEL.gguf OUT.gguf [--heads one|each]

--heads: one count for all heads of attn_k_b and attn_v_b, as llama-imatrix writes
since August 2025, or one for each head, as in July 2025."""
import argparse

import gguf
import numpy as np

import imatrix_gguf


def entries(a):
    rng = np.random.default_rng(1)
    for t in gguf.GGUFReader(a.model).tensors:
        ne = [int(x) for x in t.shape]
        if not t.name.startswith("blk.") or len([x for x in ne if x > 1]) < 2 or not t.name.endswith(".weight"):
            continue
        mats = ne[2] if len(ne) > 2 else 1
        groups = 1 if a.heads == "one" and ("attn_k_b" in t.name or "attn_v_b" in t.name) else mats
        counts = rng.integers(1, 4000, (groups, 1)).astype(np.float32)
        if "_exps" in t.name:
            counts[rng.integers(0, groups)] = 0
        yield t.name, rng.gamma(0.3, 1.0, (groups, ne[0] * mats // groups)).astype(np.float32) * counts, counts


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--heads", choices=["one", "each"], default="one")
    a = p.parse_args()
    imatrix_gguf.write(a.out, "made.txt", 7, 512, entries(a))


if __name__ == "__main__":
    main()
