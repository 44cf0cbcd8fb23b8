-- When did the first and the last event of a coupon or an order happen, and how many events are there from $since until
-- $until (null: no bound), by either of their clocks? Grain: the database.
WITH events AS (
    SELECT occurred_at, recorded_at FROM coupon_events UNION ALL SELECT occurred_at, recorded_at FROM order_events
)
SELECT min(occurred_at) AS first_event_at, max(occurred_at) AS last_event_at,
       count(*) FILTER (
           (occurred_at >= coalesce($since, occurred_at) AND occurred_at < coalesce($until, occurred_at + INTERVAL 1 DAY))
           OR (recorded_at >= coalesce($since, recorded_at)
               AND recorded_at < coalesce($until, recorded_at + INTERVAL 1 DAY))
       ) AS events
FROM events
