# Shared by the scripts beside it; not a knob itself.
#
# Every script is one knob, with these commands:
#   check [PID]  a row of what is set, what is recommended, why, and how to mend it; exit 1 if
#                something that matters differs. Needs no rights and changes nothing. With PID
#                it looks at that server, else at what one started from this shell would get.
#   measure      loads servers that differ in nothing but the knob, round by round in turn, and
#                prints what it came to, how to set the knob, and the way back. Ends what it
#                started, and puts back what it changed.
#   apply, undo  of knobs of the machine: sets it until the next boot, after writing down what
#                was there; puts that back. Need root.
# A script defines rows, measurement and, if it can be set from here, set_it and put_back.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SCRIPT="tuning/$(basename "$0")"

STATE_DIR="${SYSTOLE_TUNING_STATE:-/var/tmp/systole-tuning}"
# What is measured, by what, on which processors (empty: wherever the kernel likes).
SYSTOLE="${SYSTOLE:-target/release/systole}"
LOADGEN="${LOADGEN:-target/release/loadgen}"
SERVER_CPU="${SERVER_CPU-0}"
LOAD_CPU="${LOAD_CPU-1}"
ROUNDS="${ROUNDS:-5}"

# Every script that is a knob.
knobs() { grep -l '^run_command' tuning/*.sh | grep -v lib.sh; }

# --- check ---------------------------------------------------------------------------------

# row KNOB NOW RECOMMENDED VERDICT WHY HOW. The verdict is ok; note, which can do harm in some
# uses only; or differs, which makes check fail.
row() { printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$@"; }

# verdict COMMAND...: ok if it succeeds.
verdict() { if "$@"; then echo ok; else echo differs; fi; }
advice() { if "$@"; then echo ok; else echo note; fi; }

# setting_row KEY DEFAULT WHY: a row of the server's own setting, as the environment has it; a
# configuration file is not looked at.
setting_row() {
    local name now="$2"
    name="SYSTOLE_TUNING_$(printf '%s' "$1" | tr 'a-z-' 'A-Z_')"
    if [ -n "${PID:-}" ]; then
        now="$(tr '\0' '\n' <"/proc/$PID/environ" 2>/dev/null | sed -n "s/^$name=//p")"
    else
        now="${!name:-}"
    fi
    now="${now:-$2}"
    row "tuning.$1" "$now" "$2" "$(advice [ "$now" = "$2" ])" "$3" \
        "unset $name; [tuning] $1 of the config file"
}

# table: rows as a table for people.
table() {
    local knob now recommended verdict why how
    printf '%-26s %-18s %-22s %s\n' KNOB NOW RECOMMENDED VERDICT
    while IFS=$'\t' read -r knob now recommended verdict why how; do
        printf '%-26s %-18s %-22s %s\n' "$knob" "$now" "$recommended" "$verdict"
        printf '    why   %s\n    mend  %s\n' "$why" "$how"
    done
}

# judged COMMAND ROWS: shows the rows by way of the command; fails if one differs.
judged() {
    "$1" <<<"${2:-$SCRIPT$'\t'no knob$'\t'-$'\t'ok$'\t'see its first lines$'\t'-}"
    ! cut -f4 <<<"$2" | grep -q '^differs$'
}

# at_least CURRENT WANTED: numbers, or "unlimited".
at_least() {
    [ "$1" = unlimited ] && return 0
    [ "$2" = unlimited ] && return 1
    [ "$1" -ge "$2" ]
}

# limit_of NAME: the hard limit of the process that is looked at, as /proc words it.
limit_of() { sed -n "s/^Max $1  *[^ ]*  *\([^ ]*\).*/\1/p" "/proc/${PID:-self}/limits"; }

# --- apply, undo ---------------------------------------------------------------------------

need_root() {
    if [ "$(id -u)" != 0 ]; then
        echo "$SCRIPT: this changes the machine and needs root; nothing was changed" >&2
        exit 2
    fi
}

# remember KEY VALUE: keeps the first value only, so that a second apply does not lose it.
remember() {
    mkdir -p "$STATE_DIR"
    [ -e "$STATE_DIR/$1" ] || printf '%s\n' "$2" >"$STATE_DIR/$1"
}

# recall KEY: prints what remember kept, or fails.
recall() { [ -e "$STATE_DIR/$1" ] && cat "$STATE_DIR/$1"; }

forget() { rm -f "$STATE_DIR/$1"; }

# --- measure -------------------------------------------------------------------------------

declare -A ADDRESS DATA SERVER_PID
ARMS=()

commit() {
    git rev-parse --short HEAD 2>/dev/null || { echo unknown; return; }
    git diff --quiet HEAD -- src || echo "and changes"
}

begin_measuring() {
    local program
    for program in "$SYSTOLE" "$LOADGEN"; do
        [ -x "$program" ] || { echo "$SCRIPT: build first: cargo build --release --workspace" >&2; exit 2; }
    done
    WORK_DIR="$(mktemp -d)"
    trap end_measuring EXIT
    trap 'exit 130' INT TERM
    printf '# %s\n' "$(sed -n '2s/^# //p' "$SCRIPT")"
    # The rest of the script's first lines: why, how to set it, and the way back.
    sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$SCRIPT"
    echo
    printf '`tuning/%s measure`, %s rounds, %s, commit %s, Linux %s, %s processors, load average before: %s\n\n' \
        "$(basename "$SCRIPT")" "$ROUNDS" "$(date -u +%FT%RZ)" "$(commit | paste -sd" ")" "$(uname -r)" "$(nproc)" \
        "$(cut -d' ' -f1-3 /proc/loadavg)"
}

end_measuring() {
    local arm
    for arm in "${!SERVER_PID[@]}"; do stop_server "$arm"; done
    # Only here can a script put back what it changed whatever happens.
    if declare -F restore >/dev/null; then restore; fi
    rm -rf "$WORK_DIR"
}

# server ARM [NAME=VALUE...] [-- FLAGS...]: starts one with this in its environment, by way of
# the command UNDER if there is one.
server() {
    local arm="$1" dir="$WORK_DIR/data-${#ARMS[@]}" log="$WORK_DIR/log-${#ARMS[@]}" words=()
    shift
    : >"$log"
    while [ $# -gt 0 ] && [ "$1" != -- ]; do words+=("$1"); shift; done
    [ $# -gt 0 ] && shift
    (exec ${SERVER_CPU:+taskset -c "$SERVER_CPU"} ${UNDER:-} env SYSTOLE_PIN=off "${words[@]}" "$SYSTOLE" serve --listen 127.0.0.1:0 \
        --data-dir "$dir" "$@") >"$log" 2>&1 &
    SERVER_PID[$arm]=$!
    ARMS+=("$arm")
    DATA[$arm]="$dir"
    for _ in $(seq 200); do
        ADDRESS[$arm]="$(sed -n 's/.*listening on \([^,]*\),.*/\1/p' "$log")"
        [ -n "${ADDRESS[$arm]}" ] && return
        kill -0 "${SERVER_PID[$arm]}" 2>/dev/null || break
        sleep 0.05
    done
    LAST_WORDS="$(tail -1 "$log")"
    echo "$SCRIPT: the server ($arm) did not start: $LAST_WORDS" >&2
    return 1
}

stop_server() {
    kill "${SERVER_PID[$1]}" 2>/dev/null || true
    wait "${SERVER_PID[$1]}" 2>/dev/null || true
    unset "SERVER_PID[$1]"
}

# load ARM COMMAND FLAGS...: loads a server; figures are then read with take.
load() {
    local arm="$1" command="$2"
    shift 2
    rm -rf "$WORK_DIR/out"
    if ! "$LOADGEN" "$command" --endpoint "${ADDRESS[$arm]}" --pid "${SERVER_PID[$arm]}" \
        ${LOAD_CPU:+--cpu "$LOAD_CPU"} --out "$WORK_DIR/out" "$@" >"$WORK_DIR/said" 2>&1; then
        cat "$WORK_DIR/said" >&2
        echo "$SCRIPT: the load on $arm failed" >&2
        exit 2
    fi
}

# figure KEY: of the last load; beat.p99 is a latency, in nanoseconds.
figure() {
    awk -v section="${1%%.*}" -v key="${1#*.}" -v plain="$1" '
        /^    "[a-z-]+": \{/ { split($0, part, "\""); inside = part[2] }
        /^    \}/ { inside = "" }
        { split($0, part, "\""); value = $2; sub(/,$/, "", value) }
        (part[2] == plain && inside == "") || (part[2] == key && inside == section) { print value; found = 1; exit }
        END { exit !found }
    ' "$WORK_DIR"/out/*/summary.json || { echo "$SCRIPT: the load reported no $1" >&2; return 1; }
}

# took ARM LABEL VALUE: keeps one round's value.
took() { printf '%s\t%s\t%s\n' "$2" "$1" "$3" >>"$WORK_DIR/values"; }

# take ARM LABEL KEY [FACTOR]: keeps a figure of the last load.
take() {
    local value
    value="$(figure "$3")"
    took "$1" "$2" "$(awk -v v="$value" -v f="${4:-1}" 'BEGIN { print v * f }')"
}

# metric ARM NAME: the sum of a server's metric over its shards.
metric() {
    curl -s "http://${ADDRESS[$1]}/-/metrics" |
        awk -v name="$2" '{ key = $1; sub(/\{.*/, "", key) } key == name { sum += $2 } END { print sum + 0 }'
}

# cpu_s PID: seconds of processor time that a process has used.
cpu_s() { cat /proc/"$1"/task/*/schedstat | awk '{ ns += $1 } END { print ns / 1e9 }'; }

# in_turn FUNCTION: calls it for each arm, in rounds, in alternating order.
in_turn() {
    local round at count=${#ARMS[@]}
    for ((round = 0; round < ROUNDS; round++)); do
        for ((at = 0; at < count; at++)); do
            ROUND=$round
            if ((round % 2)); then "$1" "${ARMS[count - 1 - at]}"; else "$1" "${ARMS[at]}"; fi
        done
    done
}

# compared: the values as a table, each arm against the first within a round.
compared() {
    awk -F'\t' -f tuning/compared.awk "$WORK_DIR/values"
    rm "$WORK_DIR/values"
    printf '\nMedian, lowest to highest; the ratio is taken within a round. Load average after: %s\n' \
        "$(cut -d' ' -f1-3 /proc/loadavg)"
}

# run_command "$@": what every script ends with.
run_command() {
    local command="${1:-check}"
    PID="${2:-}"
    case "$command" in
    check) judged table "$(rows)" ;;
    rows) rows ;;
    measure) begin_measuring; measurement ;;
    apply | undo)
        if ! declare -F set_it >/dev/null; then
            echo "$SCRIPT: a server's setting: see check, or the first lines of $SCRIPT" >&2
            exit 2
        fi
        need_root
        if [ "$command" = apply ]; then set_it; else put_back; fi
        ;;
    *) echo "usage: $SCRIPT check [PID] | measure | apply | undo" >&2; exit 2 ;;
    esac
}
