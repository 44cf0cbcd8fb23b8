-- Which values are RFM scores computed from? Grain: one customer with an order that stands (`sold`), and currency.
SELECT user_id, currency, count(*) AS orders,
       date_diff('second', max(paid_at), (SELECT data_clock FROM ledger)) / 86400.0 AS recency_days,
       sum(net_sales_minor) AS net_sales_minor
FROM sold GROUP BY ALL
