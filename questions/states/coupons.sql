-- Which coupons are there? Grain: one coupon; the question adds order and limit. A filter that is null matches all.
-- `channel`: the coupon was issued or claimed there. `since`, `until`: bounds of its last event. `ended_since`,
-- `ended_until`: bounds of its end (expired or revoked). `ended_days`: leave out coupons that ended more than this many
-- days before the data's clock.
SELECT coupon_id, state::VARCHAR AS state, campaign_id, coupon_type, face_value_minor, percent_off_bp, min_spend_minor,
       currency, valid_from, valid_until, owner, order_id, discount_minor, issue_channel, claim_channel, reason,
       created_at, issued_at, claimed_at, reserved_at, used_at, ended_at, last_event_at, events, violations
FROM coupons
WHERE ($campaign IS NULL OR campaign_id = $campaign)
  AND ($state IS NULL OR state::VARCHAR = $state)
  AND ($owner IS NULL OR owner = $owner)
  AND ($coupon_type IS NULL OR coupon_type = $coupon_type)
  AND ($channel IS NULL OR issue_channel = $channel OR claim_channel = $channel)
  AND ($since::TIMESTAMP IS NULL OR last_event_at >= $since)
  AND ($until::TIMESTAMP IS NULL OR last_event_at < $until)
  AND ($ended_since::TIMESTAMP IS NULL OR ended_at >= $ended_since)
  AND ($ended_until::TIMESTAMP IS NULL OR ended_at < $ended_until)
  AND ($ended_days::BIGINT IS NULL OR state NOT IN ('expired', 'revoked') OR ended_at IS NULL
       OR ended_at >= (SELECT data_clock - to_days($ended_days::INTEGER) FROM ledger))
