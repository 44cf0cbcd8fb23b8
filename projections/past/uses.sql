-- Which `used` events had happened? Grain: one event. The columns of the live table, without the hash of the order.
SELECT order_id, key_hash, coupon_id, event_id, recorded_at
FROM coupon_events WHERE type = 'used'
