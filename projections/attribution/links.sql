-- Which pairs of ids do `linked` events join, by the rows of users? Grain: one pair.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
