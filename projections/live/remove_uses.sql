-- Deletes the `used` events in `removed` (key_hash, coupon_id, event_id), which are no longer facts.
DELETE FROM uses u USING removed r
WHERE u.key_hash = r.key_hash AND u.coupon_id = r.coupon_id AND u.event_id = r.event_id
