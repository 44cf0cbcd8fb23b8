-- Is every `used` event of the journal listed under its order?
-- Grain: one event, missing or superfluous. An offender: `unrecorded_use` is missed, or reported wrongly.
WITH wanted AS (
    SELECT order_id, key_hash, coupon_id, event_id, recorded_at
    FROM coupon_events WHERE key_hash BETWEEN $first AND $last AND type = 'used'
),
kept AS (
    SELECT order_id, key_hash, coupon_id, event_id, recorded_at FROM uses WHERE key_hash BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
