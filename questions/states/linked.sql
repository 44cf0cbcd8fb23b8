-- How many users have other ids linked to them, and how many such ids? Grain: the database.
SELECT count(*) AS users, coalesce(sum(len(aliases)), 0)::BIGINT AS ids FROM users WHERE len(aliases) > 0
