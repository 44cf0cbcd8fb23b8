-- What did each category of goods earn? Grain: one category (of order lines) and currency, over standing orders paid in
-- the period. The part of a payment that the lines do not explain (all of it, without lines) goes to the category
-- '(no lines)', so that `net_minor` sums to the payments of the orders. A refund does not name lines: it is allocated
-- to the lines by what was paid for them, and reduces their cost by the same part, as in the margin by channel
-- (goods_cost of macros.sql). Both are allocated by largest remainder, the first line among equals, so that
-- net_sales_minor = net_minor - refunded_minor has the same sum as in the margin.
-- `cost_minor`: the line's own cost, else by the category's rate (line_cost of macros.sql); `lines_without_cost` have
-- neither and are left out of the margin. `below_cost`: lines sold below their cost. `discount_minor` (from the input
-- `taken_off`): the category's part of all discounts; `line_discount_minor`: the discounts that the lines state.
WITH sold AS (
    SELECT order_id, currency, net_minor, coalesce(refunded_minor, 0) AS refunded_minor,
           greatest(net_minor - coalesce(refunded_minor, 0), 0)::DOUBLE / nullif(greatest(net_minor, 0), 0) AS kept,
           coalesce(len(lines), 0) = 0 AS bare, cost_of_goods_minor, lines,
           net_minor - coalesce(list_sum([l.net_minor FOR l IN lines]), 0) AS rest_minor
    FROM orders
    WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)
      AND ($since::TIMESTAMP IS NULL OR paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
),
parted AS (
    SELECT order_id, currency, refunded_minor, coalesce(kept, 1) AS kept, list_concat(
        [{category: l.category, quantity: l.quantity, net: l.net_minor::HUGEINT, discount: l.discount_minor,
          cost: line_cost(l, $goods_rates::MAP(VARCHAR, BIGINT))::HUGEINT} FOR l IN coalesce(lines, [])],
        CASE WHEN bare OR rest_minor <> 0 THEN [{category: '(no lines)', quantity: NULL::BIGINT, net: rest_minor::HUGEINT,
          discount: NULL::BIGINT,
          cost: CASE WHEN bare THEN goods_bought(cost_of_goods_minor, lines, net_minor, $goods_rates::MAP(VARCHAR, BIGINT))
                     ELSE rated_cost(rest_minor, '', $goods_rates::MAP(VARCHAR, BIGINT)) END::HUGEINT}] ELSE [] END) AS parts
    FROM sold
),
weighed AS (
    SELECT *, CASE WHEN list_max([p.net FOR p IN parts]) > 0 THEN [greatest(p.net, 0) FOR p IN parts]
                   ELSE [1::HUGEINT FOR p IN parts] END AS paid,
           [greatest(coalesce(p.cost, 0), 0) FOR p IN parts] AS costs, list_sum(paid) AS all_paid,
           greatest(list_sum(costs), 1) AS all_costs, abs(refunded_minor)::HUGEINT AS back,
           CASE WHEN kept < 1 THEN list_sum(costs) - round(list_sum(costs) * kept)::HUGEINT ELSE 0 END AS cost_back
    FROM parted
),
floored AS (
    -- Computed only for the few orders with a refund, since a year has a million lines.
    SELECT *, CASE WHEN back > 0 THEN [back * w // all_paid FOR w IN paid] END AS backs,
           CASE WHEN cost_back > 0 THEN [cost_back * w // all_costs FOR w IN costs] END AS cost_backs,
           CASE WHEN back > 0 THEN list_sort([{remainder: -(back * w % all_paid), place: n} FOR w, n IN paid])[
               (back - list_sum(backs))::BIGINT] END AS last_back,
           CASE WHEN cost_back > 0 THEN list_sort([{remainder: -(cost_back * w % all_costs), place: n} FOR w, n IN costs])[
               (cost_back - list_sum(cost_backs))::BIGINT] END AS last_cost
    FROM weighed
),
lines AS (
    SELECT order_id, currency, part.category AS category, part.quantity AS quantity, part.net AS net_minor,
           part.discount AS discount_minor, part.cost AS bought_for,
           CASE WHEN refunded_minor < 0 THEN -1 ELSE 1 END * (
               coalesce(share, 0) + coalesce({remainder: -(back * weight % all_paid), place: place} <= last_back, false)::BIGINT) AS refunded_minor,
           part.cost - coalesce(cost_share, 0)
               - coalesce({remainder: -(cost_back * of_cost % all_costs), place: place} <= last_cost, false)::BIGINT AS cost
    FROM (
        SELECT order_id, currency, refunded_minor, back, all_paid, cost_back, all_costs, last_back, last_cost,
               unnest(parts) AS part, unnest(paid) AS weight, unnest(backs) AS share, unnest(costs) AS of_cost,
               unnest(cost_backs) AS cost_share, generate_subscripts(parts, 1)::BIGINT AS place
        FROM floored
    )
),
brought AS (
    SELECT category, currency, count(DISTINCT order_id) AS orders, sum(quantity) AS quantity, sum(net_minor) AS net_minor,
           sum(refunded_minor) AS refunded_minor, sum(net_minor - refunded_minor) AS net_sales_minor,
           coalesce(sum(discount_minor), 0) AS line_discount_minor, sum(cost) AS cost_minor,
           sum(net_minor - refunded_minor - cost) AS margin_minor,
           round(sum(net_minor - refunded_minor - cost)
                 / nullif(sum(net_minor - refunded_minor) FILTER (cost IS NOT NULL), 0), 4) AS margin_rate,
           count(*) FILTER (cost IS NULL) AS lines_without_cost, count(*) FILTER (net_minor < bought_for) AS below_cost,
           coalesce(sum(bought_for - net_minor) FILTER (net_minor < bought_for), 0) AS lost_minor
    FROM lines
    GROUP BY ALL
)
SELECT if(b.orders IS NULL, t.category, b.category) AS category, if(b.orders IS NULL, t.currency, b.currency) AS currency,
       coalesce(b.orders, 0) AS orders, b.quantity, coalesce(b.net_minor, 0) AS net_minor,
       coalesce(b.refunded_minor, 0) AS refunded_minor, coalesce(b.net_sales_minor, 0) AS net_sales_minor,
       coalesce(t.discount_minor, 0) AS discount_minor,
       round(coalesce(t.discount_minor, 0) / nullif(coalesce(b.net_minor, 0) + coalesce(t.discount_minor, 0), 0), 4) AS discount_share,
       coalesce(b.line_discount_minor, 0) AS line_discount_minor, b.cost_minor, b.margin_minor, b.margin_rate,
       coalesce(b.lines_without_cost, 0) AS lines_without_cost, coalesce(b.below_cost, 0) AS below_cost,
       coalesce(b.lost_minor, 0) AS lost_minor
FROM brought b
FULL JOIN taken_off t ON t.category IS NOT DISTINCT FROM b.category AND t.currency IS NOT DISTINCT FROM b.currency
ORDER BY net_minor DESC, category NULLS LAST, currency
