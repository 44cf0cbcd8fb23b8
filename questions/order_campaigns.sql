-- Which coupons does an answer about an order depend on? Grain: one hash of a coupon id. These are the coupons that the
-- order names (`named`), the coupons that name the order, and all coupons of their campaigns, because the rules across
-- coupons count them.
WITH concerned AS (
    SELECT unnest($named::BIGINT[]) AS key_hash
    UNION SELECT key_hash FROM coupon_events WHERE order_id = $order
)
SELECT key_hash FROM concerned
UNION
SELECT key_hash FROM coupon_events
WHERE campaign_id IN (SELECT campaign_id FROM coupon_events SEMI JOIN concerned USING (key_hash))
