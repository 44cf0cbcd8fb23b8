-- Which violations count for an alert, and how much money is at stake in each? Grain: one violation that is neither
-- explained, provisional nor superseded. $codes: only these codes. `fault_at`: when it happened, at most the data's clock.
-- `campaign`, `channel`: those of the coupon; of a violation of an order, the campaign that comes first by name among
-- the coupons that are in use on it or that it names, and the order's channel; '' if there is none. `coupon`, `order`:
-- whom it concerns, as far as the violation says. `use`: a hash that violations of the same use share. `money_minor`:
-- null if no money is at stake:
-- - an event `used` breaks a rule: its discount
-- - a rule between topics, of a use: the discount of the use; of `discount_above_value`, the excess
-- - a rule of a campaign: the discount if the coupon is used, its face value while it can still be used, otherwise 0
-- - `unrecorded_use`: the face value while the coupon can be used once more, otherwise 0
-- - `discount_mismatch`: the difference; `paid_after_cancel`: the amount paid
WITH counted AS MATERIALIZED (
    SELECT v.violation AS code, v.topic, v.scope, v.key_hash, v.key, v.event_id, v.counterpart, v.occurred_at AS fault_at,
           CASE WHEN v.scope = 'coupon' AND v.violation <> 'conflicting_duplicate' THEN v.event_id END AS breaking_event
    FROM judged_violations v
    WHERE list_contains($codes, v.violation) AND NOT v.explained AND NOT v.provisional
      AND NOT superseded(v.event_id, v.violation)
),
of_coupons AS (
    SELECT v.code, v.fault_at, c.campaign_id AS campaign, coalesce(c.claim_channel, c.issue_channel) AS channel,
           v.key AS coupon, v.counterpart AS "order", coalesce(s.currency, c.currency) AS currency,
           hash(v.key_hash, CASE WHEN v.scope = 'cross' AND c.state = 'used' THEN c.used_event_id ELSE v.event_id END) AS use,
           CASE WHEN v.scope = 'coupon' THEN e.discount_minor
                WHEN v.code IN ('over_issue', 'over_user_limit', 'over_person_limit', 'outside_claim_window')
                THEN CASE WHEN c.state = 'used' THEN c.discount_minor
                          WHEN c.state IN ('expired', 'revoked') THEN 0 ELSE c.face_value_minor END
                WHEN c.state <> 'used' THEN 0
                WHEN v.code = 'discount_above_value'
                THEN c.discount_minor - least(s.gross_minor, CASE WHEN c.coupon_type IN ('cash', 'threshold') THEN c.face_value_minor
                         WHEN c.coupon_type = 'percent' THEN (s.gross_minor::HUGEINT * c.percent_off_bp + 9999) // 10000 END)
                ELSE c.discount_minor END AS money_minor
    FROM counted v
    LEFT JOIN coupons c ON c.key_hash = v.key_hash AND c.coupon_id = v.key
    LEFT JOIN coupon_sales s ON s.key_hash = v.key_hash AND s.coupon_id = v.key
    LEFT JOIN (SELECT key_hash, coupon_id, event_id, discount_minor FROM coupon_events WHERE type = 'used') e
           ON e.key_hash = v.key_hash AND e.coupon_id = v.key AND e.event_id = v.breaking_event
    WHERE v.topic = 'coupon.events'
),
orders_at_fault AS MATERIALIZED (
    SELECT DISTINCT v.key_hash, v.key, o.channel, o.currency, o.net_minor, o.coupon_ids,
           coalesce(list_sum([d.amount_minor FOR d IN o.discounts IF d.kind = 'coupon']), 0) AS stated_minor
    FROM counted v JOIN orders o ON o.key_hash = v.key_hash AND o.order_id = v.key
    WHERE v.topic = 'order.events'
),
in_use AS (
    SELECT o.key_hash, o.key, sum(s.discount_minor) AS used_minor, min(s.campaign_id) AS campaign
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
    SELECT v.code, v.fault_at, coalesce(c.campaign_id, least(i.campaign, n.campaign)) AS campaign, o.channel,
           v.counterpart AS coupon, v.key AS "order", coalesce(o.currency, c.currency) AS currency,
           hash(v.key_hash, v.code, v.counterpart) AS use,
           CASE v.code WHEN 'discount_mismatch' THEN abs(o.stated_minor - coalesce(i.used_minor, 0))
                       WHEN 'paid_after_cancel' THEN o.net_minor
                       WHEN 'unrecorded_use' THEN if(c.state IN ('used', 'expired', 'revoked'), 0, c.face_value_minor)
           END AS money_minor
    FROM counted v
    LEFT JOIN orders_at_fault o ON o.key_hash = v.key_hash AND o.key = v.key
    LEFT JOIN in_use i ON i.key_hash = v.key_hash AND i.key = v.key
    LEFT JOIN named n ON n.key_hash = v.key_hash AND n.key = v.key
    LEFT JOIN coupons c ON c.coupon_id = v.counterpart
    WHERE v.topic = 'order.events'
),
elsewhere AS (
    SELECT code, fault_at, if(topic = 'campaign.events', key, NULL) AS campaign, NULL AS channel, NULL AS coupon,
           NULL AS "order", NULL AS currency, hash(key_hash, event_id) AS use, NULL AS money_minor
    FROM counted WHERE topic NOT IN ('coupon.events', 'order.events')
)
SELECT code, least(fault_at, (SELECT data_clock FROM ledger)) AS fault_at, coalesce(campaign, '') AS campaign,
       coalesce(channel, '') AS channel, coupon, "order", currency, use, if(money_minor < 0, 0, money_minor)::BIGINT AS money_minor
FROM (FROM of_coupons UNION ALL FROM of_orders UNION ALL FROM elsewhere)
