#!/usr/bin/env bash
# An encrypted call between two people on this machine: Synapse, weir and Element Call, installed into a folder of their
# own. All HTTP is on loopback; media is on the machine's own addresses as well, because browsers send none to loopback.
# `deploy/demo.sh --help` says more.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
home=${WEIR_DEMO:-$PWD/demo}
base=${WEIR_DEMO_PORT:-18800}

synapse_version=1.163.2
element_call_version=0.26.1

federated=0

usage() {
  cat <<HELP
usage: deploy/demo.sh [--federated] [tour | --down]

Starts a homeserver (Synapse), weir and Element Call on this machine and prints one link for Alice and one for Bob: open
both in one browser and join, and they are in an encrypted call. Running it again prints the links again.

  --federated  two homeservers that speak to each other, each with its own weir: Alice is on one, Bob on the other
  tour         starts it, then walks through an outsider refused, a kick, the homeserver stopped, weir killed and a
               browser killed, and says of each what to expect and how long it took
  --down       stops everything; the folder stays, delete it to begin anew

It needs Python 3 with venv, Node 18.19 or newer with npm, and Rust unless there is a weir: the one in WEIR_BIN, in
target/ or in the path is taken.

  WEIR_DEMO        folder that everything is installed into and kept in (now $home)
  WEIR_DEMO_PORT   first of thirty ports on loopback (now $base)
HELP
}

say() { printf '%s\n' "$*"; }
fail() {
  say "$*" >&2
  exit 1
}

# ---- places -----------------------------------------------------------------------------------------------------

# Homeservers with their weirs, by number: one has both Alice and Bob, two have one of them each.
places() { if ((federated)); then echo 1 2; else echo 0; fi; }

# The folder of what all places of this demo share.
shared() { if ((federated)); then echo "$home/federated"; else echo "$home"; fi; }

# at PLACE : what follows is about this one, its folder and its ports.
at() {
  case $1 in
    0) dir=$home users='"alice", "bob"' ;;
    1) dir=$home/federated/one users='"alice"' ;;
    2) dir=$home/federated/two users='"bob"' ;;
  esac
  weir_port=$((base + $1 * 10))
  federation_port=$((weir_port + 6))
  admin_port=$((weir_port + 7))
  homeserver_port=$((weir_port + 8))
  page_port=$((weir_port + 9))
  if ((federated)); then server_name=localhost:$federation_port; else server_name=localhost:$homeserver_port; fi
}

# ---- processes, each of the folder in $dir ----------------------------------------------------------------------

# running NAME : whether what the pid file names is still the process that was started.
running() {
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && ps -o args= -p "$pid" | grep -qF "$dir"
}

# start NAME COMMAND... : in the background, output to NAME.log.
start() {
  local name=$1
  shift
  (cd "$dir" && exec nohup "$@" >>"$dir/$name.log" 2>&1 </dev/null) &
  echo $! >"$dir/$name.pid"
  disown
}

# wait_for NAME SECONDS COMMAND... : until the command succeeds; fails when the process ends first.
wait_for() {
  local name=$1 limit=$2 begin=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    running "$name" || { tail -n 15 "$dir/$name.log" >&2; fail "$name ended; its log is $dir/$name.log"; }
    ((SECONDS - begin < limit)) || fail "$name does not answer after $limit s; its log is $dir/$name.log"
    sleep 0.2
  done
}

answers() {
  python3 - "$1" <<'PYTHON'
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=3)
PYTHON
}

# stop NAME [SIGNAL]
stop() {
  local pid
  if running "$1"; then
    pid=$(cat "$dir/$1.pid")
    kill "-${2:-TERM}" "$pid"
    for _ in {1..100}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    say "$1: stopped"
  fi
  rm -f "$dir/$1.pid"
}

stop_all() {
  local place
  dir=$(shared)
  stop pages
  for place in $(places); do
    at "$place"
    stop weir
    stop synapse
  done
}

# ---- what is needed ---------------------------------------------------------------------------------------------

find_weir() {
  local path
  for path in "${WEIR_BIN:-}" "${CARGO_TARGET_DIR:-$root/target}"/{release,debug}/weir "$(command -v weir || true)"; do
    if [[ -n $path && -x $path ]]; then
      echo "$path"
      return
    fi
  done
}

