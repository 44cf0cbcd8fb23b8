#!/usr/bin/env bash
# A retailer's real year in eight steps, on the embedded log or on a real Kafka. docs/tour.md shows the rest.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
ledger=.venv/bin/coupon-ledger
demo=${DEMO:-.demo}
rm -rf "$demo" && mkdir "$demo"

say() { printf '\n\033[1m── %s\033[0m\n%s\n\n' "$1" "$(fmt -w 100 <<<"$2")"; }
run() { printf '$ coupon-ledger %s\n' "$*"; "$ledger" "$@"; }
# A ledger of its own: another log file, or topics with another prefix, and another database.
use() {
  export COUPON_LEDGER_DATABASE=$demo/$1.duckdb
  if [ -n "${KAFKA_ADDRESS:-}" ]; then
    export COUPON_LEDGER_LOG=kafka://$KAFKA_ADDRESS COUPON_LEDGER_TOPIC_PREFIX=$1.
  else
    export COUPON_LEDGER_LOG=sqlite:///$demo/$1.log.db
  fi
}

if [ "${LOG:-embedded}" = kafka ]; then
  if [ -z "${KAFKA_ADDRESS:-}" ]; then
    echo "starting a real Kafka broker on this machine"
    exec "$python" -m tests.kafka_broker run scripts/demo.sh
  fi
  echo "broker at $KAFKA_ADDRESS"
fi

use year
say "1. A retailer's real year becomes a ledger" \
  "2,469 households, 27 campaigns, 155,848 baskets. Events are appended to the log, then folded into tables."
run init >"$demo/init.txt"
run import complete-journey
run consume
run coupons --count

say "2. Which rules were broken, and what exactly happened?" \
  "27 redemptions came twice. An illegal event stays in the history, and says what is wrong with it."
run violations --count
coupon=$("$ledger" violations --code used_when_used --limit 1 --output csv | tail -n 1 | cut -d, -f1)
run history "$coupon" --columns occurred_at,type,transition,violations

say "3. Where did that coupon stand on a past day?" \
  "Any day can be asked for, by what had happened (--at) or by what was known (--known-at)."
for day in 2016-12-29 2017-01-03; do
  run state "$coupon" --at "$day" --columns state,order_id,used_at 2>&1
done

say "4. A flash sale, live, in a ledger of its own" \
  "3 coupons in stock, 5 given out, and one use has no paid order. The running consumer answers."
use flash-sale
run init >"$demo/init.txt"
"$ledger" consume --follow >"$demo/consume.log" 2>&1 &
consumer=$!
trap 'kill "$consumer" 2>/dev/null || true' EXIT
run publish docs/flash-sale.ndjson
for _ in $(seq 100); do
  "$ledger" campaigns show flash-sale >"$demo/flash-sale.txt" 2>&1 && break
  sleep 0.2
done
run violations --columns occurred_at,violation,key,counterpart
kill -TERM "$consumer" && wait "$consumer"
trap - EXIT

say "5. Can the tables be trusted?" \
  "They are made anew from an archive of the log, compared with the live ones, and swapped with them."
use year
run archive --to "$demo/archive"
run rebuild --from archive --archive "$demo/archive"
run verify --only accounts --only conservation --only rows_of_journal
"$ledger" digest --output csv | tail -n 1 | cut -d, -f3 >"$demo/facts-digest"
if [ "${DEMO_PART:-all}" = ledger ]; then
  exit # what follows asks the tables, which are the same on any log
fi

say "6. Is somebody draining the coupons?" \
  "A quiet week, then, live, one phone claims for eight accounts. The default rules see it; people handle it."
use farm
run init >"$demo/init.txt"
run simulate --days 7 --events 2000 --seed 7
"$ledger" consume --follow >"$demo/farm.log" 2>&1 &
consumer=$!
trap 'kill "$consumer" 2>/dev/null || true' EXIT
for _ in $(seq 300); do
  [ "$("$ledger" status --output json 2>/dev/null | "$python" -c \
    'import json, sys; s = json.load(sys.stdin); print(s["read"] - sum(p["end"] for p in s["partitions"]))' \
    2>/dev/null)" = 0 ] && break
  sleep 0.2
done
run alerts stats --rule device_farm
run publish docs/device-farm.ndjson
for _ in $(seq 300); do
  alert=$("$ledger" alerts list --rule device_farm --output csv 2>/dev/null | sed -n 2p | cut -c1-8)
  [ -n "$alert" ] && break
  sleep 0.2
done
run alerts list --rule device_farm
run alerts ack "$alert" --for 30m
run alerts act "$alert"
run alerts resolve "$alert" --true --why "one phone, eight accounts"
run alerts stats --rule device_farm
printf '\nWould the rule have found it, and how often would it have cried wolf?\n\n'
run alerts backtest --rule device_farm --from 2025-09-01 --sweep device_farm.at_least=3,5,7,9
kill -TERM "$consumer" && wait "$consumer"
trap - EXIT

use year
printf '\nAnd in the real year: what stands is grouped by rule and campaign\n\n'
run alerts list --rule double_use --columns alert_id,severity,rule,key,measured,money_minor,opened_at

say "7. What did it cost, who bore it, and what did it earn?" \
  "To the cent, by the year's own books. Cost of goods is assumed to be 75% of what was paid."
run report finance split --by kind,funder --until 2018-01-01
run report roi --goods-rate 75 --at 2018-01-01 --limit 4

say "8. What would have been bought anyway?" \
  "An experiment whose truth is known. Simple ROI takes every sale with a coupon for its own; the true one is far less."
use experiment
run init >"$demo/init.txt"
run simulate --experiment --seed 7
run consume
run report experiments

use year
cat <<TRY

Go on with docs/tour.md, or try:

export COUPON_LEDGER_LOG=$COUPON_LEDGER_LOG COUPON_LEDGER_DATABASE=$COUPON_LEDGER_DATABASE
$ledger state $coupon
$ledger review 18 --goods-rate 75 --at 2018-01-01 --to review.html
$ledger report segments --goods-rate 75 --at 2018-01-01 --lang zh
TRY
if [ -n "${KAFKA_ADDRESS:-}" ]; then
  echo "(this broker stops now; \`make kafka-up\` starts one that stays,"
  echo " for COUPON_LEDGER_LOG=kafka://127.0.0.1:9092)"
fi
