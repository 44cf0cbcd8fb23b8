-- Until when must the log have been read to know these faults? Grain: one row of `faults`: `row`, the hash of a key, and
-- when the fault happened. `recorded_at`: when the last event of the key was recorded that had happened by then. A fault
-- with several keys has several rows, and the latest instant counts.
WITH deliveries AS (
    SELECT key_hash, occurred_at, recorded_at FROM coupon_events
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM coupon_conflicts
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM order_events
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM order_conflicts
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM campaign_events
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM campaign_conflicts
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM user_events
    UNION ALL SELECT key_hash, occurred_at, recorded_at FROM user_conflicts
)
SELECT f.row, max(d.recorded_at) AS recorded_at
FROM faults f JOIN deliveries d ON d.key_hash = f.key_hash AND d.occurred_at <= f.fault_at
GROUP BY f.row
