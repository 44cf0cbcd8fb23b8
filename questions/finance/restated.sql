-- What were the totals of orders, uses and costs as known at an earlier instant, and what changed since, and why?
-- Grain: one line (`known_then`, a cause, `known_now`) and currency; in every column but `cases`, known_then + causes =
-- known_now. Inputs: `orders_then`, `uses_then`, `costs_then`, the tables as known at the earlier instant. An order
-- counts if it stands and, for a campaign, if one of its coupons is in use on it. Sales and list price are net of
-- refunds. An order that changed in several ways counts under one cause, the first that applies in `caused`. Goods cost
-- and margin cover orders with a known cost (goods_cost of macros.sql); `coupon_…`: only orders with a coupon in use.
-- `simple_roi_bp`: (coupon margin - booked) / (discount + booked) in basis points, like the metric `simple_roi`. In the
-- row of a cause, it is the change of the return when the causes are applied one after another, in the order of the
-- lines. It is null for all causes if the return is unknown in `known_then` or in `known_now`.
WITH both_orders AS (
    SELECT -1 AS sign, * FROM orders_then
    UNION ALL
    SELECT 1, order_id, currency, paid_at, cancelled_at, gross_minor, net_minor, refunded_minor,
           goods_cost(cost_of_goods_minor, lines, net_minor, refunded_minor, $goods_rates)
    FROM orders
),
used AS (
    SELECT -1 AS sign, * FROM uses_then
    UNION ALL
    SELECT 1, coupon_id, campaign_id, order_id, used_at, currency, discount_minor FROM coupons WHERE state = 'used'
),
booked AS (
    SELECT -1 AS sign, * FROM costs_then
    UNION ALL
    SELECT 1, campaign_id, event_id, occurred_at, currency, amount_minor FROM campaign_events WHERE type = 'cost_booked'
),
standing AS (
    SELECT t.*, t.net_minor - coalesce(t.refunded_minor, 0) AS kept_minor, EXISTS (
               SELECT 1 FROM used u WHERE u.sign = t.sign AND u.order_id = t.order_id
                 AND ($campaign IS NULL OR u.campaign_id = $campaign)) AS with_coupon
    FROM both_orders t
    WHERE stands(t.paid_at, t.cancelled_at, t.net_minor, t.refunded_minor)
      AND ($since::TIMESTAMP IS NULL OR t.paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR t.paid_at < $until)
),
counted AS (
    SELECT 'order' AS kind, order_id AS id, sign, currency, 1 AS orders,
           gross_minor - coalesce(refunded_minor, 0) AS gross_minor, kept_minor AS net_minor,
           coalesce(goods_minor, 0) AS goods_minor, coalesce(kept_minor - goods_minor, 0) AS margin_minor,
           (goods_minor IS NULL)::INTEGER AS without_cost, with_coupon::INTEGER AS coupon_orders,
           (with_coupon AND goods_minor IS NULL)::INTEGER AS coupon_without_cost,
           CASE WHEN with_coupon THEN coalesce(kept_minor - goods_minor, 0) ELSE 0 END AS coupon_margin_minor,
           0 AS discount_minor, 0 AS booked_minor
    FROM standing
    WHERE $campaign IS NULL OR with_coupon
    UNION ALL
    SELECT 'use', u.coupon_id, u.sign, coalesce(t.currency, u.currency), 0, 0, 0, 0, 0, 0, 0, 0, 0, u.discount_minor, 0
    FROM used u LEFT JOIN both_orders t ON t.sign = u.sign AND t.order_id = u.order_id
    WHERE ($since::TIMESTAMP IS NULL OR u.used_at >= $since) AND ($until::TIMESTAMP IS NULL OR u.used_at < $until)
      AND ($campaign IS NULL OR u.campaign_id = $campaign)
    UNION ALL
    SELECT 'cost', concat_ws(chr(0), campaign_id, event_id), sign, currency, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, amount_minor
    FROM booked
    WHERE ($since::TIMESTAMP IS NULL OR occurred_at >= $since) AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
      AND ($campaign IS NULL OR campaign_id = $campaign)
),
changes AS (
    SELECT kind, id, currency, min(sign) > 0 AS came, max(sign) < 0 AS went,
           sum(sign * COLUMNS(* EXCLUDE (kind, id, currency, sign)))
    FROM counted GROUP BY kind, id, currency
),
caused AS (
    SELECT CASE WHEN c.kind = 'cost' THEN if(c.came, 'cost_told_late', 'cost_corrected')
                WHEN c.kind = 'use' THEN if(c.came, 'use_told_late', if(c.went, 'return_told_late', 'use_corrected'))
                WHEN b.paid_at IS NULL THEN 'order_told_late'
                WHEN b.cancelled_at IS NULL AND a.cancelled_at IS NOT NULL THEN 'cancelled_late'
                WHEN a.refunded_minor IS DISTINCT FROM b.refunded_minor AND NOT c.came
                     AND (NOT c.went OR refunded_whole(a.net_minor, a.refunded_minor)) THEN 'refund_told_late'
                WHEN c.coupon_orders > 0 AND ($campaign IS NOT NULL OR NOT c.came) THEN 'use_told_late'
                WHEN c.coupon_orders < 0 AND ($campaign IS NOT NULL OR NOT c.went) THEN 'return_told_late'
                WHEN c.without_cost < 0 AND c.orders = 0 AND c.gross_minor = 0 AND c.net_minor = 0
                THEN 'goods_cost_told_late'
                ELSE 'order_corrected' END AS line,
           c.* EXCLUDE (came, went)
    FROM changes c
    LEFT JOIN both_orders b ON c.kind = 'order' AND b.sign = -1 AND b.order_id = c.id
    LEFT JOIN both_orders a ON c.kind = 'order' AND a.sign = 1 AND a.order_id = c.id
    WHERE c.orders <> 0 OR c.gross_minor <> 0 OR c.net_minor <> 0 OR c.goods_minor <> 0 OR c.without_cost <> 0
       OR c.coupon_orders <> 0 OR c.discount_minor <> 0 OR c.booked_minor <> 0
),
lines AS (
    SELECT if(sign < 0, 0, 2) AS place, if(sign < 0, 'known_then', 'known_now') AS line, * EXCLUDE (sign) FROM counted
    UNION ALL BY NAME
    SELECT 1 AS place, * FROM caused
),
summed AS (
    SELECT place, line, currency, count(*) AS cases, sum(orders) AS orders, sum(gross_minor) AS gross_minor,
           sum(net_minor) AS net_sales_minor, sum(goods_minor) AS goods_cost_minor,
           sum(margin_minor) AS margin_minor, sum(without_cost) AS orders_without_cost,
           sum(coupon_orders) AS coupon_orders, sum(coupon_margin_minor) AS coupon_margin_minor,
           sum(coupon_without_cost) AS coupon_orders_without_cost, sum(discount_minor) AS discount_minor,
           sum(booked_minor) AS booked_minor
    FROM lines
    GROUP BY place, line, currency
),
-- The return after each line: over known_then and the causes so far, or over everything known now.
so_far AS (
    SELECT *, CASE WHEN spent_minor <> 0 AND (told_orders = 0 OR told_orders > unknown_orders)
                   THEN try_cast(round(10000.0 * gain_minor / spent_minor) AS BIGINT) END AS return_bp
    FROM (
        SELECT *, sum(coupon_margin_minor - booked_minor) OVER upto AS gain_minor,
               sum(discount_minor + booked_minor) OVER upto AS spent_minor, sum(coupon_orders) OVER upto AS told_orders,
               sum(coupon_orders_without_cost) OVER upto AS unknown_orders
        FROM summed
        WINDOW upto AS (PARTITION BY currency, place = 2 ORDER BY place, line)
    )
),
moved AS (
    SELECT *, last_value(return_bp IGNORE NULLS) OVER (
               PARTITION BY currency ORDER BY place, line ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_bp,
           bool_or(place = 0 AND return_bp IS NOT NULL) OVER whole
               AND bool_or(place = 2 AND return_bp IS NOT NULL) OVER whole AS both_ends
    FROM so_far
    WINDOW whole AS (PARTITION BY currency)
)
SELECT line, currency, cases, orders, gross_minor, net_sales_minor, goods_cost_minor, margin_minor, orders_without_cost,
       coupon_orders, coupon_margin_minor, coupon_orders_without_cost, discount_minor, booked_minor,
       CASE WHEN place <> 1 THEN return_bp WHEN both_ends THEN coalesce(return_bp - before_bp, 0) END AS simple_roi_bp
FROM moved
ORDER BY currency, place, line
