#!/bin/sh
# What needs a GPU, in parts, the most telling ones first. Each part has a limit of its own and
# writes what it finds at once; what time cuts off is taken up by the next call.
#
# usage: gpu_run.sh [--seconds N] [--results DIR] [--pack FILE] [--again] [--list] [PART...]
#   --seconds  for the whole call (default 520); a part that no longer fits is left for the next
#   --results  where findings go (default: gpu-results beside the programs, or in TMPDIR or /tmp where
#              those lie in a folder that cannot be written to); kept from call to call
#   --pack     all findings in one file too, tar.gz, made anew after each part; where DIR has none yet, those in
#              FILE are gone on from
#   --again    also parts that ended well before, with the same programs
# Environment: GPU_BIN: the folder with the programs (default: this one, as in a folder that
# `make gpu-kit` made, or build/release); WEIGHTS: of each type in `random` (1000000000);
# WORK: where checkpoints of some GB are made (default: TMPDIR or /tmp; for `worker` /dev/shm where it has room:
# a borrowed machine's disk says little); PATIENCE: seconds that a launch of gpu_check may take; CONVERSION: that a
# conversion of `convert` or `worker` may (40; `worker` adds what its disk takes).
# Exit: 0 all well, 1 something differs or failed, 75 time was up, call again, 77 nothing could
# be checked (no GPU, no driver).
here=$(cd "$(dirname "$0")" && pwd) || exit 1
PARTS="about golden cases small kernels convert worker random profile sanitizer"
seconds=520 results='' pack='' again='' inside='' list=''

# Seconds that each may take, and must be left for it to begin.
limit_of() {
    case $1 in
    about) echo 60 5 ;; golden) echo 90 10 ;; cases) echo 60 10 ;; small) echo 150 20 ;; kernels) echo 120 40 ;; convert) echo 150 30 ;;
    worker) echo 200 90 ;; random) echo 500 30 ;; profile) echo 120 40 ;; sanitizer) echo 420 60 ;; *) echo 0 0 ;;
    esac
}

what_is() {
    case $1 in
    about) echo "the card, the driver, the programs" ;;
    golden) echo "every golden vector, byte for byte" ;;
    cases) echo "ragged ends, dtypes, scales, orders, slices, what is not finite" ;;
    small) echo "20 million random weights of every type against the processor" ;;
    kernels) echo "Gweights/s beside the floors, copies, the pipeline" ;;
    convert) echo "whole conversions, GPU against processor" ;;
    worker) echo "a whole worker on a checkpoint of some GB" ;;
    random) echo "a billion random weights of every type against the processor" ;;
    profile) echo "the kernels' own counters, by ncu" ;;
    sanitizer) echo "compute-sanitizer: memcheck, racecheck, initcheck, synccheck" ;;
    esac
}

while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --results) results=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    --again) again=1; shift ;;
    --list) list=1; shift ;;
    --inside) inside=$2; shift 2 ;;
    -*) echo "gpu_run: $1: --seconds N, --results DIR, --pack FILE, --again, --list or a part is expected" >&2; exit 2 ;;
    *) break ;;
    esac
done
case $seconds in '' | *[!0-9]*) echo "gpu_run: --seconds: a number is expected" >&2; exit 2 ;; esac
for p in "$@"; do
    case " $PARTS " in *" $p "*) ;; *) echo "gpu_run: $p: one of $PARTS is expected" >&2; exit 2 ;; esac
done
if [ -n "$list" ]; then
    for p in $PARTS; do echo "$p: $(what_is "$p") (at most $(limit_of "$p" | cut -d' ' -f1) s)"; done
    exit 0
fi

# Programs, and what they are checked with: in one folder (a kit), or in a tree.
if [ -n "$GPU_BIN" ]; then bin=$GPU_BIN
elif [ -x "$here/gpu_check" ]; then bin=$here
else bin=$here/../../build/release; fi
[ -x "$bin/gpu_check" ] || [ ! -x "$bin/gpu/gpu_check" ] || gpu=$bin/gpu
gpu=${gpu:-$bin}
maker=$bin/make_checkpoint
[ -x "$maker" ] || maker=$bin/tools/make_checkpoint
data=$here/data
[ -d "$data/golden" ] || data=$here/..
tokenizer=$data/tokenizer
[ -d "$tokenizer" ] || tokenizer=$data/tiny-v3
[ -n "$results" ] || { results=$bin/gpu-results && mkdir -p "$results" 2>/dev/null && [ -w "$results" ]; } || results=${TMPDIR:-/tmp}/gpu-results

