-- Do the violations between topics and the awaited orders match a new evaluation of all orders at the data's clock?
-- Grain: one violation or awaited order, missing or superfluous. An offender: a contradiction between coupons and
-- orders is not reported, or one is reported that does not exist. This query returns the orders to evaluate, in parts.
SELECT key_hash AS order_hash, order_id FROM orders WHERE key_hash BETWEEN $first AND $last
UNION
SELECT order_hash, order_id FROM coupons_in_use WHERE order_hash BETWEEN $first AND $last
UNION
SELECT order_hash, order_id FROM awaited WHERE order_hash BETWEEN $first AND $last
UNION
SELECT order_hash, if(topic = 'order.events', key, counterpart) FROM violations
WHERE order_hash BETWEEN $first AND $last
