-- How many of these people (input: `chosen`) were assigned in other campaigns between two instants? Grain: one row.
SELECT count(DISTINCT coalesce(p.person, e.user_id)) AS people, count(DISTINCT e.campaign_id) AS campaigns
FROM campaign_events e
LEFT JOIN persons p ON p.user_id = e.user_id
WHERE e.type = 'assigned' AND e.campaign_id <> $campaign AND e.occurred_at >= $first AND e.occurred_at < $last
  AND coalesce(p.person, e.user_id) IN (SELECT person FROM chosen)
