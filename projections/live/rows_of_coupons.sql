-- In which state are these coupons (`wanted`: key_hash, coupon_id)? Grain: one coupon.
SELECT c.coupon_id, c.state, c.order_id
FROM coupons c SEMI JOIN wanted w ON c.key_hash = w.key_hash AND c.coupon_id = w.coupon_id
