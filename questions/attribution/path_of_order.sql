-- Which path led to this order? Grain: one path, of the order; none where it does not stand.
SELECT person, order_id, ended_at, currency, sales_minor, names_coupons, touches, sources, touched_at FROM paths WHERE order_id = $order
