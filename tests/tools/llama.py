#!/usr/bin/env python3
"""llama.cpp as a judge, through the shared libraries of the npm package
@node-llama-cpp/linux-x64 (installed under build/npm by `make test-tools`).

  llama.py generate FILE [--prompt TEXT] [--tokens N]     continue a text, greedily
  llama.py load FILE...                                   load each, make 8 tokens
  llama.py logits FILE --reference DIR                    against reference.json, logits.f32
  llama.py perplexity FILE... --reference DIR [--base FILE] [--markdown OUT]
  llama.py quantize IN.gguf OUT.gguf NAME [OPTION...]     what llama-quantize does, with its options
  llama.py imatrix FILE OUT.gguf [--chunks N] [--text FILE]  what llama-imatrix collects
  llama.py golden DIR                                     this ggml against tests/golden
  llama.py tensors CHECKPOINT FILE.gguf... [--layout L]   ggml_quantize_chunk of the
                                                          dequantized source = the file's bytes

Results are JSON lines on standard output. Exit 3: llama.cpp is not here or of
another version than the struct layouts below are for.
"""
import argparse
import ctypes as C
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
LIBS = os.environ.get("LLAMA_LIBS") or os.path.join(
    HERE, "../../build/npm/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64")
RELEASE = "v0.5.0"  # llama.cpp's release inside the package; the structs below are its


class ModelParams(C.Structure):
    _fields_ = [("devices", C.c_void_p), ("buft_overrides", C.c_void_p),
                ("n_gpu_layers", C.c_int32), ("split_mode", C.c_int), ("load_mode", C.c_int),
                ("lazy_mode", C.c_int), ("main_gpu", C.c_int32), ("tensor_split", C.c_void_p),
                ("progress", C.c_void_p), ("progress_data", C.c_void_p), ("kv_overrides", C.c_void_p),
                ("vocab_only", C.c_bool), ("check_tensors", C.c_bool), ("extra_bufts", C.c_bool),
                ("no_host", C.c_bool), ("no_alloc", C.c_bool), ("load_mtp", C.c_bool)]


class ContextParams(C.Structure):
    _fields_ = ([(n, C.c_uint32) for n in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq",
                                           "n_outputs_max", "n_outputs_max_per_seq")]
                + [(n, C.c_int32) for n in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling",
                                            "pooling", "attention", "flash_attn")]
                + [(n, C.c_float) for n in ("rope_base", "rope_scale", "yarn_ext", "yarn_attn",
                                            "yarn_fast", "yarn_slow")]
                + [("yarn_orig_ctx", C.c_uint32), ("defrag", C.c_float), ("cb_eval", C.c_void_p),
                   ("cb_eval_data", C.c_void_p), ("type_k", C.c_int), ("type_v", C.c_int),
                   ("abort", C.c_void_p), ("abort_data", C.c_void_p)]
                + [(n, C.c_bool) for n in ("embeddings", "offload_kqv", "no_perf", "op_offload",
                                           "swa_full", "kv_unified")]
                + [("samplers", C.c_void_p), ("n_samplers", C.c_size_t), ("ctx_other", C.c_void_p)])


class Batch(C.Structure):
    _fields_ = [("n_tokens", C.c_int32), ("token", C.POINTER(C.c_int32)), ("embd", C.c_void_p),
                ("pos", C.POINTER(C.c_int32)), ("n_seq_id", C.POINTER(C.c_int32)),
                ("seq_id", C.POINTER(C.POINTER(C.c_int32))), ("logits", C.POINTER(C.c_int8))]


class QuantizeParams(C.Structure):
    _fields_ = [("nthread", C.c_int32), ("ftype", C.c_int), ("output_type", C.c_int),
                ("embedding_type", C.c_int)] + [
                   (n, C.c_bool) for n in ("allow_requantize", "quantize_output", "only_copy", "pure",
                                           "keep_split", "dry_run")] + [
                   (n, C.c_void_p) for n in ("imatrix", "kv_overrides", "tt_overrides", "prune")] + [
                   ("max_buf_size", C.c_size_t)]


class TensorOverride(C.Structure):
    _fields_ = [("pattern", C.c_char_p), ("type", C.c_int)]


