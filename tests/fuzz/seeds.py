#!/usr/bin/env python3
"""First inputs of the fuzz targets, from what the tests make.

  seeds.py [--quick] BUILD OUT     OUT/TARGET has a file for each input; OUT/words is a dictionary of what the readers look for;
                                   --quick: fewer checkpoints

Checkpoints are those of BUILD/tools/make_checkpoint and, where numpy is there, of tests/tools/*.py; of published models there are
config.json and params.json alone, with fewer layers and experts. fuzz_folder.h says how a folder is one file.
"""
import base64
import glob
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAYERS, EXPERTS, IDS = 5, 4, 400
SMALL = "--layers 1 --hidden 128 --inter 128 --heads 2 --kv-heads 2 --vocab 400 --shards 1 --holes".split()
MOE = SMALL + "--dense 0 --experts 2 --used 1 --groups 1 --groups-used 1 --moe-inter 128".split()
LATENT = MOE + "--q-lora 128 --kv-lora 128 --nope 64 --rope 64 --v-dim 64".split()
GENERATED = {
    "deepseek": LATENT, "deepseek-mtp": LATENT + ["--mtp"], "v32": LATENT + ["--index-heads", "2", "--mtp"],
    "e8m0": LATENT + ["--scales", "e8m0"], "bf16": LATENT + ["--scales", "none"], "bf16-640": LATENT + ["--scales", "none", "--vocab", "640"],
    "packed": LATENT + ["--packed"],
    "mxfp4": LATENT + ["--mxfp4"], "mxfp4-packed": LATENT + ["--mxfp4", "--packed"], "int8": LATENT + ["--int8"],
    "int8-row": LATENT + ["--int8", "--scales", "row"],
    **{a: ["--arch", a] + (MOE if a in ("qwen3moe", "minimax", "minimax3", "glm4moe", "ling") else SMALL)
       for a in ("qwen2", "llama", "qwen3", "qwen3moe", "minimax", "minimax3", "glm4moe", "ling")},
    "moe-bf16": ["--arch", "qwen3moe", "--scales", "none"] + MOE,
    "llama-row": ["--arch", "llama", "--scales", "row", "--scale-suffix", "weight_scale"] + SMALL,
    "two-shards": ["--arch", "llama"] + SMALL + ["--shards", "2"],
    "mxfp8": ["--arch", "minimax3", "--scales", "mxfp8"] + MOE,
}
# In numpy: of the tool, its options; or another checkpoint that it changes.
MADE = [("exaone.py", []), ("exaone.py", ["--blocks", "--no-mtp"]), ("hunyuan.py", []), ("hunyuan.py", ["--hy3", "--fp8"]), ("k3.py", []),
        ("k3.py", ["--odd"]), ("llama4.py", []), ("llama4.py", ["--fp8", "--alone"]), ("mimo.py", []), ("mimo.py", ["--parts", "4", "--mxfp4"]),
        ("qwen35.py", []), ("qwen35.py", ["--fp8", "--next"]), ("qwen35.py", ["--dense"]), ("qwen_vl.py", []), ("qwen_vl.py", ["--dense"]),
        ("step.py", []), ("step.py", ["--text", "--bf16"]), ("v4.py", []), ("v4.py", ["--odd"]), ("ernie.py", []), ("ernie.py", ["--fp8"])]
QUICK = ["hunyuan.py", "k3.py", "ernie.py"] # they have tokenizers of their own
CHANGED = [("packed.py", "qwen2", f) for f in ("ct-w4-asym", "ct-w4-order", "ct-w4-rows", "ct-w8-asym-rows", "gptq-4", "gptq-4-act", "awq")] + \
          [("nvfp4.py", "moe-bf16", "experts"), ("nvfp4.py", "moe-bf16", "experts packed")]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "tiktoken.model",
             "hy.tiktoken", "tokenizer.model", "tekken.json", "chat_template.jinja", "chat_template.json", "config.json", "params.json"]
KINDS = ["qwen", "deepseek", "glm", "llama", "minimax", "mistral", "hunyuan.py", "ernie.py", "llama4", "k3.py", "ling"]  # tokenizer_fuzz.c's


