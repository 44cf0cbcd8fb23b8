-- Does every row know the ids of its events?
-- Grain: one event. An offender: if the event is delivered again, it is taken for new and folded twice. This query
-- returns all ids, each with the id filter of its row, in parts.
SELECT 'coupons' AS projection, coupon_id AS key, e.event_id, r.ids_low, r.ids_high
FROM (SELECT key_hash, coupon_id, event_id FROM coupon_events WHERE key_hash BETWEEN $first AND $last) e
JOIN (SELECT key_hash, coupon_id, ids_low, ids_high FROM coupons WHERE key_hash BETWEEN $first AND $last) r
USING (key_hash, coupon_id)
UNION ALL
SELECT 'orders', order_id, e.event_id, r.ids_low, r.ids_high
FROM (SELECT key_hash, order_id, event_id FROM order_events WHERE key_hash BETWEEN $first AND $last) e
JOIN (SELECT key_hash, order_id, ids_low, ids_high FROM orders WHERE key_hash BETWEEN $first AND $last) r
USING (key_hash, order_id)
UNION ALL
SELECT 'campaigns', campaign_id, e.event_id, r.ids_low, r.ids_high
FROM (SELECT key_hash, campaign_id, event_id FROM campaign_events WHERE key_hash BETWEEN $first AND $last) e
JOIN (SELECT key_hash, campaign_id, ids_low, ids_high FROM campaigns WHERE key_hash BETWEEN $first AND $last) r
USING (key_hash, campaign_id)
UNION ALL
SELECT 'users', user_id, e.event_id, r.ids_low, r.ids_high
FROM (SELECT key_hash, user_id, event_id FROM user_events WHERE key_hash BETWEEN $first AND $last) e
JOIN (SELECT key_hash, user_id, ids_low, ids_high FROM users WHERE key_hash BETWEEN $first AND $last) r
USING (key_hash, user_id)
