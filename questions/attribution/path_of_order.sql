-- Which path led to this order? Grain: the path of the order; no row if the order does not stand.
SELECT person, order_id, ended_at, currency, sales_minor, names_coupons, touches, sources, touched_at FROM paths WHERE order_id = $order
