"""Importance matrices in GGUF, as llama-imatrix writes them since July 2025."""
import gguf
import numpy as np


def write(path, dataset, chunks, chunk_size, entries):
    """entries: of each tensor its name, sums and counts, in the file's order."""
    w = gguf.GGUFWriter(path, "")
    w.add_type("imatrix")
    w.add_array("imatrix.datasets", [dataset])
    w.add_uint32("imatrix.chunk_count", chunks)
    w.add_uint32("imatrix.chunk_size", chunk_size)
    for name, sums, counts in entries:
        w.add_tensor(name + ".in_sum2", sums.astype(np.float32))
        w.add_tensor(name + ".counts", counts.astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
