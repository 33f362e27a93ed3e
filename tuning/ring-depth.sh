#!/usr/bin/env bash
# Entries of an executor's io_uring
#
# Why: a shard has one wait in its ring; the core has a timer, and up to four waits for
# each other server. What does not fit waits in user space for the next turn.
# Setting: [tuning] ring-depth = 64 to 4096; SYSTOLE_TUNING_RING_DEPTH. Default 256.
# Back: leave it out.
. "$(dirname "$0")/lib.sh"

rows() { setting_row ring-depth 256 "256 hold the waits of an ensemble of 31; more are never used"; }

work() {
    load "$1" join --prefix "r$ROUND" --sessions 60000 --outstanding 512
    take "$1" "joins a second, 512 under way" joins_per_s
    take "$1" "server CPU a join, µs" join_cpu_us
    load "$1" beat --sessions 20000 --closed --warmup 200ms --duration 1s
    take "$1" "server CPU a beat, 64 connections, µs" beat_cpu_us
    took "$1" "resident, MiB" "$(awk '/^VmRSS/ { print $2 / 1024 }' "/proc/${SERVER_PID[$1]}/status")"
}

measurement() {
    local depth
    for depth in 256 64 4096; do server "$depth" "SYSTOLE_TUNING_RING_DEPTH=$depth"; done
    in_turn work
    compared
}

run_command "$@"
