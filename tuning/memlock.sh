#!/usr/bin/env bash
# Locked memory: the rings of io_uring.
#
# Why: each executor (every shard, and the core) locks half a MiB for its rings, and the
# server does not start if the limit is below that.
# Recommended: 8 MiB, the default of recent distributions; 512 KiB an executor is needed.
# Measured: with 8 MiB 40 executors started; below 512 KiB an executor none did. More than is
# needed changes nothing, so there is no effect on speed to measure.
# For good: LimitMEMLOCK=8M in the unit, or memlock in /etc/security/limits.conf.
#
# usage: memlock.sh check [PID] | apply PID | undo PID
#   PID is the shell from which the server will be started: limits are inherited. Without
#   one, check looks at the present shell.
. "$(dirname "$0")/lib.sh"
WANTED=$((8 * 1024 * 1024))

hard_limit() { awk '/^Max locked memory/ { print $5 }' "/proc/$1/limits"; }

check() {
    local pid="${1:-$PPID}" current
    current="$(hard_limit "$pid")"
    say "locked memory, process $pid" "hard limit $current bytes, recommended $WANTED"
    at_least "$current" "$WANTED"
}

apply() {
    local pid="${1:?apply needs the process id of the shell that starts the server}"
    remember "memlock-$pid" "$(prlimit --pid "$pid" --memlock --output SOFT,HARD --noheadings --raw | tr ' ' ':')"
    prlimit --pid "$pid" --memlock="$WANTED:$WANTED"
    check "$pid"
}

undo() {
    local pid="${1:?undo needs the process id that apply was given}" limits
    limits="$(recall "memlock-$pid")" || { echo "nothing to undo for process $pid"; return; }
    prlimit --pid "$pid" --memlock="$limits"
    forget "memlock-$pid"
}

run_command "$@"
