#!/bin/sh
# What the tests alone need from PyPI, npm and Debian: numpy, gguf and cuobjdump in build/venv,
# llama.cpp's shared libraries and Hugging Face's GGUF reader in build/npm; promtool in build/prometheus. Instant when they
# are there. What cannot be had is said, and fails under CI=true only: its tests are skipped.
# usage: setup.sh [llama]     "llama": the libraries alone
set -u
cd "$(dirname "$0")/../.."
llama=@node-llama-cpp/linux-x64@3.22.1
hf=@huggingface/gguf@0.4.6
what=${1:-all}
mkdir -p build
rc=0
lack() {
    echo "test-tools: $1: the tests that need it are skipped (see $2)" >&2
    rc=1
}

# What was installed for a Python that is another by now (Debian 12's, on Debian 13) is of no use to it.
venv_is_ready() { cmp -s tests/tools/requirements.txt build/venv/.ready && build/venv/bin/python -c 'import gguf' 2>/dev/null; }
if [ "$what" = all ] && ! venv_is_ready; then
    echo "test-tools: numpy, gguf, cuobjdump into build/venv"
    rm -rf build/venv
    if { python3 -m venv build/venv && PIP_USER=0 build/venv/bin/python -m pip install -q \
         --disable-pip-version-check --no-input -r tests/tools/requirements.txt; } >build/venv.log 2>&1 </dev/null; then
        cp tests/tools/requirements.txt build/venv/.ready
    else
        lack "no numpy, gguf or cuobjdump" build/venv.log
    fi
fi
if [ "$(cat build/npm/.ready 2>/dev/null)" != "$llama $hf" ]; then
    echo "test-tools: llama.cpp ($llama) and $hf into build/npm"
    rm -rf build/npm
    mkdir -p build/npm
    [ -w "${HOME-/tmp}" ] || export npm_config_cache="$PWD/build/npm/.cache" # npm writes below HOME otherwise
    if [ "$(uname -m)" != x86_64 ]; then
        # No lack: what other processors make of ggml's source has other bytes.
        echo "test-tools: this llama.cpp is for x86-64: the tests that need it are skipped" >&2
    elif npm install --prefix build/npm --no-save --ignore-scripts --no-audit --no-fund --no-update-notifier \
         "$llama" "$hf" >build/npm.log 2>&1 </dev/null; then
        echo "$llama $hf" >build/npm/.ready
    else
        lack "no llama.cpp" build/npm.log
    fi
fi
# promtool out of Debian's package, without installing a server.
if [ "$what" = all ] && ! command -v promtool >/dev/null && [ ! -x build/prometheus/usr/bin/promtool ]; then
    echo "test-tools: promtool (Debian's prometheus) into build/prometheus"
    rm -rf build/prometheus build/prometheus.tmp
    mkdir -p build/prometheus.tmp
    # Debian 13 has it in a package of its own.
    if (cd build/prometheus.tmp && get() { apt-get -q download promtool || apt-get -q download prometheus; } &&
        { get || { apt-get -q update && get; }; } && dpkg -x prom*.deb . && [ -x usr/bin/promtool ]) \
         >build/prometheus.log 2>&1 </dev/null; then
        rm -f build/prometheus.tmp/*.deb build/prometheus.tmp/usr/bin/prometheus
        mv build/prometheus.tmp build/prometheus
    else
        lack "no promtool" build/prometheus.log
    fi
fi
[ "${CI:-}" = true ] || exit 0
exit $rc
