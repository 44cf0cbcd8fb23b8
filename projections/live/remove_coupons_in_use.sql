-- These coupons are in use no more, or otherwise. `removed`: key_hash, coupon_id.
DELETE FROM coupons_in_use u USING removed r WHERE u.key_hash = r.key_hash AND u.coupon_id = r.coupon_id
