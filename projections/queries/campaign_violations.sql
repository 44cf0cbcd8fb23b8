-- Which rules were broken around a campaign's coupons, and what is at stake? Grain: one violation and currency. Counted
-- are faults (not the superseded, see violations.sql) of the campaign itself, of its coupons, and of orders that have or
-- name one; `discount_minor`: what these coupons take off now, each once.
WITH mine AS (
    SELECT key_hash, coupon_id, owner, currency, CASE WHEN state = 'used' THEN discount_minor END AS discount_minor
    FROM coupons WHERE campaign_id = $campaign
),
named AS (
    SELECT DISTINCT o.order_id, m.*
    FROM (SELECT order_id, unnest(coupon_ids) AS coupon_id FROM orders) o JOIN mine m ON m.coupon_id = o.coupon_id
),
faults AS (
    SELECT * FROM violations WHERE NOT superseded(event_id, violation)
),
concerned AS (
    SELECT f.violation, f.scope, f.topic, f.key, f.event_id, f.counterpart, f.occurred_at, m.coupon_id, m.owner, m.currency,
           m.discount_minor
    FROM faults f JOIN mine m ON f.topic = 'coupon.events' AND m.key_hash = f.key_hash AND m.coupon_id = f.key
    UNION ALL
    SELECT f.violation, f.scope, f.topic, f.key, f.event_id, f.counterpart, f.occurred_at, n.coupon_id, n.owner, n.currency,
           n.discount_minor
    FROM faults f JOIN named n ON f.topic = 'order.events' AND n.order_id = f.key AND coalesce(f.counterpart, n.coupon_id) = n.coupon_id
    UNION ALL
    SELECT f.violation, f.scope, f.topic, f.key, f.event_id, f.counterpart, f.occurred_at, NULL, NULL, NULL, NULL
    FROM faults f WHERE f.topic = 'campaign.events' AND f.key = $campaign
),
stakes AS (
    SELECT violation, currency, sum(discount_minor)::BIGINT AS discount_minor
    FROM (SELECT DISTINCT violation, currency, coupon_id, discount_minor FROM concerned) GROUP BY ALL
)
SELECT c.violation, c.scope, c.currency, count(DISTINCT (c.topic, c.key, c.event_id, c.counterpart)) AS cases,
       count(DISTINCT c.coupon_id) AS coupons, count(DISTINCT c.owner) AS users,
       coalesce(any_value(s.discount_minor), 0) AS discount_minor, min(c.occurred_at) AS first_at,
       max(c.occurred_at) AS last_at
FROM concerned c
LEFT JOIN stakes s ON s.violation = c.violation AND s.currency IS NOT DISTINCT FROM c.currency
GROUP BY c.violation, c.scope, c.currency
ORDER BY cases DESC, c.violation, c.currency NULLS LAST
