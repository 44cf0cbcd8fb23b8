-- How many orders and sales are there to credit? Grain: one currency of orders that stand.
SELECT coalesce(currency, '(unknown)') AS currency, count(*) AS orders, sum(sales_minor) AS sales_minor
FROM paths
WHERE order_id IS NOT NULL AND ($since IS NULL OR ended_at >= $since) AND ($until IS NULL OR ended_at < $until)
GROUP BY ALL ORDER BY ALL
