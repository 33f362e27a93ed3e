#!/bin/sh
# A member of a group, with nothing but curl: joins, beats every third of the timeout, goes on at
# another server when one fails, joins again when its session has ended, and leaves on Ctrl-C or
# SIGTERM.
#
#     examples/member.sh 127.0.0.1:8640,127.0.0.1:8642 database db1 [SECONDS]
#
# Names must be escaped as in a URL.
set -u
endpoints=$(echo "$1" | tr ',' ' ') path="/$2/$3" timeout=${4:-10}
pause=$(awk "BEGIN { print $timeout / 3 }")
patience=$(awk "BEGIN { print $timeout / 6 }")
status='' session='' before=''
headers=$(mktemp)

# ask METHOD TARGET [OPTION...]: leaves the status and the headers of the first server that
# answers other than 5xx, and puts that server first; an empty status if there is none.
ask() {
    method=$1 target=$2
    shift 2
    for endpoint in $endpoints; do
        # -I is a HEAD, whose answer has no body to wait for.
        if [ "$method" = HEAD ]; then how=-I; else how="-X $method"; fi
        # shellcheck disable=SC2086  # $how is one option or two
        status=$(curl -s --noproxy '*' -o /dev/null -D "$headers" -w '%{http_code}' \
            --max-time "$patience" $how "$@" "http://$endpoint$target")
        case $status in
        000 | 5?? | 408 | 429) status='' ;;
        *)
            rest=$(for other in $endpoints; do
                [ "$other" = "$endpoint" ] || printf '%s ' "$other"
            done)
            endpoints="$endpoint $rest"
            return
            ;;
        esac
    done
}

leave() {
    trap '' INT TERM
    if [ -n "$session" ]; then
        ask DELETE "$path" -H "x-session-id: $session"
        echo left
    fi
    rm -f "$headers"
    exit 0
}
trap leave INT TERM

while :; do
    if [ -z "$session" ]; then
        ask PUT "$path?timeout=$timeout"
    else
        ask HEAD "$path" -H "x-session-id: $session"
    fi
    case $status in
    200 | 201 | 204)
        if [ -z "$session" ]; then
            session=$(tr -d '\r' <"$headers" | sed -n 's/^x-session-id: //Ip')
            echo "joined${before:+ again} $session"
        fi
        ;;
    404 | 410)
        # The session has ended: the next one has another id, a greater fencing token.
        before=$session session=''
        continue
        ;;
    '') ;; # nobody answered: again, after a pause
    *)
        echo "out: $status" >&2
        rm -f "$headers"
        exit 1
        ;;
    esac
    # In the background, so that a signal is heard at once.
    sleep "$pause" &
    wait $!
done
