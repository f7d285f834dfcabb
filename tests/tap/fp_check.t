#!/bin/sh
# No fused and no approximate floating-point instruction in the kernels: in the
# objects' machine code and in the PTX. Needs no GPU. B: the build folder; CC: what made it.
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build/release}
CC=${CC:-cc}
NVCC=${NVCC-$(command -v nvcc)}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
n=0

ok() { n=$((n + 1)); echo "ok $n - $1"; }
not_ok() { n=$((n + 1)); echo "not ok $n - $1"; echo "# $2"; }
skip() { n=$((n + 1)); echo "ok $n # SKIP $1"; echo "# fp_check: $1" >&2; }

# What the compiler writes code for, and its own disassembler.
machine=$($CC -dumpmachine 2>/dev/null)
objdump=$($CC -print-prog-name=objdump 2>/dev/null)
# Lines of machine code that fuse or approximate.
case $machine in
x86_64-*) bad='v?(fn?m(add|sub)|rcp|rsqrt)[a-z0-9]*' ;;
aarch64-*) bad='fn?m(add|sub|ad|sb)|b?fn?ml[as][lbt]*2?|fcmla|b?f(dot|mmla)|frecp[esx]|frsqrt[es]|u(recp|rsqrt)e' ;;
esac
bad_code() { $objdump -d --no-show-raw-insn "$1" | grep -E "[[:space:]]($bad)[[:space:]]"; }
# PTX: fused, approximate, flushing, or an operation that ptxas is free to fuse
# because it does not say how it rounds.
bad_ptx() { grep -E '\b(fma|mad)\.[a-z.]*f(32|64|16)|\.approx|\.ftz|\.full\.|\b(add|sub|mul)\.f(32|64)\b' "$1"; }

case $machine in
x86_64-* | aarch64-*)
    # Each of these holds one such instruction.
    one() { printf '#include <%s>\n%s\n' "$1" "$2" >"$tmp/one.c"; shift 2; $CC -O2 "$@" -c "$tmp/one.c" -o "$tmp/one.o" && bad_code "$tmp/one.o" >/dev/null; }
    plain='float f(float a, float b, float c) { return a * b + c; }'
    case $machine in
    x86_64-*)
        one math.h "$plain" -mfma -ffp-contract=fast &&
            one xmmintrin.h '__m128 f(__m128 a) { return _mm_rcp_ps(a); }' ;;
    *)
        one math.h "$plain" -ffp-contract=fast && one math.h "${plain%+*}- c; }" -ffp-contract=fast &&
            one arm_neon.h 'float32x4_t f(float32x4_t a, float32x4_t b) { return a * b + a; }' -ffp-contract=fast &&
            one arm_neon.h 'float32x4_t f(float32x4_t a) { return vrecpeq_f32(a); }' &&
            one arm_neon.h 'float32x4_t f(float32x4_t a) { return vrsqrteq_f32(a); }' &&
            one arm_neon.h 'float32x4_t f(float32x4_t a, float32x4_t b) { return vrsqrtsq_f32(a, b); }' ;;
    esac
    if [ $? = 0 ] && ! one math.h "$plain" -ffp-contract=off
    then ok "self-test: fused and approximate machine code is caught"
    else not_ok "self-test: fused and approximate machine code is caught" "the check saw nothing, or too much"; fi
    seen=0
    for o in "$B"/kernels/quantize_*.o "$B"/kernels/load_f32.o "$B"/kernels/dequantize.o "$B"/kernels/change.o; do
        case $o in *.cu.o) continue ;; esac
        [ -f "$o" ] || continue
        seen=$((seen + 1))
        bad_code "$o" | sed "s|^|$o: |" >>"$tmp/found"
    done
    if [ $seen -lt 6 ]; then not_ok "objects in $B/kernels" "only $seen objects there; build first"
    elif [ -s "$tmp/found" ]; then not_ok "objects in $B/kernels" "$(head -1 "$tmp/found")"
    else ok "$seen objects in $B/kernels have no fused or approximate instruction"; fi ;;
*)
    skip "the machine code of ${machine:-$CC} is not checked" ;;
esac

if [ -z "$NVCC" ]; then
    skip "no nvcc: the PTX was NOT checked"