check_tools() {
  local missing=()
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("Python 3 with venv (Debian: python3-venv)")
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 18 || (a === 18 && b >= 19) ? 0 : 1)' 2>/dev/null ||
    missing+=("Node 18.19 or newer (Debian: nodejs)")
  command -v npm >/dev/null || missing+=("npm (Debian: npm)")
  command -v ps >/dev/null || missing+=("ps (Debian: procps)")
  if [[ -z $(find_weir) ]]; then
    command -v cargo >/dev/null || missing+=("Rust (https://rustup.rs), or a weir named by WEIR_BIN")
    command -v cc >/dev/null || missing+=("a C compiler (Debian: build-essential)")
  fi
  if [[ ${#missing[@]} -gt 0 ]]; then
    say "missing:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
  fi
}

install_all() {
  if [[ -z $(find_weir) ]]; then
    say "weir: building it, which takes some minutes"
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
  fi
  if [[ $(cat "$home/synapse.version" 2>/dev/null) != "$synapse_version" ]]; then
    say "Synapse $synapse_version: installing from PyPI"
    rm -rf "$home/venv"
    python3 -m venv "$home/venv"
    "$home/venv/bin/pip" install --quiet --disable-pip-version-check "matrix-synapse==$synapse_version"
    echo "$synapse_version" >"$home/synapse.version"
  fi
  if [[ $(cat "$home/element-call.version" 2>/dev/null) != "$element_call_version" ]]; then
    say "Element Call $element_call_version: installing from npm"
    npm --prefix "$home" --loglevel=error install --ignore-scripts --no-audit --no-fund --no-save \
      "@element-hq/element-call-embedded@$element_call_version"
    echo "$element_call_version" >"$home/element-call.version"
  fi
}

# ---- configuration ----------------------------------------------------------------------------------------------

random() { python3 -c 'import secrets; print(secrets.token_hex(32))'; }

# What `weir registration` prints goes where it says; only what a homeserver of its own needs is added.
configure() {
  local weir=$1 secret printed
  secret=$(random)
  mkdir -p "$dir"
  printed=$("$weir" registration --server-name "$server_name" --url "http://127.0.0.1:$weir_port" \
    --homeserver-url "http://127.0.0.1:$homeserver_port" --public-url "ws://localhost:$weir_port")
  part() { awk -v part="$1" '/^# [0-9]\. /{at = substr($2, 1, 1); next} at == part' <<<"$printed"; }
  umask 077
  part 1 >"$dir/weir-registration.yaml"
  {
    cat <<YAML
port: $weir_port
bind_addresses: [127.0.0.1]
keys: {demo: $(random)}
rtc: {tcp_port: $((weir_port + 1)), udp_port: $((weir_port + 2)), media_threads: 1, enable_loopback_candidate: true}
prometheus: {port: $admin_port}
# The room's state decides who makes a call and who joins it.
room: {auto_create: false}
YAML
    part 2
    # The other homeserver is on this machine, and its certificate is of our own making.
    if ((federated)); then
      printf "  federation_ca_file: '%s'\n  allow_private_addresses: ['127.0.0.0/8']\n" "$(shared)/ca.pem"
    fi
  } >"$dir/weir.yaml"
  cat >"$dir/synapse-log.yaml" <<YAML
version: 1
formatters: {plain: {format: '%(asctime)s %(levelname)s %(name)s %(message)s'}}
handlers: {out: {class: logging.StreamHandler, formatter: plain}}
root: {level: WARNING, handlers: [out]}
disable_existing_loggers: false
YAML
  {
    cat <<YAML
server_name: '$server_name'
public_baseurl: 'http://localhost:$homeserver_port/'
listeners:
  - {port: $homeserver_port, tls: false, type: http, bind_addresses: ['127.0.0.1'], resources: [{names: [client, openid], compress: false}]}
$(federation_settings)
database: {name: sqlite3, args: {database: 'homeserver.db'}}
media_store_path: 'media'
signing_key_path: 'signing.key'
log_config: 'synapse-log.yaml'
pid_file: 'synapse.own.pid'
report_stats: false
default_room_version: '11'
macaroon_secret_key: '$(random)'
form_secret: '$(random)'
registration_shared_secret: '$secret'
trusted_key_servers: []
app_service_config_files: ['weir-registration.yaml']
YAML
    part 3
  } >"$dir/homeserver.yaml"
  cat >"$dir/place.json" <<JSON
{"users": [$users], "homeserver": "http://localhost:$homeserver_port", "serverName": "$server_name",
 "weir": "http://localhost:$weir_port", "operator": "http://127.0.0.1:$admin_port", "port": $page_port, "secret": "$secret"}
JSON
}

# Where other homeservers reach this one, as part of its configuration.
federation_settings() {
  ((federated)) || return 0
  cat <<YAML
  - {port: $federation_port, tls: true, type: http, bind_addresses: ['127.0.0.1'], resources: [{names: [federation], compress: false}]}
tls_certificate_path: '$(shared)/cert.pem'
tls_private_key_path: '$(shared)/key.pem'
federation_custom_ca_list: ['$(shared)/ca.pem']
# Here alone, where both are on loopback.
ip_range_blacklist: []
federation: {destination_min_retry_interval: 1s, destination_max_retry_interval: 5s}
YAML
}

# Every place; demo.json is written last and says that all is configured.
configure_all() {
  local place files=()
  mkdir -p "$(shared)"
  if ((federated)); then "$home/venv/bin/python" "$here/demo/authority.py" "$(shared)"; fi
  for place in $(places); do
    at "$place"
    configure "$1"
    files+=("$dir/place.json")
  done
  python3 - "$base" "$home/node_modules/@element-hq/element-call-embedded/dist" "${files[@]}" >"$(shared)/demo.json" <<'PYTHON'
import json, sys
print(json.dumps({"base": int(sys.argv[1]), "dist": sys.argv[2], "places": [json.load(open(name)) for name in sys.argv[3:]]}, indent=1))
PYTHON
}

check_ports() {
  local place ports=()
  for place in $(places); do
    at "$place"
    ports+=("$weir_port" $((weir_port + 1)) "$admin_port" "$homeserver_port" "$page_port")
    if ((federated)); then ports+=("$federation_port"); fi
  done
  python3 - "${ports[@]}" <<'PYTHON' || exit 1
import socket, sys
taken = []
for port in map(int, sys.argv[1:]):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            taken.append(str(port))
if taken:
    sys.exit(f"these ports are taken: {', '.join(taken)}; choose others with WEIR_DEMO_PORT=...")
PYTHON
}

start_weir() {
  start weir "$(find_weir)" serve --config "$dir/weir.yaml"
  wait_for weir 20 answers "http://127.0.0.1:$weir_port/"
}

start_synapse() {
  say "Synapse: starting"
  [[ -f $dir/signing.key ]] ||
    (cd "$dir" && "$home/venv/bin/python" -m synapse.app.homeserver --config-path homeserver.yaml --generate-keys >>synapse.log 2>&1)
  start synapse "$home/venv/bin/python" -m synapse.app.homeserver --config-path "$dir/homeserver.yaml"
  wait_for synapse 90 answers "http://127.0.0.1:$homeserver_port/_matrix/client/versions"
}

# ---- up ---------------------------------------------------------------------------------------------------------

links() {
  local place pages=() down="${BASH_SOURCE[0]} --down"
  for place in $(places); do
    at "$place"
    pages+=("$page_port")
  done
  if ((federated)); then down="${BASH_SOURCE[0]} --federated --down"; fi
  cat <<TEXT

  Alice   http://localhost:${pages[0]}/alice
  Bob     http://127.0.0.1:${pages[-1]}/bob

Open both in one browser and press "Join call" in each: an encrypted call. Each link signs its user in.
weir's view of a person: $(find_weir) why --config $dir/weir.yaml @bob:$server_name
Logs: $dir/*.log    Stop: $down
TEXT
}

# What was configured before keeps its ports.
remember() {
  home=$(cd "$home" && pwd)
  if [[ -f $(shared)/demo.json ]]; then
    base=$(sed -n 's/.*"base": \([0-9]*\).*/\1/p' "$(shared)/demo.json")
  fi
}

all_running() {
  local place
  dir=$(shared)
  running pages || return 1
  for place in $(places); do
    at "$place"
    running synapse && running weir || return 1
  done
}

up() {
  local weir place
  check_tools
  mkdir -p "$home"
  remember
  if all_running; then
    say "everything is running already"
    links
    return
  fi
  stop_all
  install_all
  weir=$(find_weir)
  if [[ ! -f $(shared)/demo.json ]]; then configure_all "$weir"; fi
  check_ports
  trap stop_all EXIT
  say "weir: $weir"
  for place in $(places); do
    at "$place"
    start_weir
    start_synapse
  done
  dir=$(shared)
  start pages node "$here/demo/main.mjs" "$dir"
  # Pages are served place by place: when the last answers, all do.
  wait_for pages 60 answers "http://127.0.0.1:$page_port/"
  trap - EXIT
  links
}

# It is Alice's homeserver that is stopped; weir is killed everywhere.
tour() {
  local step=(node "$here/demo/tour.mjs" "$(shared)") place list
  read -r -a list <<<"$(places)"
  "${step[@]}" outsider
  "${step[@]}" kick
  at "${list[0]}"
  stop synapse
  "${step[@]}" without
  start_synapse
  "${step[@]}" with
  for place in "${list[@]}"; do
    at "$place"
    stop weir KILL
    start_weir
  done
  "${step[@]}" back
  "${step[@]}" ghost
  say "" "That was the tour."
}

if [[ ${1:-} == --federated ]]; then
  federated=1
  shift
fi
case ${1:-} in
  "") up ;;
  tour)
    up
    tour
    ;;
  --down)
    if [[ -d $home ]]; then
      remember
      stop_all
    fi
    ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
