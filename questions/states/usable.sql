-- What decides whether a coupon can be used? Grain: one coupon with the hash `$key_hash` (other coupons can have it too).
SELECT coupon_id, state::VARCHAR AS state, owner, order_id AS on_order, campaign_id, coupon_type, face_value_minor,
       percent_off_bp, min_spend_minor, currency, valid_from, valid_until, used_at, ended_at
FROM coupons
WHERE key_hash = $key_hash
