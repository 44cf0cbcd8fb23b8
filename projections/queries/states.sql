-- How many coupons are in each state? Grain: one state, in the order of the lifecycle. A filter that is null lets all pass.
SELECT state::VARCHAR AS state, count(*) AS coupons
FROM coupons
WHERE ($campaign_id IS NULL OR campaign_id = $campaign_id)
  AND ($state IS NULL OR state::VARCHAR = $state)
  AND ($owner IS NULL OR owner = $owner)
GROUP BY coupons.state
ORDER BY coupons.state
