-- How many users have linked ids, and how many linked ids are there? Grain: the database.
SELECT count(*) AS users, coalesce(sum(len(aliases)), 0)::BIGINT AS ids FROM users WHERE len(aliases) > 0
