-- Which users are behind an alert? Grain: one user, in the order of their first events.
SELECT user_id, count(*) AS events, count(DISTINCT coupon_id) AS coupons, count(DISTINCT device_id) AS devices,
       count(DISTINCT ip) AS ips, min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM alert_behind WHERE user_id IS NOT NULL
GROUP BY user_id ORDER BY first_at, user_id
