-- Which coupons are in use, and what are the values of their orders? Grain: one coupon in state `used`. Has the columns
-- of schema.sql except `order_hash`. The caller may append a condition.
SELECT c.key_hash, c.coupon_id, c.order_id, c.used_at, c.acquired_at, c.discount_minor, c.campaign_id, c.coupon_type,
       coalesce(c.claim_channel, c.issue_channel) AS coupon_channel, c.owner, c.currency AS coupon_currency,
       o.user_id AS buyer, o.channel, o.store, o.region, o.currency, o.gross_minor, o.net_minor, o.refunded_minor,
       o.cost_of_goods_minor, CASE WHEN o.cost_of_goods_minor IS NULL THEN o.lines END AS lines, o.paid_at, o.cancelled_at
FROM coupons c LEFT JOIN orders o ON o.order_id = c.order_id
WHERE c.state = 'used'
