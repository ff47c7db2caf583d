#!/bin/bash
# Installs what is missing, builds with warnings as errors, and passes the tests: everything once, the unit tests again under
# address and undefined sanitizers, the threaded ones under thread sanitizer where it can run.
#   tools/check.sh [all|unit|e2e|asan|tsan|fuzz]     (default all)
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-deps.sh
what=${1:-all}
jobs=$(nproc)

build() { # folder, sanitizers
    cmake -S . -B "$1" -G Ninja -DCROSSFEED_WERROR=ON -DCROSSFEED_SANITIZE="$2" >/dev/null
    # Quiet when it goes well, all of it when not.
    cmake --build "$1" -j "$jobs" >"$1/build.log" 2>&1 || { cat "$1/build.log"; exit 1; }
    echo "built $1"
}

wanted() {
    [ "$what" = all ] || [ "$what" = "$1" ]
}

if wanted unit || wanted e2e; then
    build build ""
fi
if wanted unit; then
    ctest --test-dir build --output-on-failure -j "$jobs" -LE e2e
fi
if wanted e2e; then
    ctest --test-dir build --output-on-failure -L e2e
fi
if wanted asan; then
    build build-asan address,undefined
    OMP_NUM_THREADS=1 ctest --test-dir build-asan --output-on-failure -j "$jobs" -LE e2e
fi
if wanted tsan; then
    build build-tsan thread
    # Where the kernel's address-space randomisation keeps thread sanitizer from starting, it is skipped, aloud.
    if setarch -R build-tsan/tests/unit/test_schedule >/dev/null 2>&1; then
        OMP_NUM_THREADS=1 TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" setarch -R ctest --test-dir build-tsan --output-on-failure -L threads
    else
        echo "thread sanitizer cannot run on this machine: its tests are skipped"
    fi
fi
if wanted fuzz; then
    if [ "$what" = fuzz ] || command -v clang-14 >/dev/null; then
        tools/fuzz.sh all 5
    else
        echo "no clang here: the fuzz targets only replay their corpora (tools/check.sh fuzz installs it)"
    fi
fi
