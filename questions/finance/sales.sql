-- What did each paid order earn? Grain: one order paid in the period. An order that does not stand (cancelled, or
-- refunded in full) has no sales and no cost. net_sales = net - refunds; margin = net_sales - cost. `cost_minor`: cost
-- of goods (goods_cost of macros.sql), null if unknown; `cost_by`: where it comes from (order, lines, rate).
SELECT order_id, user_id, paid_at, channel, store, region, currency, stands, gross_minor, net_minor, refunded_minor,
       CASE WHEN stands THEN net_minor - refunded_minor ELSE 0 END AS net_sales_minor,
       CASE WHEN stands THEN goods_cost(cost_of_goods_minor, lines, net_minor, refunded_minor, $goods_rates) ELSE 0 END AS cost_minor,
       CASE WHEN stands THEN goods_cost_by(cost_of_goods_minor, lines, net_minor, $goods_rates) END AS cost_by
FROM (
    SELECT * REPLACE (coalesce(refunded_minor, 0) AS refunded_minor),
           stands(paid_at, cancelled_at, net_minor, refunded_minor) AS stands
    FROM orders
    WHERE paid_at IS NOT NULL AND ($since::TIMESTAMP IS NULL OR paid_at >= $since)
      AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
)
