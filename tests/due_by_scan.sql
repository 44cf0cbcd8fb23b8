-- Which coupons are there to expire, or held for too long, at `until`? Grain: one coupon, by id.
-- `hold_until` and `reservation` are of the event that reserved it, `lapsed`: that hold is over. `told`: its history
-- must tell when it was there to expire, since something happened after its end; else it was in its state then, and
-- `follows` is the last event that it has folded. `campaign_over`: its campaign had ended before its end.
WITH holds AS (
    -- Of several reservations at one instant the canonically first one counts.
    SELECT c.key_hash, c.coupon_id, first(e.event_id ORDER BY e.event_id) AS reservation,
           first(e.hold_until ORDER BY e.event_id) AS hold_until
    FROM coupons c
    JOIN coupon_events e ON e.key_hash = c.key_hash AND e.coupon_id = c.coupon_id AND e.occurred_at = c.reserved_at
         AND e.order_id = c.order_id
    WHERE c.state = 'reserved' AND c.reserved_at < $until AND e.type = 'reserved'
    GROUP BY c.key_hash, c.coupon_id
),
coupons AS (
    SELECT *, CASE WHEN extended_at > valid_until THEN extended_at ELSE valid_until END AS ends_at FROM main.coupons
),
chosen AS MATERIALIZED (
    SELECT c.key_hash, c.coupon_id, c.state, c.owner IS NOT NULL AS owned, c.order_id, c.reserved_at, c.ends_at,
           c.campaign_id, coalesce(c.claim_channel, c.issue_channel) AS channel, c.currency, c.face_value_minor,
           c.last_event_at, c.last_type, h.reservation, h.hold_until, coalesce(h.hold_until < $until, false) AS lapsed,
           coalesce(c.ends_at < $until AND (c.state = 'reserved' OR c.last_event_at > c.ends_at), false) AS told
    FROM coupons c LEFT JOIN holds h ON h.key_hash = c.key_hash AND h.coupon_id = c.coupon_id
    WHERE CASE c.state WHEN 'reserved' THEN coalesce(h.hold_until < $until, false)
                                            OR (c.ends_at < $until AND c.reserved_at > c.ends_at)
                       ELSE c.state IN ('created', 'issued', 'claimed') AND c.ends_at < $until END
),
last AS (
    SELECT c.key_hash, c.coupon_id, max(e.event_id) AS follows
    FROM chosen c
    JOIN coupon_events e ON e.key_hash = c.key_hash AND e.coupon_id = c.coupon_id AND e.occurred_at = c.last_event_at
    WHERE NOT c.told AND c.state <> 'reserved' AND e.type = ($types::VARCHAR[])[c.last_type + 1]
    GROUP BY c.key_hash, c.coupon_id
),
standing AS (
    SELECT campaign_id, occurred_at, last(type ORDER BY list_position($standing::VARCHAR[], type), event_id) AS status
    FROM campaign_events WHERE list_contains($standing::VARCHAR[], type)
    GROUP BY campaign_id, occurred_at
)
SELECT c.key_hash, c.coupon_id, c.state::VARCHAR AS state, c.owned, c.order_id, c.reserved_at, c.ends_at,
       c.campaign_id, c.channel, c.currency, c.face_value_minor, c.reservation, c.hold_until, c.lapsed, c.told,
       l.follows, coalesce(s.status = 'ended', false) AS campaign_over
FROM chosen c
LEFT JOIN last l ON l.key_hash = c.key_hash AND l.coupon_id = c.coupon_id
ASOF LEFT JOIN standing s ON s.campaign_id = c.campaign_id AND c.ends_at > s.occurred_at
ORDER BY c.coupon_id
