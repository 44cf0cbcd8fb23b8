-- What stands about some orders (`affected`)? Grain: one violation of a rule between topics, as stored.
SELECT v.* EXCLUDE (scope, state)
FROM violations v
SEMI JOIN affected a ON v.order_hash = a.order_hash AND a.order_id = if(v.topic = $orders, v.key, v.counterpart)
