-- What did each category of goods bring? Grain: one category (of order lines) and currency, of orders paid within the
-- time asked that stand. Amounts are the lines'; an order without lines is one line of the category '(no lines)'. Refunds
-- in part do not say what was given back, so they are not in here (they are in the margin by channel).
-- `cost_minor`: a line's own, else by the category's rate (line_cost of macros.sql); `lines_without_cost` have neither, and
-- are left out of the margin. `below_cost`: lines sold below what they cost. `discount_minor`: given (`taken_off`), the
-- part of every discount that is of the category; `line_discount_minor`: what the lines themselves say was taken off.
WITH sold AS (
    SELECT order_id, currency, net_minor, cost_of_goods_minor, lines FROM orders
    WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)
      AND ($since::TIMESTAMP IS NULL OR paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
),
lines AS (
    SELECT order_id, currency, l.category AS category, l.quantity AS quantity, l.net_minor AS net_minor,
           l.discount_minor AS discount_minor, line_cost(l, $goods_rates::MAP(VARCHAR, BIGINT)) AS cost
    FROM (SELECT order_id, currency, unnest(lines) AS l FROM sold)
    UNION ALL
    SELECT order_id, currency, '(no lines)', NULL, net_minor, NULL,
           goods_bought(cost_of_goods_minor, lines, net_minor, $goods_rates::MAP(VARCHAR, BIGINT))
    FROM sold WHERE coalesce(len(lines), 0) = 0
),
brought AS (
    SELECT category, currency, count(DISTINCT order_id) AS orders, sum(quantity)::BIGINT AS quantity,
           sum(net_minor)::BIGINT AS net_minor, coalesce(sum(discount_minor), 0)::BIGINT AS line_discount_minor,
           sum(cost)::BIGINT AS cost_minor, sum(net_minor - cost)::BIGINT AS margin_minor,
           round(sum(net_minor - cost) / nullif(sum(net_minor) FILTER (cost IS NOT NULL), 0), 4) AS margin_rate,
           count(*) FILTER (cost IS NULL) AS lines_without_cost, count(*) FILTER (net_minor < cost) AS below_cost,
           coalesce(sum(cost - net_minor) FILTER (net_minor < cost), 0)::BIGINT AS lost_minor
    FROM lines
    GROUP BY ALL
)
SELECT if(b.orders IS NULL, t.category, b.category) AS category, if(b.orders IS NULL, t.currency, b.currency) AS currency,
       coalesce(b.orders, 0) AS orders, b.quantity, coalesce(b.net_minor, 0) AS net_minor,
       coalesce(t.discount_minor, 0) AS discount_minor,
       round(coalesce(t.discount_minor, 0) / nullif(coalesce(b.net_minor, 0) + coalesce(t.discount_minor, 0), 0), 4) AS discount_share,
       coalesce(b.line_discount_minor, 0) AS line_discount_minor, b.cost_minor, b.margin_minor, b.margin_rate,
       coalesce(b.lines_without_cost, 0) AS lines_without_cost, coalesce(b.below_cost, 0) AS below_cost,
       coalesce(b.lost_minor, 0) AS lost_minor
FROM brought b
FULL JOIN taken_off t ON t.category IS NOT DISTINCT FROM b.category AND t.currency IS NOT DISTINCT FROM b.currency
ORDER BY net_minor DESC, category NULLS LAST, currency
