-- Which events and coupons lost money to broken rules? Grain: one point of loss and event; an event can be in several
-- points. `lost_minor` is in the currency of the order, else of the coupon. For a `used` event, it is the event's
-- discount; for a coupon issued or claimed above the stock or a limit, the discount of its use now, if any; for a
-- discount above the coupon's value, the excess. Explained and provisional violations lost nothing (see
-- judged_violations.sql).
WITH counted AS (
    SELECT violation, topic, scope, key_hash, key, event_id, counterpart FROM judged_violations
    WHERE NOT explained AND NOT provisional
),
events AS (
    SELECT v.violation, v.key_hash, v.key, v.event_id FROM counted v WHERE v.topic = 'coupon.events' AND v.scope = 'coupon'
),
of_events AS (
    SELECT CASE WHEN v.violation = 'used_when_used' THEN 'double_use'
                WHEN v.violation = 'used_when_revoked' THEN 'use_after_revocation'
                WHEN v.violation = 'used_when_expired' OR v.violation = 'outside_validity' THEN 'use_outside_validity'
                WHEN v.violation = 'wrong_user' THEN 'wrong_user'
                WHEN v.violation = 'wrong_order' THEN 'wrong_order'
                WHEN v.violation = 'no_owner' THEN 'use_without_claim'
                ELSE 'use_without_issue' END AS point,
           v.key_hash, v.key AS coupon_id, v.event_id, e.order_id, e.discount_minor
    FROM events v
    JOIN coupon_events e ON e.key_hash = v.key_hash AND e.coupon_id = v.key AND e.event_id = v.event_id
    WHERE e.type = 'used'
      AND v.violation IN ('used_when_used', 'used_when_revoked', 'used_when_expired', 'outside_validity', 'wrong_user',
                          'wrong_order', 'no_owner', 'used_when_none', 'used_when_created')
),
across AS (
    SELECT CASE v.violation WHEN 'use_not_returned' THEN 'use_on_cancelled_order' WHEN 'orphan_use' THEN 'use_without_paid_order'
                ELSE v.violation END AS point, c.key_hash, c.coupon_id, v.event_id, c.order_id,
           CASE WHEN c.state <> 'used' THEN 0
                WHEN v.violation = 'discount_above_value'
                THEN c.discount_minor - least(o.gross_minor, CASE WHEN c.coupon_type IN ('cash', 'threshold') THEN c.face_value_minor
                         WHEN c.coupon_type = 'percent' THEN (o.gross_minor::HUGEINT * c.percent_off_bp + 9999) // 10000 END)
                ELSE c.discount_minor END AS discount_minor
    FROM counted v
    JOIN coupons c ON c.coupon_id = if(v.topic = 'coupon.events', v.key, v.counterpart)
    LEFT JOIN orders o ON o.order_id = c.order_id
    WHERE v.scope = 'cross'
      AND v.violation IN ('use_not_returned', 'orphan_use', 'over_issue', 'over_user_limit', 'over_person_limit',
                          'outside_claim_window', 'below_min_spend', 'below_min_after_refund', 'discount_above_value')
),
points AS (
    SELECT DISTINCT point, key_hash, coupon_id, event_id, order_id, discount_minor
    FROM (SELECT * FROM of_events UNION ALL SELECT * FROM across)
)
SELECT p.point, c.campaign_id, coalesce(o.currency, c.currency) AS currency, p.coupon_id, p.event_id, c.owner, p.order_id,
       p.discount_minor AS lost_minor
FROM points p JOIN coupons c ON c.key_hash = p.key_hash AND c.coupon_id = p.coupon_id
LEFT JOIN orders o ON o.order_id = p.order_id
WHERE $campaign IS NULL OR c.campaign_id = $campaign
