-- What do some orders (`affected`) say of themselves? Grain: one order that does.
SELECT o.* FROM orders o SEMI JOIN affected a ON o.key_hash = a.order_hash AND o.order_id = a.order_id
