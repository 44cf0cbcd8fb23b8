-- What is the state of this order? Grain: one order. `status`: the furthest of placed, paid, cancelled, refunded (in
-- full); `coupon_discount_minor`: the discounts of kind coupon that the order states.
SELECT order_id, user_id,
       CASE WHEN refunded_whole(net_minor, refunded_minor) THEN 'refunded'
            WHEN cancelled_at IS NOT NULL THEN 'cancelled'
            WHEN paid_at IS NOT NULL THEN 'paid'
            WHEN placed_at IS NOT NULL THEN 'placed' END AS status,
       channel, store, region, currency, gross_minor, net_minor, refunded_minor, cost_of_goods_minor, reason,
       placed_at, paid_at, cancelled_at, last_event_at, events, discounts,
       list_sum([d.amount_minor FOR d IN discounts IF d.kind = 'coupon']) AS coupon_discount_minor,
       coupon_ids, lines
FROM orders
WHERE key_hash = $key_hash AND order_id = $order
