-- What does an order say that decides whether a coupon can be used on it? Grain: one order with the hash `$key_hash`
-- (other orders can have it too).
SELECT order_id AS "order", gross_minor, currency AS order_currency, user_id AS order_user,
       cancelled_at IS NOT NULL OR refunded_whole(net_minor, refunded_minor) AS order_over
FROM orders
WHERE key_hash = $key_hash
