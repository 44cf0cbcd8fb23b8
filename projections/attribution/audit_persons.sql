-- Is everybody who is linked the person that the links say?
-- Grain: one id that is missing, superfluous or has another person. An offender: credits go to the wrong person.
-- The query returns one row per link. The audit follows the links.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
