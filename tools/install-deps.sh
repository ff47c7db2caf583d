#!/bin/sh
# Installs the Debian packages that building, testing and the demo need; quiet about what is already there.
# As root, or with sudo.
set -eu
packages="gcc cmake ninja-build pkg-config libc6-dev
    libzmq3-dev libmsgpack-dev libblis-openmp-dev libdnnl-dev libjansson-dev libxxhash-dev libpcre2-dev libmicrohttpd-dev libcmocka-dev
    python3 python3-venv python3-zmq python3-msgpack python3-xxhash python3-numpy iproute2 spin"
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
