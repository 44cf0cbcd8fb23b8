-- What did the campaign cost in a period? Grain: one currency. `discount_minor`: the discount of its coupons in use
-- whose use lies in the period, whatever became of their orders (like the metric discount_cost_minor). Its currency is
-- that of the order, else of the coupon. `without_sale_minor`: the part of it on orders that are unknown or do not
-- stand. `booked_minor`: sum of all `cost_booked` events that occurred in the period, including (negative) corrections.
WITH discounts AS (
    SELECT coalesce(o.currency, c.currency, '(unknown)') AS currency, sum(c.discount_minor) AS discount_minor,
           coalesce(sum(c.discount_minor) FILTER (
               o.order_id IS NULL OR NOT stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor)
           ), 0) AS without_sale_minor
    FROM coupons c LEFT JOIN orders o ON o.order_id = c.order_id
    WHERE c.state = 'used' AND c.campaign_id = $campaign
      AND ($since IS NULL OR c.used_at >= $since) AND ($until IS NULL OR c.used_at < $until)
    GROUP BY ALL
),
booked AS (
    SELECT currency, sum(amount_minor) AS booked_minor
    FROM campaign_events
    WHERE type = 'cost_booked' AND campaign_id = $campaign
      AND ($since IS NULL OR occurred_at >= $since) AND ($until IS NULL OR occurred_at < $until)
    GROUP BY ALL
)
SELECT coalesce(d.currency, b.currency) AS currency, coalesce(d.discount_minor, 0) AS discount_minor,
       coalesce(d.without_sale_minor, 0) AS without_sale_minor, coalesce(b.booked_minor, 0) AS booked_minor
FROM discounts d FULL JOIN booked b ON b.currency = d.currency
ORDER BY currency
