#!/bin/sh
# `make demo`: a small DeepSeek-V3 from checkpoint to verified GGUF, a sentence
# by llama.cpp where it can be had, then 350 MB to show the rates.
set -eu
cd "$(dirname "$0")/../.."
build=${SLUICE_BUILD:-build/release}
sluice=$build/sluice
case $build in
build/*) out=build/demo fetch=yes ;;
*) out=$build/demo fetch= ;; # nothing is written into the tree
esac
rm -rf "$out"
mkdir -p "$out"

title() { printf '\n== %s\n' "$*"; }
show() { # runs a command, and shows it as one would type it
    printf '$ %s\n' "$(echo "$*" | sed "s,$build/,,g; s,$PWD/,,g")"
    "$@"
}

title "A DeepSeek-V3 in small: tests/tiny-v3 (FP8, 128 x 128 block scales, 8 experts, trained)"
show "$sluice" plan tests/tiny-v3 --recipe dq3_k_m
show "$sluice" convert tests/tiny-v3 -o "$out/" --recipe dq3_k_m
gguf=$(ls "$out"/*.gguf)
show "$sluice" verify "$gguf" --source tests/tiny-v3
show "$sluice" inspect "$gguf" >"$out/inspect.txt"
head -n 30 "$out/inspect.txt"
echo "... ($(wc -l <"$out/inspect.txt") lines in $out/inspect.txt)"

title "llama.cpp goes on with a sentence"
if [ "$fetch" ] && command -v npm >/dev/null && command -v python3 >/dev/null; then
    tests/tools/setup.sh llama || true
fi
if ! command -v python3 >/dev/null; then
    echo "skipped: no python3 to call llama.cpp's library with ('make deps' and 'make test-tools' install both)"
elif python3 tests/tools/llama.py version >/dev/null 2>"$out/llama.log"; then
    python3 tests/tools/llama.py generate "$gguf" --prompt "The library reads a file and" --tokens 40 || true
else
    echo "skipped: $(cat "$out/llama.log")"
fi

title "350 MB of generated weights, to show the rates"
"$build/tools/make_checkpoint" --preset demo --mtp --out "$out/checkpoint"
show "$sluice" convert "$out/checkpoint" -o "$out/large.gguf" --recipe dq3_k_m --stats
show "$sluice" verify "$out/large.gguf" --source "$out/checkpoint"
rm -rf "$out/checkpoint" "$out/large.gguf" "$out/large.gguf.xxh64"

title "Done. What was made is in $out"
ls -l "$out"
