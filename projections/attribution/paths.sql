-- Which touches came before which order, and which led to nothing? Grain: one path. $since, $until: of the payment, or
-- of the last touch.
SELECT order_id IS NOT NULL AS ordered, ended_at, previous_at, coalesce(currency, '(unknown)') AS currency,
       coalesce(sales_minor, 0) AS sales_minor, cost_of_goods_minor, sources, touched_at
FROM paths
WHERE ($since IS NULL OR ended_at >= $since) AND ($until IS NULL OR ended_at < $until)
