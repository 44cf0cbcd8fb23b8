-- How many keys, events and violations are there, and where is the data's clock? Grain: the database; `states`: one row
-- per state of coupons, in the order of the lifecycle; `broken`: one per rule, by name. `violations`: those that count
-- (see violation_counts.sql).
WITH broken AS (
    SELECT violation,
           count(*) FILTER (NOT superseded(event_id, violation) AND NOT explained AND NOT provisional) AS violations,
           count(*) FILTER (superseded(event_id, violation)) AS superseded, count(*) FILTER (explained) AS explained,
           count(*) FILTER (provisional) AS provisional
    FROM judged_violations GROUP BY violation
)
SELECT (SELECT count(*) FROM coupons) AS coupons, (SELECT count(*) FROM orders) AS orders,
       (SELECT count(*) FROM campaigns) AS campaigns, (SELECT count(*) FROM users) AS users,
       (SELECT count(*) FROM coupon_events) + (SELECT count(*) FROM order_events)
           + (SELECT count(*) FROM campaign_events) + (SELECT count(*) FROM user_events) AS events,
       (SELECT coalesce(sum(violations), 0)::BIGINT FROM broken) AS violations,
       (SELECT coalesce(sum(superseded), 0)::BIGINT FROM broken) AS superseded,
       (SELECT coalesce(sum(explained), 0)::BIGINT FROM broken) AS explained,
       (SELECT coalesce(sum(provisional), 0)::BIGINT FROM broken) AS provisional, (SELECT data_clock FROM ledger) AS data_clock,
       (SELECT coalesce(list({state: state::VARCHAR, coupons: n} ORDER BY state), [])
        FROM (SELECT state, count(*) AS n FROM coupons GROUP BY state)) AS states,
       (SELECT coalesce(list({violation: violation, violations: violations, superseded: superseded,
                              explained: explained, provisional: provisional}
                              ORDER BY violation), []) FROM broken) AS broken
