-- What does the profile of each person say under this name? Grain: one person whose profile has it; of several ids, the
-- one whose profile was told last.
SELECT coalesce(p.person, u.user_id) AS person,
       arg_max(json_extract_string(u.attributes, $path), (u.last_event_at, u.user_id)) AS value
FROM users u
LEFT JOIN persons p ON p.user_id = u.user_id
WHERE json_extract_string(u.attributes, $path) IS NOT NULL
GROUP BY ALL
ORDER BY person
