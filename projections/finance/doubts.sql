-- What in the data makes the figures doubtful, and how is it counted? Grain: one kind of doubt and currency, with how
-- many there are and the money in question. Kinds without any are left out.
WITH named AS (
    SELECT DISTINCT order_id, currency, unnest(coupon_ids) AS coupon_id FROM orders
)
SELECT 'order_names_unknown_coupon' AS doubt, n.currency, count(*) AS cases, NULL::BIGINT AS amount_minor
FROM named n ANTI JOIN coupons c ON c.coupon_id = n.coupon_id AND c.created_at IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'use_of_no_campaign', currency, count(*), sum(discount_minor)::BIGINT FROM coupons
WHERE state = 'used' AND campaign_id IS NULL GROUP BY ALL
UNION ALL
SELECT 'refund_without_payment', currency, count(*), sum(refunded_minor)::BIGINT FROM orders
WHERE paid_at IS NULL AND refunded_minor > 0 GROUP BY ALL
UNION ALL
SELECT 'order_not_above_zero', currency, count(*), sum(net_minor)::BIGINT FROM orders
WHERE paid_at IS NOT NULL AND net_minor <= 0 GROUP BY ALL
UNION ALL
SELECT 'refund_above_order', currency, count(*), sum(refunded_minor - net_minor)::BIGINT FROM orders
WHERE paid_at IS NOT NULL AND refunded_minor > net_minor GROUP BY ALL
UNION ALL
SELECT 'coupon_of_another_currency', o.currency, count(*), sum(u.discount_minor)::BIGINT
FROM coupons_in_use u JOIN coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id
JOIN orders o ON o.key_hash = u.order_hash AND o.order_id = u.order_id
WHERE o.currency IS DISTINCT FROM c.currency GROUP BY ALL
UNION ALL
SELECT 'use_without_paid_order', c.currency, count(*), sum(u.discount_minor)::BIGINT
FROM coupons_in_use u JOIN coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id
LEFT JOIN orders o ON o.key_hash = u.order_hash AND o.order_id = u.order_id
WHERE o.paid_at IS NULL GROUP BY ALL
UNION ALL
SELECT 'use_on_order_undone', o.currency, count(*), sum(u.discount_minor)::BIGINT
FROM coupons_in_use u JOIN orders o ON o.key_hash = u.order_hash AND o.order_id = u.order_id
WHERE o.paid_at IS NOT NULL AND NOT stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor) GROUP BY ALL
UNION ALL
SELECT 'use_that_order_does_not_tell', o.currency, count(*), sum(u.discount_minor)::BIGINT
FROM coupons_in_use u JOIN orders o ON o.key_hash = u.order_hash AND o.order_id = u.order_id
WHERE stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor) AND u.discount_minor > 0
  AND len(o.discounts) > 0 AND NOT list_contains([d.kind FOR d IN o.discounts], 'coupon') GROUP BY ALL
UNION ALL
SELECT 'campaign_without_cost', c.currency, count(DISTINCT c.campaign_id), sum(c.discount_minor)::BIGINT
FROM coupons c
WHERE c.state = 'used' AND c.campaign_id IS NOT NULL
  AND c.campaign_id NOT IN (SELECT campaign_id FROM campaign_events WHERE type = 'cost_booked') GROUP BY ALL
UNION ALL
SELECT 'order_without_cost_of_goods', currency, count(*), sum(net_minor)::BIGINT FROM orders
WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)
  AND goods_cost_by(cost_of_goods_minor, lines, net_minor, NULL) IS NULL
GROUP BY ALL
UNION ALL
SELECT 'funding_not_whole', currency, count(*), NULL FROM (
    SELECT campaign_id, currency, list_sum(map_values(CAST(CAST(funded_by AS JSON) AS MAP(VARCHAR, BIGINT)))) AS bp
    FROM campaigns WHERE funded_by IS NOT NULL AND funded_by <> 'null'
) WHERE bp <> 10000 GROUP BY ALL
ORDER BY doubt, currency
