-- What do the events say of the time that had passed when they were recorded? Grain: one instant of `needed` (`until`).
-- `clock`: the latest instant, by the earlier of both clocks, of the events recorded after the `until` before it and not
-- after this one. The highest so far is the data's clock.
WITH events AS (
    SELECT recorded_at, least(occurred_at, recorded_at) AS moment FROM coupon_events
    UNION ALL SELECT recorded_at, least(occurred_at, recorded_at) FROM order_events
    UNION ALL SELECT recorded_at, least(occurred_at, recorded_at) FROM campaign_events
    UNION ALL SELECT recorded_at, least(occurred_at, recorded_at) FROM user_events
)
SELECT n.until, max(e.moment) AS clock
FROM events e ASOF JOIN needed n ON e.recorded_at <= n.until
GROUP BY n.until
