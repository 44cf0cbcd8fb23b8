-- Who has a coupon of this campaign in use? Grain: one person, by the id that stands for all linked ones (`persons`: given).
SELECT DISTINCT coalesce(p.person, c.owner) AS user_id
FROM coupons c LEFT JOIN persons p ON p.user_id = c.owner
WHERE c.campaign_id = $campaign AND c.state = 'used' AND c.owner IS NOT NULL
