-- Is every touch that led to no order in just one path without an order, and no such path of anybody else?
-- Grain: one person whose two numbers of touches differ. An offender: the probability of an order after a touch is
-- wrong. Persons with an id in `stale_users` are left out.
WITH touched AS (
    SELECT acquired_by AS user_id, issued_at AS moment FROM coupons c
    WHERE acquired_at = issued_at
      AND EXISTS (FROM coupon_events e WHERE e.key_hash = c.key_hash AND e.coupon_id = c.coupon_id
                  AND e.event_id = c.acquired_event_id AND e.type = 'issued')
    UNION ALL SELECT owner, claimed_at FROM coupons WHERE owner IS NOT NULL AND claimed_at IS NOT NULL
    UNION ALL SELECT user_id, occurred_at FROM user_events WHERE type = 'touched'
),
touches AS (
    SELECT coalesce(p.person, t.user_id) AS person, t.moment FROM touched t LEFT JOIN persons p ON p.user_id = t.user_id
),
-- The touches that led to no order: more than 90 days before the person's next order, or after the last one.
led AS (
    SELECT t.person, o.ended_at FROM touches t
    ASOF LEFT JOIN (SELECT person, ended_at FROM paths WHERE order_id IS NOT NULL) o
        ON o.person = t.person AND o.ended_at >= t.moment
    WHERE o.ended_at IS NULL OR o.ended_at > t.moment + INTERVAL 90 DAY
),
wanted AS (SELECT person, count(*) AS touches FROM led GROUP BY person),
kept AS (SELECT person, sum(touches)::BIGINT AS touches FROM paths WHERE order_id IS NULL GROUP BY person)
SELECT coalesce(w.person, k.person) AS person, coalesce(w.touches, 0) AS wanted, coalesce(k.touches, 0) AS kept
FROM wanted w FULL JOIN kept k ON k.person = w.person
WHERE w.touches IS DISTINCT FROM k.touches AND coalesce(w.person, k.person) NOT IN (
    SELECT coalesce(p.person, s.user_id) FROM stale_users s LEFT JOIN persons p ON p.user_id = s.user_id)
