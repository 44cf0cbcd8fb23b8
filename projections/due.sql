-- Which coupons does a sweep examine? Grain: one coupon, by row number. The sweep appends a condition and a LIMIT.
-- $after: only coupons after this row number. `ends_at`: `valid_until`, or the instant of the last extension if that is
-- later.
SELECT rowid AS row_id, key_hash, coupon_id, state::VARCHAR AS state, owner IS NOT NULL AS owned, order_id, reserved_at,
       greatest(valid_until, extended_at) AS ends_at, campaign_id, coalesce(claim_channel, issue_channel) AS channel, currency, face_value_minor,
       last_event_at, last_type, first_recorded_at
FROM coupons
WHERE rowid > $after
