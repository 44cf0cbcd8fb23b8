-- How far did each campaign's coupons get? Grain: one campaign that has coupons or events of its own; coupons without a
-- campaign are one group (null). Counts are of distinct coupons with such an event, legal or not; `in_use`: coupons in
-- state used now; `owned`: those with an owner; `begun_at`: when its first coupon was created. `violations`: the input
-- `faults` (campaign_faults.sql), of single coupons and across coupons. claim_rate = claimed / (coupons issued without
-- a user); use_rate = in_use / owned. `discounts`: discount of its coupons in use, by currency (of the order, else of
-- the coupon); `discount_minor` with `currency`: the same if there is only one currency, else null.
WITH reached AS (
    SELECT key_hash, coupon_id, bool_or(type = 'issued') AS issued,
           bool_or(type = 'issued' AND user_id IS NULL) AS issued_open, bool_or(type = 'claimed') AS claimed,
           bool_or(type = 'used') AS used, bool_or(type = 'returned') AS returned, bool_or(type = 'expired') AS expired
    FROM coupon_events GROUP BY ALL
),
funnel AS (
    SELECT c.campaign_id, count(*) FILTER (r.issued) AS issued, count(*) FILTER (r.issued_open) AS issued_open,
           count(*) FILTER (r.claimed) AS claimed, count(*) FILTER (r.used) AS used,
           count(*) FILTER (r.returned) AS returned, count(*) FILTER (r.expired) AS expired
    FROM reached r JOIN coupons c ON c.key_hash = r.key_hash AND c.coupon_id = r.coupon_id
    GROUP BY c.campaign_id
),
stock AS (
    SELECT campaign_id, count(*) AS coupons, min(coalesce(created_at, issued_at)) AS begun_at,
           count(*) FILTER (state = 'used') AS in_use,
           count(*) FILTER (owner IS NOT NULL) AS owned
    FROM coupons GROUP BY campaign_id
),
taken AS (
    SELECT campaign_id, list({currency: currency, discount_minor: discount_minor} ORDER BY currency) AS discounts,
           CASE WHEN count(*) = 1 THEN any_value(currency) END AS currency,
           CASE WHEN count(*) = 1 THEN any_value(discount_minor) END AS discount_minor
    FROM (SELECT campaign_id, coalesce(currency, coupon_currency) AS currency, sum(discount_minor) AS discount_minor
          FROM coupon_sales GROUP BY ALL)
    GROUP BY campaign_id
),
broken AS (
    SELECT campaign_id, count(DISTINCT (topic, key, event_id, violation, counterpart)) AS violations FROM faults
    GROUP BY campaign_id
),
known AS (
    SELECT campaign_id FROM stock UNION SELECT campaign_id FROM campaigns
)
SELECT k.campaign_id, p.name, p.status, coalesce(s.coupons, 0) AS coupons, coalesce(f.issued, 0) AS issued,
       coalesce(f.claimed, 0) AS claimed, coalesce(f.used, 0) AS used, coalesce(f.returned, 0) AS returned,
       coalesce(f.expired, 0) AS expired, coalesce(s.in_use, 0) AS in_use, coalesce(s.owned, 0) AS owned,
       round(f.claimed / nullif(f.issued_open, 0), 4) AS claim_rate,
       round(s.in_use / nullif(s.owned, 0), 4) AS use_rate,
       t.currency, CASE WHEN t.discounts IS NULL THEN 0 ELSE t.discount_minor END AS discount_minor,
       coalesce(t.discounts, []) AS discounts, coalesce(b.violations, 0) AS violations, s.begun_at
FROM known k
LEFT JOIN stock s ON s.campaign_id IS NOT DISTINCT FROM k.campaign_id
LEFT JOIN taken t ON t.campaign_id IS NOT DISTINCT FROM k.campaign_id
LEFT JOIN funnel f ON f.campaign_id IS NOT DISTINCT FROM k.campaign_id
LEFT JOIN broken b ON b.campaign_id IS NOT DISTINCT FROM k.campaign_id
LEFT JOIN campaigns p ON p.campaign_id = k.campaign_id
ORDER BY length(k.campaign_id), k.campaign_id
