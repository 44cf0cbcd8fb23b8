-- Is everybody who is linked the person that the links say?
-- Grain: one id that is missing, superfluous or has another person. An offender: credits go to the wrong person.
-- This query only returns the pairs of linked ids, one row per pair. The code of the audit follows them transitively,
-- and compares the result with `persons`.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