def shrink(x, n):
    """The same config with fewer layers, experts and ids."""
    if isinstance(x, list):
        return [shrink(v, n) for v in (x if len(x) < n or n < 8 else x[:LAYERS + len(x) - n])]
    if not isinstance(x, dict):
        return x
    out = {}
    for k, v in x.items():
        if k in ("num_hidden_layers", "n_layers", "moe_layer_end_index"):
            v = LAYERS - (k == "moe_layer_end_index")
        elif k in ("full_attn_layers", "kda_layers"):
            v = [i for i in v if i <= LAYERS]
        elif k == "moe_layers_enum":
            v = ",".join(str(i) for i in range(3, LAYERS))
        elif re.fullmatch(r"(n_routed|num|num_local|moe_num|n)_experts", k) and isinstance(v, int):
            v = v if "use_qk_norm" in x else min(v, EXPERTS)
        elif re.fullmatch(r"(n_group|num_expert_groups|topk_group|topk_groups|num_limited_groups)", k):
            v = 1
        elif re.search(r"experts_per_tok|moe_k$|moe_topk$|num_selected|^top_k_experts|num_experts_per", k):
            v = [2] * LAYERS if isinstance(v, list) else 2
        out[k] = shrink(v, n)
    return out


def layers_of(c):
    c = {**c, **c.get("text_config", {})}
    return c.get("num_hidden_layers", c.get("n_layers", 0))


def ids_of(c):
    return c.get("vocab_size") or c["text_config"]["vocab_size"]


def header(data):
    """Of a shard, and of its small integers and numbers what they are: lines "@OFFSET HEX"."""
    n = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:n])
    out = json.dumps(tensors, separators=(",", ":"))
    for t in tensors.values():
        at = t.get("data_offsets")
        if at and at[1] - at[0] <= 16 and data[n + at[0]:n + at[1]].strip(b"\0"):
            out += f"\n@{at[0]} {data[n + at[0]:n + at[1]].hex()}"
    return out.encode()


def pack(folder, names, first=""):
    out = first.encode()
    for name in names:
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            continue
        data = open(path, "rb").read()
        if name.endswith(".safetensors"):
            data = header(data)
        if len(data) > 100000:
            continue
        out += b"=== " + name.encode() + b"\n" + data + b"\n"
    return out


