-- What stands about some coupons and rules (`asked`) of those within campaigns. Grain: one violation, as stored.
SELECT v.rowid AS row_id, v.* EXCLUDE (scope, state)
FROM violations v
SEMI JOIN asked a ON v.key_hash = a.key_hash AND v.key = a.key AND v.violation = a.violation
WHERE v.scope = 'cross' AND v.order_hash IS NULL
