-- Who got coupons of other campaigns between two instants? Grain: one person.
SELECT DISTINCT coalesce(p.person, c.acquired_by) AS person
FROM coupons c
LEFT JOIN persons p ON p.user_id = c.acquired_by
WHERE c.campaign_id IS DISTINCT FROM $campaign AND c.acquired_at >= $first AND c.acquired_at < $last
ORDER BY person
