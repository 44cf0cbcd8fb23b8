-- Is everybody who is linked the person that the links say?
-- Grain: one id that is missing, superfluous or somebody else. An offender: credits go to the wrong person.
-- The query gives the links, one a row, that `_persons` follows.
SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
