-- Which persons do these users belong to (`members`)? Grain: one user who is linked to others.
SELECT p.user_id, p.person FROM persons p SEMI JOIN members m ON m.user_id = p.user_id
