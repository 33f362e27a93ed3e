#!/usr/bin/env bash
# What the kernel may keep of a connection
#
# Why: a request and its answer are some hundred bytes; only batches and long documents fill a
# buffer. The kernel begins small and grows them for who needs it. A fixed size takes that
# growing away, and bounds what thousands of clients that do not read can hold.
# Setting: [tuning] socket-buffer-kib = 0 (the kernel's choice) or 24 to 16384;
# SYSTOLE_TUNING_SOCKET_BUFFER_KIB. Default 0. The kernel doubles it, and caps it at
# net.core.rmem_max and wmem_max. Back: leave it out.
. "$(dirname "$0")/lib.sh"

rows() { setting_row socket-buffer-kib 0 "the kernel fits each connection's buffers to its use"; }

work() {
    load "$1" beat --sessions 20000 --closed --pipeline 32 --warmup 200ms --duration 1s
    take "$1" "server CPU a beat, pipelined × 32, µs" beat_cpu_us
    load "$1" beat --sessions 50000 --closed --mode batch-name --batch 5000 --connections 8 \
        --warmup 200ms --duration 1s
    take "$1" "server CPU a beat, batches of 5,000, µs" beat_cpu_us
    take "$1" "beats a second, batches of 5,000" beats_per_s
    take "$1" "batch p99, ms" beat.p99 0.000001
}

measurement() {
    server "the kernel's"
    server "32 KiB" SYSTOLE_TUNING_SOCKET_BUFFER_KIB=32
    server "1 MiB" SYSTOLE_TUNING_SOCKET_BUFFER_KIB=1024
    in_turn work
    compared
}

run_command "$@"
