-- Sets the data's clock in the stand-in of `ledger` to the highest min(occurred_at, recorded_at) of the events in the
-- cut. Grain: the database.
UPDATE ledger SET data_clock = (
    SELECT max(least(occurred_at, recorded_at))
    FROM (
        SELECT occurred_at, recorded_at FROM coupon_events
        UNION ALL SELECT occurred_at, recorded_at FROM order_events
        UNION ALL SELECT occurred_at, recorded_at FROM campaign_events
        UNION ALL SELECT occurred_at, recorded_at FROM user_events
    )
)
