-- How late, and how far in the future, are the events of each source that were recorded after $since and not after
-- $until? Grain: one source and topic. `events`: their number; `late`: those that were recorded more than $window_us
-- microseconds after they happened; `ahead_s`: how far `occurred_at` is ahead of `recorded_at` at most, in seconds.
WITH recent AS (
    SELECT 'coupon.events' AS topic, source, occurred_at, recorded_at FROM coupon_events
    WHERE recorded_at > $since AND recorded_at <= $until
    UNION ALL
    SELECT 'order.events', source, occurred_at, recorded_at FROM order_events
    WHERE recorded_at > $since AND recorded_at <= $until
    UNION ALL
    SELECT 'campaign.events', source, occurred_at, recorded_at FROM campaign_events
    WHERE recorded_at > $since AND recorded_at <= $until
    UNION ALL
    SELECT 'user.events', source, occurred_at, recorded_at FROM user_events
    WHERE recorded_at > $since AND recorded_at <= $until
)
SELECT topic, source, count(*) AS events,
       count(*) FILTER (recorded_at - occurred_at > to_microseconds($window_us)) AS late,
       max(epoch_us(occurred_at) - epoch_us(recorded_at)) / 1e6 AS ahead_s
FROM recent
GROUP BY ALL
ORDER BY topic, source
