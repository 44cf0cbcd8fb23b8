-- Which coupons does this person have, and which of them can be used now? Grain: one coupon, usable ones first, then by
-- earliest end. `standing`: for an issued or claimed coupon, `usable` (the data's clock is within its validity),
-- `not_yet` (before it) or `expired` (after it); for any other, its state.
SELECT coupon_id,
       CASE WHEN state NOT IN ('issued', 'claimed') THEN state::VARCHAR
            WHEN valid_until < l.data_clock THEN 'expired'
            WHEN valid_from > l.data_clock THEN 'not_yet'
            ELSE 'usable' END AS standing,
       state::VARCHAR AS state, owner, campaign_id, coupon_type, face_value_minor, percent_off_bp, min_spend_minor,
       currency, valid_from, valid_until, order_id, discount_minor, reason, last_event_at, violations
FROM coupons CROSS JOIN (SELECT data_clock FROM ledger) l
WHERE owner IN (SELECT unnest($ids::VARCHAR[]))
ORDER BY list_position(['usable', 'not_yet', 'reserved', 'used', 'expired', 'revoked'], standing), valid_until, coupon_id
