-- Does every order that stands have the path that coupons, orders and users say, with its touches?
-- Grain: one order whose path is missing, superfluous or another. An offender: attribution credits the wrong touches.
-- The latest 100 touches of the 90 days before the payment. Persons of whom something is stale are left out.
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
-- Of touches at one instant the kind decides, then a hash; here they only have to be the same ones.
led AS (
    SELECT w.order_id, t.moment, t.source, row_number() OVER (PARTITION BY w.order_id ORDER BY t.moment DESC) AS back
    FROM whose w
    JOIN touches t ON t.person = w.person AND t.moment <= w.paid_at AND t.moment >= w.paid_at - INTERVAL 90 DAY
),
wanted AS (
    SELECT w.order_id, w.person, {
               paid_at: w.paid_at, currency: w.currency, sales_minor: w.sales_minor, touches: count(l.moment),
               moments: coalesce(list(l.moment ORDER BY l.moment) FILTER (l.back <= 100), []),
               sources: if(count(l.moment) > 100, NULL,
                           coalesce(list(l.source ORDER BY l.moment, l.source) FILTER (l.moment IS NOT NULL), []))
           } AS says
    FROM whose w LEFT JOIN led l ON l.order_id = w.order_id
    GROUP BY w.order_id, w.person, w.paid_at, w.currency, w.sales_minor
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
