#!/usr/bin/env bash
# Asks a real server 10,000 questions made from its own OpenAPI document, with Schemathesis, and
# fails on an answer that the document does not promise: a status, media type, header or body
# that is not in it, or an error of the server. Not part of CI: it takes minutes, and
# installs from PyPI.
#
#   tests/openapi/run.sh [CASES_AN_OPERATION] [SEED]
#
# VENV names a directory for Python's packages, to be used again; OUT one for what was found.
set -euo pipefail
cd "$(dirname "$0")/../.."

cases=${1:-350}
seed=${2:-1}
work=$(mktemp -d)
venv=${VENV:-$work/venv}
out=${OUT:-$work}
port=${PORT:-18640}
server=""
cleanup() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

[ -x "$venv/bin/st" ] || {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "schemathesis==4.32.5"
}
cargo build --locked --quiet
target/debug/systole serve --listen "127.0.0.1:$port" --data-dir "$work/data" >"$work/ready" &
server=$!
for _ in $(seq 300); do
    grep -q "is ready" "$work/ready" && break
    sleep 0.1
done
grep -q "is ready" "$work/ready"

mkdir -p "$out"
"$venv/bin/python" tests/openapi/narrow.py <src/http/openapi.json >"$work/openapi.json"
cp tests/openapi/schemathesis.toml "$work/"
(
    cd "$work"
    "$venv/bin/st" --config-file schemathesis.toml run openapi.json \
        --url "http://127.0.0.1:$port" --seed "$seed" --max-examples "$cases" --no-color
) | tee "$out/schemathesis.txt"

# The server has stood it, and still ends in order.
kill -TERM "$server"
wait "$server"
server=""
