# Shared by the scripts beside it; not a knob itself.
#
# Every knob has three commands:
#   check   says what is set, what is recommended and why; exit 0 if it is as recommended,
#           1 if not. Needs no rights and changes nothing.
#   apply   sets it until the next boot, after writing down what was there. Needs root.
#   undo    puts back what was there before the first apply.

set -euo pipefail

STATE_DIR="${SYSTOLE_TUNING_STATE:-/var/tmp/systole-tuning}"

say() { printf '%-34s %s\n' "$1" "$2"; }

need_root() {
    if [ "$(id -u)" != 0 ]; then
        echo "$0: this changes the system and needs root" >&2
        exit 2
    fi
}

# remember KEY VALUE: keeps the first value only, so that a second apply does not lose it.
remember() {
    mkdir -p "$STATE_DIR"
    [ -e "$STATE_DIR/$1" ] || printf '%s\n' "$2" >"$STATE_DIR/$1"
}

# recall KEY: prints what remember kept, or fails.
recall() {
    [ -e "$STATE_DIR/$1" ] && cat "$STATE_DIR/$1"
}

forget() { rm -f "$STATE_DIR/$1"; }

# at_least CURRENT WANTED: numbers, or "unlimited".
at_least() {
    [ "$1" = unlimited ] && return 0
    [ "$2" = unlimited ] && return 1
    [ "$1" -ge "$2" ]
}

# The process id given after the command, or the one systole that runs.
server_pid() {
    if [ -n "${1:-}" ]; then
        printf '%s\n' "$1"
        return
    fi
    local pids
    pids="$(pidof systole || true)"
    case "$pids" in
    "") echo "$0: no systole is running; give a process id" >&2; exit 2 ;;
    *" "*) echo "$0: several are running ($pids); give a process id" >&2; exit 2 ;;
    esac
    printf '%s\n' "$pids"
}

# run_command "$@": the script defines check, apply and undo.
run_command() {
    local command="${1:-check}"
    [ $# -gt 0 ] && shift
    case "$command" in
    check) check "$@" ;;
    apply) need_root; apply "$@" ;;
    undo) need_root; undo "$@" ;;
    *) echo "usage: $0 check|apply|undo" >&2; exit 2 ;;
    esac
}
