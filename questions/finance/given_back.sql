-- How much discount did orders get from uses that were returned since? Grain: one order. A coupon that was used on
-- the order and returned, and is not in use on it now, counts with the largest discount of its uses there; uses and
-- returns that broke the rules, and so had no effect, do not count.
WITH wrong AS (
    SELECT key_hash, key AS coupon_id, event_id FROM violations
    WHERE topic = 'coupon.events' AND scope = 'coupon' AND (starts_with(violation, 'returned_when') OR violation = 'wrong_order'
                                                            OR violation = 'used_when_used')
),
returned AS (
    SELECT DISTINCT r.key_hash, r.coupon_id, r.order_id
    FROM coupon_events r
    ANTI JOIN wrong w ON w.key_hash = r.key_hash AND w.coupon_id = r.coupon_id AND w.event_id = r.event_id
    WHERE r.type = 'returned'
),
used AS (
    SELECT u.order_hash, u.order_id, u.coupon_id, max(e.discount_minor) AS discount_minor
    FROM uses u
    SEMI JOIN returned r ON r.key_hash = u.key_hash AND r.coupon_id = u.coupon_id AND r.order_id = u.order_id
    JOIN coupon_events e ON e.key_hash = u.key_hash AND e.coupon_id = u.coupon_id AND e.event_id = u.event_id
    ANTI JOIN wrong w ON w.key_hash = u.key_hash AND w.coupon_id = u.coupon_id AND w.event_id = u.event_id
    ANTI JOIN coupons_in_use i ON i.key_hash = u.key_hash AND i.coupon_id = u.coupon_id AND i.order_id = u.order_id
    GROUP BY ALL
)
SELECT order_hash, order_id, sum(discount_minor) AS back_minor FROM used GROUP BY ALL
