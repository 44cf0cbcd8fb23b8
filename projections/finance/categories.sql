-- What did each category of goods bring? Grain: one category (of order lines) and currency, of orders paid within the
-- time asked that stand. Amounts are the lines'; refunds in part do not say what was given back, so they are not in here
-- (they are in the margin by channel). `cost_minor`: a line's own, else by the category's rate (line_cost of macros.sql);
-- `lines_without_cost` have neither, and are left out of the margin. `below_cost`: lines sold below what they cost.
WITH lines AS (
    SELECT order_id, currency, l.category AS category, l.quantity AS quantity, l.net_minor AS net_minor,
           l.discount_minor AS discount_minor, line_cost(l, $goods_rates::MAP(VARCHAR, BIGINT)) AS cost
    FROM (
        SELECT order_id, currency, unnest(lines) AS l FROM orders
        WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)
          AND ($since::TIMESTAMP IS NULL OR paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
    )
)
SELECT category, currency, count(DISTINCT order_id) AS orders, sum(quantity)::BIGINT AS quantity,
       sum(net_minor)::BIGINT AS net_minor, coalesce(sum(discount_minor), 0)::BIGINT AS discount_minor,
       round(sum(discount_minor) / nullif(sum(net_minor) + sum(discount_minor), 0), 4) AS discount_share,
       sum(cost)::BIGINT AS cost_minor, sum(net_minor - cost)::BIGINT AS margin_minor,
       round(sum(net_minor - cost) / nullif(sum(net_minor) FILTER (cost IS NOT NULL), 0), 4) AS margin_rate,
       count(*) FILTER (cost IS NULL) AS lines_without_cost, count(*) FILTER (net_minor < cost) AS below_cost,
       coalesce(sum(cost - net_minor) FILTER (net_minor < cost), 0)::BIGINT AS lost_minor
FROM lines
GROUP BY ALL
ORDER BY net_minor DESC, category NULLS LAST, currency
