-- Between which instants does everything lie that metrics count? Grain: one row; nulls where there is nothing.
SELECT min(first), max(last) FROM (
    SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM coupon_events
    UNION ALL SELECT min(occurred_at), max(occurred_at) FROM order_events
    UNION ALL SELECT min(paid_at), max(paid_at) FROM orders
    UNION ALL SELECT min(occurred_at), max(occurred_at) FROM campaign_events
)
