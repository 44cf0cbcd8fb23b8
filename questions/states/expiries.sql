-- Why did coupons expire, and what were they worth? Grain: one reason, campaign, channel (each null if not grouped by
-- it) and currency, over the coupons that are expired now. `channel`: that of the claim, else of the issue.
-- `face_value_minor`: sum over the coupons that have a face value, null if none has; `without_value`: number of coupons
-- without one (a percentage, a gift). `since`, `until`: bounds of the expiry.
SELECT CASE WHEN $by_reason THEN reason END AS reason, CASE WHEN $by_campaign THEN campaign_id END AS campaign_id,
       CASE WHEN $by_channel THEN coalesce(claim_channel, issue_channel) END AS channel, currency,
       count(*) AS coupons, sum(face_value_minor) AS face_value_minor,
       count(*) FILTER (face_value_minor IS NULL) AS without_value
FROM coupons
WHERE state = 'expired'
  AND ($campaign IS NULL OR campaign_id = $campaign)
  AND ($since::TIMESTAMP IS NULL OR ended_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR ended_at < $until)
GROUP BY ALL
ORDER BY coupons DESC, 1 NULLS LAST, 2 NULLS LAST, 3 NULLS LAST, currency
