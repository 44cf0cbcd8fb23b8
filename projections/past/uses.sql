-- Which `used` events does the cut contain? Grain: one event. Has the columns of the live table `uses` except
-- `order_hash`. The caller appends a condition.
SELECT order_id, key_hash, coupon_id, event_id, recorded_at
FROM coupon_events WHERE type = 'used'
