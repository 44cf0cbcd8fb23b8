-- Which coupons were in state `used`? Grain: one coupon. The columns of the live table, without the hash of the order.
SELECT order_id, key_hash, coupon_id, used_at, used_event_id, discount_minor, min_spend_minor, coupon_type,
       face_value_minor, percent_off_bp
FROM coupons WHERE state = 'used'
