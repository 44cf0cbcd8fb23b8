-- Which coupons of the campaigns in `chosen` had been acquired, when and by whom? Grain: one coupon. Reads the past
-- rows.
SELECT key_hash, coupon_id, campaign_id, acquired_at, acquired_event_id, acquired_by
FROM coupons SEMI JOIN chosen USING (campaign_id)
WHERE acquired_at IS NOT NULL
