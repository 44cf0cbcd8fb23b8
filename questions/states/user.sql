-- Which person has this user id, and what is in the profile? Grain: one person. `person`: the id that stands for all
-- linked ones; `linked`: the other ids of the person; `profile`: the attributes of this user id.
WITH who AS (
    SELECT coalesce((SELECT person FROM persons WHERE user_id = $user), $user) AS person
)
SELECT $user AS user_id, w.person,
       (SELECT list(user_id ORDER BY user_id) FROM persons WHERE person = w.person AND user_id <> $user) AS linked,
       u.attributes, coalesce(u.touches, 0)::BIGINT AS touches, u.last_event_at, u.user_id IS NOT NULL AS known
FROM who w LEFT JOIN users u ON u.key_hash = $key_hash AND u.user_id = $user
