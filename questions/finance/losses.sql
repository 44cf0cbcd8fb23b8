-- Where was money lost to broken rules? Grain: one point of loss, campaign and currency, from the input
-- `loss_points` (loss_points.sql). An event or coupon counts once per point, and can be in several points.
SELECT point, campaign_id, currency, count(*) AS cases, count(DISTINCT coupon_id) AS coupons,
       coalesce(sum(lost_minor), 0) AS lost_minor
FROM loss_points
GROUP BY ALL
ORDER BY lost_minor DESC, point, campaign_id NULLS LAST, currency
