-- Who has a campaign's coupons? Grain: one owner: how many of them, and how many of these are in use.
SELECT owner AS user_id, count(*) AS got, count(*) FILTER (state = 'used') AS used
FROM coupons WHERE campaign_id = $campaign AND owner IS NOT NULL
GROUP BY owner ORDER BY owner
