-- To which persons do the users in `members` belong? Grain: one user. Users without links are left out.
SELECT p.user_id, p.person FROM persons p SEMI JOIN members m ON m.user_id = p.user_id
