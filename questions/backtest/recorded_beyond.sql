-- When was the first event recorded that happened after an instant, by the earlier of both clocks, and not after the next
-- one? Grain: one instant of `instants` (`moment`) with such events.
WITH events AS (
    SELECT recorded_at, least(occurred_at, recorded_at) AS moment FROM coupon_events
    UNION ALL SELECT recorded_at, least(occurred_at, recorded_at) FROM order_events
    UNION ALL SELECT recorded_at, least(occurred_at, recorded_at) FROM campaign_events
    UNION ALL SELECT recorded_at, least(occurred_at, recorded_at) FROM user_events
)
SELECT i.moment, min(e.recorded_at) AS recorded_at
FROM events e ASOF JOIN instants i ON e.moment > i.moment
GROUP BY i.moment
