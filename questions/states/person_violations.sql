-- Which rules were broken by coupons that a person ($ids) acquired or owns, or by events in the person's name? Grain:
-- one violation, by time. `explained`, `provisional`, `superseded`: see violations.sql.
SELECT v.violation, v.occurred_at, v.key AS coupon_id, v.event_id, coalesce(v.user_id, c.acquired_by, c.owner) AS user_id,
       c.campaign_id, v.explained, v.provisional, superseded(v.event_id, v.violation) AS superseded
FROM judged_violations v
JOIN coupons c ON c.key_hash = v.key_hash AND c.coupon_id = v.key
WHERE v.topic = 'coupon.events'
  AND (c.owner IN (SELECT unnest($ids::VARCHAR[])) OR c.acquired_by IN (SELECT unnest($ids::VARCHAR[]))
       OR v.user_id IN (SELECT unnest($ids::VARCHAR[])))
ORDER BY v.occurred_at, v.key, v.event_id, v.violation
