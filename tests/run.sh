#!/usr/bin/env bash
# One command for all tests of weir; `tests/run.sh --help` says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GROUPS_IN_ORDER=(setup fmt lints core unit docs clients quality matrix watch deploy bench)
GROUPS_ON_DEMAND=(sdks)
FULL=
OUT=$PWD/tests/.out
CACHE=$PWD/tests/.cache
CLIENTS=$PWD/tests/clients

usage() {
  cat <<'HELP'
usage: tests/run.sh [GROUP...] [--full]

Without a group, runs them all, in this order:

  setup    installs what the tests need: Debian packages, npm packages, a Python environment
  fmt      the code is formatted
  lints    clippy has nothing to say
  core     the core compiles without the server around it
  unit     unit tests, simulation, fuzz corpora, documentation examples (cargo test)
  docs     the documentation builds without a warning
  clients  real clients against a real weir: Chromium, Firefox and a Python program
  quality  calls over bad networks, measured: a short set with Chromium through a network emulator; with --full every
           network of the list (25 minutes), whose table is then in tests/.out/quality
  matrix   Element Call, LiveKit clients and users of the load test in calls of a real homeserver (Synapse)
  watch    what operators look at: a real Prometheus, dashboards, alerts and the status page, during a call
  deploy   what operators deploy: the Debian package through its life, Helm chart, compose and proxy files through their own
           tools, and calls that move from one weir to another behind a reverse proxy
  bench    each benchmark runs once, to show that it runs

and, only when asked for:

  sdks     long lists: many versions of the client SDKs, every codec, simulated failures, the rest of the API

`clients`, `quality`, `matrix`, `watch` and `deploy` prepare what they need by themselves. Part of them: tests/clients/run NAME, and
so on, with a part of the name of a file in their folder scenarios. All traffic stays in a network namespace of its own.

Logs are in tests/.out/GROUP.log. What real clients saw when a scenario failed (screenshots, their consoles, the
server's log) is in tests/.out/clients; pictures of the calls of Element Call are in tests/.out/matrix,
of the status page in tests/.out/watch. Nothing is installed outside this folder but Debian packages, and those only as
root or with a sudo that asks no password; otherwise the command to run is printed.
HELP
}

# ---- running a step ---------------------------------------------------------------------------------------------

set -m # every step gets a process group of its own, which ends with it
step_group=
passed=0
failed=0
summary=()
broken=()

end_step() {
  [[ -n $step_group ]] || return 0
  kill -TERM -- "-$step_group" 2>/dev/null || return 0
  for _ in {1..20}; do
    kill -0 -- "-$step_group" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL -- "-$step_group" 2>/dev/null || true
}
trap 'end_step' EXIT
trap 'echo; echo "interrupted"; exit 130' INT TERM HUP

# step NAME LIMIT_SECONDS COMMAND... : output to the terminal and to tests/.out/NAME.log; returns the command's status.
step() {
  local name=$1 limit=$2 log=$OUT/$1.log status=1
  shift 2
  rm -f "$log.status"
  {
    code=0
    timeout --foreground --kill-after=15 "$limit" "$@" </dev/null 2>&1 || code=$?
    [[ $code -ne 124 ]] || echo "$name took longer than $limit s and was stopped"
    echo "$code" >"$log.status"
  } | tee -a "$log" &
  step_group=$(jobs -p %%)
  wait $! || true
  end_step 2>/dev/null
  step_group=
  status=$(cat "$log.status" 2>/dev/null || echo 1)
  rm -f "$log.status"
  return "$status"
}

# group NAME : runs group_NAME, counts, times.
group() {
  local name=$1 begin=$SECONDS status=0 took good=0 bad=0 again=0 note=
  printf '\n== %s\n' "$name"
  : >"$OUT/$name.log"
  "group_$name" || status=$?
  took=$((SECONDS - begin))
  # Groups that count tests themselves say so in their log; any other one is one check.
  case $name in
    unit | bench)
      good=$(sum "$OUT/$name.log" 's/^test result: .* \([0-9]*\) passed; .*/\1/p')
      bad=$(sum "$OUT/$name.log" 's/^test result: .* \([0-9]*\) failed; .*/\1/p')
      ;;
    clients | quality | matrix | watch | deploy | sdks)
      good=$(sum "$OUT/$name.log" 's/^[^a-z]*pass \([0-9]*\)$/\1/p')
      bad=$(sum "$OUT/$name.log" 's/^[^a-z]*\(fail\|cancelled\) \([0-9]*\)$/\2/p')
      again=$(grep -c '^[^a-z]*once more: ' "$OUT/$name.log" || true)
      ;;
  esac
  if ((good + bad == 0)) && [[ $status -eq 0 ]]; then good=1; fi
  if ((bad == 0)) && [[ $status -ne 0 ]]; then bad=1; fi
  passed=$((passed + good))
  failed=$((failed + bad))
  ((again == 0)) || note="; $again had to be tried once more: grep 'once more' tests/.out/$name.log"
  if [[ $status -eq 0 ]]; then
    summary+=("$(printf '  ok      %-8s %5d s  %d passed%s' "$name" "$took" "$good" "$note")")
  else
    broken+=("$name")
    summary+=("$(printf '  FAILED  %-8s %5d s  %d passed, %d failed; see tests/.out/%s.log%s' "$name" "$took" "$good" "$bad" "$name" "$note")")
  fi
  printf -- '-- %s: %s after %d s\n' "$name" "$([[ $status -eq 0 ]] && echo ok || echo FAILED)" "$took"
  return "$status"
}

