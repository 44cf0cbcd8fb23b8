-- Is every used coupon listed under its order, as its row says?
-- Grain: one coupon, missing or superfluous. An offender: the rules between topics read a wrong state.
WITH wanted AS (
    SELECT order_id, key_hash, coupon_id, used_at, used_event_id, discount_minor, min_spend_minor, coupon_type,
           face_value_minor, percent_off_bp
    FROM coupons WHERE key_hash BETWEEN $first AND $last AND state = 'used'
),
kept AS (
    SELECT order_id, key_hash, coupon_id, used_at, used_event_id, discount_minor, min_spend_minor, coupon_type,
           face_value_minor, percent_off_bp
    FROM coupons_in_use WHERE key_hash BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
