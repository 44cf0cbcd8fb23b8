-- Which rules were broken, when and by which event? Grain: one violation, by time. `superseded`: not a fault; the event
-- is from one of the ledger's own sweeps, and a later fact overtook it. `explained`, `provisional`: see
-- projections/live/judged_violations.sql.
SELECT CASE topic WHEN 'coupon.events' THEN key END AS coupon_id, event_id, violation, state, occurred_at, topic, key,
       scope, counterpart, superseded(event_id, violation) AS superseded, explained, provisional
FROM judged_violations
WHERE ($coupon IS NULL OR (topic = 'coupon.events' AND key = $coupon))
  AND ($violation IS NULL OR violation = $violation)
  AND ($scope IS NULL OR scope = $scope)
  AND ($since::TIMESTAMP IS NULL OR occurred_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
ORDER BY occurred_at, topic, key, event_id, violation, counterpart
LIMIT coalesce($limit::BIGINT, 9223372036854775807)
