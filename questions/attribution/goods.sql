-- What is the cost of goods of orders that do not state it? Grain: one such order with a cost known from its lines or
-- from the rates (goods_cost of macros.sql). `cost_by`: where the cost comes from (lines, rate).
SELECT order_id, goods_cost(NULL, lines, net_minor, refunded_minor, $goods_rates) AS cost_minor,
       goods_cost_by(NULL, lines, net_minor, $goods_rates) AS cost_by
FROM orders
WHERE cost_of_goods_minor IS NULL AND (len(lines) > 0 OR $goods_rates::MAP(VARCHAR, BIGINT) IS NOT NULL)
  AND stands(paid_at, cancelled_at, net_minor, refunded_minor)
  AND cost_by IS NOT NULL
