-- Which coupons are there? Grain: one coupon, by id. A filter that is null lets all pass.
SELECT coupon_id, state::VARCHAR AS state, campaign_id, coupon_type, face_value_minor, percent_off_bp, min_spend_minor,
       currency, valid_from, valid_until, owner, order_id, discount_minor, issue_channel, claim_channel, reason,
       created_at, issued_at, claimed_at, reserved_at, used_at, ended_at, last_event_at, events, violations
FROM coupons
WHERE ($campaign_id IS NULL OR campaign_id = $campaign_id)
  AND ($state IS NULL OR state::VARCHAR = $state)
  AND ($owner IS NULL OR owner = $owner)
ORDER BY coupon_id
LIMIT coalesce($limit::BIGINT, 9223372036854775807)
