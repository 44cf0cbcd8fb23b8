-- Do the counts of a campaign's coupons balance? Grain: one statement. `counted` comes from the events in the journal,
-- `stands` from the coupons' rows. Only events that changed the state count as entries or exits. The violations show
-- which did not: an illegal event without effect has a violation that names the state before it.
WITH mine AS MATERIALIZED (
    SELECT key_hash, coupon_id, state FROM coupons WHERE campaign_id = $campaign
),
history AS MATERIALIZED (
    SELECT e.key_hash, e.coupon_id, e.event_id, e.type, e.occurred_at
    FROM coupon_events e JOIN mine m ON m.key_hash = e.key_hash AND m.coupon_id = e.coupon_id
),
moving AS (
    SELECT t.key_hash, t.coupon_id, t.type, t.occurred_at, t.event_id
    FROM history t
    WHERE t.type IN ('reserved', 'released', 'used', 'returned', 'expired', 'revoked') AND NOT EXISTS (
        FROM violations v
        WHERE v.topic = 'coupon.events' AND v.key_hash = t.key_hash AND v.key = t.coupon_id AND v.event_id = t.event_id
          AND (v.violation IN ('used_when_used', 'reserved_when_reserved', 'reserved_when_used',
                               'reserved_when_expired', 'reserved_when_revoked', 'expired_when_used',
                               'revoked_when_used')
               OR (t.type IN ('released', 'returned')
                   AND (v.violation = 'wrong_order' OR starts_with(v.violation, t.type || '_when_')))))
),
stepped AS (
    SELECT type, lag(type) OVER (PARTITION BY key_hash, coupon_id ORDER BY occurred_at, list_position(
               ['reserved', 'released', 'used', 'returned', 'expired', 'revoked'], type), encode(event_id)) AS before
    FROM moving
)
SELECT 'coupons with an event = sum over all states' AS statement,
       (SELECT count(*) FROM (SELECT DISTINCT key_hash, coupon_id FROM history)) AS counted,
       (SELECT count(*) FROM mine) AS stands
UNION ALL
SELECT 'entries into used - exits by returned = in state used',
       (SELECT count(*) FILTER (type = 'used') - count(*) FILTER (type = 'returned') FROM stepped),
       (SELECT count(*) FROM mine WHERE state = 'used')
UNION ALL
SELECT 'entries into reserved - exits = in state reserved',
       (SELECT count(*) FILTER (type = 'reserved')
               - count(*) FILTER (before = 'reserved' AND type IN ('released', 'used', 'expired', 'revoked')) FROM stepped),
       (SELECT count(*) FROM mine WHERE state = 'reserved')
