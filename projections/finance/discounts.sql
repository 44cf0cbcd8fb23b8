-- What was taken off the list price, and who bears it? Grain: one discount of one order and one of its funders.
-- Of orders that stand, what they say was taken off. Of a coupon, what its use says, while it is in state used: `sold`
-- tells whether its order stands (its channel, store and instant are then the order's). What an order says of coupons
-- beyond those uses (or less, negative) is a row without a coupon. An order that says nothing of coupons cannot be held
-- against its uses: these count, on top of what it says (doubt `use_that_order_does_not_tell`).
-- `funder`: the shares of the coupon's campaign (`funded_by`; null for what they leave open), else the one whom the
-- order names. A discount split among funders sums to itself.
WITH in_use AS (
    SELECT coupon_id, order_id, used_at, discount_minor, campaign_id, coupon_type, currency
    FROM coupons WHERE state = 'used' AND ($campaign IS NULL OR campaign_id = $campaign)
),
told AS (
    SELECT order_id, paid_at, channel, store, region, currency, discounts,
           [d.amount_minor FOR d IN discounts IF d.kind = 'coupon'] AS of_coupons
    FROM orders
    WHERE $campaign IS NULL AND len(discounts) > 0 AND stands(paid_at, cancelled_at, net_minor, refunded_minor)
      AND ($since::TIMESTAMP IS NULL OR paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
),
beyond AS (
    SELECT t.*, list_sum(t.of_coupons)::BIGINT - coalesce(u.discount_minor, 0) AS amount_minor,
           list_distinct([d.funder FOR d IN t.discounts IF d.kind = 'coupon']) AS funders
    FROM told t
    LEFT JOIN (SELECT order_id, sum(discount_minor)::BIGINT AS discount_minor FROM in_use GROUP BY ALL) u
        ON u.order_id = t.order_id
    WHERE len(t.of_coupons) > 0
),
taken AS (
    SELECT u.*, if(u.sold, u.paid_at, u.used_at) AS taken_at,
           list_distinct([d.funder FOR d IN u.discounts IF u.sold AND d.kind = 'coupon']) AS funders
    FROM (
        SELECT i.* REPLACE (coalesce(o.currency, i.currency) AS currency), o.paid_at, o.channel, o.store, o.region, o.discounts,
               stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor) AS sold
        FROM in_use i LEFT JOIN orders o ON o.order_id = i.order_id
    ) u
    WHERE ($since::TIMESTAMP IS NULL OR if(u.sold, u.paid_at, u.used_at) >= $since)
      AND ($until::TIMESTAMP IS NULL OR if(u.sold, u.paid_at, u.used_at) < $until)
),
funded AS (
    SELECT campaign_id, unnest(map_entries(CAST(CAST(funded_by AS JSON) AS MAP(VARCHAR, BIGINT)))) AS share
    FROM campaigns WHERE funded_by IS NOT NULL AND funded_by <> 'null'
),
shares AS (
    SELECT campaign_id, share.key AS funder, share.value AS bp,
           (sum(share.value) OVER (PARTITION BY campaign_id ORDER BY share.key))::BIGINT AS upto
    FROM funded
    UNION ALL
    SELECT campaign_id, NULL, (10000 - sum(share.value))::BIGINT, 10000
    FROM funded GROUP BY campaign_id HAVING sum(share.value) <> 10000
)
SELECT order_id, paid_at AS taken_at, channel, store, region, currency, d.kind AS kind, NULL AS campaign_id, NULL AS coupon_type,
       NULL AS coupon_id, d.funder AS funder, d.amount_minor AS amount_minor, true AS sold
FROM (SELECT *, unnest(discounts) AS d FROM told) WHERE d.kind <> 'coupon'
UNION ALL
SELECT order_id, paid_at, channel, store, region, currency, 'coupon', NULL, NULL, NULL,
       CASE WHEN len(funders) = 1 THEN funders[1] END, amount_minor, true
FROM beyond WHERE amount_minor <> 0
UNION ALL
-- Ten thousands and their rest apart: the product of both could be too large, and longer numbers take twenty times as long.
SELECT t.order_id, t.taken_at, if(t.sold, t.channel, NULL), if(t.sold, t.store, NULL), if(t.sold, t.region, NULL), t.currency,
       'coupon', t.campaign_id, t.coupon_type, t.coupon_id,
       CASE WHEN f.campaign_id IS NOT NULL THEN f.funder WHEN len(t.funders) = 1 THEN t.funders[1] END,
       CASE WHEN f.campaign_id IS NULL THEN t.discount_minor
            ELSE t.discount_minor // 10000 * f.bp
                 + t.discount_minor % 10000 * f.upto // 10000 - t.discount_minor % 10000 * (f.upto - f.bp) // 10000 END,
       t.sold
FROM taken t LEFT JOIN shares f ON f.campaign_id = t.campaign_id
