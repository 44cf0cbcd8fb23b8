-- Which faults (violations that count, see violation_counts.sql) concern which campaign? Grain: one fault and coupon; a
-- fault of the campaign itself has no coupon. A fault of a coupon concerns that coupon; a fault of an order (no
-- matching use, or another amount) concerns the coupons that the order names. $campaign: only this campaign. $between:
-- include faults between coupons and orders. `discount_minor`: the coupon's discount now, in the currency of its order,
-- else its own.
WITH faults AS (
    SELECT violation, scope, topic, key_hash, key, event_id, counterpart, occurred_at
    FROM judged_violations
    WHERE NOT superseded(event_id, violation) AND NOT explained AND NOT provisional AND ($between OR order_hash IS NULL)
),
of_orders AS (
    SELECT DISTINCT f.*, unnest(o.coupon_ids) AS coupon_id
    FROM faults f JOIN orders o ON f.topic = 'order.events' AND o.key_hash = f.key_hash AND o.order_id = f.key
),
of_coupons AS (
    SELECT f.*, c.campaign_id, c.coupon_id, c.owner, coalesce(s.currency, c.currency) AS currency, c.state, c.discount_minor
    FROM faults f JOIN coupons c ON f.topic = 'coupon.events' AND c.key_hash = f.key_hash AND c.coupon_id = f.key
    LEFT JOIN coupon_sales s ON s.key_hash = c.key_hash AND s.coupon_id = c.coupon_id
    UNION ALL
    SELECT f.* EXCLUDE (coupon_id), c.campaign_id, c.coupon_id, c.owner, coalesce(s.currency, c.currency), c.state, c.discount_minor
    FROM of_orders f JOIN coupons c ON c.coupon_id = f.coupon_id AND coalesce(f.counterpart, f.coupon_id) = f.coupon_id
    LEFT JOIN coupon_sales s ON s.key_hash = c.key_hash AND s.coupon_id = c.coupon_id
    UNION ALL
    SELECT f.*, f.key, NULL, NULL, NULL, NULL, NULL FROM faults f WHERE f.topic = 'campaign.events'
)
SELECT campaign_id, violation, scope, topic, key, event_id, counterpart, occurred_at, coupon_id, owner, currency,
       CASE WHEN state = 'used' THEN discount_minor END AS discount_minor
FROM of_coupons
WHERE $campaign IS NULL OR campaign_id = $campaign
