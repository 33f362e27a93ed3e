#!/usr/bin/env bash
# Huge pages behind the sessions
#
# Why: a beat reads one line of an index and one of a slot, both at random in hundreds of
# megabytes. With pages of 4 KiB each of the two also misses the TLB. The server asks for huge
# pages (tuning.huge-pages), and the kernel gives them unless `enabled` is never.
# `defrag` is left alone: whatever it is, it matters only while the tables grow.
# Setting: [tuning] huge-pages = "on" | "off"; SYSTOLE_TUNING_HUGE_PAGES. Default on.
# For good: transparent_hugepage=madvise on the kernel's command line. Back: undo.
. "$(dirname "$0")/lib.sh"
FILE=/sys/kernel/mm/transparent_hugepage/enabled

# The choice in brackets.
chosen() { sed 's/.*\[\(.*\)\].*/\1/' "$FILE" 2>/dev/null || echo none; }

rows() {
    local now
    now="$(chosen)"
    row transparent-huge-pages "$now" "madvise or always" "$(verdict [ "$now" != never -a "$now" != none ])" \
        "without them a beat among a million sessions misses the TLB twice" \
        "tuning/hugepages.sh apply; transparent_hugepage=madvise on the kernel's command line"
    setting_row huge-pages on "the server asks for huge pages where its sessions lie"
}

set_it() {
    [ "$(chosen)" = never ] || { echo "nothing to do"; return; }
    remember thp-enabled never
    echo madvise >"$FILE"
}

put_back() {
    local value
    value="$(recall thp-enabled)" || { echo "nothing to undo"; return; }
    echo "$value" >"$FILE"
    forget thp-enabled
}

beats() {
    load "$1" beat --sessions 500000 --timeout 1h --closed --mode batch-name --connections 8 \
        --warmup 200ms --duration 1s
    take "$1" "CPU a beat, batches by name, 500,000 sessions, µs" beat_cpu_us
    take "$1" "beats a second" beats_per_s
    took "$1" "huge pages of the server, MiB" \
        "$(awk '/^AnonHugePages/ { kb += $2 } END { print kb / 1024 }' "/proc/${SERVER_PID[$1]}/smaps_rollup")"
    took "$1" "resident, MiB" \
        "$(awk '/^Rss/ { kb += $2 } END { print kb / 1024 }' "/proc/${SERVER_PID[$1]}/smaps_rollup")"
}

measurement() {
    server on SYSTOLE_TUNING_HUGE_PAGES=on
    server off SYSTOLE_TUNING_HUGE_PAGES=off
    in_turn beats
    compared
}

run_command "$@"
