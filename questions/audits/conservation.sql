-- Do the coupon counts of every campaign, and of all campaigns together, balance?
-- Grain: one campaign (null: coupons without one; `all`: all together) and statement. `counted` comes from the journal,
-- `stands` from the rows. An offender: coupons appeared or vanished, or one changed its state without an event. Only
-- events that changed the state count as entries or exits. The violations show which did not: an illegal event without
-- effect has a violation that names the state before it. This query returns the counts in parts, to be summed.
WITH mine AS (
    SELECT key_hash, coupon_id, campaign_id, state::VARCHAR AS state
    FROM coupons WHERE key_hash BETWEEN $first AND $last
),
history AS (
    SELECT key_hash, coupon_id, event_id, type, occurred_at
    FROM coupon_events WHERE key_hash BETWEEN $first AND $last
),
still AS (
    SELECT key_hash, key AS coupon_id, event_id, violation
    FROM violations
    WHERE topic = 'coupon.events' AND scope = 'coupon' AND key_hash BETWEEN $first AND $last
      AND (violation IN ('used_when_used', 'reserved_when_reserved', 'reserved_when_used', 'reserved_when_expired',
                         'reserved_when_revoked', 'expired_when_used', 'revoked_when_used', 'wrong_order')
           OR starts_with(violation, 'released_when_') OR starts_with(violation, 'returned_when_'))
),
moving AS (
    SELECT t.* FROM history t
    ANTI JOIN still s ON s.key_hash = t.key_hash AND s.coupon_id = t.coupon_id AND s.event_id = t.event_id
                     AND (s.violation <> 'wrong_order' OR t.type IN ('released', 'returned'))
    WHERE t.type IN ('reserved', 'released', 'used', 'returned', 'expired', 'revoked')
),
stepped AS (
    SELECT key_hash, coupon_id, type, lag(type) OVER (
               PARTITION BY key_hash, coupon_id ORDER BY occurred_at, list_position($coupon_types, type), event_id
           ) AS before
    FROM moving
),
moved AS (
    SELECT key_hash, coupon_id, count(*) FILTER (type = 'used') - count(*) FILTER (type = 'returned') AS used,
           count(*) FILTER (type = 'reserved') - count(*) FILTER (
               before = 'reserved' AND type IN ('released', 'used', 'expired', 'revoked')) AS reserved
    FROM stepped GROUP BY ALL
),
existing AS (
    SELECT DISTINCT key_hash, coupon_id FROM history
),
accounts AS (
    SELECT m.campaign_id, m.state, e.coupon_id IS NOT NULL AS existing, m.coupon_id IS NOT NULL AS has_row,
           coalesce(x.used, 0) AS used, coalesce(x.reserved, 0) AS reserved
    FROM mine m FULL JOIN existing e USING (key_hash, coupon_id)
    LEFT JOIN moved x USING (key_hash, coupon_id)
)
SELECT campaign_id, 'coupons with an event = sum over all states' AS statement,
       count(*) FILTER (existing) AS counted, count(*) FILTER (has_row) AS stands
FROM accounts GROUP BY ALL
UNION ALL
SELECT campaign_id, 'entries into used - exits by returned = in state used', sum(used)::BIGINT,
       count(*) FILTER (state = 'used')
FROM accounts GROUP BY ALL
UNION ALL
SELECT campaign_id, 'entries into reserved - exits = in state reserved', sum(reserved)::BIGINT,
       count(*) FILTER (state = 'reserved')
FROM accounts GROUP BY ALL
