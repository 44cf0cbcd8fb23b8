-- What did people buy in some spans of time? Grain: one person, span (given: `spans`, an order lies in one at most by
-- its payment) and currency.
-- Paid, not cancelled orders, whatever coupon they carry. Net sales: what was paid less refunds, at most what was paid.
-- Cost of goods: the order's own figure; else its lines' own, or their net less the margin rate of their category
-- (given: `rates`), else the one for all ($rate); null where none is known. With a refund its part of the goods goes
-- back. Whole minor units an order: sums do not depend on their order. Margin = net sales - cost.
-- `orders`: those that were not refunded whole; `discount_minor`: of the campaign's coupons in state used on them;
-- `coupon_margin_minor`: the margin of the orders with one.
-- Beside them what was wrong: orders of no known cost, refunded beyond what was paid, of nothing, with a negative cost.
-- $ids: with the orders' ids. $everyone: of all people, else of those asked (given: `asked`).
WITH mine AS (
    SELECT coalesce(p.person, o.user_id) AS person, s.span, o.order_id, o.currency, o.net_minor, o.lines,
           o.cost_of_goods_minor, o.recorded_first,
           least(coalesce(o.refunded_minor, 0), o.net_minor) AS refund_minor,
           coalesce(o.refunded_minor, 0) > o.net_minor AS over_refunded
    FROM (
        SELECT user_id, order_id, currency, net_minor, lines, cost_of_goods_minor, refunded_minor, paid_at,
               first_recorded_at AS recorded_first
        FROM orders
        WHERE paid_at >= $first AND paid_at < $last AND cancelled_at IS NULL
    ) o
    JOIN spans s ON o.paid_at >= s.first AND o.paid_at < s.last
    LEFT JOIN persons p ON p.user_id = o.user_id
    WHERE $everyone OR coalesce(p.person, o.user_id) IN (SELECT person FROM asked)
),
lines_of AS (
    SELECT order_id, unnest(lines) AS line FROM mine WHERE cost_of_goods_minor IS NULL AND len(lines) > 0
),
line_costs AS (
    SELECT l.order_id, coalesce(l.line.cost_minor, l.line.net_minor * (1 - coalesce(r.rate, $rate))) AS cost
    FROM lines_of l
    LEFT JOIN rates r ON r.category = l.line.category
),
by_lines AS (
    SELECT order_id, CASE WHEN bool_and(cost IS NOT NULL) THEN sum(cost) END AS cost FROM line_costs GROUP BY order_id
),
in_use AS (
    SELECT order_id, sum(discount_minor) AS discount_minor
    FROM coupons
    WHERE campaign_id = $campaign AND state = 'used'
    GROUP BY order_id
),
valued AS (
    SELECT m.*, u.order_id IS NOT NULL AS with_coupon, coalesce(u.discount_minor, 0) AS discount_minor,
           m.net_minor - m.refund_minor AS kept_minor,
           round(coalesce(m.cost_of_goods_minor, b.cost, m.net_minor * (1 - $rate))
                 * (1 - coalesce(m.refund_minor / nullif(m.net_minor, 0), 0))) AS cost
    FROM mine m
    LEFT JOIN by_lines b ON b.order_id = m.order_id
    LEFT JOIN in_use u ON u.order_id = m.order_id
)
SELECT person, span, currency,
       sum(kept_minor)::DOUBLE AS net_minor,
       sum(kept_minor - cost)::DOUBLE AS margin_minor,
       count(*) FILTER (kept_minor > 0 OR net_minor = 0) AS orders,
       sum(discount_minor)::DOUBLE AS discount_minor,
       coalesce(sum(kept_minor - cost) FILTER (with_coupon), 0)::DOUBLE AS coupon_margin_minor,
       count(*) FILTER (with_coupon) AS coupon_orders,
       count(*) FILTER (cost IS NULL) AS without_cost,
       count(*) FILTER (over_refunded) AS over_refunded,
       count(*) FILTER (net_minor = 0) AS of_nothing,
       count(*) FILTER (cost < 0) AS negative_cost,
       min(recorded_first) AS first_recorded_at,
       list(order_id ORDER BY order_id) FILTER ($ids) AS order_ids
FROM valued
GROUP BY ALL
ORDER BY person, span, currency
