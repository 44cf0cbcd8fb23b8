-- How late, and how far in the future, were the events of each source? Grain: one source, topic and second of recording
-- (`until`: its end). `events`: their number; `late`: those that were recorded more than $window_us microseconds after they
-- happened; `ahead_s`: how far `occurred_at` is ahead of `recorded_at` at most, in seconds. `first_at`: when the source
-- published to the topic for the first time.
WITH events AS (
    SELECT 'coupon.events' AS topic, source, occurred_at, recorded_at FROM coupon_events
    UNION ALL SELECT 'order.events', source, occurred_at, recorded_at FROM order_events
    UNION ALL SELECT 'campaign.events', source, occurred_at, recorded_at FROM campaign_events
    UNION ALL SELECT 'user.events', source, occurred_at, recorded_at FROM user_events
),
seconds AS (
    SELECT topic, source, time_bucket(INTERVAL 1 SECOND, recorded_at - INTERVAL 1 MICROSECOND) + INTERVAL 1 SECOND AS until,
           count(*) AS events, min(recorded_at) AS first_at,
           count(*) FILTER (recorded_at - occurred_at > to_microseconds($window_us)) AS late,
           max(epoch_us(occurred_at) - epoch_us(recorded_at)) / 1e6 AS ahead_s
    FROM events GROUP BY ALL
)
SELECT topic, source, until, events, late, ahead_s, min(first_at) OVER (PARTITION BY topic, source) AS first_at
FROM seconds
