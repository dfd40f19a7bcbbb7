#!/bin/bash
# What forwarding costs: servers on one processor, the load generator on another, interleaved repeats, medians and ranges.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: loadtest/bench.sh [repeats (3)] [seconds (10)]

Each repeat measures every row with every system, one after the other, each with a fresh server:

  weir       built for release
  floor      the same packets sealed (AES-128-GCM) and sent in the same bursts, one GSO call for each burst and receiver,
             to as many receivers, by a program that receives nothing; the receivers open what comes. Its latency is that
             of the path without a server and is subtracted from the others' ("added")
  janus      Debian's package (apt-get install --no-install-recommends janus), VideoRoom
  other      any server that speaks LiveKit's protocol, at OTHER_URL with OTHER_KEY and OTHER_SECRET; OTHER_PID or
             OTHER_METRICS tells what it uses

All of them get the same light participants, which accept nothing but AES-128-GCM; only the signalling differs. Everything
runs in a network namespace of its own, on one address of a veth interface (but `other`, and without the rights for one:
then on loopback and without Janus). A run whose generator was more than 80 % busy is void and counts nowhere.

Environment:
  ROWS        V:1 V:25 V:125 A:100 A:500 M:10. V: video, 240 packets/s of 1100 B in bursts of 8, one to N; A: audio, 50
              packets/s of 120 B, one to N; M: N participants with microphone and camera (the packets of A and V)
  SYSTEMS     those of the list above that are there
  SERVER_CPU  0      LOAD_CPU  1      processors of server and generator
  NICE        0      (as root, -15: before what else the machine does)
  OUT         folder of the reports, the table (table.md, table.json) and the facts of the machine (machine.txt)
  WEIR, LOADTEST  other binaries

  cargo build --release -p weir && cargo build --release -p weir-loadtest --no-default-features
HELP
}
case ${1:-} in -h | --help) usage; exit 0 ;; esac
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
export OUT=${OUT:-$(mktemp -d)}
out=$OUT
mkdir -p "$out"

for program in "$weir" "$loadtest"; do
    [ -x "$program" ] || { echo "$program is missing: build it for release, as --help says" >&2; exit 2; }
done
[ "$(nproc)" -ge 2 ] || { echo "needs two processors" >&2; exit 2; }

# A namespace of its own, once.
if [ -z "${BENCH_NAMESPACE:-}" ] && [ -z "${OTHER_URL:-}" ]; then
    for way in "unshare --net" "unshare --user --map-root-user --net"; do
        $way true 2> /dev/null || continue
        BENCH_NAMESPACE=1 exec $way loadtest/bench.sh "$@"
    done
fi
address=127.0.0.1
if [ -n "${BENCH_NAMESPACE:-}" ]; then
    ip link set lo up
    if ip link add bench0 type veth peer name bench1 && ip addr add 10.99.0.1/24 dev bench0; then
        ip link set bench1 up
        ip link set bench0 up
        address=10.99.0.1
    fi
fi

systems=${SYSTEMS:-}
if [ -z "$systems" ]; then
    systems="weir floor"
    if [ "$address" != 127.0.0.1 ] && command -v janus > /dev/null; then systems+=" janus"; fi
    if [ -n "${OTHER_URL:-}" ]; then systems+=" other"; fi
fi

secret=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
cat > "$out/weir.yaml" <<YAML
port: 17880
bind_addresses: ["$address"]
rtc:
  udp_port: 17882
  tcp_port: 17881
  node_ip: $address
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

