-- How often was each rule broken? Grain: one violation code.
SELECT violation, scope, count(*) AS violations, count(DISTINCT (topic, key)) AS keys
FROM violations
WHERE ($coupon IS NULL OR (topic = 'coupon.events' AND key = $coupon))
  AND ($violation IS NULL OR violation = $violation)
  AND ($scope IS NULL OR scope = $scope)
  AND ($since::TIMESTAMP IS NULL OR occurred_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
GROUP BY ALL ORDER BY violation
