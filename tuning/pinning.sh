#!/usr/bin/env bash
# Which processor runs what
#
# Why: the server binds each shard and the Zab core to a processor of its own (--pin auto), so
# that a shard's sessions stay in one processor's cache. That helps if nothing else runs there,
# and harms if something does: the thread cannot go elsewhere. From outside there is the
# frequency governor: under `powersave` a processor that slept a millisecond is slow for the next.
# Setting: --pin auto | off; SYSTOLE_PIN. Default auto.
# For good: cpupower frequency-set -g performance at boot. Back: undo.
. "$(dirname "$0")/lib.sh"
WANTED=performance

governors() { ls /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null || true; }

rows() {
    local now="" files processors
    files="$(governors)"
    # shellcheck disable=SC2086 # a list of paths
    [ -z "$files" ] || now="$(cat $files | sort -u | tr '\n' ' ' | sed 's/ $//')"
    row frequency-governor "${now:-none here}" "$WANTED" "$(verdict [ "${now:-$WANTED}" = "$WANTED" ])" \
        "a processor that has just slept serves the next beat slowly" \
        "tuning/pinning.sh apply; cpupower frequency-set -g performance at boot"
    processors="$(taskset -pc "${PID:-$$}" | sed 's/.*: //')"
    row processors "$processors" "2 or more" "$(advice [ "${processors/[,-]/}" != "$processors" ])" \
        "a shard and the core that share one wait for each other" \
        "let the server have more: AllowedCPUs= of the unit, the container's cpuset"
}

set_it() {
    local file
    for file in $(governors); do
        remember "governor-$(basename "$(dirname "$(dirname "$file")")")" "$(cat "$file")"
        printf '%s\n' "$WANTED" >"$file"
    done
}

put_back() {
    local file name value
    for file in $(governors); do
        name="governor-$(basename "$(dirname "$(dirname "$file")")")"
        value="$(recall "$name")" || continue
        printf '%s\n' "$value" >"$file"
        forget "$name"
    done
}

work() {
    load "$1" beat --sessions 20000 --timeout 1h --closed --warmup 200ms --duration 1s
    take "$1" "server CPU a beat, 64 connections, µs" beat_cpu_us
    take "$1" "beat p99, µs" beat.p99 0.001
    load "$1" join --prefix "r$ROUND" --sessions 30000 --outstanding 512
    take "$1" "joins a second" joins_per_s
    take "$1" "server CPU a join, µs" join_cpu_us
}

# The load is bound where the core is, as it must be on two processors; the core suffers.
measurement() {
    SERVER_CPU=""
    server "--pin off"
    server "--pin auto" SYSTOLE_PIN=auto
    in_turn work
    compared
}

run_command "$@"
