#!/usr/bin/env bash
# The pages and the HTTP API over a retailer's real year, last year's sale, and a sale that goes on now. Ctrl-C stops it.
# The ledger stays in .serve: the next start goes on with it. `make clean` removes it.
set -euo pipefail
cd "$(dirname "$0")/.."

ledger=$PWD/.venv/bin/coupon-ledger
serve=${SERVE:-$PWD/.serve}
port=${PORT:-8642}
mkdir -p "$serve"
cd "$serve"
export COUPON_LEDGER_LOG=sqlite:///$serve/log.db COUPON_LEDGER_DATABASE=$serve/ledger.duckdb

if [ ! -e made ]; then
  printf 'making the ledger in %s (half a minute)\n' "$serve"
  rm -f ./*
  "$ledger" init >init.txt
  "$ledger" import complete-journey
  "$ledger" simulate --events 200000 --orders --seed 25 --edition 25- --start "$(date -d '1 year ago' +%F)"
  "$ledger" consume --no-alerts
  (umask 077; "$ledger" people add demo --role admin --generate-password >sign-in.txt)
  touch made
fi
printf 'sign in as demo; the password is in %s\n' "$serve/sign-in.txt"

"$ledger" run --port "$port" "$@" &
run=$!
"$ledger" simulate --events 300000 --orders --live 19.9 --seed "$(date +%j)" --edition "$(date +%m%d)-" >sale.log 2>&1 &
sale=$!
trap 'kill -TERM "$run" "$sale" 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM
wait "$run"
