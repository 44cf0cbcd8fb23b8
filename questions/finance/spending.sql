-- What is spent from budgets? Grain: one coupon in use, with its discount in the currency of its order, else of the
-- coupon; or one booking of a cost (a negative one takes back an earlier one). $campaign: only this campaign.
SELECT c.campaign_id, coalesce(o.currency, c.currency) AS currency, c.used_at AS spent_at, 'discount' AS kind,
       c.discount_minor AS amount_minor, c.coupon_id, c.order_id, c.used_event_id AS event_id
FROM coupons c
LEFT JOIN orders o ON o.order_id = c.order_id
WHERE c.state = 'used' AND c.campaign_id IS NOT NULL AND ($campaign IS NULL OR c.campaign_id = $campaign)
UNION ALL
SELECT campaign_id, currency, occurred_at, cost_kind, amount_minor, NULL, NULL, event_id
FROM campaign_events WHERE type = 'cost_booked' AND ($campaign IS NULL OR campaign_id = $campaign)
