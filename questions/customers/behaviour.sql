-- How far did people get, from view to return? Grain: one person (linked ids are one) and step with an event in the
-- period, for the campaign. Steps need not follow each other within one visit: a person who viewed and, on another day,
-- paid counts in both.
WITH touched AS (
    SELECT coalesce(p.person, e.user_id) AS user_id, kind FROM user_events e LEFT JOIN persons p ON p.user_id = e.user_id
    WHERE type = 'touched' AND ($campaign IS NULL OR campaign_id = $campaign)
      AND ($since::TIMESTAMP IS NULL OR occurred_at >= $since) AND ($until::TIMESTAMP IS NULL OR occurred_at < $until)
),
had AS (
    SELECT coalesce(p.person, c.acquired_by) AS user_id
    FROM coupons c LEFT JOIN persons p ON p.user_id = c.acquired_by
    WHERE acquired_at IS NOT NULL AND ($campaign IS NULL OR campaign_id = $campaign)
      AND ($since::TIMESTAMP IS NULL OR acquired_at >= $since) AND ($until::TIMESTAMP IS NULL OR acquired_at < $until)
),
in_use AS (
    SELECT u.order_hash, u.order_id FROM coupons_in_use u JOIN coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id
    WHERE $campaign IS NULL OR c.campaign_id = $campaign
),
ordered AS (
    SELECT coalesce(p.person, o.user_id) AS user_id, o.placed_at, o.paid_at, o.cancelled_at, o.refunded_minor
    FROM orders o LEFT JOIN persons p ON p.user_id = o.user_id
    WHERE ($since::TIMESTAMP IS NULL OR coalesce(o.placed_at, o.paid_at) >= $since)
      AND ($until::TIMESTAMP IS NULL OR coalesce(o.placed_at, o.paid_at) < $until)
      AND ($campaign IS NULL OR EXISTS (SELECT 1 FROM in_use i WHERE i.order_hash = o.key_hash AND i.order_id = o.order_id))
)
SELECT DISTINCT step, user_id FROM (
    SELECT kind AS step, user_id FROM touched WHERE kind IN ('view', 'cart')
    UNION ALL SELECT 'coupon', user_id FROM had
    UNION ALL SELECT 'ordered', user_id FROM ordered
    UNION ALL SELECT 'paid', user_id FROM ordered WHERE paid_at IS NOT NULL
    UNION ALL SELECT 'returned', user_id FROM ordered
              WHERE paid_at IS NOT NULL AND (cancelled_at IS NOT NULL OR refunded_minor IS NOT NULL)
)
WHERE user_id IS NOT NULL
