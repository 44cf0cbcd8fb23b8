-- Whose orders must be looked at again? Grain: one order: those that the batch touched (`given_orders`), and those that are
-- due by the data's clock ($clock).
SELECT order_hash, order_id FROM given_orders
UNION
SELECT order_hash, order_id FROM awaited WHERE due_at <= $clock
