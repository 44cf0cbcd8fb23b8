-- What has happened to these coupons? Grain: one event, as it was told.
SELECT * EXCLUDE (key_hash, recorded_at, log_partition, log_offset)
FROM coupon_events WHERE key_hash IN (SELECT unnest($key_hashes::BIGINT[]))
