-- Does every coupon have what its state requires and nothing that it rules out, and do the events that it names exist?
-- Grain: one coupon. An offender: its row contradicts itself or its journal.
WITH history AS (
    SELECT key_hash, coupon_id, event_id, type, occurred_at, user_id, order_id, discount_minor
    FROM coupon_events
    WHERE key_hash BETWEEN $first AND $last AND type IN ('issued', 'claimed', 'used')
),
kept AS (
    SELECT * FROM coupons WHERE key_hash BETWEEN $first AND $last
)
SELECT c.coupon_id, c.state, c.resting, c.owner, c.order_id, c.discount_minor, c.used_event_id, c.acquired_event_id, c.reason
FROM kept c
LEFT JOIN history u ON u.key_hash = c.key_hash AND u.coupon_id = c.coupon_id AND u.event_id = c.used_event_id
LEFT JOIN history a ON a.key_hash = c.key_hash AND a.coupon_id = c.coupon_id AND a.event_id = c.acquired_event_id
WHERE c.resting IN ('reserved', 'used')
   OR CASE c.state
          WHEN 'created' THEN c.created_at IS NULL
          WHEN 'issued' THEN c.issued_at IS NULL
          WHEN 'claimed' THEN c.claimed_at IS NULL OR c.owner IS NULL
          WHEN 'reserved' THEN c.reserved_at IS NULL OR c.order_id IS NULL OR c.discount_minor IS NOT NULL
          WHEN 'used' THEN c.order_id IS NULL OR c.discount_minor IS NULL OR c.used_event_id IS NULL
                        OR u.order_id IS DISTINCT FROM c.order_id OR u.discount_minor IS DISTINCT FROM c.discount_minor
          WHEN 'expired' THEN c.ended_at IS NULL OR c.reason IS NULL
          WHEN 'revoked' THEN c.ended_at IS NULL OR c.reason IS NULL
          ELSE false
      END
   OR (c.state IN ('none', 'created', 'issued', 'claimed') AND (c.order_id IS NOT NULL OR c.discount_minor IS NOT NULL))
   OR (c.used_event_id IS NULL) <> (c.used_at IS NULL)
   OR (c.used_event_id IS NOT NULL AND (u.type IS DISTINCT FROM 'used' OR u.occurred_at IS DISTINCT FROM c.used_at))
   OR (c.acquired_event_id IS NULL) <> (c.acquired_at IS NULL)
   OR (c.acquired_event_id IS NULL) <> (c.owner IS NULL)
   OR (c.acquired_event_id IS NOT NULL
       AND (a.type IS NULL OR a.type NOT IN ('issued', 'claimed') OR a.occurred_at IS DISTINCT FROM c.acquired_at
            OR a.user_id IS DISTINCT FROM c.acquired_by))
