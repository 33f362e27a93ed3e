#!/usr/bin/env bash
# How many syncs of the log are out at a time
#
# Why there is no knob: one is out, and what comes in meanwhile is the next batch. The log knows
# one position up to which all is durable; with two syncs out the second may end first and says
# nothing until the first has. What a second could give is at most the time in which none is
# out, and what the disk can do beside the first: both are measured here.
. "$(dirname "$0")/lib.sh"

rows() { :; }

# The time with a sync out, while joins wait for it.
joins() {
    local sync_s syncs began
    for outstanding in 1 64 512 2048; do
        local many=$((outstanding == 1 ? 1000 : 60000))
        sync_s="$(metric "$1" systole_log_sync_seconds_sum)"
        syncs="$(metric "$1" systole_log_syncs_total)"
        load "$1" join --prefix "o$outstanding-$ROUND" --sessions "$many" --outstanding "$outstanding"
        took "$1" "joins a sync, $outstanding under way" \
            "$((many / ($(metric "$1" systole_log_syncs_total) - syncs)))"
        # The histogram is published once a second.
        sleep 1.2
        began="$(figure joins_per_s)"
        took "$1" "share of the time with a sync out, $outstanding under way" "$(awk -v rate="$began" -v many="$many" \
            -v before="$sync_s" -v after="$(metric "$1" systole_log_sync_seconds_sum)" \
            'BEGIN { print (after - before) / (many / rate) }')"
    done
}

# Synced writes of 4 KiB a second to so many files at a time.
disk() {
    local files="$1" file began
    for ((file = 0; file < files; file++)); do
        dd if=/dev/zero of="$WORK_DIR/probe-$file" bs=4k count=500 conv=fsync status=none
    done
    began="$(date +%s%N)"
    for ((file = 0; file < files; file++)); do
        dd if=/dev/zero of="$WORK_DIR/probe-$file" bs=4k count=500 oflag=dsync conv=notrunc status=none &
        PROBES[file]=$!
    done
    wait "${PROBES[@]:0:files}"
    awk -v files="$files" -v ns="$(($(date +%s%N) - began))" 'BEGIN { print files * 500 * 1e9 / ns }'
}

disks() {
    for files in 1 2 4; do took "$files at a time" "the bare disk, syncs a second" "$(disk "$files")"; done
}

measurement() {
    local PROBES=() round
    server "one at a time"
    in_turn joins
    for ((round = 0; round < ROUNDS; round++)); do disks; done
    compared
}

run_command "$@"
