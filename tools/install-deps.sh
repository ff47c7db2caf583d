#!/bin/sh
# Installs the Debian packages that a job needs; quiet about what is already there. As root, or with sudo.
#   tools/install-deps.sh [programs] [tests] [lint] [clang]     (default programs tests)
# programs: to build, install and run the demo; tests: what the tests and the .deb need besides; lint: clang-format and clang-tidy;
# clang: the compiler, its OpenMP, sanitizers and fuzzer.
set -eu
packages=""
for job in "${@:-programs tests}"; do
    for name in $job; do
        case $name in
        programs)
            packages="$packages gcc cmake ninja-build pkg-config libc6-dev
                libzmq3-dev libmsgpack-dev libblis-openmp-dev libdnnl-dev libjansson-dev libxxhash-dev libpcre2-dev zlib1g-dev libzstd-dev liblzma-dev libmicrohttpd-dev
                libcmocka-dev python3"
            ;;
        tests)
            packages="$packages python3-venv python3-zmq python3-msgpack python3-xxhash python3-numpy iproute2 spin dpkg-dev groff-base"
            ;;
        lint) packages="$packages clang-format-14 clang-tidy-14 libomp-14-dev" ;;
        clang) packages="$packages clang-14 libclang-rt-14-dev libomp-14-dev" ;;
        *)
            echo "install-deps.sh: $name: must be programs, tests, lint or clang" >&2
            exit 2
            ;;
        esac
    done
done
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
