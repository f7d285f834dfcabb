"""What llama-imatrix collects, through llama.cpp's evaluation callback: for llama.py."""
import ctypes as C
import json
import os

import numpy as np

import imatrix_gguf

EVAL = C.CFUNCTYPE(C.c_bool, C.c_void_p, C.c_bool, C.c_void_p)


class Tensor(C.Structure):
    """The head of struct ggml_tensor; ggml_get_name and ggml_get_data say whether it is so."""
    _fields_ = [("type", C.c_int), ("buffer", C.c_void_p), ("ne", C.c_int64 * 4), ("nb", C.c_size_t * 4),
                ("op", C.c_int), ("op_params", C.c_int32 * 16), ("flags", C.c_int32),
                ("src", C.c_void_p * 10), ("view_src", C.c_void_p), ("view_offs", C.c_size_t),
                ("data", C.c_void_p), ("name", C.c_char * 64)]


class Collector:
    """Sums of squared inputs of every matrix product, as llama-imatrix keeps them."""

    def __init__(self, l):
        self.l, self.sums, self.counts, self.error = l, {}, {}, None
        for name in ("ggml_get_name", "ggml_op_desc"):
            f = getattr(l.base, name)
            f.restype, f.argtypes = C.c_char_p, [C.c_void_p]
        l.base.ggml_get_data.restype, l.base.ggml_get_data.argtypes = C.c_void_p, [C.c_void_p]
        self.call = EVAL(self.on_eval)

    def on_eval(self, tensor, ask, _):
        try:
            wanted = self.l.base.ggml_op_desc(tensor) in (b"MUL_MAT", b"MUL_MAT_ID")
            if wanted and not ask:
                self.take(C.cast(tensor, C.POINTER(Tensor)).contents)
            return wanted if ask else True
        except Exception as e:  # a callback's exception would be lost
            self.error = e
            return False

    def array(self, at, dtype, dims):
        """A tensor's values, [ne2, ne1, ne0] by its strides."""
        t = C.cast(at, C.POINTER(Tensor)).contents
        if self.l.base.ggml_get_data(at) != t.data or self.l.base.ggml_get_name(at) != t.name:
            raise ValueError("struct ggml_tensor is another")
        n = sum((t.ne[i] - 1) * t.nb[i] for i in range(4)) + np.dtype(dtype).itemsize
        raw = np.ctypeslib.as_array(C.cast(t.data, C.POINTER(C.c_uint8)), (n,))
        return np.ndarray([t.ne[i] for i in reversed(range(dims))], dtype, raw.data,
                          strides=[t.nb[i] for i in reversed(range(dims))])

    def take(self, t):
        name = self.l.base.ggml_get_name(t.src[0]).decode()
        if not name.startswith("blk.") or not name.endswith(".weight"):
            return
        w = C.cast(t.src[0], C.POINTER(Tensor)).contents
        x = self.array(t.src[1], np.float32, 3)  # [heads or tokens, tokens or experts used, ne0]
        cols, mats = w.ne[0], w.ne[2]
        sums = self.sums.setdefault(name, np.zeros((mats, cols), np.float64))
        if t.src[2]:  # by expert: ids [tokens, experts used]
            counts = self.counts.setdefault(name, np.zeros((mats, 1)))
            ids = self.array(t.src[2], np.int32, 2)
            for token in range(ids.shape[0]):
                for k in range(ids.shape[1]):
                    sums[ids[token, k]] += x[token, k % x.shape[1]].astype(np.float64) ** 2
                    counts[ids[token, k], 0] += 1
        else:  # attn_k_b and attn_v_b: one count for all heads
            counts = self.counts.setdefault(name, np.zeros((1, 1)))
            sums += (x.astype(np.float64) ** 2).sum(axis=1)
            counts[0, 0] += x.shape[1]


def collect(l, Model, a):
    """llama.py imatrix: runs a model over chunks of a text and writes what was collected."""
    src, dst = a.files
    c = Collector(l)
    m = Model(l, src, a.threads, on_eval=c.call)
    text = open(a.text, "rb").read().decode("utf-8", "replace")
    tokens, chunks = m.tokenize(text), a.chunks or 4
    for i in range(chunks):
        part = tokens[i * m.n_ctx:(i + 1) * m.n_ctx]
        if not part:
            l.fail("the text is too short")
        m.clear()
        m.decode(part)
        if c.error:
            l.fail(f"callback: {c.error}")
    imatrix_gguf.write(dst, os.path.basename(a.text), chunks, m.n_ctx,
                       ((name, c.sums[name].reshape(len(c.counts[name]), -1), c.counts[name]) for name in sorted(c.sums)))
    print(json.dumps({"entries": len(c.sums), "tokens": min(len(tokens), chunks * m.n_ctx)}))
