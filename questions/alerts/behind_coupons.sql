-- Which coupons are behind an alert? Grain: one coupon, in the order of their first events. `events`: its events behind
-- the alert. `promised_minor`: its face value if it can still be used.
SELECT b.coupon_id, c.state, c.owner, c.campaign_id, c.order_id, c.currency, c.discount_minor,
       CASE WHEN c.state IN ('issued', 'claimed', 'reserved') THEN c.face_value_minor END AS promised_minor,
       b.events, b.first_at, b.last_at, c.last_event_at
FROM (
    SELECT coupon_id, any_value(key_hash) AS key_hash, count(*) AS events, min(occurred_at) AS first_at,
           max(occurred_at) AS last_at
    FROM alert_behind GROUP BY coupon_id
) b
LEFT JOIN coupons c ON c.key_hash = b.key_hash AND c.coupon_id = b.coupon_id
ORDER BY b.first_at, b.coupon_id
