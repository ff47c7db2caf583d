#!/bin/bash
# Fuzzes with libFuzzer under address and undefined sanitizers; installs clang if it is missing.
#   tools/fuzz.sh [TARGET|all] [SECONDS] [MORE LIBFUZZER OPTIONS]     (default: all targets, 60 s each)
# It starts from tests/corpus/TARGET; what adds coverage is kept in build-fuzz/corpus/TARGET, and an input that fails in
# build-fuzz/found/TARGET: mend the code, then put it into tests/corpus/TARGET, which the ordinary tests run.
#   tools/fuzz.sh minimise TARGET      rewrites tests/corpus/TARGET as few small inputs with the coverage of all of these;
#                                      seeds and regressions (seed_*, found_*) stay
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-deps.sh programs clang
command=fuzz
if [ "${1:-}" = minimise ]; then
    command=minimise
    shift
fi
target=${1:-all}
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))

mkdir -p build-fuzz
{ cmake --preset fuzz && cmake --build build-fuzz --target fuzz; } >build-fuzz/build.log 2>&1 || { cat build-fuzz/build.log; exit 1; }

export OMP_NUM_THREADS=1 # a team of threads an input would be most of the time
export ASAN_OPTIONS=allocator_may_return_null=1:quarantine_size_mb=16
limits="-timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=4096"

fuzz() {
    mkdir -p "build-fuzz/corpus/$1" "build-fuzz/found/$1"
    # shellcheck disable=SC2086
    if ! "build-fuzz/tests/fuzz/fuzz_$1" $limits -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="build-fuzz/found/$1/" "${@:2}" "build-fuzz/corpus/$1" "tests/corpus/$1" \
        >"build-fuzz/$1.log" 2>&1; then
        tail -n 60 "build-fuzz/$1.log"
        echo "$1: FAILED; log: build-fuzz/$1.log, input: build-fuzz/found/$1"
        return 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "build-fuzz/$1.log")
    echo "$1: $runs executions in $seconds s, no finding"
}

# Inputs of at most 2 KB, and as few as keep the coverage.
minimise() {
    all="build-fuzz/all/$1"
    rm -rf "$all" "$all.min"
    mkdir -p "$all" "$all.min"
    mkdir -p "build-fuzz/corpus/$1"
    find "build-fuzz/corpus/$1" "tests/corpus/$1" -type f -size -5 -exec cp -t "$all" {} +
    # shellcheck disable=SC2086
    "build-fuzz/tests/fuzz/fuzz_$1" $limits -use_counters=0 -set_cover_merge=1 "$all.min" "$all" >"build-fuzz/$1.merge.log" 2>&1
    find "tests/corpus/$1" -type f ! -name 'seed_*' ! -name 'found_*' -delete
    for file in "$all.min"/*; do
        name=$(basename "$file")
        case $name in seed_* | found_*) ;; *) cp "$file" "tests/corpus/$1/${name:0:12}" ;; esac
    done
    echo "$1: $(find "tests/corpus/$1" -type f | wc -l) inputs, $(du -sk "tests/corpus/$1" | cut -f 1) KB"
}

if [ "$target" = all ]; then
    targets=$(cd tests/corpus && echo *)
else
    targets=$target
fi
failed=0
for t in $targets; do
    $command "$t" "$@" || failed=1
done
exit $failed
