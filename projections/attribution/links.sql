-- Which ids are the same person, as told? Grain: one link.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
