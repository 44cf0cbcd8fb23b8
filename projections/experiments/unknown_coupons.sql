-- How many orders between two instants name a coupon that nobody told of? Grain: one row.
SELECT count(DISTINCT n.order_id) AS orders
FROM (
    SELECT order_id, unnest(coupon_ids) AS coupon_id FROM orders
    WHERE paid_at >= $first AND paid_at < $last AND cancelled_at IS NULL AND len(coupon_ids) > 0
) n
ANTI JOIN coupons c ON c.coupon_id = n.coupon_id
