-- How often was each rule broken? Grain: one violation code.
SELECT violation, scope, count(*) AS violations, count(DISTINCT (topic, key)) AS keys
FROM violations
WHERE ($coupon_id IS NULL OR (topic = 'coupon.events' AND key = $coupon_id))
  AND ($violation IS NULL OR violation = $violation)
  AND ($scope IS NULL OR scope = $scope)
GROUP BY ALL ORDER BY violation
