-- Which people does the ledger know from profiles, orders and a campaign's arms? Grain: one person, with all their ids.
SELECT coalesce(p.person, k.user_id) AS person, list(k.user_id ORDER BY k.user_id) AS ids
FROM (
    SELECT user_id FROM users
    UNION
    SELECT user_id FROM orders WHERE user_id IS NOT NULL
    UNION
    SELECT user_id FROM campaign_events
    WHERE key_hash = $key_hash AND campaign_id = $campaign AND type = 'assigned'
    UNION
    SELECT user_id FROM persons
) k
LEFT JOIN persons p ON p.user_id = k.user_id
GROUP BY 1
ORDER BY person