else
    printf '__global__ void f(float *a) { a[0] = a[0] * a[1] + a[2]; }\n' >"$tmp/fused.cu"
    printf '__global__ void f(float *a) { a[0] = a[0] / a[1]; }\n' >"$tmp/approx.cu"
    $NVCC ${NVCC_CCBIN:+-ccbin $NVCC_CCBIN} -ptx -arch=compute_90 "$tmp/fused.cu" -o "$tmp/fused.ptx" &&
        $NVCC ${NVCC_CCBIN:+-ccbin $NVCC_CCBIN} -ptx -arch=compute_90 -use_fast_math "$tmp/approx.cu" -o "$tmp/approx.ptx"
    if bad_ptx "$tmp/fused.ptx" >/dev/null && bad_ptx "$tmp/approx.ptx" >/dev/null
    then ok "self-test: fused and approximate PTX is caught"
    else not_ok "self-test: fused and approximate PTX is caught" "the check saw nothing"; fi
    # What nvcc put into the program's objects (tests/ptx/ptx.mk).
    for cu in kernels/gpu_*.cu; do
        p=$B/ptx/text/$(basename "$cu" .cu).ptx
        [ "$cu" = kernels/gpu_cuda.cu ] && continue # no kernel in it
        if [ ! -s "$p" ]; then not_ok "PTX of $cu" "$p is not there: make test-programs"
        elif bad_ptx "$p" >"$tmp/found.ptx"; then not_ok "PTX of $cu" "$(head -1 "$tmp/found.ptx")"
        elif ! grep -q 'mul\.rn\.f32' "$p"; then not_ok "PTX of $cu" "no arithmetic in it: is this the right file?"
        else ok "PTX of $cu has no fused or approximate operation"; fi
    done
fi

# Machine code of the device.
sass="perl tests/gpu/gpu_report.pl --check-sass"
printf '\tFunction : a\n MUFU.RCP R1, R2 ;\n FFMA R1, R2, R3, R4 ;\n FADD R1, R2, R3 ;\n HFMA2 R34, -RZ, RZ, 0, 0 ;\n' >"$tmp/good.sass"
for bad in 'FFMA R1, R2, R3, R4' 'MUFU.EX2 R1, R2' 'HFMA2 R1, R2, R3, R4' 'FADD.FTZ R1, R2, R3' 'DFMA R2, R4, R6, R8'; do
    printf '\tFunction : a\n %s ;\n' "$bad" >"$tmp/bad.sass"
    if $sass "$tmp/bad.sass" >/dev/null; then not_ok "self-test: $bad is caught" "the check saw nothing"; bad=; break; fi
done
printf '\tFunction : a\n        /*0000*/ FADD R1, R2, R3 ;\n        /*0020*/ FADD R1, R2, R3 ;\n' >"$tmp/hole.sass"
if $sass "$tmp/hole.sass" >/dev/null; then not_ok "self-test: a disassembler that leaves instructions out is caught" "the check saw nothing"; fi
if [ -n "$bad" ]; then
    if $sass "$tmp/good.sass" >"$tmp/found"; then ok "self-test: fused and approximate machine code of a GPU is caught"
    else not_ok "self-test: good machine code of a GPU passes" "$(head -1 "$tmp/found")"; fi
fi
for d in build/venv/lib/python3*/site-packages/nvidia/cu*/bin; do PATH=$PWD/$d:$PATH; done # tests/tools/requirements.txt
dump=${CUOBJDUMP:-$(command -v cuobjdump)}
if [ -z "$dump" ] || [ ! -f "$B/kernels/gpu_q4.cu.o" ]; then
    skip "no cuobjdump, or no CUDA objects in $B: the GPU's machine code was NOT checked"
else
    for o in "$B"/kernels/gpu_*.cu.o; do "$dump" --dump-sass -arch sm_90 "$o" 2>/dev/null; done >"$tmp/all.sass"
    if ! grep -q 'MUFU' "$tmp/all.sass"; then not_ok "machine code for sm_90" "no arithmetic in it"
    elif $sass "$tmp/all.sass" >"$tmp/found"; then ok "the machine code for sm_90 fuses and approximates nothing but inside divisions and roots"
    else not_ok "machine code for sm_90" "$(head -1 "$tmp/found")"; fi
fi
echo "1..$n"
