-- How many coupons were acquired in each campaign that has events of its own? Grain: one campaign.
WITH acquired AS (
    SELECT campaign_hash, campaign_id, count(*) AS coupons FROM acquisitions GROUP BY ALL
)
SELECT c.key_hash AS campaign_hash, c.campaign_id, coalesce(a.coupons, 0) AS acquisitions
FROM campaigns c
LEFT JOIN acquired a ON a.campaign_hash = c.key_hash AND a.campaign_id = c.campaign_id
ORDER BY c.campaign_id
