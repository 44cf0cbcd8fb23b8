-- What did this campaign cost? Grain: one currency. `discount_minor`: of its coupons in use on orders that stand;
-- `booked_minor`: every `cost_booked`, corrections (negative ones) included.
WITH discounts AS (
    SELECT p.currency, sum(c.discount_minor)::BIGINT AS discount_minor
    FROM coupons c JOIN paths p ON p.order_id = c.order_id
    WHERE c.state = 'used' AND c.campaign_id = $campaign
      AND ($since IS NULL OR p.ended_at >= $since) AND ($until IS NULL OR p.ended_at < $until)
    GROUP BY ALL
),
booked AS (
    SELECT currency, sum(amount_minor)::BIGINT AS booked_minor
    FROM campaign_events WHERE type = 'cost_booked' AND campaign_id = $campaign GROUP BY ALL
)
SELECT coalesce(d.currency, b.currency) AS currency, coalesce(d.discount_minor, 0) AS discount_minor,
       coalesce(b.booked_minor, 0) AS booked_minor
FROM discounts d FULL JOIN booked b ON b.currency = d.currency
ORDER BY currency
