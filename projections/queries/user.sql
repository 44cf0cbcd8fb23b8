-- Who is this, and what does the profile say? Grain: one person. `ids`: the one asked for and every id that `linked`
-- events join to it, in either direction; `profile`: the attributes under the id asked for.
WITH RECURSIVE linked AS MATERIALIZED (
    SELECT user_id, unnest(aliases) AS alias_id FROM users WHERE len(aliases) > 0
),
person(id) AS (
    SELECT $user
    UNION
    SELECT CASE WHEN l.user_id = p.id THEN l.alias_id ELSE l.user_id END
    FROM person p JOIN linked l ON l.user_id = p.id OR l.alias_id = p.id
)
SELECT $user AS user_id,
       (SELECT list(id ORDER BY id) FROM person WHERE id <> $user) AS linked,
       u.attributes, coalesce(u.touches, 0)::BIGINT AS touches, u.last_event_at, u.user_id IS NOT NULL AS known
FROM (SELECT 1) LEFT JOIN users u ON u.key_hash = $key_hash AND u.user_id = $user
