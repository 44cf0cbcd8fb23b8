-- In which state are the coupons in `wanted` (key_hash, coupon_id), and for which orders? Grain: one coupon.
SELECT c.coupon_id, c.state, c.order_id
FROM coupons c SEMI JOIN wanted w ON c.key_hash = w.key_hash AND c.coupon_id = w.coupon_id
