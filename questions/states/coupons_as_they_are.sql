-- Which values of these coupons (input: `wanted`) do the rules across coupons read? Grain: one existing coupon.
SELECT key_hash, coupon_id, state::VARCHAR AS state, campaign_id, acquired_at, acquired_event_id, acquired_by, order_id,
       used_at, used_event_id, discount_minor, min_spend_minor, coupon_type, face_value_minor, percent_off_bp
FROM coupons c SEMI JOIN wanted w ON c.key_hash = w.key_hash AND c.coupon_id = w.coupon_id
