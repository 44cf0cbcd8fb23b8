-- Which owners should be reminded? Grain: one usable coupon with an owner, earliest end first: its end is not before
-- the data's clock, and at most `within_s` seconds after it.
SELECT coupon_id, valid_until, owner, state::VARCHAR AS state, campaign_id, coupon_type, face_value_minor,
       percent_off_bp, min_spend_minor, currency, valid_from, coalesce(claim_channel, issue_channel) AS channel
FROM coupons CROSS JOIN (SELECT data_clock FROM ledger) l
WHERE state IN ('issued', 'claimed') AND owner IS NOT NULL
  AND valid_until BETWEEN l.data_clock AND l.data_clock + to_seconds($within_s)
  AND ($campaign IS NULL OR campaign_id = $campaign)
  AND ($channel IS NULL OR coalesce(claim_channel, issue_channel) = $channel)
ORDER BY valid_until, coupon_id
LIMIT coalesce($limit::BIGINT, 9223372036854775807)
