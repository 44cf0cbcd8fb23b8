-- What happened to these coupons (`wanted`) between two instants? Grain: one event. The bounds let DuckDB skip most of
-- the journal, whether it is ordered by time or by hash. $since: none of these events was recorded before.
SELECT key_hash, coupon_id, event_id, type, occurred_at AS at, order_id AS for_order, hold_until
FROM coupon_events
WHERE key_hash IN (SELECT key_hash FROM wanted) AND key_hash BETWEEN $low AND $high
  AND occurred_at BETWEEN $first AND $last AND recorded_at >= $since