if [ ! -x "$gpu/gpu_check" ]; then
    echo "gpu_run: no gpu_check in $bin: make gpu-check builds it, make gpu-kit a folder with everything" >&2
    exit 1
fi
for t in awk timeout tail; do
    command -v $t >/dev/null || { echo "gpu_run: no $t in PATH: awk and coreutils are needed" >&2; exit 1; }
done

# The lines of FILE that EXPRESSION matches; 1 where there are none.
lines_with() { awk -v e="$1" '$0 ~ e {print; n++} END {exit !n}' "$2" 2>/dev/null; }
# Whether two files are equal; cmp says where they are not, but is not everywhere.
same() {
    if command -v cmp >/dev/null; then cmp "$1" "$2"; else [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]; fi
}

# The kit's own libc is for its programs alone: no other would start with it. Its loader looks for the driver where
# LD_LIBRARY_PATH says only if it is told so. before: words before the program.
loader=$GPU_LOADER libs=$bin/lib:$bin/lib/glibc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} before=
start() {
    # shellcheck disable=SC2086
    if [ -n "$loader" ]; then $before "$loader" --library-path "$libs" "$@"; else $before "$@"; fi
}
looks() {
    before="timeout -k 5 75"
    start "$gpu/gpu_check" -l >/dev/null 2>&1
    rc=$?
    before=
}
# Whether the programs start. gpu_check has no -h, and ends with 2; a loader ends with 1 where the libc is too old, which sluice notices first.
all_start() {
    start "$gpu/gpu_check" -h >/dev/null 2>&1
    [ $? -eq 2 ] && { [ ! -x "$bin/sluice" ] || start "$bin/sluice" --version >/dev/null 2>&1; }
}
if [ -z "$inside" ]; then
    # Programs that do not start: this libc is older than theirs, and the kit brings one along.
    if [ -d "$bin/lib/glibc" ] && ! all_start; then
        for l in "$bin"/lib/glibc/ld-*; do loader=$l; done
    fi
    looks
    # A driver that lies where nothing looks for it, as in some containers.
    for d in /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do
        [ $rc -ne 77 ] || [ ! -e $d/libcuda.so.1 ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$d"
    done
    export GPU_LOADER="$loader"
fi

# ---- the parts; each runs in a shell of its own under `timeout`

part_about() {
    date -u '+%Y-%m-%d %H:%M UTC'
    echo "$(uname -srm), $(nproc) processors, $(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo)"
    awk -F': ' '/^model name/ {print $2; exit}' /proc/cpuinfo
    find_tool nvidia-smi
    if [ -n "$tool" ]; then
        timeout 30 "$tool" --query-gpu=name,uuid,driver_version,memory.total,clocks.max.sm,pcie.link.gen.max,pcie.link.width.max --format=csv
    else
        echo "no nvidia-smi here"
    fi
    for name in ncu compute-sanitizer; do
        find_tool $name
        echo "$name: ${tool:-not here}"
    done
    [ -n "$loader" ] && echo "with the kit's own libc"
    start "$gpu/gpu_check" -l || return $?
    [ -x "$bin/sluice" ] && { start "$bin/sluice" --version; start "$bin/sluice" doctor "${WORK:-${TMPDIR:-/tmp}}" 2>&1 | awk '$2 ~ /^(cuda|kernels|io_uring|memlock|space)$/'; }
    return 0
}

# Sets `tool` to a program of the CUDA toolkit or of the driver, or to nothing.
find_tool() {
    tool=$(command -v "$1")
    for t in /usr/local/cuda*/bin/"$1" /opt/cuda/bin/"$1" /usr/local/cuda*/"$1"/"$1" /opt/nvidia/*/*/"$1" /usr/local/nvidia/bin/"$1"; do
        [ -n "$tool" ] || [ ! -x "$t" ] || [ -d "$t" ] || tool=$t
    done
}

# Types that were begun, and those that were equal, together.
tried() { awk '/begun/ {n += !k[$1 " " $2 " " $3]++} / equal / {n++} END {print n + 0}' "$1" 2>/dev/null || echo 0; }

# gpu_check, which keeps a line of each type in FILE, and ends in so many SECONDS; where the device was lost, or did not end
# its work, again with those that are left.
by_type() {
    lines=$1 end=$(($(date +%s) + $2)) lost=
    shift 2
    while :; do
        had=$(tried "$lines") left=$((end - $(date +%s)))
        # shellcheck disable=SC2086
        start "$gpu/gpu_check" -o "$lines" ${PATIENCE:+-w $PATIENCE} "$@" -T $((left > 0 ? left : 1))
        rc=$?
        [ $rc -eq 3 ] && [ "$(tried "$lines")" -gt "$had" ] || return $((rc ? rc : ${lost:-0}))
        lost=1
    done
}

part_golden() { by_type "$results/golden.lines" $((allowed - 5)) -G -g "$data/golden"; }
part_small() { by_type "$results/small.lines" $((allowed - 10)) -R -n "${SMALL:-20000000}"; }
part_random() { by_type "$results/random.lines" $((allowed - 15)) -R -n "${WEIGHTS:-1000000000}"; }

part_cases() {
    [ -x "$gpu/gpu_cases" ] || { echo "SKIPPED: no gpu_cases in $bin"; return 77; }
    SLUICE_DEVICE_TEST=1 start "$gpu/gpu_cases" 2>&1
}

# Nothing is timed that is not right: types that were begun and not found equal are left out.
part_kernels() {
    [ -f "$results/golden.done" ] || part_golden >/dev/null
    wrong=$(cat "$results/golden.lines" "$results/small.lines" 2>/dev/null |
        awk '{k = $1 " " $2 " " $3} / begun/ {open[k] = $1} / equal / {delete open[k]} END {for (k in open) print open[k]}' | sort -u)
    # shellcheck disable=SC2086
    start "$gpu/gpu_bench" -x "$(echo $wrong)" $BENCH && [ -z "$wrong" ]
}

# Nothing where it cannot be known.
free_mb() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 {printf "%d", $4 < 1e9 ? $4 / 1000 : 1e6}'; }

# Sets `tmp` to a folder with room for so many MB.
need_sluice() {
    if [ ! -x "$bin/sluice" ] || ! start "$bin/sluice" --version >/dev/null 2>&1 || [ ! -x "$maker" ]; then
        echo "SKIPPED: no sluice or make_checkpoint in $bin that runs here"
        return 77
    fi
    tmp=${WORK:-${TMPDIR:-/tmp}} room=$(free_mb "${WORK:-${TMPDIR:-/tmp}}")
    if [ -z "$CHECKPOINT" ] && [ "${room:-$1}" -lt "$1" ]; then
        echo "SKIPPED: $tmp has $room MB free, and $1 are needed: name a folder by WORK="
        return 77
    fi
    tmp=$(mktemp -d "$tmp/sluice-gpu-XXXXXX") || return 1
    # A signal ends the shell, and that removes the folder.
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 143' TERM INT HUP
}

# A conversion with a limit of its own; where the device does not end its work, two are enough to know.
hung=0
conversion() {
    before="timeout --foreground -k 3 ${CONVERSION:-40}"
    start "$bin/sluice" convert "$@" -q
    rc=$?
    before=
    if [ $rc -eq 124 ] || [ $rc -eq 137 ]; then
        echo "FAILED: a conversion did not end in ${CONVERSION:-40} s"
        hung=$((hung + 1))
    fi
    return $rc
}

part_convert() {
    need_sluice 1000 || return $?
    bad=0
    # shellcheck disable=SC2086
    start "$maker" --preset demo $CHECKPOINT --tokenizer "$tokenizer" --out "$tmp/ck" >/dev/null || return 1
    # auto: with cores beside the GPUs.
    while read -r device recipe how; do
        this="--device $device --recipe $recipe${how:+ $how}"
        if awk -v s="$this" '$0 == s {n++} END {exit !n}' "$results/convert.lines" 2>/dev/null; then echo "convert $this: before"; continue; fi
        [ $hung -lt 2 ] || { echo "convert $this: left out"; continue; }
        rm -rf "$tmp"/cpu.* "$tmp"/gpu.*
        # shellcheck disable=SC2086
        if conversion "$tmp/ck" -o "$tmp/cpu.gguf" --device cpu --recipe $recipe ${how%%--vram*} &&
            conversion "$tmp/ck" -o "$tmp/gpu.gguf" $this && same "$tmp/cpu.gguf" "$tmp/gpu.gguf"
        then echo "convert $this: the GPU's file is the processor's"; echo "$this" >>"$results/convert.lines"
        else echo "FAILED: convert $this"; bad=1; fi
    done <<EOF
auto q4_k_m
cuda:0 q3_k_m --imatrix synthetic
cuda:0 iq3_xxs --imatrix synthetic
cuda:0 q2_k --mem 256Mi --vram 64Mi
cuda:0 q8_0
cuda:0 iq1_m --imatrix synthetic --layout legacy
cuda:0 q5_1
EOF
    return $bad
}

part_worker() {
    if [ -z "$WORK" ] && [ "$(free_mb /dev/shm)0" -gt 160000 ]; then WORK=/dev/shm; fi
    end=$(($(date +%s) + allowed - 5))
    need_sluice 14000 || return $?
    # shellcheck disable=SC2086
    start "$maker" --preset demo ${CHECKPOINT:---layers 6 --hidden 4096 --inter 8192 --moe-inter 2048 --experts 48} \
        --tokenizer "$tokenizer" --out "$tmp/ck" >/dev/null || { echo "SKIPPED: no checkpoint could be made"; return 77; }
    bad=0 late=0 usual=${CONVERSION:-40} began=$(date +%s)
    bytes=$(du -sb "$tmp/ck" | cut -f1)
    echo
    # A virtual machine's memory is slow where nothing wrote before: that is no worker's. A slow disk is no device that hangs.
    CONVERSION=$allowed
    conversion "$tmp/ck" -o "$tmp/x.gguf" --recipe q8_0 --mem 4Gi 2>"$tmp/err" || { cat "$tmp/err"; bad=1; }
    once=$(($(date +%s) - began)) CONVERSION=$((usual + 2 * once))
    mv "$tmp/x.gguf.xxh64" "$tmp/q8_0.sums"
    rm -f "$tmp"/x.gguf*
    echo "| whole worker, checkpoint of $((bytes / 1000000)) MB in ${tmp%/*} | seconds | GB/s read, once it was ready | its own figures |"
    echo "|---|---|---|---|"
    t0=$(date +%s.%N); cat "$tmp"/ck/*.safetensors >/dev/null; t1=$(date +%s.%N)
    echo "$t0 $t1 $bytes" | awk '{printf "| reading it (page cache) | %.2f | %.2f | |\n", $2 - $1, $3 / ($2 - $1 + 1e-6) / 1e9}'
    # From memory io_uring copies in its one thread, a pool in several.
    for how in "auto q4_k_m" "auto q4_k_m --io pread" "auto q3_k_m" "auto q8_0" "auto q8_0 --io pread" "auto q8_0 --io pread --threads 8" "cuda:0 q4_k_m" "cpu q4_k_m"; do
        device=${how%% *} recipe=${how#* }
        [ $hung -lt 2 ] || break
        if [ $((end - $(date +%s))) -lt $once ]; then late=75; echo "| $device, $recipe | left out: no time | | |"; continue; fi
        t0=$(date +%s.%N)
        # shellcheck disable=SC2086
        conversion "$tmp/ck" -o "$tmp/x.gguf" --force --device "$device" --recipe $recipe --mem 4Gi --vram 8Gi --stats 2>"$tmp/err" ||
            { cat "$tmp/err"; rm -rf "$tmp"/x.*; bad=1; continue; }
        t1=$(date +%s.%N)
        net=$(awk '/^stats: convert/ {s = $3; g = $6} /ready after/ {sub(/.*ready after /, ""); s -= $1} END {if (s > 0) printf "%.2f", g / s}' "$tmp/err")
        echo "| $device, $recipe | $(echo "$t0 $t1" | awk '{printf "%.2f", $2 - $1}') | $net | $(lines_with '^stats:' "$tmp/err" | tr '\n|' '; ') |"
        sums=$tmp/${recipe%% *}.sums
        [ -f "$sums" ] || cp "$tmp/x.gguf.xxh64" "$sums"
        same "$tmp/x.gguf.xxh64" "$sums" >/dev/null || { echo "FAILED: $device, $recipe: other tensors than before"; bad=1; }
        rm -f "$tmp"/x.gguf*
    done
    # With its whole time given, another call would come no further.
    # shellcheck disable=SC2046
    set -- $(limit_of worker)
    [ $bad -ne 0 ] || [ "$allowed" -ge "$1" ] || bad=$late
    return $bad
}

# What ncu says where the counters are not to be had; the program under it may end with an error then.
NO_COUNTERS='ERR_NVGPUCTRPERM|Failed to initialize the profiler|driver resource was unavailable'

# Each kernel once: instructions issued (times 32 over the weights: as GPU.md's), cycles that issue, warps there,
# lanes that take part, conflicts of shared memory.
part_profile() {
    find_tool ncu
    [ -n "$tool" ] || { echo "SKIPPED: no ncu here"; return 77; }
    least=gpu__time_duration.sum,smsp__inst_executed.sum
    more=,smsp__issue_active.avg.pct_of_peak_sustained_active,sm__warps_active.avg.pct_of_peak_sustained_active,\
smsp__thread_inst_executed_per_inst_executed.ratio,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum
    for metrics in $least$more $least; do # a newer ncu may have given up a name
        "$tool" --clock-control none --page raw --csv --metrics $metrics \
            ${loader:+"$loader" --library-path "$libs"} "$gpu/gpu_bench" -1 -n 33554432 >"$results/profile.csv" 2>&1
        rc=$?
        lines_with '[Ff]ind metric' "$results/profile.csv" >/dev/null || break
    done
    lines_with '^==(ERROR|WARNING)' "$results/profile.csv"
    counted=$(lines_with 'sl_gpu_work' "$results/profile.csv" | wc -l)
    if [ "$counted" -eq 0 ] && { lines_with "$NO_COUNTERS" "$results/profile.csv" || ! lines_with '^gpu_bench:|returned an error' "$results/profile.csv"; } >/dev/null; then
        echo "SKIPPED: ncu counts nothing here (counters may be root's, or the host's, alone)"
        return 77
    fi
    echo "$counted kernels of 33554432 weights each: $results/profile.csv"
    return $rc
}

part_sanitizer() {
    find_tool compute-sanitizer
    [ -n "$tool" ] || { echo "SKIPPED: no compute-sanitizer here"; return 77; }
    bad=0 tools=4 end=$(($(date +%s) + allowed - 10))
    for what in memcheck racecheck initcheck synccheck; do
        share=$(((end - $(date +%s)) / tools))
        tools=$((tools - 1))
        if [ -f "$results/$what.done" ]; then echo "compute-sanitizer $what: clean, before"; continue; fi
        lines=$results/$what.lines
        cat "$lines" 2>/dev/null >"$lines.before"
        timeout -k 5 $share "$tool" --tool $what --error-exitcode 9 ${loader:+"$loader" --library-path "$libs"} \
            "$gpu/gpu_check" -R -s -o "$lines" -T $((share * 3 / 4)) >"$results/$what.txt" 2>&1
        rc=$?
        # It tells of some things at the end alone: types count where it came to that, and all was clean.
        [ $rc -eq 0 ] || cp "$lines.before" "$lines"
        tail -1 "$results/$what.txt"
        if [ $rc -eq 0 ] && lines_with '^time is up' "$results/$what.txt" >/dev/null; then
            echo "compute-sanitizer $what: clean so far, types are left"; [ $bad -eq 0 ] && bad=75
        elif [ $rc -eq 0 ]; then echo "compute-sanitizer $what: clean"; touch "$results/$what.done"
        elif lines_with 'Device not supported' "$results/$what.txt" >/dev/null; then echo "SKIPPED: compute-sanitizer does not take this device"; return 77
        elif [ $rc -eq 124 ] || [ $rc -eq 137 ]; then echo "SKIPPED: compute-sanitizer $what took longer than its share, $share s"; [ $bad -eq 0 ] && bad=75
        else echo "FAILED: compute-sanitizer $what"; lines_with '=========' "$results/$what.txt" | head -n 5; bad=1; fi
    done
    return $bad
}

if [ -n "$inside" ]; then
    allowed=$seconds
    "part_$inside"
    exit $?
fi

# ---- one part after the other

mkdir -p "$results" || exit 1
results=$(cd "$results" && pwd)
# Findings belong to the programs that they were made with.
if [ -n "$pack" ] && [ -f "$pack" ] && [ ! -e "$results/programs" ]; then tar -C "$results" -xf "$pack"; fi
sum=$(cat "$gpu/gpu_check" "$gpu/gpu_bench" "$bin/sluice" 2>/dev/null | cksum)
if [ "$(cat "$results/programs" 2>/dev/null)" != "$sum" ]; then
    if [ -f "$results/programs" ]; then
        before=$(mktemp -d "$results/before-XXXXXX") || exit 1
        for f in "$results"/*.*; do [ ! -f "$f" ] || mv "$f" "$before"; done
    fi
    echo "$sum" >"$results/programs"
fi
deadline=$(($(date +%s) + seconds))
worst=0 zip=
! command -v gzip >/dev/null || zip=-z
left=
summary=

# What is known so far, also where this call is ended from outside.
note() {
    summary="$summary
$(printf '%-10s %-34s %s' "$1" "$2" "$(what_is "$1")")"
    cat "$results/kernels.txt" "$results/worker.txt" 2>/dev/null >"$results/bench.md"
    [ -s "$results/bench.md" ] || rm -f "$results/bench.md"
    echo "${summary#?}" >"$results/summary.txt"
    [ -n "$pack" ] || return 0
    # 1: something changed meanwhile, as DIR itself where the pack lies in it.
    tar -C "$results" --exclude="./${pack##*/}*" $zip -cf "$pack.new" . 2>/dev/null
    if [ $? -gt 1 ] || ! mv "$pack.new" "$pack"; then echo "gpu_run: $pack could not be written" >&2; fi
}

