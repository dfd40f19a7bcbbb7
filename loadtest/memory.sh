#!/bin/bash
# Resident memory of the server for each further subscriber: the slope between a small and a large room, in kB.
#
#   loadtest/memory.sh [few] [many] [seconds]
#
# Rows: subscribers that receive one microphone, and that receive nine small cameras and a microphone.
# The server is a fresh one for each room. WEIR and LOADTEST name other binaries. Timing does not matter, only memory.
#
#   cargo build --release -p weir && cargo build --release -p weir-loadtest --no-default-features
set -euo pipefail
cd "$(dirname "$0")/.."

few=${1:-20}
many=${2:-100}
seconds=${3:-8}
target=${CARGO_TARGET_DIR:-target}
weir=${WEIR:-$target/release/weir}
loadtest=${LOADTEST:-$target/release/weir-loadtest}
port=${PORT:-18880}
out=$(mktemp -d)
secret=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
cat > "$out/weir.yaml" <<YAML
port: $port
bind_addresses: ["127.0.0.1"]
rtc:
  udp_port: $((port + 2))
  tcp_port: $((port + 1))
  media_threads: 1
  node_ip: 127.0.0.1
keys:
  bench: $secret
logging:
  level: warn
YAML

server=
load=
stop() {
    for process in $load $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    load= server=
}
trap 'stop; rm -rf "$out"' EXIT

resident() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$1/status"; }

room() { # cameras microphones participants: the largest resident size while all are there
    "$weir" serve --config "$out/weir.yaml" > "$out/weir.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        curl -fs -o /dev/null "http://127.0.0.1:$port/" && break
        sleep 0.1
    done
    "$loadtest" sfu --url "ws://127.0.0.1:$port" --api-key bench --api-secret "$secret" --scenario meeting \
        --participants "$3" --cameras "$1" --microphones "$2" --full 0 --camera small --turns 0 \
        --duration "$seconds" > "$out/load.txt" 2>&1 &
    load=$!
    largest=0
    while kill -0 "$load" 2>/dev/null; do
        now=$(resident "$server")
        [ "${now:-0}" -le "$largest" ] || largest=$now
        sleep 0.3
    done
    stop
    [ "$largest" -gt 0 ] || { cat "$out/weir.log" "$out/load.txt" >&2; exit 1; }
    echo "$largest"
}

row() { # name cameras microphones
    local low high
    low=$(room "$2" "$3" "$few")
    high=$(room "$2" "$3" "$many")
    echo "| $1 | $low | $high | $(((high - low) / (many - few))) |"
}

echo "| subscribers receive | kB, $few of them | kB, $many of them | kB for each further one |"
echo "|---|---|---|---|"
row "one microphone" 0 1
row "nine small cameras and a microphone" 9 1
