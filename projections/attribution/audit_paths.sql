-- Does every order that stands have the path that coupons, orders and users say, with its touches?
-- Grain: one order whose path is missing, superfluous or different. An offender: attribution credits the wrong touches.
-- A path has the latest 100 touches of the 90 days before the payment. Persons with an id in `stale_users` are left
-- out.
WITH stale AS (
    SELECT DISTINCT coalesce(p.person, s.user_id) AS person FROM stale_users s LEFT JOIN persons p ON p.user_id = s.user_id
),
whose AS (
    SELECT o.order_id, coalesce(p.person, o.user_id) AS person, o.paid_at, o.currency,
           (o.net_minor - coalesce(o.refunded_minor, 0))::BIGINT AS sales_minor
    FROM orders o LEFT JOIN persons p ON p.user_id = o.user_id
    WHERE stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor)
      AND o.key_hash BETWEEN $first AND $last
),
touched AS (
    SELECT acquired_by AS user_id, issued_at AS moment, 'issued' AS kind, issue_channel AS channel, campaign_id
    FROM coupons c
    WHERE acquired_at = issued_at
      AND EXISTS (FROM coupon_events e WHERE e.key_hash = c.key_hash AND e.coupon_id = c.coupon_id
                  AND e.event_id = c.acquired_event_id AND e.type = 'issued')
    UNION ALL
    SELECT owner, claimed_at, 'claimed', claim_channel, campaign_id FROM coupons
    WHERE owner IS NOT NULL AND claimed_at IS NOT NULL
    UNION ALL
    SELECT user_id, occurred_at, kind, channel, campaign_id FROM user_events WHERE type = 'touched'
),
touches AS (
    SELECT coalesce(p.person, t.user_id) AS person, t.moment, s.source
    FROM touched t LEFT JOIN persons p ON p.user_id = t.user_id
    LEFT JOIN touch_sources s ON s.kind = t.kind AND s.channel IS NOT DISTINCT FROM t.channel
                             AND s.campaign_id IS NOT DISTINCT FROM t.campaign_id
),
-- The touches of each person are numbered in order. The touches on the path of an order are then a range of these
-- numbers, and each touch is joined only with the orders whose range contains it. Touches of the same instant are
-- compared without regard to their order.
numbered AS (
    SELECT person, moment, source, row_number() OVER (PARTITION BY person ORDER BY moment, source) AS number
    FROM touches WHERE person IN (SELECT person FROM whose)
),
counted AS (
    SELECT person, moment, max(number) AS number FROM numbered GROUP BY person, moment
),
bounded AS (
    SELECT w.*, coalesce(e.number, 0) AS last_number, coalesce(b.number, 0) AS before_number
    FROM whose w
    ASOF LEFT JOIN counted e ON e.person = w.person AND e.moment <= w.paid_at
    ASOF LEFT JOIN counted b ON b.person = w.person AND b.moment < w.paid_at - INTERVAL 90 DAY
),
led AS (
    SELECT order_id, person, unnest(range(greatest(before_number, last_number - 100) + 1, last_number + 1)) AS number
    FROM bounded
),
listed AS (
    SELECT l.order_id, list(n.moment ORDER BY n.moment) AS moments, list(n.source ORDER BY n.moment, n.source) AS sources
    FROM led l JOIN numbered n ON n.person = l.person AND n.number = l.number
    GROUP BY l.order_id
),
wanted AS (
    SELECT b.order_id, b.person, {
               paid_at: b.paid_at, currency: b.currency, sales_minor: b.sales_minor,
               touches: b.last_number - b.before_number, moments: coalesce(l.moments, []),
               sources: if(b.last_number - b.before_number > 100, NULL, coalesce(l.sources, []))
           } AS says
    FROM bounded b LEFT JOIN listed l ON l.order_id = b.order_id
),
kept AS (
    SELECT p.order_id, p.person, if(count(*) OVER (PARTITION BY p.order_id) > 1, NULL, {
               paid_at: p.ended_at, currency: p.currency, sales_minor: p.sales_minor, touches: p.touches,
               moments: p.touched_at,
               sources: if(p.touches > 100, NULL,
                           [e.source FOR e IN list_sort([{moment: p.touched_at[n], source: p.sources[n]}
                                                         FOR n IN range(1, len(p.sources) + 1)])])
           }) AS says
    FROM paths p JOIN orders o ON o.order_id = p.order_id
    WHERE o.key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT p.order_id, p.person, NULL FROM paths p
    WHERE p.order_id IS NOT NULL AND NOT EXISTS (FROM orders o WHERE o.order_id = p.order_id)
)
SELECT coalesce(w.order_id, k.order_id) AS order_id, w.person AS wanted_person, k.person AS kept_person,
       w.says AS wanted, k.says AS kept
FROM wanted w FULL JOIN kept k ON k.order_id = w.order_id
WHERE (w.person IS DISTINCT FROM k.person OR w.says IS DISTINCT FROM k.says)
  AND NOT EXISTS (FROM stale s WHERE s.person = w.person OR s.person = k.person)
