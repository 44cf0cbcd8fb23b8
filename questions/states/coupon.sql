-- What is the state of this coupon? Grain: one coupon.
SELECT coupon_id, state::VARCHAR AS state, campaign_id, coupon_type, face_value_minor, percent_off_bp, min_spend_minor,
       currency, valid_from, valid_until, owner, order_id, discount_minor, issue_channel, claim_channel, reason,
       created_at, issued_at, claimed_at, reserved_at, used_at, ended_at, last_event_at, events, violations
FROM coupons
WHERE key_hash = $key_hash AND coupon_id = $coupon_id
