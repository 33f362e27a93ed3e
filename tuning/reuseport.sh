#!/usr/bin/env bash
# How connections are spread over the shards
#
# Why there is no knob: each shard listens on the port itself (SO_REUSEPORT), and the kernel
# deals a connection to one of them by a hash of its addresses. A connection stays, and so does
# a session that it has joined, so no beat crosses shards. The price is that few connections
# are dealt unevenly; measured here. A listener that deals in turn would cost every connection a
# hand-over between threads.
. "$(dirname "$0")/lib.sh"

rows() { :; }

# Connections accepted so far, a shard a line. The few that ask for this are among them.
accepted() {
    curl -s "http://${ADDRESS[$1]}/-/metrics" |
        sed -n 's/^systole_connections_accepted_total{.*} //p'
}

work() {
    local connections
    for connections in 8 64 1000; do
        accepted "$1" >"$WORK_DIR/before"
        load "$1" beat --sessions 2000 --connections "$connections" --closed --warmup 200ms --duration 1s
        # Counters are published ten times a second.
        sleep 1.2
        took "$1" "$connections connections: the largest share against a fair one" \
            "$(accepted "$1" | paste "$WORK_DIR/before" - | awk '
                { n = $2 - $1; sum += n; if (n > most) most = n }
                END { print most * NR / sum }')"
        take "$1" "$connections connections: server CPU a beat, µs" beat_cpu_us
    done
}

measurement() {
    server "2 shards" -- --shards 2
    server "4 shards" -- --shards 4
    in_turn work
    compared
}

run_command "$@"
