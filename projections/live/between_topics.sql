-- Which rules between topics do some orders and the coupons in use on them break, whether or not the grace is over?
-- Grain: one rule, order and coupon; the coupon is null for a rule about the order as a whole.
-- Input: `order_values` (one row per order that has events), `in_use` (the coupons in use on the orders, including
-- orders without events), `named` (the coupons that paid orders name but that are not in use on them). `event_id`,
-- `occurred_at`: the event that breaks the rule. `triggered_at`, `trigger_…`: the event with which the grace begins.
-- This is either an event of the order, with its `trigger_recorded_at`, or the `used` event of a coupon
-- (`trigger_hash`, `trigger_coupon_id`, `trigger_event_id`). A `discount_mismatch` is listed even if a coupon that the
-- order names is still reserved for it; the caller drops these. $types: the types of order events in canonical order.
WITH o AS MATERIALIZED (
    SELECT order_hash, order_id, gross_minor, net_minor, coalesce(refunded_minor, 0) AS refunded_minor, paid_at,
           cancelled_at, repaid_at, coupon_ids,
           stands(paid_at, cancelled_at, net_minor, refunded_minor) AS stands,
           refunded_whole(net_minor, refunded_minor) AS refunded_whole,
           coalesce(list_sum([d.amount_minor::HUGEINT FOR d IN discounts IF d.kind = 'coupon']), 0) AS coupon_discounts_minor
    FROM order_values
),
u AS MATERIALIZED (
    SELECT i.order_hash, i.order_id, i.key_hash, i.coupon_id, i.used_at, i.used_event_id, i.discount_minor,
           i.min_spend_minor, o.gross_minor, o.refunded_minor, o.paid_at,
           coalesce(o.cancelled_at IS NOT NULL OR o.refunded_whole, false) AS undone,
           coalesce(o.stands, false) AS stands,
           coalesce(o.stands AND NOT coalesce(list_contains(o.coupon_ids, i.coupon_id), false)
                    AND o.coupon_ids IS NOT NULL, false) AS not_named,
           coalesce(i.coupon_type IN ('cash', 'threshold') AND i.discount_minor > i.face_value_minor, false) AS above_face,
           coalesce(i.discount_minor > o.gross_minor, false)
               OR coalesce(i.coupon_type = 'percent' AND i.discount_minor
                           > (o.gross_minor::HUGEINT * i.percent_off_bp + 9999) // 10000, false) AS above_share
    FROM in_use i LEFT JOIN o ON o.order_hash = i.order_hash AND o.order_id = i.order_id
),
unrecorded AS MATERIALIZED (
    SELECT n.* FROM named n
    SEMI JOIN (FROM o WHERE stands) o ON o.order_hash = n.order_hash AND o.order_id = n.order_id
    ANTI JOIN uses s ON s.order_hash = n.order_hash AND s.order_id = n.order_id AND s.key_hash = n.key_hash
                    AND s.coupon_id = n.coupon_id
),
taken AS (
    SELECT order_hash, order_id, sum(discount_minor::HUGEINT) AS taken_minor,
           max(struct_pack(used_at := used_at, event_id := used_event_id, coupon_id := coupon_id, key_hash := key_hash))
               AS last_use
    FROM u GROUP BY ALL
),
mismatched AS MATERIALIZED (
    SELECT o.order_hash, o.order_id, t.last_use
    FROM o LEFT JOIN taken t ON t.order_hash = o.order_hash AND t.order_id = o.order_id
    WHERE o.stands AND o.coupon_ids IS NOT NULL AND (len(o.coupon_ids) > 0 OR t.last_use IS NOT NULL)
      AND o.coupon_discounts_minor <> coalesce(t.taken_minor, 0)
),
suspects AS (
    SELECT order_hash, order_id FROM unrecorded
    UNION SELECT order_hash, order_id FROM mismatched
    UNION SELECT order_hash, order_id FROM o WHERE repaid_at IS NOT NULL
    UNION SELECT order_hash, order_id FROM u
    WHERE undone OR not_named OR above_share OR gross_minor < min_spend_minor
       OR (stands AND gross_minor - refunded_minor < min_spend_minor)
),
-- The events of the orders that may break a rule.
e AS MATERIALIZED (
    SELECT e.key_hash AS order_hash, e.order_id, e.type, e.occurred_at, e.refund_minor,
           e.gross_minor IS NOT NULL AS carries_gross, e.discounts IS NOT NULL AS carries_discounts,
           e.coupon_ids IS NOT NULL AS carries_coupons,
           struct_pack(event_id := e.event_id, occurred_at := e.occurred_at, recorded_at := e.recorded_at) AS event,
           row_number() OVER (PARTITION BY e.key_hash, e.order_id
                              ORDER BY e.occurred_at, list_position($types, e.type), e.event_id) AS place
    FROM order_events e SEMI JOIN suspects s ON e.key_hash = s.order_hash AND e.order_id = s.order_id
),
places AS MATERIALIZED (
    SELECT order_hash, order_id, min(place) FILTER (type = 'cancelled') AS first_cancelled,
           max(place) FILTER (type = 'paid') AS last_paid
    FROM e GROUP BY ALL
),
events AS (
    SELECT e.order_hash, e.order_id,
           arg_min(event, place) FILTER (type = 'paid') AS paid,
           arg_min(event, place) FILTER (type = 'paid' AND place > p.first_cancelled) AS repaid,
           min(struct_pack(place := place, event := event))
               FILTER (type = 'cancelled' AND place > coalesce(p.last_paid, 0)) AS cancelled,
           arg_max(event, place) FILTER (carries_gross) AS gross,
           arg_max(event, place) FILTER (carries_coupons) AS coupons,
           arg_max(event, place) FILTER (carries_discounts OR carries_coupons) AS discounting,
           coalesce(arg_max(event, place) FILTER (carries_discounts), arg_max(event, place) FILTER (carries_coupons))
               AS discounts
    FROM e JOIN places p ON p.order_hash = e.order_hash AND p.order_id = e.order_id
    GROUP BY ALL
),
refunds AS MATERIALIZED (
    SELECT order_hash, order_id, place, event,
           sum(refund_minor::HUGEINT) OVER (PARTITION BY order_hash, order_id ORDER BY place) AS so_far
    FROM e WHERE type = 'refunded'
),
refunded_whole AS (
    SELECT r.order_hash, r.order_id, min(struct_pack(place := place, event := event)) AS refunded
    FROM refunds r JOIN o ON o.order_hash = r.order_hash AND o.order_id = r.order_id
    WHERE o.refunded_whole AND r.so_far >= o.net_minor
    GROUP BY ALL
),
undone AS (
    SELECT v.order_hash, v.order_id, least(v.cancelled, w.refunded).event AS event
    FROM events v LEFT JOIN refunded_whole w ON w.order_hash = v.order_hash AND w.order_id = v.order_id
),
fell_below AS (
    SELECT u.order_hash, u.order_id, u.key_hash, u.coupon_id, any_value(u.used_at) AS used_at,
           any_value(u.used_event_id) AS used_event_id, arg_min(r.event, r.place) AS event
    FROM u JOIN refunds r ON r.order_hash = u.order_hash AND r.order_id = u.order_id
    WHERE u.stands AND u.gross_minor >= u.min_spend_minor AND u.gross_minor - u.refunded_minor < u.min_spend_minor
      AND u.gross_minor - r.so_far < u.min_spend_minor
    GROUP BY ALL
),
-- All violations. `by_order`: the event of the order with which the grace begins. Null if it begins with the use.
broken AS (
    SELECT 'orphan_use' AS violation, u.order_hash, u.order_id, u.key_hash, u.coupon_id, u.used_event_id AS event_id,
           u.used_at AS occurred_at, NULL AS by_order, u.used_at, u.used_event_id, u.key_hash AS use_hash,
           u.coupon_id AS use_coupon_id
    FROM u WHERE u.paid_at IS NULL
    UNION ALL
    SELECT 'use_not_returned', u.order_hash, u.order_id, u.key_hash, u.coupon_id, u.used_event_id, u.used_at, x.event,
           NULL, NULL, NULL, NULL
    FROM u JOIN undone x ON x.order_hash = u.order_hash AND x.order_id = u.order_id
    WHERE u.undone
    UNION ALL
    SELECT 'use_not_named', u.order_hash, u.order_id, u.key_hash, u.coupon_id, u.used_event_id, u.used_at,
           if(v.coupons.occurred_at > u.used_at, v.coupons, NULL), u.used_at, u.used_event_id, u.key_hash, u.coupon_id
    FROM u JOIN events v ON v.order_hash = u.order_hash AND v.order_id = u.order_id
    WHERE u.not_named
    UNION ALL
    SELECT 'below_min_spend', u.order_hash, u.order_id, u.key_hash, u.coupon_id, u.used_event_id, u.used_at,
           if(v.gross.occurred_at > u.used_at, v.gross, NULL), u.used_at, u.used_event_id, u.key_hash, u.coupon_id
    FROM u JOIN events v ON v.order_hash = u.order_hash AND v.order_id = u.order_id
    WHERE u.gross_minor < u.min_spend_minor
    UNION ALL
    SELECT 'below_min_after_refund', b.order_hash, b.order_id, b.key_hash, b.coupon_id, b.event.event_id,
           b.event.occurred_at, if(b.used_at > b.event.occurred_at, NULL, b.event), b.used_at, b.used_event_id, b.key_hash,
           b.coupon_id
    FROM fell_below b
    UNION ALL
    SELECT 'discount_above_value', u.order_hash, u.order_id, u.key_hash, u.coupon_id, u.used_event_id, u.used_at,
           if(NOT u.above_face AND v.gross.occurred_at > u.used_at, v.gross, NULL), u.used_at, u.used_event_id,
           u.key_hash, u.coupon_id
    FROM u LEFT JOIN events v ON v.order_hash = u.order_hash AND v.order_id = u.order_id
    WHERE u.above_face OR u.above_share
    UNION ALL
    SELECT 'unrecorded_use', n.order_hash, n.order_id, n.key_hash, n.coupon_id, v.paid.event_id, v.paid.occurred_at,
           v.paid, NULL, NULL, NULL, NULL
    FROM unrecorded n JOIN events v ON v.order_hash = n.order_hash AND v.order_id = n.order_id
    UNION ALL
    SELECT 'discount_mismatch', m.order_hash, m.order_id, NULL, NULL, v.discounts.event_id, v.discounts.occurred_at,
           if(m.last_use.used_at > v.discounting.occurred_at, NULL, v.discounting), m.last_use.used_at,
           m.last_use.event_id, m.last_use.key_hash, m.last_use.coupon_id
    FROM mismatched m JOIN events v ON v.order_hash = m.order_hash AND v.order_id = m.order_id
    UNION ALL
    SELECT 'paid_after_cancel', v.order_hash, v.order_id, NULL, NULL, v.repaid.event_id, v.repaid.occurred_at, v.repaid,
           NULL, NULL, NULL, NULL
    FROM events v WHERE v.repaid IS NOT NULL
)
SELECT violation, order_hash, order_id, key_hash, coupon_id, event_id, occurred_at,
       coalesce(by_order.occurred_at, used_at) AS triggered_at,
       if(by_order IS NULL, 'coupon.events', 'order.events') AS trigger_topic,
       by_order.recorded_at AS trigger_recorded_at,
       if(by_order IS NULL, use_hash, NULL) AS trigger_hash,
       if(by_order IS NULL, use_coupon_id, NULL) AS trigger_coupon_id,
       if(by_order IS NULL, used_event_id, NULL) AS trigger_event_id
FROM broken
