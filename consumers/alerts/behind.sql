-- What stands behind an alert? Grain: the alert. `events_behind`: the events (evidence.py). `rows`: the first `n` of them
-- by time. `seen`: the first coupons, users and devices among them, `m` of each. `money_minor`: the discounts of their
-- coupons; of a coupon without a discount, its face value; in `currency`, which of several is the one with most coupons.
WITH first_events AS (
    SELECT event_id, type, occurred_at, coupon_id, user_id, order_id, log_partition, log_offset, recorded_at
    FROM events_behind ORDER BY occurred_at, recorded_at, log_partition, log_offset LIMIT $n
),
listed AS (
    SELECT list({
        'event_id': event_id, 'type': type, 'occurred_at': occurred_at, 'coupon_id': coupon_id, 'user_id': user_id,
        'order_id': order_id, 'log_partition': log_partition, 'log_offset': log_offset
    } ORDER BY occurred_at, recorded_at, log_partition, log_offset) AS rows
    FROM first_events
),
counted AS (
    SELECT count(*) AS count, count(DISTINCT user_id) AS users, count(DISTINCT coupon_id) AS coupons,
           count(DISTINCT order_id) AS orders
    FROM events_behind
),
named AS (
    SELECT name, id, min(occurred_at) AS first_at
    FROM (
        SELECT occurred_at, unnest([
            {'name': 'coupon_id', 'id': coupon_id},
            {'name': 'user_id', 'id': user_id},
            {'name': 'device_id', 'id': device_id}
        ], recursive := true)
        FROM events_behind
    )
    WHERE id IS NOT NULL GROUP BY name, id
    QUALIFY row_number() OVER (PARTITION BY name ORDER BY first_at, id) <= $m
),
seen AS (
    SELECT list(id ORDER BY first_at, id) FILTER (name = 'coupon_id') AS coupon_id,
           list(id ORDER BY first_at, id) FILTER (name = 'user_id') AS user_id,
           list(id ORDER BY first_at, id) FILTER (name = 'device_id') AS device_id
    FROM named
),
money AS (
    SELECT sum(coalesce(discount_minor, face_value_minor)) AS money_minor, currency
    FROM coupons
    WHERE key_hash IN (SELECT key_hash FROM events_behind) AND coupon_id IN (SELECT coupon_id FROM events_behind)
      AND coalesce(discount_minor, face_value_minor) IS NOT NULL AND currency IS NOT NULL
    GROUP BY currency ORDER BY count(*) DESC, currency LIMIT 1
)
SELECT listed.rows, counted.count, counted.users, counted.coupons, counted.orders, money.money_minor, money.currency,
       seen
FROM listed CROSS JOIN counted CROSS JOIN seen LEFT JOIN money ON true
