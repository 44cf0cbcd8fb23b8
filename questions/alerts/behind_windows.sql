-- How many events with the alert's key came in each of its windows? Grain: one window that has events, counted back from
-- `opened`: window 0 ends there, and those below 0 are later.
SELECT -ceil((epoch_us(occurred_at) - epoch_us($opened::TIMESTAMP)) / $window_us::BIGINT)::BIGINT AS number,
       count(*) AS events, count(DISTINCT user_id) AS users, count(DISTINCT coupon_id) AS coupons
FROM alert_before GROUP BY number
