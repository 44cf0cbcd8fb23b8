-- How many coupons had been acquired in each of these campaigns (`ruled`, those with terms)? Grain: one campaign.
SELECT campaign_id, count(*) AS coupons
FROM coupons SEMI JOIN ruled USING (campaign_id)
WHERE acquired_at IS NOT NULL
GROUP BY campaign_id ORDER BY campaign_id
