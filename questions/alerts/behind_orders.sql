-- Which orders are behind an alert: those of its events, and those on which its coupons are used? Grain: one order,
-- in the order of payment, else of placing, else of their coupons' first events. The order's own values are null if no
-- event of it was read.
SELECT n.order_id, n.coupons, o.user_id, o.currency, o.net_minor, o.refunded_minor, o.paid_at, o.cancelled_at
FROM (
    SELECT order_id, count(DISTINCT coupon_id) AS coupons, min(occurred_at) AS first_at FROM (
        SELECT order_id, coupon_id, occurred_at FROM alert_behind
        UNION ALL
        SELECT c.order_id, c.coupon_id, b.occurred_at FROM coupons c
        JOIN alert_behind b ON b.key_hash = c.key_hash AND b.coupon_id = c.coupon_id
    )
    WHERE order_id IS NOT NULL GROUP BY order_id
) n
LEFT JOIN orders o ON o.order_id = n.order_id
ORDER BY coalesce(o.paid_at, o.placed_at, n.first_at), n.order_id
