-- Which rules were broken, when and by which event? Grain: one violation of one event, by time.
SELECT CASE topic WHEN 'coupon.events' THEN key END AS coupon_id, event_id, violation, state, occurred_at, topic, key
FROM violations
WHERE ($coupon IS NULL OR (topic = 'coupon.events' AND key = $coupon))
  AND ($violation IS NULL OR violation = $violation)
ORDER BY occurred_at, topic, key, event_id, violation
LIMIT coalesce($limit::BIGINT, 9223372036854775807)
