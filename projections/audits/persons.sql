-- Is everybody who is linked the person that the links say?
-- Grain: one id that is missing, superfluous or somebody else. An offender: credits go to the wrong person.
WITH RECURSIVE links AS MATERIALIZED (
    SELECT user_id, alias_id FROM (SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0)
    WHERE user_id <> alias_id
),
ways AS MATERIALIZED (
    SELECT user_id AS one, alias_id AS other FROM links UNION SELECT alias_id, user_id FROM links
),
reached(start, id) AS (
    SELECT one, one FROM ways
    UNION
    SELECT r.start, b.other FROM reached r JOIN ways b ON b.one = r.id
),
-- The first, by bytes, of those that are nobody's alias; else the first of all.
wanted AS (
    SELECT start AS user_id,
           coalesce(arg_min(id, encode(id)) FILTER (id NOT IN (SELECT alias_id FROM links)), arg_min(id, encode(id))) AS person
    FROM reached GROUP BY start
),
kept AS (
    SELECT user_id, if(count(*) OVER (PARTITION BY user_id) = 1, person, 'several') AS person FROM persons
)
SELECT coalesce(w.user_id, p.user_id) AS user_id, w.person AS links_say, p.person AS kept
FROM wanted w FULL JOIN kept p ON p.user_id = w.user_id
WHERE w.person IS DISTINCT FROM p.person
