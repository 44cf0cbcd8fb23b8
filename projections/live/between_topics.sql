-- Which rules between topics are broken on orders that say something of themselves, or will be once they are due? Grain:
-- one order, rule, coupon. `orphan_use` is not among them. Given: `said`, the orders' rows; `in_use`, the coupons in use
-- on them; `named`, the coupons that they name beside those. `triggered_at`: what the grace counts from. `event_id`,
-- `occurred_at`: of the event at fault. $types: the order's types in canonical order.
WITH o AS MATERIALIZED (
    SELECT order_hash, order_id, gross_minor, net_minor, refunded_minor, paid_at, cancelled_at,
           len(coupon_ids) > 0 AS names_coupons,
           coalesce(list_sum([d.amount_minor FOR d IN discounts IF d.kind = 'coupon']), 0)::BIGINT AS told_minor
    FROM said
),
u AS MATERIALIZED (
    SELECT order_hash, order_id, key_hash, coupon_id, used_at, used_event_id, discount_minor, min_spend_minor FROM in_use
),
-- Those whose other half has no event at all, or another amount.
unrecorded AS MATERIALIZED (
    SELECT n.* FROM named n
    ANTI JOIN uses u ON u.order_hash = n.order_hash AND u.order_id = n.order_id AND u.key_hash = n.key_hash
                    AND u.coupon_id = n.coupon_id
),
taken AS (
    SELECT order_hash, order_id, sum(discount_minor)::BIGINT AS taken_minor, max(used_at) AS used_at
    FROM u GROUP BY ALL
),
mismatched AS MATERIALIZED (
    SELECT o.order_hash, o.order_id, t.used_at
    FROM o LEFT JOIN taken t ON t.order_hash = o.order_hash AND t.order_id = o.order_id
    WHERE o.names_coupons AND o.told_minor <> coalesce(t.taken_minor, 0)
),
below AS MATERIALIZED (
    SELECT u.* FROM u JOIN o ON o.order_hash = u.order_hash AND o.order_id = u.order_id
    WHERE o.gross_minor < u.min_spend_minor
),
paid_back AS MATERIALIZED (
    SELECT o.order_hash, o.order_id, o.net_minor
    FROM o SEMI JOIN u ON u.order_hash = o.order_hash AND u.order_id = o.order_id
    WHERE o.refunded_minor >= o.net_minor
),
suspects AS (
    SELECT order_hash, order_id FROM unrecorded UNION SELECT order_hash, order_id FROM mismatched
    UNION SELECT order_hash, order_id FROM below UNION SELECT order_hash, order_id FROM paid_back
),
-- What those orders' events say; of other orders nothing is needed.
e AS MATERIALIZED (
    SELECT e.key_hash AS order_hash, e.order_id, e.type, e.occurred_at, e.event_id, e.refund_minor,
           e.gross_minor IS NOT NULL AS carries_gross, e.discounts IS NOT NULL AS carries_discounts,
           e.coupon_ids IS NOT NULL AS carries_coupons,
           row_number() OVER (PARTITION BY e.key_hash, e.order_id
                              ORDER BY e.occurred_at, list_position($types, e.type), e.event_id) AS place
    FROM order_events e SEMI JOIN suspects s ON e.key_hash = s.order_hash AND e.order_id = s.order_id
),
told AS (
    SELECT order_hash, order_id,
           arg_min(event_id, place) FILTER (type = 'paid') AS paid_event_id,
           min(occurred_at) FILTER (type = 'paid') AS paid_at,
           max(occurred_at) FILTER (carries_gross) AS gross_at,
           max(occurred_at) FILTER (carries_discounts OR carries_coupons) AS discounts_at,
           -- The event that carries the discounts, or the coupons where none does.
           coalesce(arg_max(struct_pack(event_id := event_id, occurred_at := occurred_at), place) FILTER (carries_discounts),
                    arg_max(struct_pack(event_id := event_id, occurred_at := occurred_at), place) FILTER (carries_coupons))
               AS discounting
    FROM e GROUP BY ALL
),
refunds AS (
    SELECT order_hash, order_id, occurred_at,
           sum(refund_minor) OVER (PARTITION BY order_hash, order_id ORDER BY place) AS so_far
    FROM e WHERE type = 'refunded'
),
undone AS (
    SELECT order_hash, order_id, min(undone_at) AS undone_at
    FROM (
        SELECT order_hash, order_id, cancelled_at AS undone_at FROM o WHERE cancelled_at IS NOT NULL
        UNION ALL
        SELECT r.order_hash, r.order_id, r.occurred_at
        FROM refunds r JOIN paid_back b ON b.order_hash = r.order_hash AND b.order_id = r.order_id
        WHERE r.so_far >= b.net_minor
    )
    GROUP BY ALL
),
found AS (
    SELECT 'use_not_returned' AS violation, u.order_hash, u.order_id, u.key_hash, u.coupon_id,
           u.used_event_id AS event_id, u.used_at AS occurred_at, x.undone_at AS triggered_at
    FROM u JOIN undone x ON x.order_hash = u.order_hash AND x.order_id = u.order_id
    UNION ALL
    SELECT 'below_min_spend', b.order_hash, b.order_id, b.key_hash, b.coupon_id, b.used_event_id, b.used_at,
           greatest(b.used_at, t.gross_at)
    FROM below b JOIN told t ON t.order_hash = b.order_hash AND t.order_id = b.order_id
    UNION ALL
    SELECT 'unrecorded_use', n.order_hash, n.order_id, n.key_hash, n.coupon_id, t.paid_event_id, t.paid_at, t.paid_at
    FROM unrecorded n JOIN told t ON t.order_hash = n.order_hash AND t.order_id = n.order_id
    UNION ALL
    SELECT 'discount_mismatch', m.order_hash, m.order_id, NULL, NULL, t.discounting.event_id, t.discounting.occurred_at,
           greatest(t.discounts_at, m.used_at)
    FROM mismatched m JOIN told t ON t.order_hash = m.order_hash AND t.order_id = m.order_id
)
SELECT violation, order_hash, order_id, key_hash, coupon_id, event_id, occurred_at, triggered_at FROM found
