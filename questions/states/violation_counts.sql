-- How often was each rule broken? Grain: one violation code. `violations`, `keys`: only violations that count, that is,
-- are neither `explained`, `provisional` nor `superseded` (see violations.sql), which are counted apart.
WITH judged AS (
    SELECT *, superseded(event_id, violation) AS superseded FROM judged_violations
)
SELECT violation, scope, count(*) FILTER (NOT superseded AND NOT explained AND NOT provisional) AS violations,
       count(DISTINCT (topic, key)) FILTER (NOT superseded AND NOT explained AND NOT provisional) AS keys,
       count(*) FILTER (explained) AS explained, count(*) FILTER (provisional) AS provisional,
       count(*) FILTER (superseded) AS superseded
FROM judged
WHERE ($coupon IS NULL OR (topic = 'coupon.events' AND key = $coupon))
  AND ($violation IS NULL OR violation = $violation)
  AND ($scope IS NULL OR scope = $scope)
  AND ($since::TIMESTAMP IS NULL OR occurred_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
GROUP BY ALL ORDER BY violation
