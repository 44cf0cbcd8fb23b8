-- What decides whether these coupons can be used? Grain: one coupon of `$coupons` that has an event.
SELECT coupon_id, state::VARCHAR AS state, owner, order_id AS on_order, campaign_id, coupon_type, face_value_minor,
       percent_off_bp, min_spend_minor, currency, valid_from, valid_until, used_at, ended_at
FROM coupons
WHERE key_hash IN (SELECT unnest($hashes::BIGINT[])) AND coupon_id IN (SELECT unnest($coupons::VARCHAR[]))
