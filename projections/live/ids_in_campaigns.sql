-- Which other ids do the persons have who acquired a coupon (`chosen`: campaign and user)? Grain: one campaign and id.
SELECT DISTINCT c.campaign_hash, c.campaign_id, o.user_id AS acquired_by
FROM chosen c
JOIN persons p ON p.user_id = c.acquired_by
JOIN persons o ON o.person = p.person
