#!/usr/bin/env bash
# Which core runs what.
#
# Why: the server binds each shard and the Zab core to a core of its own (--pin auto), so that
# a shard's sessions stay in one core's cache. This helps only if the scheduler and the
# frequency governor leave those cores alone. What can still be done from outside:
#   governor   performance, so that a core that slept a millisecond is not slow for the next.
# Recommended: performance on machines that serve; systole itself pinned (the default).
# Measured: not measured yet.
# For good: cpupower frequency-set -g performance at boot.
. "$(dirname "$0")/lib.sh"
WANTED=performance

governors() { ls /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null || true; }

threads() {
    local pid="$1" task
    for task in /proc/"$pid"/task/*; do
        say "  $(cat "$task/comm")" \
            "runs on $(awk '/^Cpus_allowed_list/ { print $2 }' "$task/status")"
    done
}

check() {
    local good=0 pid file
    for pid in ${1:-$(pidof systole || true)}; do
        say "threads of process $pid" ""
        threads "$pid"
    done
    if [ -z "$(governors)" ]; then
        say "frequency governor" "none here: a virtual machine, or fixed"
        return 0
    fi
    for file in $(governors); do
        [ "$(cat "$file")" = "$WANTED" ] || good=1
    done
    say "frequency governor" "$(cat $(governors) | sort | uniq -c | tr -s ' ' | tr '\n' ','), recommended $WANTED"
    return $good
}

apply() {
    local file
    for file in $(governors); do
        remember "governor-$(basename "$(dirname "$(dirname "$file")")")" "$(cat "$file")"
        printf '%s\n' "$WANTED" >"$file"
    done
    check
}

undo() {
    local file name value
    for file in $(governors); do
        name="governor-$(basename "$(dirname "$(dirname "$file")")")"
        value="$(recall "$name")" || continue
        printf '%s\n' "$value" >"$file"
        forget "$name"
    done
}

run_command "$@"
