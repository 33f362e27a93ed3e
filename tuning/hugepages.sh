#!/usr/bin/env bash
# Transparent huge pages: fewer TLB misses in tables of millions of sessions.
#
# Why: a beat reads one line of an index and one of a slot, both at random in hundreds of
# megabytes. With pages of 4 KiB each of the two also misses the TLB. The tables are large and
# allocated in big pieces, so huge pages would cost them little memory.
# Recommended: enabled = always (or madvise, if the server asks for it; it does not yet),
# defrag = defer+madvise, so that no fault waits for compaction.
# Measured: not measured yet.
# For good: transparent_hugepage=always on the kernel's command line.
. "$(dirname "$0")/lib.sh"
DIR=/sys/kernel/mm/transparent_hugepage

# The choice in brackets.
chosen() { sed 's/.*\[\(.*\)\].*/\1/' "$DIR/$1"; }

check() {
    if [ ! -d "$DIR" ]; then
        say "transparent huge pages" "this kernel has none"
        return 0
    fi
    say "transparent huge pages" "enabled is $(chosen enabled), recommended always"
    say "" "defrag is $(chosen defrag), recommended defer+madvise"
    [ "$(chosen enabled)" = always ] && [ "$(chosen defrag)" = defer+madvise ]
}

apply() {
    remember thp-enabled "$(chosen enabled)"
    remember thp-defrag "$(chosen defrag)"
    echo always >"$DIR/enabled"
    echo defer+madvise >"$DIR/defrag"
    check
}

undo() {
    local knob value
    for knob in enabled defrag; do
        value="$(recall "thp-$knob")" || continue
        echo "$value" >"$DIR/$knob"
        forget "thp-$knob"
    done
    check || true
}

run_command "$@"
