-- How many uses of a campaign's coupons are on orders that are not known to be paid or do not stand, and what is their
-- discount? Grain: one currency (of the order, else of the coupon).
SELECT coalesce(o.currency, c.currency) AS currency, count(*) AS coupons, sum(c.discount_minor) AS discount_minor
FROM coupons c
LEFT JOIN orders o ON o.order_id = c.order_id
WHERE c.campaign_id = $campaign AND c.state = 'used'
  AND NOT coalesce(stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor), false)
GROUP BY ALL
ORDER BY currency NULLS LAST