# One part, whose words are shown while they are written; it may leave programs behind that no signal ends. Sets rc.
one_part() {
    : >"$results/$1.txt"
    timeout -k 10 "$limit" sh "$here/$(basename "$0")" --inside "$1" --seconds "$limit" --results "$results" >>"$results/$1.txt" 2>&1 </dev/null &
    pid=$! by=$(($(date +%s) + limit + 20))
    timeout -k 1 $((limit + 20)) tail -n +1 -s 0.2 --pid=$pid -f "$results/$1.txt"
    while kill -0 $pid 2>/dev/null && [ "$(date +%s)" -lt $by ]; do sleep 1; done # another tail, maybe
    rc=137
    kill -0 $pid 2>/dev/null || { wait $pid; rc=$?; stuck=; }
}

for p in ${*:-$PARTS}; do
    if [ -z "$again" ] && [ "$p" != about ] && [ -f "$results/$p.done" ]; then # the machine may be another
        note "$p" "done before ($(cat "$results/$p.done"))"
        continue
    fi
    # shellcheck disable=SC2046
    set -- $(limit_of "$p")
    rest=$((deadline - $(date +%s)))
    if [ $rest -lt "$2" ]; then
        left="$left $p"
        note "$p" "left for the next call"
        continue
    fi
    limit=$1
    [ "$limit" -gt $rest ] && limit=$rest
    if [ -n "$again" ]; then
        rm -f "$results/$p.done" "$results/$p.lines"
        [ "$p" != sanitizer ] || rm -f "$results"/*check.done "$results"/*check.lines
    fi
    echo "== $p: $(what_is "$p") (at most $limit s)"
    [ ! -f "$results/$p.txt" ] || mv "$results/$p.txt" "$results/$p.before.txt"
    began=$(date +%s)
    stuck=1
    one_part "$p"
    took="$(($(date +%s) - began)) s"
    case $rc in
    0) echo "$took" >"$results/$p.done"; note "$p" "well, $took" ;;
    75) left="$left $p"; note "$p" "not finished, $took" ;;
    77) note "$p" "SKIPPED"
        if [ "$p" = about ] || [ "$p" = golden ]; then worst=77; break; fi ;;
    124 | 137) left="$left $p"; note "$p" "cut at $limit s${stuck:+, and no signal ends it}" ;;
    *) worst=1; note "$p" "FAILED (exit $rc), $took" ;;
    esac
    [ -z "$stuck" ] || { worst=1; break; }
done

echo "----"
echo "${summary#?}"
echo "findings: $results"
[ $worst -eq 77 ] && { echo "gpu_run: NOTHING WAS CHECKED: no GPU that can be used here" >&2; exit 77; }
[ $worst -ne 0 ] && { echo "gpu_run: FAILED" >&2; exit 1; }
[ -n "$left" ] && { echo "gpu_run: time is up; the same call goes on with:$left" >&2; exit 75; }
echo "gpu_run: all well"
