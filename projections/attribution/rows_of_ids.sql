-- Which rows does `persons` have for the ids in `members`? Grain: one id, with its row number.
SELECT p.rowid AS row_id, p.user_id, p.person FROM persons p SEMI JOIN members m ON m.user_id = p.user_id
