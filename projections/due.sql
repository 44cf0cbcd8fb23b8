-- Which coupons are there, of those that a sweep looks at? Grain: one coupon, in the order of the rows, after the row
-- number `after`; which ones, and how many, the sweep adds. `ends_at`: its `valid_until`, or its last extension where
-- that lies behind.
SELECT rowid AS row_id, key_hash, coupon_id, state::VARCHAR AS state, owner IS NOT NULL AS owned, order_id, reserved_at,
       greatest(valid_until, extended_at) AS ends_at, campaign_id, coalesce(claim_channel, issue_channel) AS channel, currency, face_value_minor,
       last_event_at, last_type, first_recorded_at
FROM coupons
WHERE rowid > $after
