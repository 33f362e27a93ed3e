#!/usr/bin/env bash
# Length of a log segment
#
# Why: a segment's space is allocated before it is used, ahead of need and on a thread of its
# own, and given back whole once a snapshot covers it. Shorter ones take less of the disk, and
# are made more often.
# Setting: [tuning] segment-mib = 32 to 1024; SYSTOLE_TUNING_SEGMENT_MIB. Default 64. Counts for
# segments made from then on. Back: leave it out.
. "$(dirname "$0")/lib.sh"

rows() { setting_row segment-mib 64 "short segments are made more often, long ones hold disk"; }

work() {
    load "$1" join --prefix "r$ROUND" --sessions 300000 --outstanding 512
    take "$1" "joins a second, snapshots included" joins_per_s
    take "$1" "join p99.9, ms" join.p99.9 0.000001
    take "$1" "longest join, ms" join.max 0.000001
    took "$1" "data directory, MiB" "$(du -sm "${DATA[$1]}" | cut -f1)"
}

measurement() {
    local mib
    for mib in 64 32 256; do server "$mib MiB" "SYSTOLE_TUNING_SEGMENT_MIB=$mib"; done
    in_turn work
    compared
}

run_command "$@"
