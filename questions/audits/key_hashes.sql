-- Does every stored hash match its key?
-- Grain: one row and hash. An offender: a row that cannot be found by its key. This query returns all hashes, to be
-- computed again.
SELECT 'coupons' AS kept_in, 'key_hash' AS field, key_hash AS hash, coupon_id AS text FROM coupons
UNION ALL
SELECT 'coupon_events', 'key_hash', key_hash, coupon_id FROM coupon_events
UNION ALL
SELECT 'coupon_conflicts', 'key_hash', key_hash, coupon_id FROM coupon_conflicts
UNION ALL
SELECT 'orders', 'key_hash', key_hash, order_id FROM orders
UNION ALL
SELECT 'order_events', 'key_hash', key_hash, order_id FROM order_events
UNION ALL
SELECT 'order_conflicts', 'key_hash', key_hash, order_id FROM order_conflicts
UNION ALL
SELECT 'campaigns', 'key_hash', key_hash, campaign_id FROM campaigns
UNION ALL
SELECT 'campaign_events', 'key_hash', key_hash, campaign_id FROM campaign_events
UNION ALL
SELECT 'campaign_conflicts', 'key_hash', key_hash, campaign_id FROM campaign_conflicts
UNION ALL
SELECT 'users', 'key_hash', key_hash, user_id FROM users
UNION ALL
SELECT 'user_events', 'key_hash', key_hash, user_id FROM user_events
UNION ALL
SELECT 'user_conflicts', 'key_hash', key_hash, user_id FROM user_conflicts
UNION ALL
SELECT 'violations', 'key_hash', key_hash, key FROM violations
UNION ALL
SELECT 'violations', 'order_hash', order_hash, if(topic = 'order.events', key, counterpart) FROM violations WHERE order_hash IS NOT NULL
UNION ALL
SELECT 'acquisitions', 'campaign_hash', campaign_hash, campaign_id FROM acquisitions
UNION ALL
SELECT 'acquisitions', 'user_hash', user_hash, acquired_by FROM acquisitions
UNION ALL
SELECT 'acquisitions', 'key_hash', key_hash, coupon_id FROM acquisitions
UNION ALL
SELECT 'campaign_terms', 'campaign_hash', campaign_hash, campaign_id FROM campaign_terms
UNION ALL
SELECT 'stock_cuts', 'campaign_hash', campaign_hash, campaign_id FROM stock_cuts
UNION ALL
SELECT 'coupons_in_use', 'order_hash', order_hash, order_id FROM coupons_in_use
UNION ALL
SELECT 'coupons_in_use', 'key_hash', key_hash, coupon_id FROM coupons_in_use
UNION ALL
SELECT 'uses', 'order_hash', order_hash, order_id FROM uses
UNION ALL
SELECT 'uses', 'key_hash', key_hash, coupon_id FROM uses
UNION ALL
SELECT 'coupon_sales', 'order_hash', order_hash, order_id FROM coupon_sales
UNION ALL
SELECT 'coupon_sales', 'key_hash', key_hash, coupon_id FROM coupon_sales
UNION ALL
SELECT 'awaited', 'order_hash', order_hash, order_id FROM awaited
UNION ALL
SELECT 'paths', 'person_hash', person_hash, person FROM paths
