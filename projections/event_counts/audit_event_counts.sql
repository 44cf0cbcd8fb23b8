-- Are there as many coupon events of each hour, type, reason, campaign, coupon type and channel as are counted?
-- Grain: one combination whose count is wrong, or is there twice. An offender: metrics of events by hour are wrong.
WITH wanted AS (
    SELECT date_trunc('hour', e.occurred_at) AS hour, e.type, e.type = 'issued' AND e.user_id IS NOT NULL AS to_user,
           e.reason, c.campaign_id, c.coupon_type, coalesce(e.channel, c.claim_channel, c.issue_channel) AS channel
    FROM coupon_events e JOIN coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id
),
compared AS (
    SELECT *, 1 AS happened, 0 AS counted, 0 AS times FROM wanted
    UNION ALL
    SELECT hour, type, to_user, reason, campaign_id, coupon_type, channel, 0, events, 1 FROM event_counts
)
SELECT hour, type, to_user, reason, campaign_id, coupon_type, channel, sum(happened)::BIGINT AS happened,
       sum(counted)::BIGINT AS counted
FROM compared GROUP BY ALL
HAVING sum(happened) <> sum(counted) OR sum(times) <> 1
