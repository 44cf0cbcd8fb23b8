-- Which is the first and the last instant of the data's clock? Grain: the database. Null before the first event.
SELECT min(moment) AS first_at, max(moment) AS last_at
FROM (
    SELECT least(occurred_at, recorded_at) AS moment FROM coupon_events
    UNION ALL SELECT least(occurred_at, recorded_at) FROM order_events
    UNION ALL SELECT least(occurred_at, recorded_at) FROM campaign_events
    UNION ALL SELECT least(occurred_at, recorded_at) FROM user_events
)
