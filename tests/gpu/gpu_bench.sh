#!/bin/sh
# What `make gpu-bench` runs. The table goes to $B/gpu_bench.md too, for kernels/GPU.md.
# B: the build folder; KIT: a folder from `make gpu-kit`; BENCH_DIR: where a checkpoint of
# some GB is made for the whole worker (default: TMPDIR or /tmp).
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build/release}
KIT=${KIT:-$B/gpu-kit}
set -o 2>/dev/null | grep -q pipefail && set -o pipefail
out=$B/gpu_bench.md
# Nothing is timed that is not right.
"$B/gpu/gpu_check" -n 2000000 -g tests/golden >"$out.check" 2>&1 || { rc=$?; tail -3 "$out.check" >&2; exit $rc; }
"$B/gpu/gpu_bench" >"$out"
rc=$?
cat "$out"
[ $rc -eq 0 ] || exit $rc

for dir in "$B" "$KIT"; do
    [ -x "$dir/sluice" ] && LD_LIBRARY_PATH="$dir/lib" "$dir/sluice" --version >/dev/null 2>&1 && sluice=$dir/sluice && lib=$dir/lib && break
done
maker=$B/tools/make_checkpoint
[ -x "$maker" ] || maker=$KIT/make_checkpoint
if [ -z "$sluice" ] || [ ! -x "$maker" ]; then
    echo "SKIPPED: no sluice or make_checkpoint here: the whole worker was NOT measured" >&2
    exit 0
fi
tmp=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/sluice-bench-XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
"$maker" --preset demo --layers 6 --hidden 4096 --inter 8192 --moe-inter 2048 --experts 48 \
    --tokenizer tests/tiny-v3 --out "$tmp/ck" >/dev/null || { echo "SKIPPED: no checkpoint could be made" >&2; exit 0; }
{
    bytes=$(du -sb "$tmp/ck" | cut -f1)
    echo
    echo "| whole worker, checkpoint of $((bytes / 1000000)) MB | seconds | its own figures |"
    echo "|---|---|---|"
    t0=$(date +%s.%N); cat "$tmp"/ck/*.safetensors >/dev/null; t1=$(date +%s.%N)
    echo "| reading it (page cache) | $(echo "$t0 $t1" | awk '{printf "%.2f", $2 - $1}') | |"
    for how in "cpu q4_k_m" "auto q4_k_m" "auto q3_k_m" "auto q8_0"; do
        # shellcheck disable=SC2086
        set -- $how
        t0=$(date +%s.%N)
        LD_LIBRARY_PATH=$lib "$sluice" convert "$tmp/ck" -o "$tmp/x.gguf" --force --device "$1" --recipe "$2" --mem 4Gi --vram 8Gi --stats --quiet 2>"$tmp/err" || cat "$tmp/err" >&2
        t1=$(date +%s.%N)
        echo "| $1, $2 | $(echo "$t0 $t1" | awk '{printf "%.2f", $2 - $1}') | $(grep -h '^stats:' "$tmp/err" | tr '\n|' '; ') |"
        rm -f "$tmp"/x.gguf*
    done
} | tee -a "$out"
echo "the table is in $out"
