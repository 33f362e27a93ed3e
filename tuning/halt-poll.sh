#!/usr/bin/env bash
# Looking for work before a virtual processor halts
#
# Why: a processor of a virtual machine that has nothing to do halts, and to wake it takes its
# hypervisor tens of microseconds. Whoever waits for a lone answer pays that at every hand-over:
# client, shard, core, disk and back. With the governor haltpoll a guest looks for work a little
# longer before it halts. That costs its host processor time which nothing in the guest shows,
# and nothing at all while there is work.
# Only for guests of KVM with that governor (/sys/devices/system/cpu/cpuidle/current_governor);
# the kernel's own default is 200000, and some machine images set 0.
# For good: haltpoll.guest_halt_poll_ns=200000 on the kernel's command line. Back: undo.
. "$(dirname "$0")/lib.sh"
FILE=/sys/module/haltpoll/parameters/guest_halt_poll_ns
GOVERNOR=/sys/devices/system/cpu/cpuidle/current_governor
LONG=200000

# How long a processor looks, in ns; none where it does so by other rules or not at all.
looks() {
    [ "$(cat "$GOVERNOR" 2>/dev/null)" = haltpoll ] && cat "$FILE" 2>/dev/null || echo none
}

rows() {
    local now
    now="$(looks)"
    row guest-halt-poll-ns "$now" "$LONG" \
        "$(advice [ "$now" = none -o "$now" = "$LONG" ])" \
        "a virtual processor that halts is woken late, at every hand-over of a lone request" \
        "tuning/halt-poll.sh apply; haltpoll.guest_halt_poll_ns=$LONG on the kernel's command line"
}

set_it() {
    local now
    now="$(looks)"
    { [ "$now" = none ] || [ "$now" = "$LONG" ]; } && { echo "nothing to do"; return; }
    remember halt-poll "$now"
    echo "$LONG" >"$FILE"
}

put_back() {
    local value
    value="$(recall halt-poll)" || { echo "nothing to undo"; return; }
    echo "$value" >"$FILE"
    forget halt-poll
}

work() {
    echo "${1% ns}" >"$FILE"
    load "$1" beat --sessions 1000 --connections 1 --closed --warmup 200ms --duration 1s
    take "$1" "a beat at a time, median, µs" beat.p50 0.001
    take "$1" "server CPU a beat, µs" beat_cpu_us
    load "$1" beat --sessions 10000 --interval 1s --burst 1 --timeout 10s --warmup 200ms --duration 2s
    take "$1" "10,000 beats a second, median, µs" beat.p50 0.001
    take "$1" "10,000 beats a second, p99, µs" beat.p99 0.001
    load "$1" join --prefix "alone$ROUND" --sessions 1000 --outstanding 1 --connections 1
    take "$1" "join alone, median, µs" join.p50 0.001
    load "$1" join --prefix "many$ROUND" --sessions 50000 --outstanding 512
    take "$1" "joins a second, 512 under way" joins_per_s
}

# The two servers are alike; the machine is changed while one of them is loaded.
measurement() {
    need_root
    WAS="$(looks)"
    [ "$WAS" != none ] || { echo "$SCRIPT: no guest with the governor haltpoll; nothing to measure" >&2; exit 2; }
    restore() { echo "$WAS" >"$FILE"; }
    server "0 ns"
    server "$LONG ns"
    in_turn work
    compared
}

run_command "$@"
