-- How often was each rule broken? Grain: one violation code. `violations`, `keys`: without the
-- superseded (see violations.sql).
WITH told AS (
    SELECT *, superseded(event_id, violation) AS superseded FROM violations
)
SELECT violation, scope, count(*) FILTER (NOT superseded) AS violations,
       count(DISTINCT (topic, key)) FILTER (NOT superseded) AS keys, count(*) FILTER (superseded) AS superseded
FROM told
WHERE ($coupon IS NULL OR (topic = 'coupon.events' AND key = $coupon))
  AND ($violation IS NULL OR violation = $violation)
  AND ($scope IS NULL OR scope = $scope)
  AND ($since::TIMESTAMP IS NULL OR occurred_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
GROUP BY ALL ORDER BY violation