server= # process that was started
measured= # process that forwards
stop() {
    if [ -n "$server" ]; then
        kill "$server" 2> /dev/null || true
        for _ in $(seq 50); do
            kill -0 "$server" 2> /dev/null || break
            sleep 0.1
        done
        kill -9 "$server" 2> /dev/null || true
        wait "$server" 2> /dev/null || true
        server=
    fi
    if [ -n "$measured" ] && [ "$measured" != "${OTHER_PID:-}" ]; then kill -9 "$measured" 2> /dev/null || true; fi
    measured=
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

pinned() { exec nice -n "$nice" taskset -c "$server_cpu" "$@"; }

reached() { # port
    for _ in $(seq 150); do
        (exec 3<> "/dev/tcp/$address/$1") 2> /dev/null && return 0
        sleep 0.1
    done
    echo "the server did not come up" >&2
    return 1
}

# A fresh server for each run, so that memory is comparable.
run_row() { # system shape subscribers repeat
    local system=$1 name="$out/$1-$2-$3-$4" load="--shape $2 --subscribers $3" at
    # Light participants all of them, which send one encoding each: others cost the generator more than the server.
    [ "$2" != M ] || load="--scenario meeting --participants $3 --microphones $3 --cameras $3 --full 0 --camera hd --turns 0"
    cut -d' ' -f1-3 /proc/loadavg > "$name.load"
    case $system in
        floor)
            [ "$2" != M ] || return 0
            nice -n "$nice" taskset -c "$server_cpu" "$loadtest" floor --shape "$2" --subscribers "$3" \
                --duration "$seconds" --receivers-on "$load_cpu" > "$name.json" || true
            return 0
            ;;
        weir)
            pinned "$weir" serve --config "$out/weir.yaml" > "$name.log" 2>&1 &
            server=$!
            reached 17880 || { stop; return 0; }
            measured=$server
            at="--url ws://$address:17880 --api-key bench --api-secret $secret"
            ;;
        janus)
            pinned loadtest/peers/janus.sh "$address" 18188 "$out/janus" > "$name.log" 2>&1 &
            server=$!
            reached 18188 || { stop; return 0; }
            measured=$server
            at="--speaks janus --url ws://$address:18188"
            ;;
        other)
            at="--url $OTHER_URL --api-key ${OTHER_KEY:-devkey} --api-secret ${OTHER_SECRET:-secret}"
            measured=${OTHER_PID:-}
            [ -n "$measured" ] || [ -z "${OTHER_METRICS:-}" ] || at+=" --metrics-url $OTHER_METRICS"
            ;;
        *)
            echo "there is no system $system" >&2
            exit 2
            ;;
    esac
    # shellcheck disable=SC2086
    nice -n "$nice" taskset -c "$load_cpu" timeout $((seconds + 120)) "$loadtest" sfu $at $load --duration "$seconds" \
        ${measured:+--server-pid $measured} --json "$name.json" > "$name.txt" 2>&1 || true
    [ "$system" != weir ] || curl -fs "http://$address:17883/metrics" > "$name.metrics" || true
    stop
}

{
    date -u +%FT%TZ
    uname -sr
    grep -m1 'model name' /proc/cpuinfo | tr -s '\t' ' '
    echo "processors: $(nproc), $(lscpu | sed -n 's/^Thread(s) per core: *//p') threads per core; governor: $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2> /dev/null || echo none); memory: $(awk '/MemTotal/ { print int($2 / 1024) " MB" }' /proc/meminfo)"
    echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
    echo "socket buffers (rmem_default rmem_max wmem_default wmem_max): $(cat /proc/sys/net/core/{rmem_default,rmem_max,wmem_default,wmem_max} 2> /dev/null | tr '\n' ' ')"
    echo "weir $("$weir" --version | cut -d' ' -f2), $(git rev-parse --short HEAD 2> /dev/null || true)"
    for system in $systems; do
        case $system in
            janus) echo "janus $(dpkg-query -W -f '${Version}' janus 2> /dev/null || echo '?'), libsrtp $(dpkg-query -W -f '${Version}' libsrtp2-1 2> /dev/null || echo '?')" ;;
            other) echo "other: $OTHER_URL" ;;
        esac
    done
    echo "cipher, all systems: SRTP AEAD_AES_128_GCM (participants accept no other)"
    echo "repeats: $repeats of $seconds s, interleaved; server on processor $server_cpu, generator on $load_cpu, nice $nice; address $address"
} | tee "$out/machine.txt"

for repeat in $(seq "$repeats"); do
    for row in $rows; do
        for system in $systems; do
            echo "repeat $repeat, $row, $system (load $(cut -d' ' -f1 /proc/loadavg))" >&2
            run_row "$system" "${row%:*}" "${row#*:}" "$repeat"
        done
    done
done

# shellcheck disable=SC2086
python3 loadtest/bench.py "$out" "$systems" $rows | tee "$out/table.md"
echo "reports: $out"
