-- Which awaited orders are due by the data's clock ($clock)? Grain: one order.
SELECT order_hash, order_id FROM awaited WHERE due_at <= $clock