class KvValue(C.Union):
    _fields_ = [("i", C.c_int64), ("f", C.c_double), ("b", C.c_bool), ("s", C.c_char * 128)]


class KvOverride(C.Structure):
    _fields_ = [("tag", C.c_int), ("key", C.c_char * 128), ("value", KvValue)]


class ImatrixData(C.Structure):
    _fields_ = [("name", C.c_char_p), ("data", C.c_void_p), ("size", C.c_size_t)]


LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
FTYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
          "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16,
          "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23,
          "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30,
          "IQ1_M": 31, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "Q1_0": 40, "Q2_0": 41}


def absent(why):
    print(f"llama.cpp: {why}", file=sys.stderr)
    sys.exit(3)


class Llama:
    def __init__(self, verbose=False):
        try:
            meta = json.load(open(os.path.join(LIBS, "_nlcBuildMetadata.json")))
            release = meta["buildOptions"]["llamaCpp"]["release"]
        except (OSError, ValueError, KeyError):
            absent(f"not in {os.path.normpath(LIBS)} (make test-tools installs it)")
        if release != RELEASE:
            absent(f"release {release}, the structs here are those of {RELEASE}")
        lib = lambda n: C.CDLL(os.path.join(LIBS, n), mode=C.RTLD_GLOBAL)
        try:
            self.base, self.ggml = lib("libggml-base.so"), lib(f"libggml.{RELEASE}.so")
            self.llama = lib(f"libllama.{RELEASE}.so")
        except OSError as e:
            absent(str(e))
        L = self.llama
        self.text = []
        self.log = LOG(lambda level, text, _: self.on_log(level, text))
        self.verbose = verbose
        L.llama_log_set(self.log, None)
        self.ggml.ggml_backend_load_all_from_path(LIBS.encode())
        L.llama_backend_init()
        L.llama_model_default_params.restype = ModelParams
        L.llama_context_default_params.restype = ContextParams
        L.llama_model_quantize_default_params.restype = QuantizeParams
        L.llama_model_load_from_file.restype = C.c_void_p
        L.llama_model_load_from_file.argtypes = [C.c_char_p, ModelParams]
        L.llama_init_from_model.restype = C.c_void_p
        L.llama_init_from_model.argtypes = [C.c_void_p, ContextParams]
        for name in ("llama_model_free", "llama_free"):
            getattr(L, name).argtypes = [C.c_void_p]
        L.llama_model_get_vocab.restype = C.c_void_p
        L.llama_model_get_vocab.argtypes = [C.c_void_p]
        L.llama_vocab_n_tokens.argtypes = [C.c_void_p]
        L.llama_batch_init.restype = Batch
        L.llama_batch_free.argtypes = [Batch]
        L.llama_decode.argtypes = [C.c_void_p, Batch]
        L.llama_get_logits.restype = C.POINTER(C.c_float)
        L.llama_get_logits.argtypes = [C.c_void_p]
        L.llama_get_memory.restype = C.c_void_p
        L.llama_get_memory.argtypes = [C.c_void_p]
        L.llama_memory_clear.argtypes = [C.c_void_p, C.c_bool]
        L.llama_tokenize.argtypes = [C.c_void_p, C.c_char_p, C.c_int32, C.c_void_p, C.c_int32,
                                     C.c_bool, C.c_bool]
        L.llama_token_to_piece.argtypes = [C.c_void_p, C.c_int32, C.c_char_p, C.c_int32, C.c_int32,
                                           C.c_bool]
        L.llama_model_quantize.argtypes = [C.c_char_p, C.c_char_p, C.POINTER(QuantizeParams)]
        L.llama_model_quantize.restype = C.c_uint32
        # Values that only the right layout shows: a wrong struct is noticed here.
        mp, cp = L.llama_model_default_params(), L.llama_context_default_params()
        qp = L.llama_model_quantize_default_params()
        if not (cp.n_ctx == 512 and cp.n_batch == 2048 and cp.type_k == 1 and cp.type_v == 1
                and cp.offload_kqv and not cp.samplers and mp.extra_bufts and not mp.vocab_only
                and qp.quantize_output and not qp.dry_run and qp.imatrix is None):
            absent("the default parameters do not look as they should")

    def on_log(self, level, text):
        line = text.decode("utf-8", "replace")
        if level >= 3:
            self.text.append(line)
        if self.verbose:
            sys.stderr.write(line)

    def fail(self, what):
        print(json.dumps({"error": what, "log": "".join(self.text)[-2000:]}))
        sys.exit(1)


