-- Which touches led to which order, and which to no order? Grain: one path. $since, $until: bounds of the payment or,
-- for a path without an order, of its last touch. `goods`: goods.sql.
SELECT p.order_id IS NOT NULL AS ordered, ended_at, previous_at, coalesce(currency, '(unknown)') AS currency,
       coalesce(sales_minor, 0) AS sales_minor, coalesce(p.cost_of_goods_minor, g.cost_minor) AS cost_of_goods_minor,
       sources, touched_at
FROM paths p LEFT JOIN goods g ON g.order_id = p.order_id
WHERE ($since IS NULL OR ended_at >= $since) AND ($until IS NULL OR ended_at < $until)
