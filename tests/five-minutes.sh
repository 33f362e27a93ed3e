#!/usr/bin/env bash
# The first five minutes of a new user, timed: clones the repository, builds it, and does what the
# README says of three servers, in its very words, until a member is seen to expire. Takes the
# ports 8640 to 8645.
#
#   tests/five-minutes.sh [REPOSITORY]
set -euo pipefail

repository=$(cd "${1:-$(dirname "$0")/..}" && pwd)
work=$(mktemp -d)
servers=""
cleanup() {
    [ -z "$servers" ] || kill -TERM "$servers" 2>/dev/null || true
    [ -z "$servers" ] || wait "$servers" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

begun=$(date +%s%N)
lap() {
    awk -v ms=$((($(date +%s%N) - begun) / 1000000)) -v what="$1" \
        'BEGIN { printf "%8.2f s  %s\n", ms / 1000, what }'
}

git clone -q "$repository" "$work/systole"
cd "$work/systole"
lap "cloned"
mapfile -t commands < <(awk '/^```/ { on = /^```console three$/; next } on && sub(/^\$ /, "")' README.md)
[ "${#commands[@]}" -eq 3 ]
# The first command builds and starts; here one after the other.
TIMEFORMAT="            (%U s of user and %S s of system time)"
time cargo build --release 2>"$work/build"
lap "built"
# shellcheck disable=SC2086 # the README's words, split as a shell does
${commands[0]} >"$work/servers" 2>&1 &
servers=$!
until [ "$(grep -c 'is ready' "$work/servers")" -eq 3 ]; do
    kill -0 "$servers"
    sleep 0.05
done
lap "three servers are ready"
eval "${commands[1]}" | grep -q '"active_members":\[{"web1":null}\]'
lap "a member has joined"
eval "${commands[2]}" | grep -q '"active_members":\[\]'
lap "its expiry is seen at another server"
