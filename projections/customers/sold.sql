-- Which orders make somebody a customer? Grain: one order that was paid up to the data's clock and stands (not cancelled,
-- not fully refunded), by the user whom it names. `with_coupon`: a coupon is in use on it; `full_price`: nothing was
-- taken off.
SELECT o.user_id, o.currency, o.paid_at, o.gross_minor, o.net_minor - coalesce(o.refunded_minor, 0) AS net_sales_minor,
       coalesce(list_sum([d.amount_minor FOR d IN o.discounts]), 0) AS discount_minor,
       w.order_id IS NOT NULL AS with_coupon,
       w.order_id IS NULL AND coalesce(list_sum([d.amount_minor FOR d IN o.discounts]), 0) = 0 AS full_price
FROM orders o
LEFT JOIN (SELECT DISTINCT order_hash, order_id FROM coupons_in_use) w
    ON w.order_hash = o.key_hash AND w.order_id = o.order_id
WHERE o.user_id IS NOT NULL AND o.paid_at <= (SELECT data_clock FROM ledger) AND o.cancelled_at IS NULL
  AND NOT (o.refunded_minor > 0 AND o.refunded_minor >= o.net_minor)