class Seeds:
    def __init__(self, build, out, quick):
        self.build, self.out, self.quick = build, out, quick
        self.python = os.path.join(ROOT, "build/venv/bin/python")

    def put(self, target, name, data):
        os.makedirs(os.path.join(self.out, target), exist_ok=True)
        with open(os.path.join(self.out, target, re.sub(r"[^a-z0-9.-]+", "-", name)), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())

    def folder(self, name, folder):
        shards = sorted(n for n in os.listdir(folder) if n.endswith((".safetensors", ".index.json")))
        self.put("checkpoint", name, pack(folder, ["config.json", "params.json"] + shards, "x\n"))
        if len(shards) > 2:
            self.put("checkpoint", name + "-alone", pack(folder, ["config.json"] + [n for n in shards if n.endswith(".safetensors")], "x\n"))
        kind = next((i for i, k in enumerate(KINDS) if name.startswith(k)), 1)
        config = next(p for p in (os.path.join(folder, n) for n in ("params.json", "config.json")) if os.path.exists(p))
        tokens = pack(folder, TOKENIZER, f"{chr(65 + kind)}{ids_of(json.load(open(config)))}\n")
        self.gguf(name, folder)
        if tokens.count(b"=== ") > 1 + (b"=== tokenizer_config.json" in tokens):
            self.put("tokenizer", name, tokens)

    def gguf(self, name, folder):
        """The header of what is made of a checkpoint."""
        path, sluice = os.path.join(folder, "made.gguf"), os.path.join(self.build, "sluice")
        if subprocess.run([sluice, "convert", folder, "-o", path, "--recipe", "f16", "--threads", "1"], capture_output=True).returncode:
            return
        inspected = json.loads(subprocess.run([sluice, "inspect", "--json", path], capture_output=True, check=True).stdout)
        data = open(path, "rb").read(inspected["files"][0]["header_bytes"])
        os.remove(path)
        if len(data) <= 50000:
            self.put("gguf_plan", name, data)

    def make(self, folder, tool, *options):
        r = subprocess.run([self.python, os.path.join(ROOT, "tests/tools", tool), "make", folder, *options], capture_output=True, text=True)
        if r.returncode:
            print(f"{tool} {' '.join(options)}: {r.stderr[-200:]}", file=sys.stderr)
        return r.returncode == 0

    def checkpoints(self, tmp):
        made = {}
        for name, options in GENERATED.items():
            made[name] = os.path.join(tmp, name)
            subprocess.run([os.path.join(self.build, "tools/make_checkpoint"), *options, "--tokenizer", os.path.join(ROOT, "tests/tiny-v3"),
                            "--out", made[name]], check=True, capture_output=True)
            self.folder(name, made[name])
        if not os.path.exists(self.python):
            return
        for tool, options in MADE if not self.quick else [(tool, []) for tool in QUICK]:
            name = tool + " ".join(options)
            if self.make(os.path.join(tmp, name), tool, *options):
                self.folder(name, os.path.join(tmp, name))
        for tool, of, form in CHANGED[-2:] if self.quick else CHANGED:
            name = f"{tool} {form}"
            if self.make(made[of], tool, os.path.join(tmp, name), *form.split()):
                self.folder(name, os.path.join(tmp, name))
        if self.make(made["bf16-640"], "mistral.py"):
            self.folder("mistral", made["bf16-640"])

    def configs(self):
        for path in glob.glob(os.path.join(ROOT, "tests/data/*-config.json")) + glob.glob(os.path.join(ROOT, "tests/data/*-params.json")):
            c = json.load(open(path))
            self.put("config", os.path.basename(path), json.dumps(shrink(c, layers_of(c)), separators=(",", ":")))

    def chats(self):
        """Chat templates in every place, beside the least tokenizer."""
        rule = json.loads(open(os.path.join(ROOT, "tests/tiny-v3/tokenizer.json")).read())["pre_tokenizer"]
        tokenizer = {"added_tokens": [{"id": 3, "content": "<s>", "special": True}], "pre_tokenizer": rule,
                     "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}
        listed = [{"name": "default", "template": "{{x}}"}, {"name": "tool_use", "template": "{{y}}"}]
        for name, files in {"string": {"tokenizer_config.json": {"chat_template": "{{x}}"}}, "list": {"tokenizer_config.json": {"chat_template": listed}},
                            "file": {"chat_template.json": {"chat_template": listed}}, "jinja": {"chat_template.jinja": "{{x}}\n"}}.items():
            text = "B6\n=== tokenizer.json\n" + json.dumps(tokenizer) + "\n"
            for file, x in files.items():
                text += f"=== {file}\n" + (x if isinstance(x, str) else json.dumps(x)) + "\n"
            self.put("tokenizer", "chat-" + name, text)

    def texts(self):
        self.put("metadata", "card", "=== README.md\n---\nlicense: mit\nbase_model:\n- a/B-7B-v1.0\n- name: C\n  author: >-\n    d\n    e\n"
                 "tags: [x, 'y', \"\\u00e4\"]\nlanguage: \"en\\\n  us\"\ndatasets: f\nauthor: |\n  g\n\n   h\n---\ntext\n"
                 "=== generation_config.json\n{\"temperature\":0.6,\"top_k\":40,\"top_p\":0.95}\n=== config.json\n{\"_name_or_path\":\"org/Model-8x7B-it\"}\n")
        self.put("metadata", "named", "My Model\n=== README.md\n---\nmodel_name: X-70b-Chat\nmodel_creator: y\n---\n")
        for path in glob.glob(os.path.join(ROOT, "proto/recipes/*.recipe")):
            self.put("recipe", os.path.basename(path), "--tensor-type=attn_.*=q8_0\n" + open(path).read())
        spec = {"source": "/m/x.gguf", "output": "/m/out/", "prefix": "x", "recipe": "r", "recipe_text": "file_type q4_k_m\ndefault q4_k\n", "options": {
            "layout": "mla", "no_mtp": False, "round_through": "bf16", "rules": "2025", "split_max_bytes": 100000, "split_max_tensors": 2,
            "task_bytes": 4096, "model_name": "n", "output_type": "q6_k", "embedding_type": "q4_k", "tensor_types": [{"pattern": "attn_.*", "type": "q8_0"}],
            "override_kv": ["a.b=int:3", "c=str:d"], "leave_output": False, "pure": False, "allow_requantize": False, "sha256": True}}
        for name in os.listdir(os.path.join(ROOT, "proto/recipes"))[:6]:
            spec["recipe_text"] = open(os.path.join(ROOT, "proto/recipes", name)).read()
            self.put("spec", name, json.dumps(spec))
            self.put("spec", "bare-" + name, json.dumps({k: v for k, v in spec.items() if k != "options"}))
        for path in glob.glob(os.path.join(ROOT, "systemd/*.conf*")):
            self.put("settings", os.path.basename(path), "\0" + re.sub(r"(?m)^#(?=[a-z])", "", open(path).read()))
        key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
        self.put("settings", "config", "\0[sluice]\nendpoint = ipc:///run/x\nroot = /a\nroot = /b\n[daemon]\nlease = 30s\n[worker]\nmem = 1G ; x\n")
        self.put("settings", "key", f"\1# allow-list: worker key {key} node\npublic {key}\n")
        self.put("settings", "secret", f"\x0bpublic {key}\nsecret {key}\n")
        self.put("settings", "allowed", f"\2# who\nworker key {key} node1\nadmin uid 0 root\n")
        self.put("settings", "claim", "\x0300112233445566778899aabbccddeeff\njob 000000000000007\n0123456789abcdef0123456789abcdef\nepoch 000000000000003\n")
        for i in range(6):
            self.put("journal", f"step{i}", bytes([i]))
            self.put("journal", f"changed{i}", bytes([i]) + b"\nUPDATE tasks SET state=1 WHERE task=0\n@24 0000\n")
        for i, text in enumerate(["1.5Gi", "500ms", "tcp://127.0.0.1:9560", "a.b=float:1.5", "a=bool:true", "a=str:b", "tcp://[::1]:*"]):
            self.put("settings", f"text{i}", "\4" + text)

    def grants(self):
        """Lives of jobs as a worker hears of them."""
        def say(kind, **fields):
            return "m" + json.dumps({"v": 3, "m": kind, **fields})

        def grant(task, epoch, **fields):
            return say("grant", job=1, tasks=[{"task": task, "epoch": epoch}], lease_ms=60000, **fields)

        spec = {"source": "/r/m.gguf", "output": "/r/out/", "prefix": "x", "recipe": "r", "recipe_text": "default f32\n",
                "options": {"output_type": "f32", "embedding_type": "f32"}}
        welcome, plan = say("welcome", daemon="0" * 32, version="f", role="worker", heartbeat_ms=1000, lease_ms=60000), "f" * 32
        special = dict(prepare=65536, stitch=65537, publish=65538, verify=65539, discard=65540)
        begin = [welcome, grant(special["prepare"], 1, spec=spec), say("ack", job=1, task=special["prepare"], epoch=1)]
        work = begin + [grant(0, 2, fingerprint=plan), grant(special["stitch"], 3, fingerprint=plan, sums="f" * 16)]
        self.put("worker", "life", "\n".join(work + [grant(special["publish"], 4, fingerprint=plan), grant(special["verify"], 5, fingerprint=plan),
                                                     say("revoke", job=1, tasks=[], text="over"), "tttt", say("drain")]))
        self.put("worker", "bad-sums", "\n".join(begin + [grant(special["stitch"], 2, fingerprint=plan, sums="0" * 16), say("bye", text="x"), "tttttt"]))
        self.put("worker", "discard", "\n".join(work + [grant(special["discard"], 4, fingerprint=plan), say("nack", job=1, task=0, epoch=2, code=1, text="x")]))
        self.put("worker", "changed", "\n".join(begin + [say("rehello"), welcome, say("ping", n=1), say("revoke", job=1, tasks=[0, 65537], text="x"),
                                                        say("error", code=2, text="no"), grant(special["discard"], 7)]))
        for name, change in {"link": {"output": "/r/link/"}, "outside": {"output": "/o/"}, "up": {"output": "/r/../o"}, "self": {"prefix": "m", "output": "/r/"},
                             "force": {"options": {**spec["options"], "force": True, "sparse": True, "sha256": True}},
                             "imatrix": {"options": {"imatrix": "/r/m.gguf"}}}.items():
            other = grant(special["prepare"], 1, spec={**spec, **change})
            self.put("worker", name, "\n".join([welcome, other] + work[2:] + [grant(special["publish"], 4, fingerprint=plan),
                                                                              grant(special["discard"], 5, fingerprint=plan)]))

    def files(self):
        """The least of each kind of file whose reader has a target of its own."""
        def text(t):
            return struct.pack("<Q", len(t)) + t.encode()

        tensors = {"a.weight": {"dtype": "F8_E4M3", "shape": [2, 3], "data_offsets": [0, 6]}, "__metadata__": {"format": "pt"},
                   "b": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]}, "c": {"dtype": "BF16", "shape": [1], "data_offsets": [6, 8]}}
        self.put("safetensors", "three", text(json.dumps(tensors)) + bytes(12))
        keys = text("general.architecture") + struct.pack("<I", 8) + text("llama") + text("general.alignment") + struct.pack("<II", 4, 32) + \
            text("a") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("") + text("b") + struct.pack("<IIQff", 9, 6, 2, 1, 2)
        infos = text("t.weight") + struct.pack("<IQQIQ", 2, 32, 2, 8, 0) + text("u") + struct.pack("<IQIQ", 1, 3, 0, 96)
        head = b"GGUF" + struct.pack("<IQQ", 3, 2, 4) + keys + infos
        self.put("gguf", "two", head + bytes(-len(head) % 32) + bytes(128))
        entry = struct.pack("<i", 17) + b"blk.0.attn_q.weig" + struct.pack("<ii4f", 2, 4, 1, 2, 3, 4)
        self.put("imatrix", "dat", struct.pack("<i", 1) + entry + struct.pack("<ii", 3, 4) + b"text")
        kv = text("general.type") + struct.pack("<I", 8) + text("imatrix") + text("imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + text("d") + \
            text("imatrix.chunk_count") + struct.pack("<II", 4, 3) + text("imatrix.chunk_size") + struct.pack("<II", 4, 512)
        info = text("q.weight.counts") + struct.pack("<IQQIQ", 2, 1, 1, 0, 0) + text("q.weight.in_sum2") + struct.pack("<IQQIQ", 2, 4, 1, 0, 32)
        head = b"GGUF" + struct.pack("<IQQ", 3, 2, 4) + kv + info
        self.put("imatrix", "gguf", head + bytes(-len(head) % 32) + struct.pack("<f28x4f16x", 2, 1, 2, 3, 4))
        for path in glob.glob(os.path.join(ROOT, "tests/fuzz/wire_seeds/*")):
            self.put("coordinator", os.path.basename(path), open(path, "rb").read())
            for i, line in enumerate(open(path, "rb").read().splitlines()):
                if line[1:2] == b"{":
                    self.put("wire", f"{os.path.basename(path)}-{i}", line[1:])
        self.put("tiktoken", "some", "".join(f"{base64.b64encode(t.encode()).decode()} {256 + i}\n" for i, t in enumerate(["ab", "abc", "bc", "xy"])))

    def words(self):
        found = set()
        for path in glob.glob(os.path.join(ROOT, "proto/*.c")):
            found |= set(re.findall(r'"([A-Za-z_][A-Za-z0-9_.:-]{2,40})"', open(path).read()))
        with open(os.path.join(self.out, "words"), "w") as f:
            f.writelines(f'"{w}"\n' for w in sorted(found))


def main():
    quick = sys.argv[1] == "--quick"
    s = Seeds(*sys.argv[1 + quick:], quick)
    os.makedirs(s.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        s.checkpoints(tmp)
    s.configs()
    s.chats()
    s.texts()
    s.grants()
    s.files()
    s.words()


main()
