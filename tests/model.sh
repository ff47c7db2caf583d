#!/bin/sh
# Checks proto/leases.pml with spin: assertions and deadlocks, then cycles.
#   tests/model.sh [FAULTS [BLOCKS]]     (default 1 and 3; 2 faults are the long form)
#   tests/model.sh mutants               whether it finds the mistakes that the model can be told to make
# Exit status 0 nothing found (mutants: all found), 77 spin is not installed, 1 else.
set -eu
model=$(cd "$(dirname "$0")/.." && pwd)/proto/leases.pml
command -v spin >/dev/null || exit 77
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

search() { # flags of gcc, flags of pan; false if it finds something
    # shellcheck disable=SC2086
    gcc -O2 -w -DCOLLAPSE $1 -o pan pan.c || exit 1
    # shellcheck disable=SC2086
    ./pan $2 -m100000 >found.txt
    grep -E "^pan:.*\(at|errors:|states, stored|total actual|elapsed" found.txt
    if grep -q "errors: 1" found.txt; then return 1; fi
    # A search that is cut short says so and is no proof.
    if ! grep -q "errors: 0" found.txt || grep -qE "^error|max search depth too small|not completed" found.txt; then
        cat found.txt
        exit 1
    fi
}

sound() { # flags of spin
    # shellcheck disable=SC2086
    spin $1 -a "$model" || exit 1
    search -DSAFETY "" && search "-DNP -DNOFAIR" -l
}

if [ "${1:-}" = mutants ]; then
    sed -n '/^#define BUG 0/,/^$/s/^#define \([A-Z_]*\) [1-9].*/\1/p' "$model" | while read -r bug; do
        echo "$bug"
        ! sound "-DFAULTS=1 -DBLOCKS=2 -DBUG=$bug" || ! sound "-DFAULTS=2 -DBLOCKS=2 -DBUG=$bug" || exit 1
    done
    exit
fi

flags="-DFAULTS=${1:-1} -DBLOCKS=${2:-3}"
if ! sound "$flags"; then
    cat found.txt
    # shellcheck disable=SC2086
    [ ! -e leases.pml.trail ] || spin $flags -k leases.pml.trail -p "$model"
    exit 1
fi
