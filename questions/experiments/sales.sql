-- What did people buy in some spans of time? Grain: one person, span (input: `spans`; the payment of an order lies in
-- at most one) and currency.
-- All orders that stand count, with or without a coupon. Net sales: paid less refunds. Cost of goods: goods_cost of
-- macros.sql, null if unknown. Amounts are whole minor units, so their sums do not depend on the sequence of addition.
-- Margin = net sales - cost. `discount_minor`: the discount of the campaign's coupons in state used on these orders;
-- `coupon_margin_minor`: the margin of the orders with such a coupon.
-- Dubious orders are counted, too: orders without a known cost, paid with zero, or with a negative cost; and orders
-- that do not stand because more was refunded than paid.
-- $ids: return the orders' ids. $everyone: all people; otherwise only those in the input `chosen`.
WITH mine AS (
    SELECT coalesce(p.person, o.user_id) AS person, s.span, o.*
    FROM (
        SELECT user_id, order_id, currency, net_minor, first_recorded_at, refunded_minor > net_minor AS over_refunded,
               stands(paid_at, cancelled_at, net_minor, refunded_minor) AS stands, paid_at,
               net_minor - coalesce(refunded_minor, 0) AS kept_minor,
               goods_cost(cost_of_goods_minor, lines, net_minor, refunded_minor, $goods_rates) AS cost
        FROM orders
        WHERE paid_at >= $first AND paid_at < $last AND cancelled_at IS NULL
    ) o
    JOIN spans s ON o.paid_at >= s.first AND o.paid_at < s.last
    LEFT JOIN persons p ON p.user_id = o.user_id
    WHERE $everyone OR coalesce(p.person, o.user_id) IN (SELECT person FROM chosen)
),
in_use AS (
    SELECT order_id, sum(discount_minor) AS discount_minor
    FROM coupons
    WHERE campaign_id = $campaign AND state = 'used'
    GROUP BY order_id
),
valued AS (
    SELECT m.*, u.order_id IS NOT NULL AS with_coupon, coalesce(u.discount_minor, 0) AS discount_minor
    FROM mine m
    LEFT JOIN in_use u ON u.order_id = m.order_id
)
SELECT person, span, currency,
       coalesce(sum(kept_minor) FILTER (stands), 0)::DOUBLE AS net_minor,
       coalesce(sum(kept_minor - cost) FILTER (stands), 0)::DOUBLE AS margin_minor,
       count(*) FILTER (stands) AS orders,
       coalesce(sum(discount_minor) FILTER (stands), 0)::DOUBLE AS discount_minor,
       coalesce(sum(kept_minor - cost) FILTER (stands AND with_coupon), 0)::DOUBLE AS coupon_margin_minor,
       count(*) FILTER (stands AND with_coupon) AS coupon_orders,
       count(*) FILTER (stands AND cost IS NULL) AS without_cost,
       count(*) FILTER (over_refunded) AS over_refunded,
       count(*) FILTER (stands AND net_minor = 0) AS of_nothing,
       count(*) FILTER (stands AND cost < 0) AS negative_cost,
       min(first_recorded_at) AS first_recorded_at,
       list(order_id ORDER BY order_id) FILTER ($ids AND stands) AS order_ids
FROM valued
GROUP BY ALL
ORDER BY person, span, currency
