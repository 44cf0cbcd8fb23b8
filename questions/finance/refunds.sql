-- How much was refunded, and were the discounts clawed back with it? Grain: one currency, over orders that were
-- cancelled after payment or have a refund, even of zero. `clawed_back_minor`: discounts of coupons whose use was
-- returned (input: `given_back`, given_back.sql); `not_clawed_back_minor`: discounts of coupons that are still in use
-- on an order that is cancelled or fully refunded.
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
)
SELECT b.currency, count(*) FILTER (cancelled) AS cancelled_orders, count(*) FILTER (refunded) AS refunded_orders,
       count(*) FILTER (whole) AS fully_refunded_orders, count(*) FILTER (refunded_minor > net_minor) AS refunded_above_order,
       sum(refunded_minor) AS refunded_minor,
       coalesce(sum(greatest(net_minor - refunded_minor, 0)) FILTER (cancelled), 0) AS cancelled_minor,
       coalesce(sum(g.back_minor), 0) AS clawed_back_minor,
       coalesce(sum(i.discount_minor) FILTER (cancelled OR whole), 0) AS not_clawed_back_minor
FROM back b
LEFT JOIN in_use i ON i.order_hash = b.key_hash AND i.order_id = b.order_id
LEFT JOIN given_back g ON g.order_hash = b.key_hash AND g.order_id = b.order_id
GROUP BY ALL
ORDER BY b.currency
