-- How many coupons had been acquired in each campaign in `ruled`, the campaigns with terms? Grain: one campaign. Reads
-- the past rows.
SELECT campaign_id, count(*) AS coupons
FROM coupons SEMI JOIN ruled USING (campaign_id)
WHERE acquired_at IS NOT NULL
GROUP BY campaign_id ORDER BY campaign_id
