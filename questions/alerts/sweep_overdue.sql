-- Which coupons should have expired at $before or earlier, by the data's clock? Grain: one campaign ('': none).
-- `ends_at`: as in projections/due.sql.
SELECT coalesce(campaign_id, '') AS campaign, count(*) AS coupons, min(greatest(valid_until, extended_at)) AS first_at
FROM coupons
WHERE state IN ('created', 'issued', 'claimed') AND greatest(valid_until, extended_at) < $before
GROUP BY ALL
ORDER BY campaign
