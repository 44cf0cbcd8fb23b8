-- Who got coupons of a campaign, and which? Grain: one person. `face_value_minor`, `percent_off_bp`: the most frequent
-- ones among the person's coupons; `claimed`: number of coupons that the person claimed.
SELECT coalesce(p.person, c.acquired_by) AS person, count(*) AS coupons, min(c.acquired_at) AS first_coupon_at,
       mode(c.face_value_minor) AS face_value_minor, mode(c.percent_off_bp) AS percent_off_bp,
       count(c.claimed_at) AS claimed
FROM coupons c
LEFT JOIN persons p ON p.user_id = c.acquired_by
WHERE c.campaign_id = $campaign AND c.acquired_by IS NOT NULL
GROUP BY ALL
ORDER BY person
