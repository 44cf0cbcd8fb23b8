-- Which coupons were in state `used`? Grain: one coupon. Has the columns of the live table `coupons_in_use` except
-- `order_hash`. The caller appends a condition.
SELECT order_id, key_hash, coupon_id, used_at, used_event_id, discount_minor, min_spend_minor, coupon_type,
       face_value_minor, percent_off_bp
FROM coupons WHERE state = 'used'
