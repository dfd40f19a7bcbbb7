#!/usr/bin/env bash
# An hour of joining, publishing, resuming, leaving and vanishing against a weir of its own on loopback. Fails when
# memory, open descriptors or the time a join takes grow. `tests/churn.sh --minutes 3` is shorter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
minutes=60
while [[ $# -gt 0 ]]; do
  case $1 in
    --minutes) minutes=${2:?--minutes needs a number}; shift 2 ;;
    *) echo "usage: tests/churn.sh [--minutes N]" >&2; exit 2 ;;
  esac
done
WEIR_CHURN_MINUTES=$minutes exec cargo test --locked --test churn -- --ignored --nocapture
