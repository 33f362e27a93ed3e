#!/usr/bin/env bash
# Kernel queues and ports: what a storm of reconnects runs into
#
# - net.core.somaxconn caps the listen backlog, which the server asks to be 16384. A burst of
#   connects beyond it overflows, and each loser waits a second before it tries again. Read when
#   the server starts.
# - net.ipv4.tcp_max_syn_backlog: connects that are half done, while SYN cookies are off.
# - net.ipv4.ip_local_port_range: ports of a *client* machine; one that opens more than 28,000
#   connections to one address needs more.
# - kernel.io_uring_disabled must be 0: the server does not start without io_uring.
#
# For good: the same names in /etc/sysctl.d/90-systole.conf; until the next boot: apply. Back: undo.
. "$(dirname "$0")/lib.sh"
BACKLOG=16384
PORTS="10240 65535"

# A knob by its name; a port range comes with a tab, and old kernels lack some.
get() { tr '\t' ' ' 2>/dev/null <"/proc/sys/${1//.//}" || echo "${2:-none}"; }
put() { printf '%s\n' "$2" >"/proc/sys/${1//.//}"; }
ports() { get net.ipv4.ip_local_port_range | awk '{ print $2 - $1 }'; }

rows() {
    local now how="tuning/sysctl.sh apply; /etc/sysctl.d/90-systole.conf"
    now="$(get kernel.io_uring_disabled 0)"
    row kernel.io_uring_disabled "$now" 0 "$(verdict [ "$now" = 0 ])" \
        "the server does not start without io_uring" "sysctl -w kernel.io_uring_disabled=0"
    now="$(get net.core.somaxconn)"
    row net.core.somaxconn "$now" "$BACKLOG" \
        "$(if at_least "$now" "$BACKLOG"; then echo ok; elif at_least "$now" 4096; then echo note; else echo differs; fi)" \
        "a burst of connects beyond it waits a second" "$how"
    now="$(get net.ipv4.tcp_max_syn_backlog)"
    row net.ipv4.tcp_max_syn_backlog "$now" 8192 "$(advice at_least "$now" 8192)" \
        "the same for connects half done, unless SYN cookies are on, as they usually are" "$how"
    row net.ipv4.ip_local_port_range "$(get net.ipv4.ip_local_port_range)" "$PORTS" \
        "$(advice at_least "$(ports)" 55000)" \
        "only for a machine of clients: ports for connections to one address" "$how"
}

raise() {
    local now
    now="$(get "$1")"
    at_least "$now" "$2" && return
    remember "$1" "$now"
    put "$1" "$2"
}

set_it() {
    raise net.core.somaxconn "$BACKLOG"
    raise net.ipv4.tcp_max_syn_backlog 8192
    [ "$(ports)" -ge 55000 ] && return
    remember net.ipv4.ip_local_port_range "$(get net.ipv4.ip_local_port_range)"
    put net.ipv4.ip_local_port_range "$PORTS"
}

put_back() {
    local knob value
    for knob in net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.ipv4.ip_local_port_range; do
        value="$(recall "$knob")" || continue
        put "$knob" "$value"
        forget "$knob"
    done
}

overflows() {
    awk '/^TcpExt/ && !names { n = split($0, name); names = 1; next }
         /^TcpExt/ { split($0, v); for (i = 2; i <= n; i++) if (name[i] == "ListenOverflows") print v[i] }' \
        /proc/net/netstat
}

storm() {
    local before began
    before="$(overflows)"
    began="$(date +%s%N)"
    # A server that keeps up needs no backlog; this one does not come to it for a moment.
    kill -STOP "${SERVER_PID[$1]}"
    (sleep 0.3; kill -CONT "${SERVER_PID[$1]}") &
    load "$1" beat --sessions 4000 --connections 4000 --connect-rate 1000000 --interval 1s \
        --warmup 10ms --duration 10ms
    took "$1" "4,000 clients while the server stands still for 0.3 s: until all are served, s" \
        "$(awk -v ns="$(($(date +%s%N) - began))" 'BEGIN { print ns / 1e9 }')"
    took "$1" "connects that overflowed" "$(($(overflows) - before))"
}

# The backlog is read when the server listens, so the machine is changed for a moment only.
measurement() {
    need_root
    SOMAXCONN="$(get net.core.somaxconn)"
    restore() { put net.core.somaxconn "$SOMAXCONN"; }
    local backlog
    for backlog in "$BACKLOG" 128; do
        put net.core.somaxconn "$backlog"
        server "somaxconn $backlog"
    done
    restore
    in_turn storm
    compared
}

run_command "$@"
