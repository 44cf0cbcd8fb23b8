-- Which data make the figures doubtful, and how often? Grain: one kind of doubt and currency, with the
-- number of cases and the money in question. Kinds without cases are left out. An amount of a coupon in use is in the
-- currency of its order, else of the coupon.
WITH named AS (
    SELECT DISTINCT order_id, currency, unnest(coupon_ids) AS coupon_id FROM orders
),
uses_now AS (
    SELECT u.key_hash, u.coupon_id, u.discount_minor, o.order_id, coalesce(o.currency, c.currency) AS currency,
           c.currency AS of_coupon, c.campaign_id, o.currency AS of_order, o.paid_at, o.discounts, coalesce(stands(
               o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor), false) AS stands
    FROM coupons_in_use u JOIN coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id
    LEFT JOIN orders o ON o.key_hash = u.order_hash AND o.order_id = u.order_id
),
in_use AS (
    SELECT order_id, sum(discount_minor) AS used_minor FROM uses_now WHERE stands GROUP BY ALL
),
-- For each order that stands and has a known coupon: the coupon discount that it states, beside that of its coupons.
beside AS (
    SELECT o.currency, list_sum([d.amount_minor FOR d IN o.discounts IF d.kind = 'coupon']) AS told_minor,
           coalesce(u.used_minor, 0) AS used_minor
    FROM orders o
    LEFT JOIN in_use u ON u.order_id = o.order_id
    WHERE stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor)
      AND list_contains([d.kind FOR d IN o.discounts], 'coupon')
      AND (u.order_id IS NOT NULL OR o.order_id IN (
              SELECT n.order_id FROM named n SEMI JOIN coupons c ON c.coupon_id = n.coupon_id AND c.created_at IS NOT NULL))
)
SELECT 'order_names_unknown_coupon' AS doubt, n.currency, count(*) AS cases, NULL::HUGEINT AS amount_minor
FROM named n ANTI JOIN coupons c ON c.coupon_id = n.coupon_id AND c.created_at IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'use_of_no_campaign', currency, count(*), sum(discount_minor) FROM uses_now WHERE campaign_id IS NULL GROUP BY ALL
UNION ALL
SELECT 'refund_without_payment', currency, count(*), sum(refunded_minor) FROM orders
WHERE paid_at IS NULL AND refunded_minor IS NOT NULL GROUP BY ALL
UNION ALL
SELECT 'order_not_above_zero', currency, count(*), sum(net_minor) FROM orders
WHERE paid_at IS NOT NULL AND net_minor <= 0 GROUP BY ALL
UNION ALL
SELECT 'net_above_gross', currency, count(*), sum(net_minor - gross_minor) FROM orders
WHERE paid_at IS NOT NULL AND net_minor > gross_minor GROUP BY ALL
UNION ALL
SELECT 'refund_above_order', currency, count(*), sum(refunded_minor - net_minor) FROM orders
WHERE paid_at IS NOT NULL AND refunded_minor > net_minor GROUP BY ALL
UNION ALL
SELECT 'coupon_of_another_currency', of_order, count(*), sum(discount_minor) FROM uses_now
WHERE of_order <> of_coupon GROUP BY ALL
UNION ALL
SELECT 'coupon_ends_before_it_begins', currency, count(*), sum(face_value_minor) FROM coupons
WHERE valid_from > valid_until GROUP BY ALL
UNION ALL
SELECT 'campaign_ends_before_it_begins', currency, count(*), NULL FROM campaigns WHERE claim_from > claim_until GROUP BY ALL
UNION ALL
SELECT 'use_without_paid_order', currency, count(*), sum(discount_minor) FROM uses_now WHERE paid_at IS NULL GROUP BY ALL
UNION ALL
SELECT 'use_on_order_undone', currency, count(*), sum(discount_minor) FROM uses_now
WHERE paid_at IS NOT NULL AND NOT stands GROUP BY ALL
UNION ALL
SELECT 'use_that_order_does_not_tell', currency, count(*), sum(discount_minor) FROM uses_now
WHERE stands AND discount_minor > 0 AND discounts IS NOT NULL
  AND NOT list_contains([d.kind FOR d IN discounts], 'coupon') GROUP BY ALL
UNION ALL
SELECT 'order_and_coupons_differ', currency, count(*), sum(abs(told_minor - used_minor)) FROM beside
WHERE told_minor <> used_minor GROUP BY ALL
UNION ALL
SELECT 'campaign_without_cost', currency, count(DISTINCT campaign_id), sum(discount_minor) FROM uses_now
WHERE campaign_id IS NOT NULL
  AND campaign_id NOT IN (SELECT campaign_id FROM campaign_events WHERE type = 'cost_booked') GROUP BY ALL
UNION ALL
SELECT 'budget_without_currency', NULL, count(*), sum(budget_minor) FROM campaigns
WHERE budget_minor IS NOT NULL AND currency IS NULL HAVING count(*) > 0
UNION ALL
SELECT 'order_without_cost_of_goods', currency, count(*), sum(net_minor) FROM orders
WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)
  AND goods_cost_by(cost_of_goods_minor, lines, net_minor, NULL) IS NULL
GROUP BY ALL
UNION ALL
SELECT 'coupon_without_value', currency, count(*), NULL FROM coupons
WHERE state IN ('issued', 'claimed', 'reserved') AND face_value_minor IS NULL GROUP BY ALL
UNION ALL
SELECT 'funding_not_whole', currency, count(*), NULL FROM (
    SELECT campaign_id, currency, list_sum(map_values(CAST(CAST(funded_by AS JSON) AS MAP(VARCHAR, BIGINT)))) AS bp
    FROM campaigns WHERE funded_by IS NOT NULL AND funded_by <> 'null'
) WHERE bp <> 10000 GROUP BY ALL
ORDER BY doubt, currency
