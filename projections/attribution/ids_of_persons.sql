-- Which persons have an id in `changed`, and which ids do these persons have? Grain: one id, with its person.
WITH whose AS (
    SELECT DISTINCT coalesce(p.person, c.user_id) AS person FROM changed c LEFT JOIN persons p ON p.user_id = c.user_id
)
SELECT person AS user_id, person FROM whose
UNION
SELECT p.user_id, p.person FROM persons p SEMI JOIN whose USING (person)
