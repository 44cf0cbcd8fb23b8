-- How many coupons are in each state? Grain: one state, in the order of the lifecycle. Filters as in coupons.sql;
-- `long_ended`: the coupons that `ended_days` would leave out there.
SELECT state::VARCHAR AS state, count(*) AS coupons,
       count(*) FILTER (state IN ('expired', 'revoked')
           AND ended_at < (SELECT data_clock - to_days($ended_days::INTEGER) FROM ledger)) AS long_ended
FROM coupons
WHERE ($campaign IS NULL OR campaign_id = $campaign)
  AND ($state IS NULL OR state::VARCHAR = $state)
  AND ($owner IS NULL OR owner = $owner)
  AND ($coupon_type IS NULL OR coupon_type = $coupon_type)
  AND ($channel IS NULL OR issue_channel = $channel OR claim_channel = $channel)
  AND ($since::TIMESTAMP IS NULL OR last_event_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR last_event_at < $until)
GROUP BY coupons.state
ORDER BY coupons.state
