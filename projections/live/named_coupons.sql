-- Which coupons do paid, not cancelled orders (of `affected`) name that are not in use on them? Grain: one order and one
-- coupon.
WITH named AS (
    SELECT o.key_hash AS order_hash, o.order_id, unnest(list_distinct(o.coupon_ids)) AS coupon_id
    FROM orders o SEMI JOIN affected a ON o.key_hash = a.order_hash AND o.order_id = a.order_id
    WHERE o.paid_at IS NOT NULL AND o.cancelled_at IS NULL
)
SELECT n.*
FROM named n
ANTI JOIN coupons_in_use u ON u.order_hash = n.order_hash AND u.order_id = n.order_id AND u.coupon_id = n.coupon_id
