-- What was taken off the list price, and who bears it? Grain: one discount of one order and one of its funders.
-- Of orders that stand, what they say was taken off. Of a coupon, what its use says, while it is in state used: `sold`
-- tells whether its order stands (its channel, store and instant are then the order's). What an order says of coupons
-- beyond those uses (or less, negative) is a row without a coupon. An order that says nothing of coupons cannot be held
-- against its uses: these count, on top of what it says (doubt `use_that_order_does_not_tell`).
-- `funder`: the shares of the coupon's campaign (`funded_by`; null for what they leave open), else the one whom the
-- order names. A discount split among funders sums to itself.
WITH sold AS (
    SELECT key_hash, order_id, paid_at, channel, store, region, currency, discounts
    FROM orders
    WHERE stands(paid_at, cancelled_at, net_minor, refunded_minor)
),
told AS (
    SELECT * EXCLUDE (discounts, d), d.kind AS kind, d.amount_minor AS amount_minor, d.funder AS funder
    FROM (SELECT *, unnest(discounts) AS d FROM sold)
),
told_of_coupons AS (
    SELECT key_hash, order_id, paid_at, channel, store, region, currency, sum(amount_minor)::BIGINT AS amount_minor,
           CASE WHEN count(DISTINCT funder) = 1 THEN any_value(funder) END AS funder
    FROM told WHERE kind = 'coupon' GROUP BY ALL
),
in_use AS (
    SELECT u.order_hash, u.order_id, u.coupon_id, u.used_at, u.discount_minor, c.campaign_id, c.coupon_type, c.currency
    FROM coupons_in_use u JOIN coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id
),
beyond AS (
    SELECT t.* EXCLUDE (amount_minor), t.amount_minor - coalesce(i.discount_minor, 0) AS amount_minor
    FROM told_of_coupons t
    LEFT JOIN (SELECT order_hash, order_id, sum(discount_minor)::BIGINT AS discount_minor FROM in_use GROUP BY ALL) i
        ON i.order_hash = t.key_hash AND i.order_id = t.order_id
),
funded AS (
    SELECT campaign_id, unnest(map_entries(CAST(CAST(funded_by AS JSON) AS MAP(VARCHAR, BIGINT)))) AS share
    FROM campaigns WHERE funded_by IS NOT NULL AND funded_by <> 'null'
),
shares AS (
    SELECT campaign_id, share.key AS funder, share.value AS bp,
           sum(share.value) OVER (PARTITION BY campaign_id ORDER BY share.key) AS upto
    FROM funded
    UNION ALL
    SELECT campaign_id, NULL, 10000 - sum(share.value), 10000 FROM funded GROUP BY campaign_id HAVING sum(share.value) <> 10000
),
parts AS (
    SELECT order_id, paid_at AS taken_at, channel, store, region, currency, kind, NULL AS campaign_id, NULL AS coupon_type,
           NULL AS coupon_id, funder, amount_minor, true AS sold
    FROM told WHERE kind <> 'coupon'
    UNION ALL
    SELECT order_id, paid_at, channel, store, region, currency, 'coupon', NULL, NULL, NULL, funder, amount_minor, true
    FROM beyond WHERE amount_minor <> 0
    UNION ALL
    SELECT i.order_id, coalesce(s.paid_at, i.used_at), s.channel, s.store, s.region, coalesce(s.currency, o.currency, i.currency),
           'coupon', i.campaign_id, i.coupon_type, i.coupon_id,
           CASE WHEN f.campaign_id IS NULL THEN t.funder ELSE f.funder END,
           CASE WHEN f.campaign_id IS NULL THEN i.discount_minor
                ELSE (i.discount_minor::HUGEINT * f.upto // 10000
                      - i.discount_minor::HUGEINT * (f.upto - f.bp) // 10000)::BIGINT END,
           s.order_id IS NOT NULL
    FROM in_use i
    LEFT JOIN sold s ON s.key_hash = i.order_hash AND s.order_id = i.order_id
    LEFT JOIN told_of_coupons t ON t.key_hash = i.order_hash AND t.order_id = i.order_id
    LEFT JOIN orders o ON o.key_hash = i.order_hash AND o.order_id = i.order_id
    LEFT JOIN shares f ON f.campaign_id = i.campaign_id
)
SELECT * FROM parts
WHERE ($since::TIMESTAMP IS NULL OR taken_at >= $since) AND ($until::TIMESTAMP IS NULL OR taken_at < $until)
  AND ($campaign IS NULL OR campaign_id = $campaign)
