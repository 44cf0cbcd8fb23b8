-- Which ids are the same person's? Grain: one pair that a `linked` event joined.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
