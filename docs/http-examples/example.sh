#!/bin/sh
# The HTTP API with curl. Needs curl 7.76 or newer and jq.
#   URL=https://coupons.example.com PUBLISH_TOKEN=cl_… ASK_TOKEN=cl_… sh example.sh
set -eu
run=${RUN:-$(date +%s)}
coupon="shell-$run"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --retry repeats 408, 429, 500, 502, 503, 504 and timeouts, and honours Retry-After. Repeating is harmless.
call() {
  if curl --silent --show-error --fail-with-body --retry 8 --retry-connrefused --retry-max-time 60 \
    --output "$work/body" "$@"; then
    cat "$work/body"
  else
    cat "$work/body" >&2
    return 1
  fi
}

event() { # type, instant, further fields
  jq -nc --arg type "$1" --arg at "$2" --arg coupon "$coupon" --argjson more "$3" \
    '{topic: "coupon.events", type: $type, event_id: "\($coupon)-\($type)", source: "shop", occurred_at: $at,
      coupon_id: $coupon} + $more'
}

# One event. The answer comes when it is durable.
one=$(
  event created 2026-11-11T00:00:00Z '{"campaign_id": "k-1", "coupon_type": "cash"}' |
    call "$URL/v1/events" -H "Authorization: Bearer $PUBLISH_TOKEN" -H "Content-Type: application/json" --data-binary @-
)
echo "$one" | jq -r '"published one at \(.position)"'

# A batch, one event a line. The second one lacks its user: it is refused, the other is appended.
answer=$(
  {
    event claimed 2026-11-11T00:01:00Z '{"user_id": "u-1", "channel": "app"}'
    event used 2026-11-11T00:02:00Z '{"order_id": "o-1", "discount_minor": 500}'
  } | call "$URL/v1/events" -H "Authorization: Bearer $PUBLISH_TOKEN" \
    -H "Content-Type: application/x-ndjson" --data-binary @-
)
echo "$answer" | jq -r '"appended \(.appended), refused \(.refused)",
  (.items[] | select(.status == "refused") | .event_id as $id | .problems[] | "refused \($id): \(.field) \(.rule)")'

# Whether the coupon can be used. Wait-For: ask once the events above were read.
wait_for=$(echo "$answer" | jq -r .wait_for)
check=$(call --get "$URL/v1/coupons/$coupon/usable" --data-urlencode user=u-1 \
  -H "Authorization: Bearer $PUBLISH_TOKEN" -H "Wait-For: $wait_for")
echo "$check" | jq -r '"usable: \(.usable) \(.reasons | join(", "))"'

# A question, page by page. All pages are of the same state.
page=$(call "$URL/v1/questions/coupons?page_size=2" -H "Authorization: Bearer $ASK_TOKEN")
rows=0
while :; do
  rows=$((rows + $(echo "$page" | jq '.rows | length')))
  cursor=$(echo "$page" | jq -r '.next // empty')
  [ -n "$cursor" ] || break
  page=$(call "$URL/v1/questions/coupons?cursor=$cursor" -H "Authorization: Bearer $ASK_TOKEN")
done
echo "coupons: $rows rows"

# The live feed, until one commit; then again from there. Events of alerts since then would come first.
mkfifo "$work/feed"
last=
for round in first resumed; do
  curl --silent --no-buffer "$URL/v1/live" -H "Authorization: Bearer $ASK_TOKEN" \
    ${last:+-H "Last-Event-ID: $last"} >"$work/feed" &
  feed=$!
  kind=
  while IFS= read -r line; do
    case $line in
      "event: "*) kind=${line#event: } ;;
      "id: "*) last=${line#id: } ;;
      "") [ "$kind" != commit ] || break ;;
    esac
  done <"$work/feed"
  kill "$feed"
  wait "$feed" || true
  echo "$round: commit ${last%%~*}"
done
