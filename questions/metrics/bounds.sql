-- What are the first and last instants of the data that metrics count? Grain: one row; nulls if there are no data.
SELECT min(first), max(last) FROM (
    SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM coupon_events
    UNION ALL SELECT min(occurred_at), max(occurred_at) FROM order_events
    UNION ALL SELECT min(paid_at), max(paid_at) FROM orders
    UNION ALL SELECT min(occurred_at), max(occurred_at) FROM campaign_events
)
