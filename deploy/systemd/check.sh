#!/usr/bin/env bash
# Whether the unit's filter of system calls lets the server do all it does: traces a server that
# starts, serves, takes a snapshot's worth of joins and stops, and looks each call up in the sets
# of systemd. Needs strace and systemd-analyze.
#
#   deploy/systemd/check.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/../.."

program=${1:-target/debug/systole}
work=$(mktemp -d)
server=""
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# The calls of a set, and of the sets it names.
calls() {
    systemd-analyze syscall-filter "$1" | tail -n +2 | sed 's/#.*//' | while read -r name; do
        case $name in
        "") ;;
        @*) calls "$name" ;;
        *) echo "$name" ;;
        esac
    done
}
calls @default >"$work/allowed"
grep '^SystemCallFilter=' deploy/systemd/systole.service | cut -d= -f2 >"$work/filters"
while read -r filter; do
    for set in ${filter#\~}; do
        calls "$set" | sort -u >"$work/set"
        case $filter in
        \~*) sort -u "$work/allowed" | comm -23 - "$work/set" >"$work/left" ;;
        *) sort -u "$work/allowed" "$work/set" >"$work/left" ;;
        esac
        mv "$work/left" "$work/allowed"
    done
done <"$work/filters"

strace -f -qq -o "$work/trace" "$program" serve --listen 127.0.0.1:0 --data-dir "$work/data" \
    >"$work/ready" &
tracer=$!
for _ in $(seq 300); do
    grep -q "is ready" "$work/ready" && break
    sleep 0.1
done
address=$(grep -o '127\.0\.0\.1:[0-9]*' "$work/ready")
server=$(pgrep -P "$tracer")
for member in 1 2 3; do
    curl -sSf -XPUT "http://$address/g/$member?timeout=1" -d '{}' >"$work/answer"
    curl -sSf -XHEAD "http://$address/g/$member"
done
curl -sSf "http://$address/g?version=2&wait=3" >"$work/answer"
kill -TERM "$server"
wait "$tracer"
server=""

sed -E 's/^[0-9]+ +//; s/\(.*//; /^(\+\+\+|---|<\.\.\.)/d' "$work/trace" | sort -u >"$work/used"
# The call that starts the program is systemd's own.
grep -vx execve "$work/used" | sort -u | comm -23 - <(sort -u "$work/allowed") >"$work/forbidden"
echo "$(wc -l <"$work/used") system calls used: $(tr '\n' ' ' <"$work/used")"
if [ -s "$work/forbidden" ]; then
    echo "the filter forbids: $(tr '\n' ' ' <"$work/forbidden")"
    exit 1
fi
echo "the filter allows them all"
