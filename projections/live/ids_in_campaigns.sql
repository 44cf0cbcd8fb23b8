-- Which ids do the persons of the users in `chosen` (campaign and user) have? Grain: one campaign and id. Users without
-- links are left out.
SELECT DISTINCT c.campaign_hash, c.campaign_id, o.user_id AS acquired_by
FROM chosen c
JOIN persons p ON p.user_id = c.acquired_by
JOIN persons o ON o.person = p.person