class Model:
    def __init__(self, llama, path, threads, n_ctx=256, on_eval=None):
        self.l, L = llama, llama.llama
        mp = L.llama_model_default_params()
        mp.check_tensors, mp.extra_bufts, mp.load_mtp = True, False, True
        self.model = L.llama_model_load_from_file(path.encode(), mp)
        if not self.model:
            llama.fail(f"{path}: cannot be loaded")
        cp = L.llama_context_default_params()
        cp.n_ctx = cp.n_batch = cp.n_ubatch = n_ctx
        cp.n_threads = cp.n_threads_batch = threads
        cp.type_k = cp.type_v = 0  # F32: the cache adds no rounding of its own
        cp.flash_attn = 0
        if on_eval:
            cp.cb_eval = C.cast(on_eval, C.c_void_p)
        self.ctx = L.llama_init_from_model(self.model, cp)
        if not self.ctx:
            llama.fail(f"{path}: no context")
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_vocab = L.llama_vocab_n_tokens(self.vocab)
        self.n_ctx = n_ctx
        self.batch = L.llama_batch_init(n_ctx, 0, 1)
        self.used = 0

    def close(self):
        L = self.l.llama
        L.llama_batch_free(self.batch)
        L.llama_free(self.ctx)
        L.llama_model_free(self.model)

    def clear(self):
        L = self.l.llama
        L.llama_memory_clear(L.llama_get_memory(self.ctx), True)
        self.used = 0

    def tokenize(self, text, special=True):
        data = text.encode()
        n = len(data) + 8
        out = (C.c_int32 * n)()
        got = self.l.llama.llama_tokenize(self.vocab, data, len(data), out, n, special, True)
        if got < 0:
            self.l.fail("tokenize")
        return list(out[:got])

    def piece(self, token):
        buf = C.create_string_buffer(256)
        n = self.l.llama.llama_token_to_piece(self.vocab, token, buf, 256, 0, True)
        return buf.raw[:max(n, 0)]

    def decode(self, tokens, last_only=False):
        """Appends tokens; returns a pointer to their logits and how many rows it has."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, t in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i] = t, self.used + i, 1
            b.seq_id[i][0] = 0
            b.logits[i] = 0 if last_only and i + 1 < len(tokens) else 1
        if self.l.llama.llama_decode(self.ctx, b) != 0:
            self.l.fail("decode")
        self.used += len(tokens)
        return self.l.llama.llama_get_logits(self.ctx), 1 if last_only else len(tokens)

    def logits(self, tokens):
        import numpy as np
        self.clear()
        p, rows = self.decode(tokens)
        return np.ctypeslib.as_array(p, (rows, self.n_vocab)).copy()

    def generate(self, prompt, n):
        """Greedy continuation; no library but the standard one is needed."""
        self.clear()
        tokens = self.tokenize(prompt)
        p, _ = self.decode(tokens, last_only=True)
        out = []
        for _ in range(n):
            row = p[:self.n_vocab]
            if any(x != x for x in row):
                self.l.fail("NaN logits")
            t = max(range(self.n_vocab), key=row.__getitem__)
            out.append(t)
            p, _ = self.decode([t], last_only=True)
        return out, b"".join(self.piece(t) for t in out).decode("utf-8", "replace")


def log_softmax(x):
    import numpy as np
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cmd_logits(l, a):
    import numpy as np
    ref = json.load(open(os.path.join(a.reference, "reference.json")))
    seqs = ref["sequences"]
    m = Model(l, a.files[0], a.threads, max(len(s) for s in seqs))
    want = np.fromfile(os.path.join(a.reference, "logits.f32"), np.float32).reshape(
        len(seqs), -1, m.n_vocab)
    worst_logit = worst_nll = 0.0
    ours, theirs, square, spread = [], [], [], []
    for s, nll, lg in zip(seqs, ref["nll"], want):
        got = m.logits(s)
        k = lg.shape[0]
        worst_logit = max(worst_logit, float(np.abs(got[-k:] - lg).max()))
        square.append(float(np.mean((got[-k:] - lg).astype(np.float64) ** 2)))
        spread.append(float(np.var(lg.astype(np.float64))))
        lp = log_softmax(got[:len(nll)])
        mine = -lp[np.arange(len(nll)), s[1:len(nll) + 1]]
        worst_nll = max(worst_nll, float(np.abs(mine - nll).max()))
        ours += list(mine)
        theirs += list(nll)
    print(json.dumps({"file": a.files[0], "tokens": len(ours), "mean_nll": float(np.mean(ours)),
                      "reference_nll": float(np.mean(theirs)), "worst_nll": worst_nll,
                      "worst_logit": worst_logit,
                      "rms_logit": float(np.sqrt(np.mean(square) / np.mean(spread)))}))


def licence_text(ref):
    import hashlib
    text = b""
    for name in ("GPL-3", "Apache-2.0", "MPL-2.0", "GFDL-1.3"):
        try:
            text += open(f"/usr/share/common-licenses/{name}", "rb").read()
        except OSError as e:
            print(json.dumps({"skip": str(e)}))
            sys.exit(0)
    if hashlib.sha256(text).hexdigest() != ref["sha256"]:
        print(json.dumps({"skip": "the licence texts here are others than the reference's"}))
        sys.exit(0)
    return text.decode()


def chunk_logprobs(m, tokens, n_ctx, chunks):
    """As llama-perplexity does: each chunk starts with BOS, its second half is scored."""
    bos = tokens[0]
    for i in range(chunks):
        c = tokens[i * n_ctx:(i + 1) * n_ctx]
        lp = log_softmax(m.logits([bos] + c[1:])[n_ctx // 2:n_ctx - 1])
        yield lp, c[n_ctx // 2 + 1:]


def cmd_perplexity(l, a):
    import numpy as np
    ref = json.load(open(os.path.join(a.reference, "perplexity.json")))
    n_ctx = ref["n_ctx"]
    text = licence_text(ref)
    chunks = a.chunks or ref["chunks"]
    base, rows = None, []
    files = ([a.base] if a.base else []) + a.files
    for file in files:
        m = Model(l, file, a.threads, n_ctx)
        tokens = m.tokenize(text)
        nll, kl, same, count, mine = 0.0, 0.0, 0, 0, []
        for i, (lp, targets) in enumerate(chunk_logprobs(m, tokens, n_ctx, chunks)):
            nll -= float(lp[np.arange(len(targets)), targets].sum())
            count += len(targets)
            if a.base and base is None:
                mine.append(lp.astype(np.float32))
            elif a.base:
                b = base[i].astype(np.float64)
                kl += float((np.exp(b) * (b - lp)).sum())
                same += int((b.argmax(-1) == lp.argmax(-1)).sum())
        if a.base and base is None:
            base = mine
        m.close()
        row = {"file": file, "chunks": chunks, "perplexity": float(np.exp(nll / count)),
               "reference": ref["perplexity"] if chunks == ref["chunks"] else None,
               "bytes": os.path.getsize(file)}
        if a.base and file != a.base:
            row.update(kl=kl / count, same_top=100.0 * same / count)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if a.markdown:
        with open(a.markdown, "w") as f:
            f.write("| file | bytes | perplexity | mean KL divergence | same top token % |\n"
                    "|---|---|---|---|---|\n")
            for r in rows:
                f.write("| %s | %d | %.3f | %s | %s |\n" % (
                    os.path.basename(r["file"]), r["bytes"], r["perplexity"],
                    "%.6f" % r["kl"] if "kl" in r else "", "%.2f" % r["same_top"] if "kl" in r else ""))


def cmd_load(l, a):
    for file in a.files:
        m = Model(l, file, a.threads)
        tokens, text = m.generate(a.prompt, a.tokens)
        print(json.dumps({"file": file, "tokens": tokens, "text": text}), flush=True)
        m.close()


def cmd_generate(l, a):
    m = Model(l, a.files[0], a.threads)
    _, text = m.generate(a.prompt, a.tokens)
    print(a.prompt + text)


def cmd_imatrix(l, a):
    import llama_imatrix
    llama_imatrix.collect(l, Model, a)


def imatrix_data(path, include=(), exclude=()):
    """A GGUF imatrix as llama_model_quantize takes it, and what keeps it alive; entries
    chosen by parts of their names, as llama-quantize does."""
    import gguf
    import numpy as np
    t = {x.name: x.data.reshape(-1) for x in gguf.GGUFReader(path).tensors}
    names = sorted(n[:-8] for n in t if n.endswith(".in_sum2"))
    names = [n for n in names if (not include or any(w in n for w in include))
             and not any(w in n for w in exclude)]
    list_ = (ImatrixData * (len(names) + 1))()
    alive = [list_]
    for i, name in enumerate(names):
        counts = t[name + ".counts"].astype(np.float32)[:, None]
        sums = t[name + ".in_sum2"].astype(np.float32).reshape(len(counts), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            w = np.ascontiguousarray(np.where(counts > 0, sums / counts, np.float32(1)), np.float32)
        alive.append(w)
        list_[i] = ImatrixData(name.encode(), w.ctypes.data, w.size)
    return alive


def quantize_options(qp, a, alive):
    """llama-quantize's options, as that program fills the structure with them."""
    def keep(array):
        alive.append(array)
        return C.addressof(array)

    qp.allow_requantize, qp.pure, qp.keep_split = a.allow_requantize, a.pure, a.keep_split
    qp.quantize_output = not a.leave_output_tensor
    if a.output_tensor_type:
        qp.output_type = type_id(a.output_tensor_type)
    if a.token_embedding_type:
        qp.embedding_type = type_id(a.token_embedding_type)
    if a.tensor_type:
        pairs = [p.split("=", 1) for p in a.tensor_type]
        qp.tt_overrides = keep((TensorOverride * (len(pairs) + 1))(
            *[(p.lower().encode(), type_id(t)) for p, t in pairs]))
    if a.prune_layers:
        layers = sorted({int(x) for x in a.prune_layers.split(",")})
        qp.prune = keep((C.c_int32 * (len(layers) + 1))(*layers, -1))
    if a.override_kv:
        kvs = (KvOverride * (len(a.override_kv) + 1))()
        for kv, text in zip(kvs, a.override_kv):
            key, rest = text.split("=", 1)
            kind, value = rest.split(":", 1)
            kv.key = key.encode()
            kv.tag = ["int", "float", "bool", "str"].index(kind)
            if kind == "int":
                kv.value.i = int(value)
            elif kind == "float":
                kv.value.f = float(value)
            elif kind == "bool":
                kv.value.b = value == "true"
            else:
                kv.value.s = value.encode()
        qp.kv_overrides = keep(kvs)