# What failed in a group, briefly, for those who see only the end of the output.
causes() {
  printf '\n-- what failed in %s:\n' "$1"
  grep -aE -A6 '^(✖ |test .* FAILED$|thread .* panicked|error(\[|:)|# once more: |took longer)' "$OUT/$1.log" |
    grep -avE '^(--)?$|failing tests:' | cut -c 1-300 | head -n 60 || true
}

sum() {
  local number total=0
  for number in $(sed -n "$2" "$1"); do total=$((total + number)); done
  echo "$total"
}

# ---- setup ------------------------------------------------------------------------------------------------------

# Debian packages by the thing that shows that they are there.
missing_packages() {
  local missing=()
  command -v cc >/dev/null || missing+=(build-essential)
  command -v chromium >/dev/null || missing+=(chromium)
  command -v firefox-esr >/dev/null || command -v firefox >/dev/null || missing+=(firefox-esr)
  command -v pulseaudio >/dev/null || missing+=(pulseaudio) # Firefox needs a sound card
  command -v ip >/dev/null || missing+=(iproute2)
  command -v openssl >/dev/null || missing+=(openssl) # certificates of tests
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  command -v openssl >/dev/null || missing+=(openssl)
  command -v systemd-analyze >/dev/null || missing+=(systemd)
  ls /usr/share/fonts/truetype/*/*.ttf >/dev/null 2>&1 || missing+=(fonts-dejavu-core)
  echo "${missing[@]}"
}

apt_install() {
  local -a apt=(apt-get -y -q -o Dpkg::Use-Pty=0) as=()
  [[ $EUID -eq 0 ]] || as=(sudo -n)
  export DEBIAN_FRONTEND=noninteractive
  "${as[@]}" "${apt[@]}" update && "${as[@]}" "${apt[@]}" install --no-install-recommends "$@" && return
  echo "apt-get failed; trying once more"
  "${as[@]}" "${apt[@]}" -f install || true
  "${as[@]}" "${apt[@]}" update && "${as[@]}" "${apt[@]}" install --no-install-recommends "$@"
}

setup_rust() {
  if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer from https://rustup.rs"
    return 1
  fi
}

setup_packages() {
  local missing
  missing=$(missing_packages)
  [[ -n $missing ]] || return 0
  local install="apt-get install -y --no-install-recommends $missing"
  if ! command -v apt-get >/dev/null; then
    echo "install what these Debian packages hold, then run this again: $missing"
    return 1
  fi
  if [[ $EUID -ne 0 ]] && ! sudo -n true 2>/dev/null; then
    echo "these packages are missing and this user may not install them; run"
    echo "  sudo $install"
    return 1
  fi
  echo "installing: $missing"
  # shellcheck disable=SC2086
  apt_install $missing
}

# done_already STAMP FILE... : whether the stamp was written for exactly these files.
done_already() { [[ -f $1 ]] && [[ $(cat "$1") == "$(sha256sum "${@:2}")" ]]; }

setup_npm() {
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 18 || (a === 18 && b >= 19) ? 0 : 1)' ||
    { echo "node $(node --version) is too old: 18.19 or newer is needed"; return 1; }
  local stamp=$CLIENTS/node_modules/.stamp
  done_already "$stamp" "$CLIENTS/package-lock.json" && return
  local -a npm=(npm --prefix "$CLIENTS" --loglevel=error ci --ignore-scripts --no-audit --no-fund)
  { "${npm[@]}" || "${npm[@]}"; } &&
    sha256sum "$CLIENTS/package-lock.json" >"$stamp"
}

setup_python() {
  local stamp=$CACHE/venv/.stamp
  done_already "$stamp" "$CLIENTS/requirements.txt" && "$CACHE/venv/bin/python" -c 'import livekit.rtc' && return
  rm -rf "$CACHE/venv"
  python3 -m venv "$CACHE/venv" &&
    "$CACHE/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$CLIENTS/requirements.txt" &&
    sha256sum "$CLIENTS/requirements.txt" >"$stamp"
}

setup_synapse() {
  local stamp=$CACHE/venv-synapse/.stamp wanted=$PWD/tests/matrix/requirements.txt
  done_already "$stamp" "$wanted" && "$CACHE/venv-synapse/bin/python" -c 'import synapse' && return
  rm -rf "$CACHE/venv-synapse"
  python3 -m venv "$CACHE/venv-synapse" &&
    "$CACHE/venv-synapse/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$wanted" &&
    sha256sum "$wanted" >"$stamp"
}

# Debian's Prometheus without its service: unpacked, not installed.
setup_prometheus() {
  local home=$CACHE/prometheus
  [[ -x $home/usr/bin/promtool ]] || command -v promtool prometheus >/dev/null && return
  local -a as=()
  [[ $EUID -eq 0 ]] || as=(sudo -n)
  rm -rf "$home" && mkdir -p "$home" && cd "$home" || return
  { apt-get download prometheus || { "${as[@]}" apt-get -q update && apt-get download prometheus; }; } &&
    dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb
}

# Reverse proxies and NATS, unpacked and not installed: as packages they would start services.
setup_proxies() {
  local folder=$CACHE/deploy/packages deb
  [[ -x $CACHE/deploy/usr/sbin/nginx && -x $CACHE/deploy/usr/bin/caddy && -x $CACHE/deploy/usr/sbin/nats-server ]] && return
  local -a get=(apt-get -q download nginx caddy nats-server) as=()
  [[ $EUID -eq 0 ]] || as=(sudo -n)
  mkdir -p "$folder"
  (cd "$folder" && { "${get[@]}" || { "${as[@]}" apt-get -q update && "${get[@]}"; }; }) || return
  for deb in "$folder"/*.deb; do dpkg-deb -x "$deb" "$CACHE/deploy" || return; done
}

setup_charts() {
  local stamp=$CACHE/venv-deploy/.stamp wanted=$PWD/tests/deploy/requirements.txt
  done_already "$stamp" "$wanted" && "$CACHE/venv-deploy/bin/python" -c 'import helm_python' && return
  rm -rf "$CACHE/venv-deploy"
  python3 -m venv "$CACHE/venv-deploy" &&
    "$CACHE/venv-deploy/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" &&
    sha256sum "$wanted" >"$stamp"
}

# Runs without `set -e` (its result is asked for), so every step is chained.
run_setup() {
  local part
  for part in rust packages npm python synapse prometheus proxies charts; do
    ("setup_$part") || { echo "setup of $part failed"; return 1; }
    echo "$part: ready"
  done
}

# ---- the groups -------------------------------------------------------------------------------------------------
# All of them share one debug build of the workspace; nothing here is built for release.

group_setup() { step setup 1500 "${BASH_SOURCE[0]}" --inside-setup; }
group_fmt() { step fmt 120 cargo fmt --all --check; }
group_lints() { step lints 1500 cargo clippy --locked --workspace --all-targets -- -D warnings; }
group_core() { step core 900 cargo check --locked -p weir --lib --no-default-features; }
group_unit() { step unit 2400 cargo test --locked --workspace --no-fail-fast; }
# Help and configuration are written as documentation too, and a terminal shows their addresses as they stand.
group_docs() { RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links -A rustdoc::bare_urls" step docs 900 cargo doc --locked --workspace --no-deps --document-private-items; }

# prepare GROUP : what real clients need, and the binary.
prepare() {
  if ! done_already "$CLIENTS/node_modules/.stamp" "$CLIENTS/package-lock.json" ||
    ! done_already "$CACHE/venv/.stamp" "$CLIENTS/requirements.txt" ||
    ! done_already "$CACHE/venv-synapse/.stamp" "$PWD/tests/matrix/requirements.txt" ||
    ! done_already "$CACHE/venv-deploy/.stamp" "$PWD/tests/deploy/requirements.txt" ||
    ! { [[ -x $CACHE/prometheus/usr/bin/promtool ]] || command -v promtool prometheus >/dev/null; } ||
    [[ -n $(missing_packages) ]]; then
    step "$1" 1500 "${BASH_SOURCE[0]}" --inside-setup || return
  fi
  # As `unit` builds it: the same features, so the same build. It holds the weir binary too.
  step "$1" 2400 cargo test --locked --workspace --no-run || return
  rm -rf "${OUT:?}/$1"
}

group_clients() { prepare clients && step clients 1200 "$CLIENTS/run"; }
group_sdks() { prepare sdks && step sdks 3000 "$CLIENTS/run" --sdks; }
group_quality() { prepare quality && step quality 2400 "$PWD/tests/quality/run" $FULL; }
group_watch() { prepare watch && step watch 400 "$PWD/tests/watch/run"; }
group_matrix() { prepare matrix && step matrix 900 "$PWD/tests/matrix/run"; }
group_deploy() { prepare deploy && step deploy 600 "$PWD/tests/deploy/run"; }

group_bench() {
  if ! compgen -G 'benches/*.rs' >/dev/null && ! compgen -G '*/benches/*.rs' >/dev/null; then
    echo "there is no benchmark yet"
    return 0
  fi
  step bench 1200 cargo test --locked --workspace --bench '*'
}

# -----------------------------------------------------------------------------------------------------------------

main() {
  local name known wanted=()
  for name in "$@"; do
    case $name in
      -h | --help) usage && exit 0 ;;
      --full) FULL=--full && continue ;;
      --inside-setup) run_setup && exit 0 || exit 1 ;;
    esac
    known=" ${GROUPS_IN_ORDER[*]} ${GROUPS_ON_DEMAND[*]} "
    [[ $known == *" $name "* ]] || { echo "there is no group $name; tests/run.sh --help lists them" >&2; exit 2; }
    wanted+=("$name")
  done
  [[ ${#wanted[@]} -gt 0 ]] || wanted=("${GROUPS_IN_ORDER[@]}")
  mkdir -p "$OUT" "$CACHE"
  # A build that nobody continues needs no incremental state.
  [[ -z ${CI:-} ]] || export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
  for name in "${wanted[@]}"; do
    if ! group "$name" && [[ $name == setup ]]; then
      echo "nothing can be tested before setup is complete"
      break
    fi
  done
  for name in "${broken[@]}"; do causes "$name"; done
  printf '\n== summary, %d s in all\n' "$SECONDS"
  printf '%s\n' "${summary[@]}"
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [[ $failed -eq 0 ]]
}

main "$@"
