-- Deletes the acquisitions of the coupons in `removed` (key_hash, coupon_id).
DELETE FROM acquisitions a USING removed r WHERE a.key_hash = r.key_hash AND a.coupon_id = r.coupon_id
