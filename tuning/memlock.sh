#!/usr/bin/env bash
# Locked memory: the rings of io_uring
#
# Why: the server does not start if it may not lock 512 KiB. Kernels before 5.12 take 288 KiB for
# each shard and for the core out of it, more with deeper rings; later ones count rings elsewhere.
# Recommended: 8 MiB, the default of recent distributions. More than is needed changes nothing.
# For good: LimitMEMLOCK=8M in the unit, or memlock in /etc/security/limits.conf. For a shell:
# ulimit -l 8192. Back: the old number.
. "$(dirname "$0")/lib.sh"
WANTED=$((8 * 1024 * 1024))

rows() {
    local now needed=$((512 * 1024))
    now="$(limit_of "locked memory")"
    row locked-memory "$now" "$WANTED" \
        "$(if at_least "$now" "$WANTED"; then echo ok; elif at_least "$now" "$needed"; then echo note; else echo differs; fi)" \
        "the server does not start below 512 KiB" \
        "LimitMEMLOCK=8M in the unit; ulimit -l 8192"
}

measurement() {
    ROUNDS=1
    local limit shards outcome
    printf '| limit, bytes | shards | what a server does |\n|---|---|---|\n'
    for limit in 262144 524288 8388608; do
        for shards in 1 8; do
            outcome="starts"
            UNDER="prlimit --memlock=$limit:$limit" server "$limit-$shards" -- --shards "$shards" 2>&- ||
                outcome="ends: ${LAST_WORDS#systole: }"
            printf '| %s | %s | %s |\n' "$limit" "$shards" "$outcome"
        done
    done
}

run_command "$@"
