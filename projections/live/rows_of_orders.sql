-- What are the rows of some orders (`affected`)? Grain: one order that has one.
SELECT o.* FROM orders o SEMI JOIN affected a ON o.key_hash = a.order_hash AND o.order_id = a.order_id
