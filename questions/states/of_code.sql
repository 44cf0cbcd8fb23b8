-- Which coupons have this code in one of their events? Grain: one coupon. Placed before a query over `coupons`, to
-- limit it to these.
WITH coupons AS (
    SELECT * FROM coupons
    SEMI JOIN (SELECT key_hash, coupon_id FROM coupon_events WHERE code = $code) USING (key_hash, coupon_id)
)
