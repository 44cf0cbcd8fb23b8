-- Who are these users (`members`)? Grain: one id of a person who has several.
SELECT p.user_id, p.person FROM persons p SEMI JOIN members m ON m.user_id = p.user_id