def type_id(name):
    import gguf
    return 42 if name.upper() == "Q2_0" else int(gguf.GGMLQuantizationType[name.upper()])  # it does not know this one


def cmd_quantize(l, a):
    src, dst, name = a.files
    qp = l.llama.llama_model_quantize_default_params()
    alive = []
    qp.nthread, qp.only_copy = a.threads, name == "COPY"
    qp.ftype = 0 if name == "COPY" else FTYPES[name]
    if a.imatrix:
        alive = imatrix_data(a.imatrix, a.include_weights, a.exclude_weights)
        qp.imatrix = C.addressof(alive[0])
    quantize_options(qp, a, alive)
    start = time.monotonic()
    if l.llama.llama_model_quantize(src.encode(), dst.encode(), C.byref(qp)) != 0:
        l.fail("llama_model_quantize")
    size = os.path.getsize(dst) if os.path.exists(dst) else None  # --keep-split: several files
    print(json.dumps({"seconds": time.monotonic() - start, "bytes": size}))


class Ggml:
    """ggml_quantize_chunk on numpy arrays."""

    def __init__(self, l):
        self.b = l.base
        self.b.ggml_quantize_chunk.restype = C.c_size_t
        self.b.ggml_quantize_chunk.argtypes = [C.c_int, C.c_void_p, C.c_void_p, C.c_int64, C.c_int64,
                                               C.c_int64, C.c_void_p]
        self.b.ggml_row_size.restype = C.c_size_t
        self.b.ggml_row_size.argtypes = [C.c_int, C.c_int64]

    def quantize(self, type_id, x, weights=None):
        import numpy as np
        x = np.ascontiguousarray(x, np.float32)
        cols = x.shape[-1]
        rows = x.size // cols
        out = np.empty(rows * self.b.ggml_row_size(type_id, cols), np.uint8)
        w = None if weights is None else np.ascontiguousarray(weights, np.float32).ctypes.data
        n = self.b.ggml_quantize_chunk(type_id, x.ctypes.data, out.ctypes.data, 0, rows, cols, w)
        return out[:n]


