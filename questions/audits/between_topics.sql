-- Are the violations between topics, and the orders awaited, those that an evaluation of all orders at the data's clock
-- finds?
-- Grain: one violation, or order awaited, that is missing or superfluous. An offender: coupons and orders contradict each
-- other and nobody is told, or they do not. The query: the orders to evaluate, part by part.
SELECT key_hash AS order_hash, order_id FROM orders WHERE key_hash BETWEEN $first AND $last
UNION
SELECT order_hash, order_id FROM coupons_in_use WHERE order_hash BETWEEN $first AND $last
UNION
SELECT order_hash, order_id FROM awaited WHERE order_hash BETWEEN $first AND $last
UNION
SELECT order_hash, if(topic = 'order.events', key, counterpart) FROM violations
WHERE order_hash BETWEEN $first AND $last
