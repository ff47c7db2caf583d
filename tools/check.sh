#!/bin/sh
# Installs what is missing, builds with warnings as errors, and passes the tests: everything once, the unit tests again under
# address and undefined sanitizers, the threaded ones under thread sanitizer where it can run.
set -eu
cd "$(dirname "$0")/.."
tools/install-deps.sh
jobs=$(nproc)

build() { # folder, sanitizers, type
    cmake -S . -B "$1" -G Ninja -DCROSSFEED_WERROR=ON -DCROSSFEED_SANITIZE="$2" >/dev/null
    cmake --build "$1" -j "$jobs" | tail -n 1
}

build build ""
ctest --test-dir build --output-on-failure -j "$jobs" -LE e2e
ctest --test-dir build --output-on-failure -L e2e

build build-asan address,undefined
ASAN_OPTIONS=detect_leaks=1 OMP_NUM_THREADS=1 ctest --test-dir build-asan --output-on-failure -j "$jobs" -LE e2e

build build-tsan thread
# Address-space randomisation of newer kernels can keep thread sanitizer from starting at all: then it is skipped, aloud.
if setarch -R true 2>/dev/null && setarch -R build-tsan/tests/test_schedule >/dev/null 2>&1; then
    OMP_NUM_THREADS=1 setarch -R ctest --test-dir build-tsan --output-on-failure -L threads
else
    echo "thread sanitizer cannot run on this machine: its tests are skipped"
fi
