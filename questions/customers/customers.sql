-- What is known about each customer? Grain: one person (`user_id`: the id that stands for all linked ids) and currency,
-- with an order that stands (`sold`). Only part $part of $parts of the customers, by hash of their ids, because sums
-- over a million customers exceed the memory limit.
-- Net sales: paid minus refunds. `attributes`: those of the latest profile of any of the person's ids. `coupon_orders`:
-- number of orders on which a coupon is in use; `coupon_discount_minor`: the discount of these coupons;
-- `coupon_margin_minor`: the margin of these orders, as far as their cost of goods is known (it is not for
-- `coupon_orders_without_cost`); `first_coupon_at`: when the first of these orders was paid. `discounted_net_minor`:
-- net sales of orders with any discount; `discounted_sales_share`: their part of all net sales. `full_price_after`:
-- number of orders after `first_coupon_at` without any discount. `received`: number of coupons that the person owns or
-- owned; `used`: those in use now. `mean_gap_days`: mean time between orders.
WITH clock AS (SELECT data_clock AS now FROM ledger),
mine AS (SELECT * FROM sold WHERE hash(user_id) % $parts::UBIGINT = $part::UBIGINT),
bought AS (
    SELECT user_id, currency, count(*) AS orders, min(paid_at) AS first_paid_at, max(paid_at) AS last_paid_at,
           sum(net_sales_minor) AS net_sales_minor, sum(gross_minor) AS gross_minor,
           coalesce(sum(net_sales_minor) FILTER (NOT full_price), 0) AS discounted_net_minor,
           sum(discount_minor) AS discount_minor, count(*) FILTER (with_coupon) AS coupon_orders,
           coalesce(sum(coupon_discount_minor), 0) AS coupon_discount_minor,
           coalesce(sum(net_sales_minor - cost_minor) FILTER (with_coupon),
                    CASE WHEN NOT bool_or(with_coupon) THEN 0 END) AS coupon_margin_minor,
           count(*) FILTER (with_coupon AND cost_minor IS NULL) AS coupon_orders_without_cost,
           min(paid_at) FILTER (with_coupon) AS first_coupon_at
    FROM mine GROUP BY ALL
),
-- Separate from the sums above: ordering by instant and id there would double their time.
first AS (
    SELECT s.user_id, s.currency, arg_min(s.net_sales_minor, s.order_id) AS net_minor
    FROM mine s JOIN bought b ON b.user_id = s.user_id AND b.currency IS NOT DISTINCT FROM s.currency
                             AND b.first_paid_at = s.paid_at
    GROUP BY ALL
),
later AS (
    SELECT s.user_id, s.currency, count(*) FILTER (s.full_price) AS full_price_after
    FROM mine s JOIN bought b ON b.user_id = s.user_id AND b.currency IS NOT DISTINCT FROM s.currency
    WHERE s.paid_at > b.first_coupon_at GROUP BY ALL
),
owned AS (
    SELECT coalesce(p.person, c.owner) AS user_id, count(*) AS received, count(*) FILTER (c.state = 'used') AS used
    FROM coupons c LEFT JOIN persons p ON p.user_id = c.owner
    WHERE c.owner IS NOT NULL AND hash(coalesce(p.person, c.owner)) % $parts::UBIGINT = $part::UBIGINT
    GROUP BY ALL
),
profiles AS (
    SELECT u.user_id, u.attributes FROM users u ANTI JOIN persons p ON p.user_id = u.user_id
    WHERE u.attributes IS NOT NULL AND hash(u.user_id) % $parts::UBIGINT = $part::UBIGINT
    UNION ALL
    SELECT p.person, arg_max(u.attributes, (u.last_event_at, u.user_id)) FROM users u JOIN persons p ON p.user_id = u.user_id
    WHERE u.attributes IS NOT NULL GROUP BY ALL
)
SELECT b.user_id, b.currency, b.orders, b.first_paid_at, b.last_paid_at,
       date_diff('second', b.last_paid_at, (SELECT now FROM clock)) / 86400.0 AS recency_days,
       date_diff('second', b.first_paid_at, (SELECT now FROM clock)) / 86400.0 AS tenure_days,
       date_diff('second', b.first_paid_at, b.last_paid_at) / 86400.0 / nullif(b.orders - 1, 0) AS mean_gap_days,
       b.net_sales_minor, b.gross_minor, f.net_minor AS first_net_minor, b.net_sales_minor / b.orders AS average_order_minor, b.coupon_orders,
       b.coupon_discount_minor, b.coupon_margin_minor, b.coupon_orders_without_cost,
       b.coupon_orders / b.orders AS coupon_order_share, coalesce(b.discount_minor / nullif(b.gross_minor, 0), 0) AS discount_share,
       b.discounted_net_minor, b.discounted_net_minor / nullif(b.net_sales_minor, 0) AS discounted_sales_share,
       b.first_coupon_at, coalesce(l.full_price_after, 0) AS full_price_after, coalesce(o.received, 0) AS received,
       coalesce(o.used, 0) AS used, u.attributes
FROM bought b
JOIN first f ON f.user_id = b.user_id AND f.currency IS NOT DISTINCT FROM b.currency
LEFT JOIN later l ON l.user_id = b.user_id AND l.currency IS NOT DISTINCT FROM b.currency
LEFT JOIN owned o ON o.user_id = b.user_id
LEFT JOIN profiles u ON u.user_id = b.user_id
