-- Who has a campaign's coupons? Grain: one person, with the number of their coupons, and of those in use.
SELECT coalesce(p.person, c.owner) AS user_id, count(*) AS got, count(*) FILTER (c.state = 'used') AS used
FROM coupons c LEFT JOIN persons p ON p.user_id = c.owner
WHERE c.campaign_id = $campaign AND c.owner IS NOT NULL
GROUP BY ALL ORDER BY ALL