# Where releases of ggml differ among themselves (tests/golden/README.md).
KNOWN = {("tiny", "q2_k.imatrix"), ("tiny", "q4_k.imatrix"), ("tiny", "q5_k.imatrix"),
         ("sparse", "iq1_s.imatrix"), ("constant", "iq1_m.imatrix"), ("onesided", "iq1_m.imatrix"),
         ("ramp", "iq1_m.imatrix"), ("sparse", "iq1_m.imatrix")}


def cmd_golden(l, a):
    import numpy as np
    import gguf
    g = Ggml(l)
    bad, n = [], 0
    for d in sorted(os.listdir(a.files[0])):
        folder = os.path.join(a.files[0], d)
        if not os.path.isdir(folder):
            continue
        x = np.fromfile(os.path.join(folder, "x.f32"), np.float32).reshape(-1, 1024)
        w = np.fromfile(os.path.join(folder, "imatrix.f32"), np.float32)
        for name in sorted(os.listdir(folder)):
            if not name.endswith(".bin") or name in ("f16.bin", "bf16.bin"):
                continue
            kind = name[:-4]
            got = g.quantize(type_id(kind.split(".")[0]), x, w if kind.endswith(".imatrix") else None)
            n += 1
            if (d, kind) not in KNOWN and got.tobytes() != open(os.path.join(folder, name), "rb").read():
                bad.append(f"{d}/{kind}")
    print(json.dumps({"vectors": n, "different": bad}))


