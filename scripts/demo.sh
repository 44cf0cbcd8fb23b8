#!/usr/bin/env bash
# The main job on real data: a retailer's year through the ledger, on the embedded log or on a real Kafka.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
ledger=.venv/bin/coupon-ledger
demo=${DEMO:-.demo}
rm -rf "$demo" && mkdir "$demo"
export COUPON_LEDGER_DATABASE=$demo/ledger.duckdb

say() { printf '\n\033[1m── %s\033[0m\n' "$*"; }
run() { printf '$ coupon-ledger %s\n' "$*"; "$ledger" "$@"; }

if [ "${LOG:-embedded}" = kafka ]; then
  if [ -z "${KAFKA_ADDRESS:-}" ]; then
    say "A real Kafka broker on this machine"
    exec "$python" -m tests.kafka_broker run scripts/demo.sh
  fi
  echo "broker at $KAFKA_ADDRESS"
  export COUPON_LEDGER_LOG=kafka://$KAFKA_ADDRESS
else
  export COUPON_LEDGER_LOG=sqlite:///$demo/log.db
fi

say "1. A log and an empty database"
run init
say "2. A retailer's real year becomes events (2,469 households, 27 campaigns, 155,848 baskets)"
run import complete-journey
say "3. Fold them: exact live state of every coupon, offsets and rows in one transaction"
run consume
say "4. Where are the coupons now?"
run coupons --count
say "5. How did the campaigns do?"
run campaigns --columns campaign_id,name,coupons,issued,used,expired,in_use,use_rate,discount_minor
say "6. Which rules were broken? (27 redemptions came twice: double uses)"
run violations --count
say "7. One of those coupons, event by event"
coupon=$("$ledger" violations --code used_when_used --limit 1 --output csv | tail -n 1 | cut -d, -f1)
run history "$coupon"
say "8. The same facts give the same digest: on any log, in any order, however often repeated"
run digest --columns table,rows,facts
"$ledger" digest --output csv | tail -n 1 | cut -d, -f3 > "$demo/facts-digest"

say "9. A flash sale, live: 3 coupons in stock, the shop gave out 5; one use has no paid order"
"$ledger" consume --follow > "$demo/consume.log" 2>&1 &
consumer=$!
trap 'kill "$consumer" 2>/dev/null || true' EXIT
run publish docs/flash-sale.ndjson
echo "(asked of the consumer while it runs: pid $consumer)"
for _ in $(seq 100); do
  "$ledger" campaigns show flash-sale > "$demo/flash-sale.txt" 2>&1 && break
  sleep 0.2
done
run campaigns show flash-sale
run violations --scope cross --since 2025-11-11

say "10. The first coupon again, on three past days (business time; --known-at asks what was known)"
days=$("$ledger" history "$coupon" --output ndjson | sed 's/.*"occurred_at": "\([0-9-]*\).*/\1/' | sort -u | head -n 3)
for day in $days; do
  run state "$coupon" --at "${day}T23:59:59Z" | grep -E '^([$]|state|owner|order_id|discount_minor|last_event_at)'
done
say "11. The log, kept for ever: Parquet files with checksums"
run archive --to "$demo/archive"
say "12. Rebuild every table from the archive while the consumer runs; prove them equal; swap them under its readers"
run rebuild --from archive --archive "$demo/archive"
run verify --only accounts --only conservation --only rows_of_journal
kill -TERM "$consumer" && wait "$consumer"
trap - EXIT
if [ "${DEMO_PART:-all}" = ledger ]; then
  exit # what follows asks the tables, which are the same on any log
fi

say "13. What did coupons cost, and who bore it? (财务: the year's own books, to the cent)"
run report finance split --by kind,funder --until 2018-01-01T00:00:00Z
say "14. What did each campaign earn? Simple ROI: not incremental, some would have bought anyway (75% cost of goods assumed)"
run report roi --goods-rate 75 --at 2018-01-01T00:00:00Z --limit 8
say "15. Which channel led to the orders? By several models of attribution (渠道归因)"
run attribution show --model last --model linear --model markov --goods-rate 75 --until 2018-01-01T00:00:00Z
say "16. Who are the customers? (客户分层; projected_minor is a model's projection, and in no other number)"
run report segments rfm --goods-rate 75 --at 2018-01-01T00:00:00Z
say "17. No arms were drawn for these mailings: an incremental claim gets a weaker label, or is refused"
"$ledger" experiment compare 18 || true
say "18. What would have been bought anyway? A simulated experiment with its known truth, and the estimate beside it"
year=($COUPON_LEDGER_LOG $COUPON_LEDGER_DATABASE)
export COUPON_LEDGER_LOG=sqlite:///$demo/experiment.log.db COUPON_LEDGER_DATABASE=$demo/experiment.duckdb
run init
run simulate --experiment --seed 7
run consume
run experiment show experiment-7
export COUPON_LEDGER_LOG=${year[0]} COUPON_LEDGER_DATABASE=${year[1]}

say "Try next"
cat <<TRY
export COUPON_LEDGER_LOG=$COUPON_LEDGER_LOG COUPON_LEDGER_DATABASE=$COUPON_LEDGER_DATABASE
$ledger state $coupon
$ledger coupons --state used --output csv
$ledger review 18 --goods-rate 75 --at 2018-01-01T00:00:00Z --to review.html
$ledger --help
TRY
if [ -n "${KAFKA_ADDRESS:-}" ]; then
  echo "(this broker stops now; \`make kafka-up\` starts one that stays, for COUPON_LEDGER_LOG=kafka://127.0.0.1:9092)"
else
  echo "$ledger status"
  echo "$ledger import complete-journey && $ledger consume && $ledger digest   # again: all repeats, the same digest"
fi
