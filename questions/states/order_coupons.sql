-- Which coupons concern this order? Grain: one coupon, by id: those that the order names (`named`), those on it now
-- (`on_order`: reserved for it or used on it), and those with any event that names it. `discount_minor`: the discount
-- of the coupon in use.
WITH concerned AS (
    SELECT unnest(coupon_ids) AS coupon_id FROM orders WHERE key_hash = $key_hash AND order_id = $order
    UNION SELECT coupon_id FROM coupons WHERE order_id = $order
    UNION SELECT coupon_id FROM coupon_events WHERE order_id = $order
)
SELECT k.coupon_id, c.state::VARCHAR AS state,
       coalesce(c.order_id = $order AND c.state IN ('reserved', 'used'), false) AS on_order,
       coalesce((SELECT list_contains(coupon_ids, k.coupon_id) FROM orders
                 WHERE key_hash = $key_hash AND order_id = $order), false) AS named,
       CASE WHEN c.order_id = $order THEN c.discount_minor END AS discount_minor,
       CASE WHEN c.order_id <> $order THEN c.order_id END AS other_order_id, c.owner, c.campaign_id, c.coupon_type, c.min_spend_minor, c.used_at, c.last_event_at
FROM concerned k LEFT JOIN coupons c USING (coupon_id)
ORDER BY k.coupon_id
