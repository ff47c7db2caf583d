#!/bin/bash
# The main job in one command: installs what is missing, builds, and runs actgen and xctrain as two processes on the bundled
# base/chat pair and its text; ends with a table and the paths of what was written. Under three minutes after the install. What
# `cmake --install build` installs is built, the tests are not.
#   tools/quickstart.sh [OUT]        (default build/quickstart; an earlier run there is replaced)
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-deps.sh programs
cmake -S . -B build -G Ninja >/dev/null
cmake --build build --target programs >build/build.log 2>&1 || { cat build/build.log; exit 1; }
if [ $# -gt 0 ]; then
    out=$1 # never removed: xctrain refuses a folder that holds a run
else
    out=build/quickstart
    rm -rf "$out"
fi
mkdir -p "$out"
endpoint="ipc://$(cd "$out" && pwd)/socket"
# Two processes on two cores: one thread each.
build/actgen --connect "$endpoint" --threads 1 --model tools/demo/base --model tools/demo/chat --tokens tools/demo/tokens.npy \
    --sites 'blocks.*.hook_resid_post' --name demo &
actgen=$!
trap 'kill $actgen 2>/dev/null || true' EXIT
build/xctrain --listen "$endpoint" --threads 1 --out "$out" --model-batch-size 32 --batch-size 512 --buffer-mult 64 \
    --dict-size 1024 --num-tokens 3e5 --lr 1e-3 --l1-coeff 1 --log-every 50 --eval-every 400 --save-every 400
wait $actgen
trap - EXIT
