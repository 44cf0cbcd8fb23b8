-- Which coupons does an answer about an order depend on? Grain: one coupon's hash: coupons that the order names
-- (`named`) or that name the order, and all coupons of their campaigns, since rules across coupons count these.
WITH concerned AS (
    SELECT unnest($named::BIGINT[]) AS key_hash
    UNION SELECT key_hash FROM coupon_events WHERE order_id = $order
)
SELECT key_hash FROM concerned
UNION
SELECT key_hash FROM coupon_events
WHERE campaign_id IN (SELECT campaign_id FROM coupon_events SEMI JOIN concerned USING (key_hash))
