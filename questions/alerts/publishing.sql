-- When did each source publish, lately? Grain: one source and topic, with its latest $rows events of the topic at most.
-- `first_at`, `last_at`: its first and last event, by `recorded_at`. `gaps`: number of gaps between its events, where
-- events of the same second count as one. `longest`, `next`: the longest gap and the one after it, in seconds.
-- `span_s`: seconds from the first to the last event.
WITH recent AS (
    SELECT 'coupon.events' AS topic, source, epoch_us(recorded_at) // 1000000 AS second FROM coupon_events
    WHERE rowid > (SELECT max(rowid) FROM coupon_events) - $rows
    UNION ALL
    SELECT 'order.events', source, epoch_us(recorded_at) // 1000000 FROM order_events
    WHERE rowid > (SELECT max(rowid) FROM order_events) - $rows
    UNION ALL
    SELECT 'campaign.events', source, epoch_us(recorded_at) // 1000000 FROM campaign_events
    WHERE rowid > (SELECT max(rowid) FROM campaign_events) - $rows
    UNION ALL
    SELECT 'user.events', source, epoch_us(recorded_at) // 1000000 FROM user_events
    WHERE rowid > (SELECT max(rowid) FROM user_events) - $rows
),
seconds AS (
    SELECT DISTINCT topic, source, second FROM recent
),
spaced AS (
    SELECT topic, source, second, second - lag(second) OVER (PARTITION BY topic, source ORDER BY second) AS gap
    FROM seconds
)
SELECT topic, source, to_timestamp(min(second))::TIMESTAMP AS first_at, to_timestamp(max(second))::TIMESTAMP AS last_at,
       count(gap) AS gaps, coalesce(max(gap), 0) AS longest,
       coalesce(list_sort(max(gap, 2))[1], 0) AS next, max(second) - min(second) AS span_s
FROM spaced GROUP BY ALL
ORDER BY topic, source
