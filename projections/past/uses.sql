-- Which `used` events were there? Grain: one event. As the live table, but for the hash of the order.
SELECT order_id, key_hash, coupon_id, event_id, recorded_at
FROM coupon_events WHERE type = 'used'
