-- What did a paid order bring? Grain: one order that was paid, of those paid within the time asked. A cancelled one
-- brings nothing (`stands` is false). net_sales = net - refunds, a refund above the order included (below zero then);
-- `cost_minor`: the order's own figure, else that of its lines, else by the rate of each line's category (`rates`: in
-- basis points of the line's net; '' for any other); null where none of these is known. margin = net_sales - cost.
WITH paid AS (
    SELECT * FROM orders
    WHERE paid_at IS NOT NULL AND ($since::TIMESTAMP IS NULL OR paid_at >= $since)
      AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
),
of_lines AS (
    SELECT order_id, CASE WHEN count(cost) = count(*) THEN sum(cost)::BIGINT END AS cost
    FROM (
        SELECT order_id, coalesce(l.cost_minor, round(l.net_minor * coalesce(r.bp, (SELECT bp FROM rates WHERE category = '')) / 10000)) AS cost
        FROM (SELECT order_id, unnest(lines) AS l FROM paid WHERE cost_of_goods_minor IS NULL) LEFT JOIN rates r ON r.category = l.category
    )
    GROUP BY order_id
)
SELECT p.order_id, p.user_id, p.paid_at, p.channel, p.store, p.region, p.currency, p.cancelled_at IS NULL AS stands,
       p.gross_minor, p.net_minor, coalesce(p.refunded_minor, 0) AS refunded_minor,
       CASE WHEN p.cancelled_at IS NULL THEN p.net_minor - coalesce(p.refunded_minor, 0) ELSE 0 END AS net_sales_minor,
       CASE WHEN p.cancelled_at IS NULL THEN
            coalesce(p.cost_of_goods_minor, l.cost,
                     CASE WHEN coalesce(len(p.lines), 0) = 0
                          THEN round(p.net_minor * (SELECT bp FROM rates WHERE category = '') / 10000)::BIGINT END)
            ELSE 0 END AS cost_minor
FROM paid p LEFT JOIN of_lines l ON l.order_id = p.order_id
