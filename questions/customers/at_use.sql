-- Were customers new or returning when they used a coupon? Grain: one campaign, `customer` (new: the order is their
-- first that stands, in any currency; returning: it is a later one) and currency of the orders. `uses`: coupons in use
-- on orders that stand; `share`: these as a part of all uses in that campaign and currency; `came_again`: customers
-- with another order later than the first of these orders.
WITH numbered AS (
    SELECT user_id, order_id, currency, paid_at, net_sales_minor,
           row_number() OVER (PARTITION BY user_id ORDER BY paid_at, order_id) AS nth,
           max(paid_at) OVER (PARTITION BY user_id) AS last_paid_at
    FROM sold
),
used AS (
    SELECT campaign_id, order_id, count(*) AS coupons, sum(discount_minor) AS discount_minor
    FROM coupons WHERE state = 'used' GROUP BY ALL
),
mine AS (
    SELECT u.campaign_id, if(n.nth = 1, 'new', 'returning') AS customer, n.currency, n.user_id,
           sum(u.coupons) AS uses, count(*) AS orders, sum(n.net_sales_minor) AS net_sales_minor,
           sum(u.discount_minor) AS discount_minor, min(n.paid_at) < any_value(n.last_paid_at) AS again
    FROM used u JOIN numbered n ON n.order_id = u.order_id
    GROUP BY ALL
),
summed AS (
    SELECT campaign_id, customer, currency, sum(uses) AS uses, count(*) AS customers,
           sum(orders) AS orders, sum(net_sales_minor) AS net_sales_minor,
           sum(discount_minor) AS discount_minor, count(*) FILTER (again) AS came_again
    FROM mine GROUP BY ALL
)
SELECT campaign_id, customer, currency, uses, round(uses / sum(uses) OVER (PARTITION BY campaign_id, currency), 4) AS share,
       customers, orders, net_sales_minor, discount_minor, came_again
FROM summed
ORDER BY length(campaign_id), campaign_id, currency, customer
