-- What has happened to these coupons (`wanted`)? Grain: one event, with the fields that decide state and owner. Bounds
-- as in happened.sql.
SELECT coupon_id, event_id, type, occurred_at, user_id, order_id, discount_minor, reason, valid_until
FROM coupon_events
WHERE key_hash IN (SELECT key_hash FROM wanted) AND key_hash BETWEEN $low AND $high AND recorded_at >= $since
