#!/bin/sh
# Installs what is missing of Debian's packages. Instant when nothing is.
# usage: deps.sh build   what the programs need
#        deps.sh all     and what the tests need
set -eu
build="build-essential liburing-dev libzmq3-dev libzstd-dev libcjson-dev
       libxxhash-dev libpcre2-dev libssl-dev libsqlite3-dev libpopt-dev
       libmicrohttpd-dev libinih-dev"
check="libcmocka-dev perl xz-utils strace clang systemd zsh fish iproute2 e2fsprogs"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "make deps: this is no Debian: install the equivalents of" $build >&2
    [ "${1:-all}" = build ] || echo "make deps: and for the tests of" $check >&2
    exit 1
fi

missing=
arch=$(dpkg --print-architecture)
want() { # package: missing unless dpkg has it installed for this machine, held or not
    dpkg-query -W -f='${db:Status-Status} ${Architecture}\n' "$1" 2>/dev/null | grep -Eqx "installed ($arch|all)" || missing="$missing $1"
}
for p in $build; do want "$p"; done
if [ "${1:-all}" != build ]; then
    for p in $check; do want "$p"; done
    # clang's own libFuzzer, whatever its version.
    ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a >/dev/null 2>&1 || want libclang-rt-dev
    # An interpreter of the machine's own will do.
    python3 -c 'import venv, ensurepip' 2>/dev/null || want python3-venv
    command -v npm >/dev/null || { want nodejs; want npm; }
    # arm64 to compile for and to run as (tests/tap/arm64.t): 60 MB.
    if [ "$arch" = amd64 ]; then
        for p in gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; do want "$p"; done
    fi
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
    [ -t 0 ] || as_root="sudo -n"
    if ! $as_root true; then
        echo "make deps: missing:$missing" >&2
        echo "make deps: sudo refuses; run as root: apt-get install$missing" >&2
        exit 1
    fi
else
    echo "make deps: missing:$missing" >&2
    echo "make deps: neither root nor sudo; ask an administrator for: apt-get install$missing" >&2
    exit 1
fi
echo "make deps: installing$missing"
# sudo drops a proxy's name, which apt-get may need.
quiet() {
    $as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
        "$@" </dev/null
}
# Another apt, of the machine's own updates say, has its locks for some minutes. Only `install` can be told to wait.
apt() { quiet apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=600 "$@"; }
tries=0
until said=$(apt update 2>&1); do
    tries=$((tries + 1))
    case $said in
        *"Could not get lock"*) [ $tries -lt 120 ] || { echo "$said" >&2; exit 1; } ;;
        *) echo "$said" >&2; exit 1 ;;
    esac
    [ $tries -gt 1 ] || echo "make deps: another apt-get is at work; waiting for it"
    sleep 5
done
echo "$said"
apt install --no-install-recommends $missing || {
    # One that was interrupted before leaves packages half installed.
    echo "make deps: once more, after what was left half installed"
    quiet dpkg --configure -a || true
    apt install -f --no-install-recommends $missing
}
