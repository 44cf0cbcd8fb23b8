-- Which orders may a rule between topics apply to? Grain: one order.
SELECT key_hash AS order_hash, order_id FROM orders
UNION
SELECT order_hash, order_id FROM coupons_in_use
