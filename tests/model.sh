#!/bin/sh
# Checks proto/leases.pml with spin: assertions and deadlocks with three blocks, cycles with two.
#   tests/model.sh [FAULTS [BLOCKS]]     (default 1, and 3 and 2 blocks)
# Exit status 0 nothing found, 1 found, 77 spin is not installed.
set -eu
model=$(cd "$(dirname "$0")/.." && pwd)/proto/leases.pml
command -v spin >/dev/null || exit 77
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

check() { # blocks, flags of gcc, flags of pan
    spin -DFAULTS="$faults" -DBLOCKS="$1" -a "$model"
    # shellcheck disable=SC2086
    gcc -O2 -DCOLLAPSE $2 -o pan pan.c
    # shellcheck disable=SC2086
    ./pan $3 -m100000 >found.txt
    grep -E "^pan:|errors:|states, stored|elapsed" found.txt
    # A search that is cut short says so and is no proof.
    if ! grep -q "errors: 0" found.txt || grep -qE "^error|max search depth too small|Search not completed" found.txt; then
        cat found.txt
        [ ! -e leases.pml.trail ] || spin -DFAULTS="$faults" -DBLOCKS="$1" -t -p "$model"
        exit 1
    fi
}

faults=${1:-1}
check "${2:-3}" -DSAFETY ""
check "${2:-2}" "-DNP -DNOFAIR" -l
