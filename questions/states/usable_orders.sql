-- What do these orders say that decides whether a coupon can be used on them? Grain: one order of `$orders`.
SELECT order_id AS "order", gross_minor, currency AS order_currency, user_id AS order_user,
       cancelled_at IS NOT NULL OR refunded_whole(net_minor, refunded_minor) AS order_over
FROM orders
WHERE key_hash IN (SELECT unnest($hashes::BIGINT[])) AND order_id IN (SELECT unnest($orders::VARCHAR[]))
