#!/usr/bin/env bash
# File descriptors: one for each connection.
#
# Why: the server raises its soft limit to the hard one at the start, and shares among its
# shards what is left after its own files. A connection too many is closed at once, so the
# hard limit is the number of clients that can be connected.
# Recommended: 1048576, and at least the number of clients plus 256.
# Measured: not measured yet; a limit that is high enough is not expected to cost anything.
# For good: LimitNOFILE=1048576 in the unit, or nofile in /etc/security/limits.conf.
#
# usage: descriptors.sh check [PID] | apply [PID] | undo [PID]
#   on a running server, the only one unless PID is given; without a server, check looks at
#   what a server started from this shell would get. A server that is running has shared its
#   descriptors out: apply counts from its next start on, if that is from the same parent.
. "$(dirname "$0")/lib.sh"
WANTED=1048576

hard_limit() { awk '/^Max open files/ { print $5 }' "/proc/$1/limits"; }

check() {
    local pid="${1:-$(pidof -s systole || echo $$)}" current
    current="$(hard_limit "$pid")"
    say "open files, process $pid" "hard limit $current, recommended $WANTED"
    say "fs.nr_open" "$(cat /proc/sys/fs/nr_open), no limit can be above it"
    at_least "$current" "$WANTED"
}

apply() {
    local pid
    pid="$(server_pid "${1:-}")"
    remember "nofile-$pid" "$(prlimit --pid "$pid" --nofile --output SOFT,HARD --noheadings --raw | tr ' ' ':')"
    prlimit --pid "$pid" --nofile="$WANTED:$WANTED"
    check "$pid"
}

undo() {
    local pid limits
    pid="$(server_pid "${1:-}")"
    limits="$(recall "nofile-$pid")" || { echo "nothing to undo for process $pid"; return; }
    prlimit --pid "$pid" --nofile="$limits"
    forget "nofile-$pid"
}

run_command "$@"
