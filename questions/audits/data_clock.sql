-- Has the data's clock advanced as far as the events say?
-- Grain: the database. An offender: the clock is behind the highest min(occurred_at, recorded_at), so due violations
-- are not reported and expired coupons do not expire.
WITH clocks AS (
    SELECT max(least(occurred_at, recorded_at)) AS clock FROM coupon_events
    UNION ALL SELECT max(least(occurred_at, recorded_at)) FROM order_events
    UNION ALL SELECT max(least(occurred_at, recorded_at)) FROM campaign_events
    UNION ALL SELECT max(least(occurred_at, recorded_at)) FROM user_events
)
SELECT data_clock, clock AS journal_clock
FROM ledger, (SELECT max(clock) AS clock FROM clocks)
WHERE clock IS NOT NULL AND (data_clock IS NULL OR data_clock < clock)
