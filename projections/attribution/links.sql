-- Which ids do the users' links join? Grain: one link.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
