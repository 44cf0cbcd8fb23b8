-- Which events of these coupons were published, conflicts included, and at which position? Grain: one content of one
-- event.
SELECT * EXCLUDE (key_hash)
FROM (SELECT * FROM coupon_events UNION ALL SELECT * FROM coupon_conflicts)
WHERE key_hash IN (SELECT unnest($key_hashes::BIGINT[])) AND coupon_id IN (SELECT unnest($coupons::VARCHAR[]))
