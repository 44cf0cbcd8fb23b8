-- Which records are behind the objects that a stage changed? Grain: one object, in one stage, and record. Inputs:
-- `changed_objects` (stage, kind, id) and `changed_records`. A record is behind an object if it names the object; if no
-- record of the stage does, then by way of the coupon's order or the order's coupons, else by way of the user.
WITH links AS (
    SELECT coupon_id, order_id FROM coupons WHERE order_id IS NOT NULL
    UNION SELECT coupon_id, order_id FROM changed_records WHERE coupon_id IS NOT NULL AND order_id IS NOT NULL
),
candidates AS (
    SELECT o.*, r.* EXCLUDE (stage, kind), 1 AS tier
    FROM changed_objects o JOIN changed_records r
      ON r.stage = o.stage AND r.object = o.id AND r.kind = o.kind
    UNION ALL BY NAME
    SELECT o.*, r.* EXCLUDE (stage, kind), 1 AS tier
    FROM changed_objects o JOIN changed_records r
      ON r.stage = o.stage AND o.kind = 'order_id' AND r.kind = 'coupon_id' AND r.order_id = o.id
    UNION ALL BY NAME
    SELECT o.*, r.* EXCLUDE (stage, kind), 2 AS tier
    FROM changed_objects o JOIN links l ON o.kind = 'coupon_id' AND l.coupon_id = o.id
    JOIN changed_records r ON r.stage = o.stage AND r.kind = 'order_id' AND r.object = l.order_id
    UNION ALL BY NAME
    SELECT o.*, r.* EXCLUDE (stage, kind), 2 AS tier
    FROM changed_objects o JOIN links l ON o.kind = 'order_id' AND l.order_id = o.id
    JOIN changed_records r ON r.stage = o.stage AND r.kind = 'coupon_id' AND r.object = l.coupon_id
    UNION ALL BY NAME
    SELECT o.*, r.* EXCLUDE (stage, kind), 3 AS tier
    FROM changed_objects o
    JOIN (
        SELECT 'coupon_id' AS of, coupon_id AS id, owner AS user_id FROM coupons
        UNION ALL SELECT 'order_id', order_id, user_id FROM orders
    ) u ON u.of = o.kind AND u.id = o.id
    JOIN changed_records r ON r.stage = o.stage AND r.kind = 'user_id' AND r.object = u.user_id
)
SELECT DISTINCT stage, kind, id, topic, log_partition, log_offset, event_id, type, occurred_at, recorded_at
FROM candidates
QUALIFY tier = min(tier) OVER (PARTITION BY stage, kind, id)
