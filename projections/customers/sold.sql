-- Which orders make somebody a customer? Grain: one order that was paid up to the data's clock and stands (not cancelled,
-- not fully refunded), by the user whom it names. `with_coupon`: a coupon is in use on it, which took off
-- `coupon_discount_minor`; `full_price`: nothing was taken off. `cost_minor` of its goods: the order's own figure, else
-- that of its lines, else by $goods_bp of the net; null where none of these is known.
SELECT o.user_id, o.order_id, o.currency, o.paid_at, o.gross_minor, o.net_minor - coalesce(o.refunded_minor, 0) AS net_sales_minor,
       coalesce(list_sum([d.amount_minor FOR d IN o.discounts]), 0) AS discount_minor,
       w.order_id IS NOT NULL AS with_coupon, w.discount_minor AS coupon_discount_minor,
       coalesce(o.cost_of_goods_minor,
                CASE WHEN len(o.lines) > 0 AND ($goods_bp IS NOT NULL OR list_count([l.cost_minor FOR l IN o.lines]) = len(o.lines))
                     THEN list_sum([coalesce(l.cost_minor, round(l.net_minor * $goods_bp::BIGINT / 10000)) FOR l IN o.lines]) END,
                round(o.net_minor * $goods_bp::BIGINT / 10000))::BIGINT AS cost_minor,
       w.order_id IS NULL AND coalesce(list_sum([d.amount_minor FOR d IN o.discounts]), 0) = 0 AS full_price
FROM orders o
LEFT JOIN (
    SELECT order_hash, order_id, sum(discount_minor)::BIGINT AS discount_minor FROM coupons_in_use GROUP BY ALL
) w
    ON w.order_hash = o.key_hash AND w.order_id = o.order_id
WHERE o.user_id IS NOT NULL AND o.paid_at <= (SELECT data_clock FROM ledger) AND o.cancelled_at IS NULL
  AND NOT (o.refunded_minor > 0 AND o.refunded_minor >= o.net_minor)
