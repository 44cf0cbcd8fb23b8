-- Which coupons have this code, as some event of theirs carries it? Grain: one coupon. It stands before a question of
-- coupons that is to be asked of these alone.
WITH coupons AS (
    SELECT * FROM coupons
    SEMI JOIN (SELECT key_hash, coupon_id FROM coupon_events WHERE code = $code) USING (key_hash, coupon_id)
)
