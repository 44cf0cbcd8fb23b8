-- Which campaigns have people assigned to arms? Grain: one campaign, latest first.
SELECT campaign_id, count(DISTINCT user_id) AS people, count(DISTINCT arm) AS arms, min(occurred_at) AS first_assigned_at
FROM campaign_events WHERE type = 'assigned'
GROUP BY ALL ORDER BY first_assigned_at DESC, campaign_id
