#!/usr/bin/env bash
# Measures every knob, one after the other, in less than a quarter of an hour
#
# usage: tuning/all.sh DIR [KNOB...]
# Writes DIR/KNOB.md for each, or for those that are named; ROUNDS=3 for a quicker run.
# Builds nothing: cargo build --release --workspace comes before. Needs root for sysctl.sh,
# halt-poll.sh and page-reporting.sh, which are left out, and say so, without.
set -euo pipefail
out="$(realpath -m "${1:?usage: tuning/all.sh DIR [KNOB...]}")"
shift
cd "$(dirname "$0")/.."
. tuning/lib.sh
mkdir -p "$out"

failed=0
for script in $(knobs); do
    name="$(basename "$script" .sh)"
    [ $# = 0 ] || [[ " $* " = *" $name "* ]] || continue
    began=$SECONDS
    if "$script" measure >"$out/$name.md.part"; then
        mv "$out/$name.md.part" "$out/$name.md"
        echo "$name: $((SECONDS - began)) s"
    else
        rm "$out/$name.md.part"
        echo "$name: not measured" >&2
        failed=1
    fi
done
exit "$failed"
