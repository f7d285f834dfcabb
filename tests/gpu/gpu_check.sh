#!/bin/sh
# What `make gpu-check` runs: golden vectors and random weights, compute-sanitizer, and a
# whole conversion. B: the build folder; KIT: a folder from `make gpu-kit`.
# Exit: 0 all well, 1 something differs, 77 nothing could be checked.
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build/release}
KIT=${KIT:-$B/gpu-kit}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0
skipped() { echo "SKIPPED: $*" >&2; }

"$B/gpu/gpu_check" -n "${WEIGHTS:-1000000000}" -g tests/golden
rc=$?
[ $rc -eq 77 ] && exit 77
[ $rc -eq 0 ] || bad=1

if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        if timeout 150 compute-sanitizer --tool $tool --error-exitcode 9 "$B/gpu/gpu_check" -s -g tests/golden >"$tmp/$tool" 2>&1
        then echo "compute-sanitizer $tool: clean"
        elif [ $? -eq 124 ]; then skipped "compute-sanitizer $tool took longer than 150 s"
        else echo "FAILED: compute-sanitizer $tool"; grep -m5 '=========' "$tmp/$tool"; bad=1; fi
    done
else
    skipped "no compute-sanitizer in PATH"
fi

# The whole program, from this build or from a kit.
for dir in "$B" "$KIT"; do
    [ -x "$dir/sluice" ] && LD_LIBRARY_PATH="$dir/lib" "$dir/sluice" --version >/dev/null 2>&1 && sluice=$dir/sluice && lib=$dir/lib && break
done
if [ -z "$sluice" ]; then
    skipped "no sluice in $B or $KIT that runs here: the whole conversion was NOT checked (make, or make gpu-kit elsewhere)"
else
    run() { LD_LIBRARY_PATH=$lib "$sluice" "$@" --quiet; }
    for how in "q4_k_m" "q3_k_m --imatrix tests/tiny-v3/imatrix.legacy-layout.dat --layout legacy" "iq3_xxs" "q2_k --mem 64Mi --vram 8Mi" "q8_0"; do
        rm -f "$tmp"/*.gguf*
        # shellcheck disable=SC2086
        if run convert tests/tiny-v3 -o "$tmp/cpu.gguf" --device cpu --recipe $(echo "$how" | sed 's/--vram [^ ]*//') &&
            run convert tests/tiny-v3 -o "$tmp/gpu.gguf" --device auto --recipe $how &&
            cmp "$tmp/cpu.gguf" "$tmp/gpu.gguf"
        then echo "convert --recipe $how: the GPU's file is the processor's"
        else echo "FAILED: convert --recipe $how"; bad=1; fi
    done
fi
[ $bad -eq 0 ] && echo "gpu-check: all well" || echo "gpu-check: FAILED"
exit $bad
