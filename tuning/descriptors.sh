#!/usr/bin/env bash
# File descriptors: one for each connection
#
# Why: the server raises its soft limit to the hard one at the start, and shares among its
# shards what is left after its own files. A connection too many is answered 503 and closed, so
# the hard limit is the number of clients that can be connected.
# Recommended: 1048576, and at least the number of clients plus 256. A higher one costs nothing
# (measured): nothing is allocated for connections that are not there.
# For good: LimitNOFILE=1048576 in the unit, or nofile in /etc/security/limits.conf. For a shell:
# ulimit -n 1048576. Back: the old number. A server shares its descriptors out when it starts.
. "$(dirname "$0")/lib.sh"
WANTED=1048576

rows() {
    local now
    now="$(limit_of "open files")"
    # 15,000 connections are what one shard is measured with.
    row open-files "$now" "$WANTED" \
        "$(if at_least "$now" "$WANTED"; then echo ok; elif at_least "$now" 16384; then echo note; else echo differs; fi)" \
        "each connection needs one: a limit too low turns clients away" \
        "LimitNOFILE=$WANTED in the unit; ulimit -n $WANTED"
}

work() {
    load "$1" beat --sessions 20000 --connections 256 --closed --warmup 200ms --duration 1s
    take "$1" "server CPU a beat, 256 connections, µs" beat_cpu_us
    took "$1" "resident, MiB" "$(awk '/^VmRSS/ { print $2 / 1024 }' "/proc/${SERVER_PID[$1]}/status")"
}

measurement() {
    server "$(ulimit -Hn)"
    UNDER="prlimit --nofile=1024:1024" server 1024
    in_turn work
    compared
}

run_command "$@"
