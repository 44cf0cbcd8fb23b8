-- Who was assigned to which arm of a campaign? Grain: one person (linked ids are one). The first assignment in
-- canonical order counts: `arm`, `assigned_at` and `recorded_at` are its values. `arms`: number of different arms
-- assigned.
SELECT coalesce(p.person, e.user_id) AS person,
       arg_min(e.arm, (e.occurred_at, e.event_id)) AS arm,
       min(e.occurred_at) AS assigned_at,
       arg_min(e.recorded_at, (e.occurred_at, e.event_id)) AS recorded_at,
       count(DISTINCT e.arm) AS arms
FROM campaign_events e
LEFT JOIN persons p ON p.user_id = e.user_id
WHERE e.key_hash = $key_hash AND e.campaign_id = $campaign AND e.type = 'assigned'
GROUP BY ALL
ORDER BY person
