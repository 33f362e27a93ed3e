#!/usr/bin/env bash
# Looking for more before going to sleep
#
# Why: a thread that sleeps is woken some microseconds after its input has come. One that looks
# for it finds it at once and uses up its core meanwhile: worth it where shards and core have
# processors of their own, and latency is worth more than the processors.
# Setting: [tuning] busy-poll-us = 0 to 1000; SYSTOLE_TUNING_BUSY_POLL_US. Default 0.
# Back: leave it out.
# The kernel's own net.core.busy_poll asks network cards, which loopback and most virtual
# machines have not; it is left alone.
. "$(dirname "$0")/lib.sh"

rows() { setting_row busy-poll-us 0 "polling costs CPU, and harms where threads share a core"; }

work() {
    local before
    load "$1" beat --sessions 1000 --connections 1 --closed --warmup 200ms --duration 1s
    take "$1" "a beat at a time, median, µs" beat.p50 0.001
    take "$1" "server CPU a beat, µs" beat_cpu_us
    load "$1" beat --sessions 10000 --interval 1s --burst 1 --timeout 10s --warmup 200ms --duration 2s
    take "$1" "10,000 beats a second, median, µs" beat.p50 0.001
    take "$1" "10,000 beats a second, p99, µs" beat.p99 0.001
    take "$1" "server CPU a beat at that rate, µs" beat_cpu_us
    load "$1" join --prefix "alone$ROUND" --sessions 400 --outstanding 1 --connections 1
    take "$1" "join alone, median, µs" join.p50 0.001
    before="$(cpu_s "${SERVER_PID[$1]}")"
    sleep 1
    took "$1" "processors used by 11,000 sessions that say nothing" \
        "$(awk -v b="$before" -v a="$(cpu_s "${SERVER_PID[$1]}")" 'BEGIN { print a - b }')"
}

measurement() {
    local polling
    for polling in 0 50 500; do server "$polling µs" "SYSTOLE_TUNING_BUSY_POLL_US=$polling"; done
    in_turn work
    compared
}

run_command "$@"
