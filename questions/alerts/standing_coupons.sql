-- Which violations of coupons, campaigns and users count for an alert, and how much money is at stake in each?
-- Grain: one violation that is neither explained, provisional nor superseded. Input: `chosen`, the hashes of the keys
-- that are asked for, unless $everything. `fault_at`: when it happened. `use`: a hash that violations of the same use
-- share. `money_minor`: null if no money is at stake.
-- `campaign`, `channel`: those of the coupon; '' if it has none. `money_minor`:
-- - an event `used` breaks a rule: its discount
-- - a rule between topics: the discount of the use; of `discount_above_value`, the excess
-- - a rule of a campaign: the discount if the coupon is used, its face value while it can still be used, otherwise 0
WITH counted AS MATERIALIZED (
    SELECT v.violation AS code, v.topic, v.scope, v.key_hash, v.key, v.event_id, v.counterpart, v.occurred_at AS fault_at,
           CASE WHEN v.scope = 'coupon' AND v.violation <> 'conflicting_duplicate' THEN v.event_id END AS breaking_event
    FROM judged_violations v
    WHERE v.topic <> 'order.events' AND ($everything OR v.key_hash IN (SELECT key_hash FROM chosen))
      AND NOT v.explained AND NOT v.provisional AND NOT superseded(v.event_id, v.violation)
),
of_coupons AS (
    SELECT v.key_hash, v.code, v.fault_at, c.campaign_id AS campaign,
           coalesce(c.claim_channel, c.issue_channel) AS channel, v.key AS coupon, v.counterpart AS "order",
           coalesce(s.currency, c.currency) AS currency,
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
elsewhere AS (
    SELECT key_hash, code, fault_at, if(topic = 'campaign.events', key, NULL) AS campaign, NULL AS channel,
           NULL AS coupon, NULL AS "order", NULL AS currency, hash(key_hash, event_id) AS use, NULL AS money_minor
    FROM counted WHERE topic <> 'coupon.events'
)
SELECT key_hash, code, fault_at, coalesce(campaign, '') AS campaign, coalesce(channel, '') AS channel, coupon, "order",
       currency, use, if(money_minor < 0, 0, money_minor)::BIGINT AS money_minor
FROM (FROM of_coupons UNION ALL FROM elsewhere)
