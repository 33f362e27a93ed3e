#!/usr/bin/env bash
# Keeping free memory instead of reporting it to the hypervisor
#
# Why: a virtual machine may tell its hypervisor of memory that is free, which takes it back and
# hands it out again at the first touch, 4 KiB at a time. A megabyte that sessions, the log or
# sockets grow into then costs some 3 ms of a processor where it would cost 0.1 ms, a huge page 6 ms
# at a stretch, and beats wait meanwhile. The host has less memory for others if it is kept.
# Only for guests whose balloon reports free pages: those that
# /sys/module/page_reporting/parameters/page_reporting_order is there for. The order above the
# largest there is (11) reports nothing; kernels that refuse it report the largest blocks only (10).
# Memory that was reported before is handed out slowly once more.
# For good: no free page reporting for the balloon, in the hypervisor's settings; or
# page_reporting.page_reporting_order=11 on the kernel's command line. Back: undo.
. "$(dirname "$0")/lib.sh"
FILE=/sys/module/page_reporting/parameters/page_reporting_order
NEVER=11

# The smallest blocks that are reported; none if none ever are.
reports() { cat "$FILE" 2>/dev/null || echo none; }

# set_order ORDER: or the largest that is taken.
set_order() { { echo "$1" >"$FILE"; } 2>/dev/null || echo "$(($1 - 1))" >"$FILE"; }

rows() {
    local now
    now="$(reports)"
    row page-reporting-order "$now" "$NEVER" \
        "$(advice [ "$now" = none -o "$now" = "$NEVER" ])" \
        "free memory is given back to the hypervisor, and comes again 4 KiB at a time as the server grows" \
        "tuning/page-reporting.sh apply; page_reporting.page_reporting_order=$NEVER on the kernel's command line"
}

set_it() {
    local now
    now="$(reports)"
    { [ "$now" = none ] || [ "$now" = "$NEVER" ]; } && { echo "nothing to do"; return; }
    remember page-reporting "$now"
    set_order "$NEVER"
}

put_back() {
    local value
    value="$(recall page-reporting)" || { echo "nothing to undo"; return; }
    set_order "$value"
    forget page-reporting
}

# Touches half of what memory is free, and sets it free: what the hypervisor has it hands out.
touch_memory() {
    local kib
    kib="$(($(sed -n 's/^MemFree: *\([0-9]*\).*/\1/p' /proc/meminfo) / 2))"
    head -c "${kib}K" /dev/zero | tail -c "${kib}K" >/dev/null
}

work() {
    set_order "${1#order }"
    touch_memory
    # The guest reports what is free once in two seconds.
    sleep 5
    load "$1" beat --prefix "joins$ROUND" --sessions 300000 --joins-outstanding 256 --interval 10s \
        --timeout 60s --warmup 200ms --duration 1s
    take "$1" "joins a second beside beats" joins_per_s
    take "$1" "beats beside joins, p99, ms" beat-while-joining.p99 0.000001
    take "$1" "beats beside joins, p99.9, ms" beat-while-joining.p99.9 0.000001
    take "$1" "beats, p99, µs" beat.p99 0.001
}

# The two servers are alike; the machine is changed while one of them is loaded.
measurement() {
    need_root
    WAS="$(reports)"
    [ "$WAS" != none ] || { echo "$SCRIPT: no guest that reports free memory; nothing to measure" >&2; exit 2; }
    restore() { set_order "$WAS"; }
    server "order $WAS"
    server "order $NEVER"
    in_turn work
    compared
}

run_command "$@"
