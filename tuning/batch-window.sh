#!/usr/bin/env bash
# How long the core waits for more before it syncs
#
# Why: a batch is what comes in while the sync before it lasts, so a core under load batches by
# itself and one that is idle answers at once. A window makes the first of a batch wait, and is
# worth something only on a disk whose syncs cost much more than they take, such as one that is
# billed or worn by the write.
# Setting: [tuning] batch-window-us = 0 to 5000; SYSTOLE_TUNING_BATCH_WINDOW_US. Default 0.
# Back: leave it out.
. "$(dirname "$0")/lib.sh"

rows() { setting_row batch-window-us 0 "a window delays every lone join, and saves syncs only"; }

joins() {
    local before
    load "$1" join --prefix "alone$ROUND" --sessions 400 --outstanding 1 --connections 1
    take "$1" "join alone, median, µs" join.p50 0.001
    before="$(metric "$1" systole_log_syncs_total)"
    load "$1" join --prefix "many$ROUND" --sessions 60000 --outstanding 512
    took "$1" "joins a sync, 512 under way" \
        "$((60000 / ($(metric "$1" systole_log_syncs_total) - before)))"
    take "$1" "joins a second" joins_per_s
    take "$1" "server CPU a join, µs" join_cpu_us
    take "$1" "join p99, ms" join.p99 0.000001
}

measurement() {
    local window
    for window in 0 200 1000; do server "$window µs" "SYSTOLE_TUNING_BATCH_WINDOW_US=$window"; done
    in_turn joins
    compared
}

run_command "$@"
