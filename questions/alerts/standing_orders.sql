-- Which violations of orders count for an alert, and how much money is at stake in each?
-- Grain: one violation that is neither explained, provisional nor superseded. Input: `chosen`, the hashes of the keys
-- that are asked for, unless $everything. `fault_at`: when it happened. `use`: a hash that violations of the same use
-- share. `money_minor`: null if no money is at stake.
-- `campaign`: that of the coupon that the violation names, else the first one by name among the coupons that are in use
-- on the order or that it names; `channel`: the order's; '' if there is none. `needed_coupons`: the ids of the coupons
-- that the values depend on. `money_minor`:
-- - `unrecorded_use`: the face value while the coupon can be used once more, otherwise 0
-- - `discount_mismatch`: the difference
-- - `paid_after_cancel`: the amount paid
WITH counted AS MATERIALIZED (
    SELECT v.violation AS code, v.key_hash, v.key, v.counterpart, v.occurred_at AS fault_at
    FROM judged_violations v
    WHERE v.topic = 'order.events' AND ($everything OR v.key_hash IN (SELECT key_hash FROM chosen))
      AND NOT v.explained AND NOT v.provisional AND NOT superseded(v.event_id, v.violation)
),
orders_at_fault AS MATERIALIZED (
    SELECT o.key_hash, o.order_id AS key, o.channel, o.currency, o.net_minor, o.coupon_ids,
           coalesce(list_sum([d.amount_minor FOR d IN o.discounts IF d.kind = 'coupon']), 0) AS stated_minor
    FROM orders o SEMI JOIN counted v ON o.key_hash = v.key_hash AND o.order_id = v.key
),
in_use AS (
    SELECT o.key_hash, o.key, sum(s.discount_minor) AS used_minor, min(s.campaign_id) AS campaign,
           list(s.coupon_id) AS coupons
    FROM orders_at_fault o JOIN coupon_sales s ON s.order_hash = o.key_hash AND s.order_id = o.key
    GROUP BY ALL
),
named AS (
    SELECT o.key_hash, o.key, min(c.campaign_id) AS campaign
    FROM (SELECT key_hash, key, unnest(coupon_ids) AS coupon_id FROM orders_at_fault) o
    JOIN coupons c ON c.coupon_id = o.coupon_id
    GROUP BY ALL
),
of_orders AS (
    SELECT v.key_hash, v.code, v.fault_at, coalesce(c.campaign_id, least(i.campaign, n.campaign)) AS campaign, o.channel,
           v.counterpart AS coupon, v.key AS "order", coalesce(o.currency, c.currency) AS currency,
           hash(v.key_hash, v.code, v.counterpart) AS use,
           CASE v.code WHEN 'discount_mismatch' THEN abs(o.stated_minor - coalesce(i.used_minor, 0))
                       WHEN 'paid_after_cancel' THEN o.net_minor
                       WHEN 'unrecorded_use' THEN if(c.state IN ('used', 'expired', 'revoked'), 0, c.face_value_minor)
           END AS money_minor,
           list_concat(coalesce(o.coupon_ids, []), coalesce(i.coupons, []), [v.counterpart]) AS needed_coupons
    FROM counted v
    LEFT JOIN orders_at_fault o ON o.key_hash = v.key_hash AND o.key = v.key
    LEFT JOIN in_use i ON i.key_hash = v.key_hash AND i.key = v.key
    LEFT JOIN named n ON n.key_hash = v.key_hash AND n.key = v.key
    LEFT JOIN coupons c ON c.coupon_id = v.counterpart
)
SELECT key_hash, code, fault_at, coalesce(campaign, '') AS campaign, coalesce(channel, '') AS channel, coupon, "order",
       currency, use, if(money_minor < 0, 0, money_minor)::BIGINT AS money_minor, needed_coupons
FROM of_orders
