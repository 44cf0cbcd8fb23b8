-- How many coupon events were there? Grain: one combination of hour, event type, `to_user`, reason, campaign, coupon
-- type and channel. Has the columns of schema.sql except `key_hash`.
SELECT date_trunc('hour', e.occurred_at) AS hour, e.type, e.type = 'issued' AND e.user_id IS NOT NULL AS to_user, e.reason,
       c.campaign_id, c.coupon_type, coalesce(e.channel, c.claim_channel, c.issue_channel) AS channel, count(*) AS events
FROM coupon_events e JOIN coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id
GROUP BY ALL
