-- How many orders of these people (input: `chosen`) stand, were paid between two instants, and name a coupon without
-- any event? Grain: one row.
SELECT count(DISTINCT n.order_id) AS orders
FROM (
    SELECT o.order_id, unnest(o.coupon_ids) AS coupon_id
    FROM orders o
    LEFT JOIN persons p ON p.user_id = o.user_id
    WHERE o.paid_at >= $first AND o.paid_at < $last AND len(o.coupon_ids) > 0
      AND stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor)
      AND coalesce(p.person, o.user_id) IN (SELECT person FROM chosen)
) n
ANTI JOIN coupons c ON c.coupon_id = n.coupon_id
