#!/usr/bin/env python3
"""GGUF files by the names of their checkpoint, the way vLLM and transformers find tensors:
gguf-py's table maps each of the checkpoint's names to one of the file, of the reversed shape.

  tensor_names.py CHECKPOINT FILE.gguf...

One JSON line: "absent" are names of the checkpoint whose tensor no file has (or that the table
does not know), "shape" those of another shape, "other" the files' tensors that no name asked for.
"""
import json
import re
import sys

import gguf
from reference import Checkpoint


def main():
    ck = Checkpoint(sys.argv[1])
    have = {t.name: [int(n) for n in t.shape] for f in sys.argv[2:] for t in gguf.GGUFReader(f).tensors}
    kind = gguf.GGUFReader(sys.argv[2]).fields["general.architecture"].contents()
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    layers = ck.config["num_hidden_layers"]
    table = gguf.get_tensor_name_map(arch, layers)
    want, unknown = {}, []
    for name, (_, _, info) in ck.where.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        if name.endswith("_scale_inv") or layer and int(layer[1]) >= layers:
            continue
        plain = re.sub(r"\.experts\.\d+\.", ".experts.", name).replace("e_score_correction_bias", "e_score_correction.bias")
        mapped = table.get_name(plain, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            unknown.append(name)
            continue
        shape, n, _ = want.get(mapped, (info["shape"][::-1], 0, name))
        want[mapped] = (shape, n + 1, name)
    absent = sorted(unknown + [name for g, (_, _, name) in want.items() if g not in have])
    shape = sorted(g for g, (s, n, name) in want.items()
                   if g in have and have[g] != (s + [n] if ".experts." in name else s))
    print(json.dumps({"found": sum(g in have for g in want), "absent": absent, "shape": shape,
                      "other": sorted(set(have) - set(want))}))


if __name__ == "__main__":
    main()
