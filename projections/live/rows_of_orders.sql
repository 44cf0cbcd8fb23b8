-- The rows of the orders in `affected`. Grain: one order. Orders without events have no row.
SELECT o.* FROM orders o SEMI JOIN affected a ON o.key_hash = a.order_hash AND o.order_id = a.order_id
