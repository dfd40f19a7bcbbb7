#!/bin/bash
# What forwarding costs: weir on one processor, the load generator on another, interleaved repeats, medians.
#
#   loadtest/bench.sh [repeats] [seconds]
#
# Rows: shape V (video, 240 packets/s of 1100 B) to 1, 25 and 125 subscribers, shape A (audio, 50 packets/s of 120 B) to
# 100 and 500, and for each the floor: the same packets sealed and sent in the same bursts by a program that does nothing
# else. Shape M is a meeting where everybody has microphone and camera on (the packets of A and V), of 10; it has no floor.
# WEIR and LOADTEST name other binaries, SERVER_CPU and LOAD_CPU other processors, OUT the directory of the reports.
# ROWS picks rows, as "V:25 A:100". NICE (as root, -15) puts server, floor and generator before what else the machine does.
#
#   cargo build --release -p weir && cargo build --release -p weir-loadtest --no-default-features
set -euo pipefail
cd "$(dirname "$0")/.."

repeats=${1:-3}
seconds=${2:-10}
target=${CARGO_TARGET_DIR:-target}
weir=${WEIR:-$target/release/weir}
loadtest=${LOADTEST:-$target/release/weir-loadtest}
server_cpu=${SERVER_CPU:-0}
load_cpu=${LOAD_CPU:-1}
rows=${ROWS:-V:1 V:25 V:125 A:100 A:500 M:10}
nice=${NICE:-0}
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"

for program in "$weir" "$loadtest"; do
    [ -x "$program" ] || { echo "$program is missing: build it for release, as said in this file" >&2; exit 2; }
done
[ "$(nproc)" -ge 2 ] || { echo "needs two processors" >&2; exit 2; }

secret=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
cat > "$out/weir.yaml" <<YAML
port: 17880
bind_addresses: ["127.0.0.1"]
rtc:
  udp_port: 17882
  tcp_port: 17881
  node_ip: 127.0.0.1
keys:
  bench: $secret
# Everybody sends speech all the time: all of it is to be forwarded.
audio:
  max_speakers: 0
prometheus:
  port: 17883
logging:
  level: warn
YAML

server=
stop() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap stop EXIT

# A fresh server for each run, so that memory is comparable.
weir_row() { # shape subscribers repeat
    local load="--shape $1 --subscribers $2"
    # Light participants all of them, which send one encoding each: others cost the generator more than the server.
    [ "$1" != M ] || load="--scenario meeting --participants $2 --microphones $2 --cameras $2 --full 0 --camera hd --turns 0"
    nice -n "$nice" taskset -c "$server_cpu" "$weir" serve --config "$out/weir.yaml" > "$out/weir-$1-$2-$3.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        curl -fs -o /dev/null http://127.0.0.1:17880/ && break
        sleep 0.1
    done
    # shellcheck disable=SC2086
    nice -n "$nice" taskset -c "$load_cpu" "$loadtest" sfu --url ws://127.0.0.1:17880 --api-key bench --api-secret "$secret" \
        $load --duration "$seconds" --server-pid "$server" \
        --json "$out/weir-$1-$2-$3.json" > "$out/weir-$1-$2-$3.txt" 2>&1 || true
    curl -fs http://127.0.0.1:17883/metrics > "$out/weir-$1-$2-$3.metrics" || true
    stop
}

floor_row() {
    [ "$1" != M ] || return 0
    nice -n "$nice" taskset -c "$server_cpu" "$loadtest" floor --shape "$1" --subscribers "$2" --duration "$seconds" \
        --receivers-on "$load_cpu" > "$out/floor-$1-$2-$3.json"
}

{
    date -u +%FT%TZ
    uname -sr
    grep -m1 'model name' /proc/cpuinfo
    echo "weir $("$weir" --version | cut -d' ' -f2), $(git rev-parse --short HEAD)"
    echo "processors: $(nproc), $(lscpu | sed -n 's/^Thread(s) per core: *//p') threads per core; load before: $(cut -d' ' -f1-3 /proc/loadavg)"
    echo "repeats: $repeats of $seconds s, interleaved; server on processor $server_cpu, generator on $load_cpu, nice $nice"
} | tee "$out/machine.txt"

for repeat in $(seq "$repeats"); do
    for row in $rows; do
        echo "repeat $repeat, $row (load $(cut -d' ' -f1 /proc/loadavg))" >&2
        weir_row "${row%:*}" "${row#*:}" "$repeat"
        floor_row "${row%:*}" "${row#*:}" "$repeat"
    done
done

python3 - "$out" $rows <<'PY' | tee "$out/table.md"
import glob, json, os, statistics, sys

out, rows = sys.argv[1], sys.argv[2:]

def load(pattern):
    found = []
    for name in sorted(glob.glob(os.path.join(out, pattern))):
        try:
            with open(name) as file:
                found.append(json.load(file))
        except ValueError:
            pass
    return found

def spread(values, digits=2):
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"

NAMES = {"V": "V 1 to {}", "A": "A 1 to {}", "M": "M {0} by {0}"}
print("| row | runs | CPU us per packet | floor | times the floor | server busy % | packets/s | delivery % | p50 ms | p99 ms | p99.9 ms | kB per subscriber | join p50 ms | generator % |")
print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
for row in rows:
    shape, count = row.split(":")
    everything = load(f"weir-{shape}-{count}-*.json")
    runs = [r for r in everything if not r["void"]]
    floors = load(f"floor-{shape}-{count}-*.json")
    cost = [r["server_cpu_us_per_packet"] for r in runs]
    floor = [f["cpu_us_per_packet"] for f in floors]
    ratio = f"{statistics.median(cost) / statistics.median(floor):.2f}" if cost and floor and statistics.median(floor) else "-"
    void = f", {len(everything) - len(runs)} void" if len(everything) > len(runs) else ""
    cells = [
        NAMES[shape].format(count), f"{len(runs)}{void}", spread(cost), spread(floor), ratio,
        spread([r["server_cpu_percent"] for r in runs], 0),
        spread([r["packets_per_second"] for r in runs], 0), spread([r["delivery_percent"] for r in runs], 3),
        spread([r["latency_ms"]["p50"] for r in runs]), spread([r["latency_ms"]["p99"] for r in runs]),
        spread([r["latency_ms"]["p999"] for r in runs]), spread([r["server_kb_per_subscriber"] for r in runs], 0),
        spread([r["join_ms"]["p50"] for r in runs], 1), spread([r["generator_cpu_percent"] for r in runs], 0),
    ]
    print("| " + " | ".join(cells) + " |")
PY
echo "reports: $out"
