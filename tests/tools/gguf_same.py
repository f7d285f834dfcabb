"""What differs between a GGUF file and what is expected of it."""
import numpy as np

from reference import to_bf16


def same_tensors(files, wanted):
    """Prints what differs between each file's tensors and wanted(): by name, a function that gives the bytes' array for
    a type's name. Returns an exit code."""
    import gguf
    bad = []
    for file in files:
        want = wanted()
        for t in gguf.GGUFReader(file).tensors:
            values = want.pop(t.name, None)
            if values is None:
                bad.append(f"{t.name}: not in the checkpoint")
            elif values(t.tensor_type.name).tobytes() != t.data.tobytes():
                bad.append(f"{t.name}: bytes differ ({t.tensor_type.name})")
        bad += [f"{name}: missing" for name in want]
    print("\n".join(bad) or "equal")
    return 1 if bad else 0


def same_values(files, wanted):
    """The same of wanted(): by name, a function that gives the values, of which each file has F32, BF16 or F16."""
    as_type = {"F32": lambda x: np.ascontiguousarray(x, np.float32), "BF16": to_bf16, "F16": lambda x: x.astype(np.float16)}
    return same_tensors(files, lambda: {name: lambda kind, values=values: as_type[kind](values()) for name, values in wanted().items()})


def same_keys(file, prefix, want):
    import gguf
    fields = gguf.GGUFReader(file).fields
    ours = [(k, f.contents()) for k, f in fields.items() if k.startswith(prefix)]
    bad = [] if [k for k, _ in ours] == [k for k, _ in want] else [f"keys {[k for k, _ in ours]}"]
    for (k, v), (_, w) in zip(ours, want):
        if (np.float32(v) != np.float32(w)) if isinstance(w, float) else v != w:
            bad.append(f"{k}: {str(v)[:300]}, expected {str(w)[:300]}")
    print("\n".join(bad) or f"equal {len(want)} keys")
    return 1 if bad else 0
