-- Which orders count for customer figures? Grain: one order that stands and was paid up to the data's clock, with its
-- person (`user_id`: the id that stands for all linked ids). `with_coupon`: a coupon is in use on it, with the discount
-- `coupon_discount_minor`; `discount_minor`: all discounts, counted as in `finance-split` (input: `given_back`,
-- finance/given_back.sql); `full_price`: no discount. `cost_minor`: cost of goods (goods_cost of macros.sql), null if
-- unknown.
SELECT coalesce(p.person, o.user_id) AS user_id, o.order_id, o.currency, o.paid_at, o.gross_minor,
       o.net_minor - coalesce(o.refunded_minor, 0) AS net_sales_minor,
       coalesce(list_sum([d.amount_minor FOR d IN o.discounts IF d.kind <> 'coupon']), 0)
           + coupon_discount(o.discounts, w.used_minor, g.back_minor) AS discount_minor,
       w.order_id IS NOT NULL AS with_coupon, w.used_minor AS coupon_discount_minor,
       goods_cost(o.cost_of_goods_minor, o.lines, o.net_minor, o.refunded_minor, $goods_rates) AS cost_minor,
       w.order_id IS NULL AND discount_minor = 0 AS full_price
FROM orders o
LEFT JOIN persons p ON p.user_id = o.user_id
LEFT JOIN (
    SELECT order_hash, order_id, sum(discount_minor) AS used_minor FROM coupons_in_use GROUP BY ALL
) w
    ON w.order_hash = o.key_hash AND w.order_id = o.order_id
LEFT JOIN given_back g ON g.order_hash = o.key_hash AND g.order_id = o.order_id
WHERE stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor)
  AND o.user_id IS NOT NULL AND o.paid_at <= (SELECT data_clock FROM ledger)
