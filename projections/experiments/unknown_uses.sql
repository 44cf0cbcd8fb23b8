-- How many uses of a campaign's coupons name an order that nobody told of as paid, or that does not stand, and with how
-- much discount? Grain: one row.
SELECT count(*) AS coupons, coalesce(sum(c.discount_minor), 0)::BIGINT AS discount_minor
FROM coupons c
LEFT JOIN orders o
    ON o.order_id = c.order_id AND stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor)
WHERE c.campaign_id = $campaign AND c.state = 'used' AND o.order_id IS NULL
