-- What is the value of this attribute in each person's profile? Grain: one person with the attribute; if several of
-- their ids have it, the value of the id with the latest event.
SELECT coalesce(p.person, u.user_id) AS person,
       arg_max(json_extract_string(u.attributes, $path), (u.last_event_at, u.user_id)) AS value
FROM users u
LEFT JOIN persons p ON p.user_id = u.user_id
WHERE json_extract_string(u.attributes, $path) IS NOT NULL
GROUP BY ALL
ORDER BY person
