-- Which coupons are used on this order? Grain: one coupon, by id.
SELECT coupon_id, campaign_id, coalesce(claim_channel, issue_channel) AS channel, used_at, coalesce(discount_minor, 0) AS took
FROM coupons WHERE state = 'used' AND order_id = $order ORDER BY coupon_id
