"""A checkpoint's shards, one or more, made of random tensors."""
import json
import os

import numpy as np

from reference import E4M3


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

    def e4m3(self, name, *shape):
        """Random values, of about 60."""
        x = 60 * self.gauss(*shape)
        w = self.codes[np.searchsorted(self.values, np.minimum(np.abs(x), 448))].astype(np.uint8)
        self.add(name, "F8_E4M3", w | np.where(x < 0, 128, 0).astype(np.uint8))

    def write(self, folder, name="model.safetensors"):
        os.makedirs(folder, exist_ok=True)
        header = json.dumps(self.header).encode()
        header += b" " * (-len(header) % 8)
        with open(os.path.join(folder, name), "wb") as f:
            f.write(len(header).to_bytes(8, "little") + header + b"".join(self.parts))
