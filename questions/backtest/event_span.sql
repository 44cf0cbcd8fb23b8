-- When did the first and the last event of a coupon or an order happen, and how many events are there from $since until
-- $until (null: no bound), by the data's clock, which alerts go by? Grain: the database.
WITH events AS (
    SELECT occurred_at, least(occurred_at, recorded_at) AS moment FROM coupon_events
    UNION ALL SELECT occurred_at, least(occurred_at, recorded_at) FROM order_events
)
SELECT min(occurred_at) AS first_event_at, max(occurred_at) AS last_event_at,
       count(*) FILTER (moment >= coalesce($since, moment) AND ($until::TIMESTAMP IS NULL OR moment < $until)) AS events
FROM events
