-- Which caveats apply to the credits? Grain: one row over all orders in the period. $most: touches that a path keeps.
-- `goods`: goods.sql.
WITH standing AS (
    SELECT p.* REPLACE (coalesce(p.cost_of_goods_minor, g.cost_minor) AS cost_of_goods_minor), g.cost_by
    FROM paths p LEFT JOIN goods g ON g.order_id = p.order_id
    WHERE p.order_id IS NOT NULL AND ($since IS NULL OR ended_at >= $since) AND ($until IS NULL OR ended_at < $until)
),
not_credited AS (
    SELECT count(*) FILTER (cancelled_at IS NOT NULL) AS cancelled,
           count(*) FILTER (cancelled_at IS NULL AND refunded_whole(net_minor, refunded_minor)) AS refunded,
           count(*) FILTER (refunded_minor > net_minor) AS refunded_more_than_paid
    FROM orders
    WHERE paid_at IS NOT NULL AND ($since IS NULL OR paid_at >= $since) AND ($until IS NULL OR paid_at < $until)
),
known AS (
    SELECT DISTINCT order_id FROM coupons WHERE state = 'used' AND order_id IS NOT NULL
)
SELECT count(*) AS orders, count(DISTINCT currency) AS currencies,
       count(*) FILTER (touches = 0) AS without_touch,
       count(*) FILTER (touches > $most) AS cut_off,
       count(*) FILTER (sales_minor <= 0) AS without_sales,
       count(*) FILTER (cost_of_goods_minor IS NULL) AS without_cost,
       count(*) FILTER (cost_by = 'rate') AS cost_by_rate,
       count(*) FILTER (names_coupons AND order_id NOT IN (SELECT order_id FROM known)) AS unknown_coupon,
       (SELECT cancelled FROM not_credited) AS cancelled, (SELECT refunded FROM not_credited) AS refunded,
       (SELECT refunded_more_than_paid FROM not_credited) AS refunded_more_than_paid
FROM standing
