-- What happened to the coupons in `wanted` from $first to $last? Grain: one event. $low, $high: the lowest and highest
-- key hash in `wanted`. $since: an instant before which none of these events was recorded. With these bounds, DuckDB
-- skips most of the journal, whether its rows are ordered by time or by hash.
SELECT key_hash, coupon_id, event_id, type, occurred_at AS at, order_id AS for_order, hold_until
FROM coupon_events
WHERE key_hash IN (SELECT key_hash FROM wanted) AND key_hash BETWEEN $low AND $high
  AND occurred_at BETWEEN $first AND $last AND recorded_at >= $since