def cmd_tensors(l, a):
    import gguf
    import reference
    g = Ggml(l)
    want = dict(reference.tensors(reference.Checkpoint(a.files[0]), a.layout))
    bad, types = [], {}
    for file in a.files[1:]:
        for t in gguf.GGUFReader(file).tensors:
            types[t.tensor_type.name] = types.get(t.tensor_type.name, 0) + 1
            got = t.data.tobytes()
            x = want.pop(t.name)
            exact = {"F32": x.tobytes, "F16": lambda: x.astype("float16").tobytes(),
                     "BF16": lambda: reference.to_bf16(x).tobytes()}
            make = exact.get(t.tensor_type.name, lambda: g.quantize(int(t.tensor_type), x).tobytes())
            if make() != got:
                bad.append(f"{t.name} {t.tensor_type.name}")
    print(json.dumps({"types": types, "different": bad, "missing": sorted(want)}))
    return 1 if bad or want else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("verb", choices=["generate", "load", "logits", "perplexity", "quantize", "imatrix", "golden",
                                    "tensors", "version"])
    p.add_argument("files", nargs="*")
    p.add_argument("--reference")
    p.add_argument("--base")
    p.add_argument("--imatrix")
    for option in ("allow-requantize", "leave-output-tensor", "pure", "keep-split"):
        p.add_argument("--" + option, action="store_true")
    for option in ("output-tensor-type", "token-embedding-type", "prune-layers"):
        p.add_argument("--" + option)
    for option in ("include-weights", "exclude-weights", "tensor-type", "override-kv"):
        p.add_argument("--" + option, action="append", default=[])
    p.add_argument("--markdown")
    p.add_argument("--text", default="/usr/share/common-licenses/GPL-3")
    p.add_argument("--chunks", type=int, default=0)
    # One: llama.cpp's threads wait for each other by spinning, and other tests run beside.
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--layout", choices=["mla", "legacy"], default="mla")
    p.add_argument("--prompt", default="The library reads a file and")
    p.add_argument("--tokens", type=int, default=8)
    p.add_argument("-v", "--verbose", action="store_true")
    a = p.parse_args()
    l = Llama(a.verbose)
    if a.verb == "version":
        print(RELEASE)
        return 0
    return globals()["cmd_" + a.verb](l, a) or 0


if __name__ == "__main__":
    sys.exit(main())
