#!/usr/bin/env bash
# What on this machine differs from what is recommended
#
# usage: tuning/check.sh [--rows] [PID]
# Prints every knob: now, recommended, why, and how to mend it. Changes nothing and needs no
# rights. Exit 1 if something differs that matters. With PID it looks at that server, else at
# what a server started from this shell would get. --rows: tabs between the columns, for programs.
set -euo pipefail
cd "$(dirname "$0")/.."
. tuning/lib.sh
shape=table
if [ "${1:-}" = --rows ]; then shape=cat; shift; fi

found="$(for script in $(knobs); do "$script" rows "${1:-}"; done)"
judged "$shape" "$found"
