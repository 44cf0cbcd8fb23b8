-- All events of the coupons in `wanted`, with the fields that determine state and owner. Grain: one event. $low, $high,
-- $since: see happened.sql.
SELECT coupon_id, event_id, type, occurred_at, user_id, order_id, discount_minor, reason, valid_until
FROM coupon_events
WHERE key_hash IN (SELECT key_hash FROM wanted) AND key_hash BETWEEN $low AND $high AND recorded_at >= $since
