-- What was given back, and were the discounts clawed back with it? Grain: one currency. Orders that were cancelled after
-- they were paid, or refunded. `clawed_back_minor`: discounts of coupons whose use was returned (of the `used` event);
-- `not_clawed_back_minor`: of coupons that are still in use on an order that is cancelled or fully refunded.
WITH back AS (
    SELECT key_hash, order_id, currency, net_minor, coalesce(refunded_minor, 0) AS refunded_minor,
           cancelled_at IS NOT NULL AS cancelled, refunded_minor IS NOT NULL AS refunded,
           refunded_whole(net_minor, refunded_minor) AS whole
    FROM orders
    WHERE paid_at IS NOT NULL AND (cancelled_at IS NOT NULL OR refunded_minor IS NOT NULL)
      AND ($since::TIMESTAMP IS NULL OR paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
),
in_use AS (
    SELECT order_hash, order_id, sum(discount_minor) AS discount_minor FROM coupons_in_use GROUP BY ALL
),
wrong AS (
    SELECT key_hash, key AS coupon_id, event_id FROM violations
    WHERE topic = 'coupon.events' AND scope = 'coupon' AND (starts_with(violation, 'returned_when') OR violation = 'wrong_order'
                                                            OR violation = 'used_when_used')
),
given_back AS (
    SELECT order_hash, order_id, sum(discount_minor) AS discount_minor FROM (
    SELECT u.order_hash, u.order_id, u.coupon_id, max(e.discount_minor) AS discount_minor
    FROM uses u
    JOIN coupon_events e ON e.key_hash = u.key_hash AND e.coupon_id = u.coupon_id AND e.event_id = u.event_id
    ANTI JOIN wrong w ON w.key_hash = u.key_hash AND w.coupon_id = u.coupon_id AND w.event_id = u.event_id
    ANTI JOIN coupons_in_use i ON i.key_hash = u.key_hash AND i.coupon_id = u.coupon_id AND i.order_id = u.order_id
    WHERE EXISTS (
        SELECT 1 FROM coupon_events r
        WHERE r.key_hash = u.key_hash AND r.coupon_id = u.coupon_id AND r.type = 'returned' AND r.order_id = u.order_id
          AND NOT EXISTS (SELECT 1 FROM wrong w WHERE w.key_hash = r.key_hash AND w.coupon_id = r.coupon_id
                                                  AND w.event_id = r.event_id)
    )
    GROUP BY ALL
    ) GROUP BY ALL
)
SELECT b.currency, count(*) FILTER (cancelled) AS cancelled_orders, count(*) FILTER (refunded) AS refunded_orders,
       count(*) FILTER (whole) AS fully_refunded_orders, count(*) FILTER (refunded_minor > net_minor) AS refunded_above_order,
       sum(refunded_minor)::BIGINT AS refunded_minor,
       coalesce(sum(greatest(net_minor - refunded_minor, 0)) FILTER (cancelled), 0)::BIGINT AS cancelled_minor,
       coalesce(sum(g.discount_minor), 0)::BIGINT AS clawed_back_minor,
       coalesce(sum(i.discount_minor) FILTER (cancelled OR whole), 0)::BIGINT AS not_clawed_back_minor
FROM back b
LEFT JOIN in_use i ON i.order_hash = b.key_hash AND i.order_id = b.order_id
LEFT JOIN given_back g ON g.order_hash = b.key_hash AND g.order_id = b.order_id
GROUP BY ALL
ORDER BY b.currency
