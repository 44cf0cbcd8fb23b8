-- When was the latest event or dead letter recorded? Grain: the database. Null if there is none.
SELECT max(recorded_at) AS recorded_at
FROM (
    SELECT max(recorded_at) AS recorded_at FROM coupon_events
    UNION ALL SELECT max(recorded_at) FROM order_events
    UNION ALL SELECT max(recorded_at) FROM campaign_events
    UNION ALL SELECT max(recorded_at) FROM user_events
    UNION ALL SELECT max(recorded_at) FROM dead_letters
)
