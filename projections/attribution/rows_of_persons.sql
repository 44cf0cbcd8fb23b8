-- Which paths do the persons in `gone` have? Grain: one path, by row number. Filters by hash first, which few paths
-- pass: comparing the texts of all paths would take four times as long.
WITH hashed AS MATERIALIZED (
    SELECT t.rowid AS row_id, t.person_hash, t.person FROM paths t
    WHERE t.person_hash IN (SELECT person_hash FROM gone)
)
SELECT h.row_id FROM hashed h SEMI JOIN gone g ON h.person_hash = g.person_hash AND h.person = g.person
