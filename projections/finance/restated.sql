-- What did orders, uses and costs come to as known then, what changed since, and why? Grain: one line (`known_then`, a
-- cause, `known_now`) and currency; per column known_then + causes = known_now. `orders_then`, `uses_then`, `costs_then`:
-- given. Orders: those that stand, of a campaign those on which a coupon of it is in use; sales and list price less
-- refunds. An order that several things happened to stands under the first of the causes as listed in `caused`.
WITH told AS (
    SELECT -1 AS sign, * FROM orders_then
    UNION ALL
    SELECT 1, order_id, currency, paid_at, cancelled_at, gross_minor, net_minor, refunded_minor FROM orders
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
counted AS (
    SELECT 'order' AS kind, t.order_id AS id, t.sign, t.currency, 1 AS orders,
           t.gross_minor - coalesce(t.refunded_minor, 0) AS gross_minor, t.net_minor - coalesce(t.refunded_minor, 0) AS net_minor,
           0 AS discount_minor, 0 AS booked_minor
    FROM told t
    WHERE stands(t.paid_at, t.cancelled_at, t.net_minor, t.refunded_minor)
      AND ($since::TIMESTAMP IS NULL OR t.paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR t.paid_at < $until)
      AND ($campaign IS NULL OR EXISTS (
          SELECT 1 FROM used u WHERE u.sign = t.sign AND u.order_id = t.order_id AND u.campaign_id = $campaign))
    UNION ALL
    SELECT 'use', u.coupon_id, u.sign, coalesce(t.currency, u.currency), 0, 0, 0, u.discount_minor, 0
    FROM used u LEFT JOIN told t ON t.sign = u.sign AND t.order_id = u.order_id
    WHERE ($since::TIMESTAMP IS NULL OR u.used_at >= $since) AND ($until::TIMESTAMP IS NULL OR u.used_at < $until)
      AND ($campaign IS NULL OR u.campaign_id = $campaign)
    UNION ALL
    SELECT 'cost', concat_ws(chr(0), campaign_id, event_id), sign, currency, 0, 0, 0, 0, amount_minor
    FROM booked
    WHERE ($since::TIMESTAMP IS NULL OR occurred_at >= $since) AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
      AND ($campaign IS NULL OR campaign_id = $campaign)
),
changes AS (
    SELECT kind, id, currency, min(sign) > 0 AS came, max(sign) < 0 AS went, sum(sign * orders) AS orders,
           sum(sign * gross_minor) AS gross_minor, sum(sign * net_minor) AS net_minor,
           sum(sign * discount_minor) AS discount_minor, sum(sign * booked_minor) AS booked_minor
    FROM counted GROUP BY ALL
),
caused AS (
    SELECT CASE WHEN c.kind = 'cost' THEN if(c.came, 'cost_told_late', 'cost_corrected')
                WHEN c.kind = 'use' THEN if(c.came, 'use_told_late', if(c.went, 'return_told_late', 'use_corrected'))
                WHEN b.paid_at IS NULL THEN 'order_told_late'
                WHEN b.cancelled_at IS NULL AND a.cancelled_at IS NOT NULL THEN 'cancelled_late'
                WHEN coalesce(a.refunded_minor, 0) <> coalesce(b.refunded_minor, 0) AND NOT c.came
                     AND (NOT c.went OR refunded_whole(a.net_minor, a.refunded_minor)) THEN 'refund_told_late'
                WHEN $campaign IS NOT NULL AND c.came THEN 'use_told_late'
                WHEN $campaign IS NOT NULL AND c.went THEN 'return_told_late'
                ELSE 'order_corrected' END AS line,
           c.*
    FROM changes c
    LEFT JOIN told b ON c.kind = 'order' AND b.sign = -1 AND b.order_id = c.id
    LEFT JOIN told a ON c.kind = 'order' AND a.sign = 1 AND a.order_id = c.id
    WHERE c.orders <> 0 OR c.gross_minor <> 0 OR c.net_minor <> 0 OR c.discount_minor <> 0 OR c.booked_minor <> 0
),
lines AS (
    SELECT if(sign < 0, 0, 2) AS place, if(sign < 0, 'known_then', 'known_now') AS line, * EXCLUDE (sign) FROM counted
    UNION ALL
    SELECT 1, line, kind, id, currency, orders, gross_minor, net_minor, discount_minor, booked_minor FROM caused
)
SELECT line, currency, count(*) AS cases, sum(orders)::BIGINT AS orders, sum(gross_minor)::BIGINT AS gross_minor,
       sum(net_minor)::BIGINT AS net_sales_minor, sum(discount_minor)::BIGINT AS discount_minor,
       sum(booked_minor)::BIGINT AS booked_minor
FROM lines
GROUP BY place, line, currency
ORDER BY currency, place, line
