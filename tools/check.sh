#!/bin/bash
# Installs what is missing, builds with warnings as errors, and passes the tests: everything once, the unit tests again under address and
# undefined sanitizers and with clang, the threaded ones under thread sanitizer where it can run. Ends with how long each part took.
#   tools/check.sh [all|lint|unit|e2e|asan|tsan|clang|fuzz]     (default all)
# The builds are those of CMakePresets.json.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
jobs=$(nproc)

build() { # preset, its folder
    cmake --preset "$1" >/dev/null
    # Quiet when it goes well, all of it when not.
    cmake --build "$2" -j "$jobs" >"$2/build.log" 2>&1 || { cat "$2/build.log"; exit 1; }
    echo "built $2"
}

# The layout of the code, the include graph, and clang-tidy's findings (.clang-tidy says which).
part_lint() {
    tools/install-deps.sh programs lint
    find proto producer trainer tools tests -name '*.[ch]' -print0 | xargs -0 clang-format-14 --dry-run -Werror
    python3 tools/check_rooms.py
    cmake --preset ci >/dev/null
    find proto producer trainer tools tests -name '*.c' -print0 |
        xargs -0 -n 4 -P "$jobs" clang-tidy-14 -p build --quiet >build/tidy.log 2>build/tidy.err ||
        { cat build/tidy.log; grep -v 'warnings\? generated' build/tidy.err; exit 1; }
    echo "clang-format and clang-tidy have nothing to say"
}

part_unit() {
    build ci build
    ctest --test-dir build --output-on-failure -j "$jobs" -LE e2e
}

part_e2e() {
    build ci build
    ctest --test-dir build --output-on-failure -L e2e
}

part_asan() {
    build asan build-asan
    OMP_NUM_THREADS=1 ctest --test-dir build-asan --output-on-failure -j "$jobs" -LE e2e
}

part_tsan() {
    build tsan build-tsan
    # Where the kernel's address-space randomisation keeps thread sanitizer from starting, it is skipped, aloud.
    if setarch -R build-tsan/tests/unit/test_schedule >/dev/null 2>&1; then
        OMP_NUM_THREADS=1 TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" setarch -R ctest --test-dir build-tsan --output-on-failure -L threads
    else
        echo "thread sanitizer cannot run on this machine: its tests are skipped"
    fi
}

# clang is large: these two run where it is, or where they are asked for.
part_clang() {
    has_clang clang || return 0
    tools/install-deps.sh clang
    build clang build-clang
    ctest --test-dir build-clang --output-on-failure -j "$jobs" -LE e2e
}

part_fuzz() {
    has_clang fuzz || return 0
    tools/fuzz.sh all 5
}

has_clang() { # the part that wants it
    [ "$what" = "$1" ] || command -v clang-14 >/dev/null && return
    echo "no clang here: $1 is skipped (tools/check.sh $1 installs it)"
    return 1
}

durations=""
running=""
begin=0

say_durations() {
    [ -n "$durations$running" ] || return 0
    [ -z "$running" ] || durations="$durations, $running $((SECONDS - begin)) s (failed)"
    echo "took ${durations#, }; $SECONDS s in all"
}

tools/install-deps.sh
trap say_durations EXIT
known=0
for part in lint unit e2e asan tsan clang fuzz; do
    if [ "$what" = all ] || [ "$what" = "$part" ]; then
        known=1
        running=$part
        begin=$SECONDS
        "part_$part"
        durations="$durations, $part $((SECONDS - begin)) s"
        running=""
    fi
done
if [ $known = 0 ]; then
    echo "check.sh: $what: must be all, lint, unit, e2e, asan, tsan, clang or fuzz" >&2
    exit 2
fi
