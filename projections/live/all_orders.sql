-- To which orders can a rule between topics apply? Grain: one order that has events, or on which a coupon is in use.
SELECT key_hash AS order_hash, order_id FROM orders
UNION
SELECT order_hash, order_id FROM coupons_in_use
