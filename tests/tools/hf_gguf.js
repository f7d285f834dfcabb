// Hugging Face's own GGUF reader (@huggingface/gguf, which its site shows files with), as
// an independent one. JSON lines:
//   hf_gguf.js read FILE...      metadata, and name, type, dims, place of each tensor
//   hf_gguf.js set FIRST_PART    the whole of a split set, from the name of its first file
//   hf_gguf.js label NAME...     the quantization that it finds in a file name, or null
// Exit 3: the package is not in build/npm (make test-tools installs it).
"use strict";
const path = require("path");

let hf;
try {
    hf = require(path.join(__dirname, "../../build/npm/node_modules/@huggingface/gguf"));
} catch (e) {
    console.error("@huggingface/gguf: " + e.message.split("\n")[0]);
    process.exit(3);
}

function tensors(r) {
    return r.tensorInfos.map((t) => [t.name, hf.GGMLQuantizationType[t.dtype].toLowerCase(), t.shape.map(Number),
        Number(r.tensorDataOffset + t.offset)]);
}

// JSON has no u64; long lists (the vocabulary) are given by their length.
function plain(key, value) {
    if (typeof value === "bigint")
        return value.toString();
    return Array.isArray(value) && key.includes(".") ? value.length : value;
}

async function main(verb, names) {
    let bad = 0;
    for (const name of names) {
        try {
            if (verb === "label") {
                console.log(JSON.stringify({ name, label: hf.parseGGUFQuantLabel(name) ?? null }));
            } else if (verb === "read") {
                const r = await hf.gguf(name, { allowLocalFile: true });
                console.log(JSON.stringify({ file: name, metadata: r.metadata, tensors: tensors(r) }, plain));
            } else {
                const r = await hf.ggufAllShards(name, { allowLocalFile: true });
                console.log(JSON.stringify({ file: name, weights: r.parameterCount, parts: r.shards.map((s) => s.tensorInfos.length) }));
            }
        } catch (e) {
            console.log(JSON.stringify({ file: name, error: e.message }));
            bad = 1;
        }
    }
    process.exit(bad);
}

main(process.argv[2], process.argv.slice(3));
