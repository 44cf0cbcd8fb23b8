-- Which rules were broken by or around a campaign's coupons, and which amount is at stake? Grain: one violation code
-- and currency. Input: `faults` of the campaign (campaign_faults.sql). `discount_minor`: discount of these coupons now,
-- each counted once.
WITH stakes AS (
    SELECT violation, currency, sum(discount_minor) AS discount_minor
    FROM (SELECT DISTINCT violation, currency, coupon_id, discount_minor FROM faults) GROUP BY ALL
)
SELECT f.violation, f.scope, f.currency, count(DISTINCT (f.topic, f.key, f.event_id, f.counterpart)) AS cases,
       count(DISTINCT f.coupon_id) AS coupons, count(DISTINCT f.owner) AS users,
       coalesce(any_value(s.discount_minor), 0) AS discount_minor, min(f.occurred_at) AS first_at,
       max(f.occurred_at) AS last_at
FROM faults f
LEFT JOIN stakes s ON s.violation = f.violation AND s.currency IS NOT DISTINCT FROM f.currency
GROUP BY f.violation, f.scope, f.currency
ORDER BY cases DESC, f.violation, f.currency NULLS LAST
