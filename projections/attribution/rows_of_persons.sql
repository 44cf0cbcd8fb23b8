-- Which paths are these persons' (`gone`)? Grain: one path, its row number.
SELECT t.rowid AS row_id FROM paths t SEMI JOIN gone g ON t.person_hash = g.person_hash AND t.person = g.person
