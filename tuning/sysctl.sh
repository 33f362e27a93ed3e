#!/usr/bin/env bash
# Kernel queues and ports: what a storm of reconnects runs into.
#
# net.core.somaxconn            caps the listen backlog. The server asks for 8192; with less,
#                               a burst of connects overflows and each loser waits a second
#                               before its SYN is sent again. Recommended: 8192.
# net.ipv4.tcp_max_syn_backlog  connects that are half done. Recommended: 8192.
# net.ipv4.ip_local_port_range  ports of a *client* machine: a load generator that opens more
#                               than 28,000 connections to one address needs more.
#                               Recommended: 10240 65535.
# Measured: not measured yet.
# For good: the same names in /etc/sysctl.d/90-systole.conf.
. "$(dirname "$0")/lib.sh"

WANTED_SOMAXCONN=8192
WANTED_SYN=8192
WANTED_PORTS="10240 65535"

# The path below /proc/sys; a port range comes with a tab.
read_knob() { tr '\t' ' ' <"/proc/sys/$1"; }
write_knob() { printf '%s\n' "$2" >"/proc/sys/$1"; }
key() { printf '%s\n' "${1//\//.}"; }

check() {
    local good=0 value first last
    value="$(read_knob net/core/somaxconn)"
    say net.core.somaxconn "$value, recommended $WANTED_SOMAXCONN or more"
    at_least "$value" "$WANTED_SOMAXCONN" || good=1
    value="$(read_knob net/ipv4/tcp_max_syn_backlog)"
    say net.ipv4.tcp_max_syn_backlog "$value, recommended $WANTED_SYN or more"
    at_least "$value" "$WANTED_SYN" || good=1
    value="$(read_knob net/ipv4/ip_local_port_range)"
    say net.ipv4.ip_local_port_range "$value, recommended $WANTED_PORTS on a client machine"
    read -r first last <<<"$value"
    [ $((last - first)) -ge 55000 ] || good=1
    return $good
}

raise() {
    local value
    value="$(read_knob "$1")"
    at_least "$value" "$2" && return
    remember "$(key "$1")" "$value"
    write_knob "$1" "$2"
}

apply() {
    local first last
    raise net/core/somaxconn "$WANTED_SOMAXCONN"
    raise net/ipv4/tcp_max_syn_backlog "$WANTED_SYN"
    read -r first last <<<"$(read_knob net/ipv4/ip_local_port_range)"
    if [ $((last - first)) -lt 55000 ]; then
        remember net.ipv4.ip_local_port_range "$first $last"
        write_knob net/ipv4/ip_local_port_range "$WANTED_PORTS"
    fi
    check
}

undo() {
    local knob value
    for knob in net/core/somaxconn net/ipv4/tcp_max_syn_backlog net/ipv4/ip_local_port_range; do
        value="$(recall "$(key "$knob")")" || continue
        write_knob "$knob" "$value"
        forget "$(key "$knob")"
    done
    check || true
}

run_command "$@"
