-- Which discounts did orders get, and who bears them? Grain: one discount of one order and one of its funders.
-- Discounts of other kinds than coupon are those that standing orders state. A coupon's discount is that of its use,
-- while the coupon is in state used; `sold`: its order stands (channel, store and instant are then the order's). If an
-- order states more or less coupon discount than its coupons in use, the difference (negative if it is less) is a row
-- without a coupon. The discount of a use that was returned since does not count, whatever the order still states. If
-- an order states no coupon discount, there is nothing to compare: its coupons in use count in addition to what it
-- states (doubt `use_that_order_does_not_tell`). `funder`: by the shares of the coupon's campaign (`funded_by`; null
-- for the unassigned rest); without shares, the only funder that the order names for coupon discounts, even if that
-- order does not stand. The parts of a discount among funders sum to the discount. Input: `given_back`
-- (given_back.sql).
WITH in_use AS (
    SELECT coupon_id, order_id, used_at, discount_minor, campaign_id, coupon_type, currency
    FROM coupons WHERE state = 'used' AND ($campaign IS NULL OR campaign_id = $campaign)
),
stated AS (
    SELECT order_id, paid_at, channel, store, region, currency, discounts
    FROM orders
    WHERE $campaign IS NULL AND len(discounts) > 0 AND stands(paid_at, cancelled_at, net_minor, refunded_minor)
      AND ($since::TIMESTAMP IS NULL OR paid_at >= $since) AND ($until::TIMESTAMP IS NULL OR paid_at < $until)
),
beyond AS (
    SELECT t.*, list_distinct([d.funder FOR d IN t.discounts IF d.kind = 'coupon']) AS funders,
           coupon_discount(t.discounts, u.discount_minor, g.back_minor) - coalesce(u.discount_minor, 0) AS amount_minor
    FROM stated t
    LEFT JOIN (SELECT order_id, sum(discount_minor) AS discount_minor FROM in_use GROUP BY ALL) u ON u.order_id = t.order_id
    LEFT JOIN given_back g ON g.order_id = t.order_id
),
taken AS (
    SELECT u.*, if(u.sold, u.paid_at, u.used_at) AS taken_at,
           list_distinct([d.funder FOR d IN u.discounts IF d.kind = 'coupon']) AS funders
    FROM (
        SELECT i.* REPLACE (coalesce(o.currency, i.currency) AS currency), o.paid_at, o.channel, o.store, o.region, o.discounts,
               coalesce(stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor), false) AS sold
        FROM in_use i LEFT JOIN orders o ON o.order_id = i.order_id
    ) u
),
funded AS (
    SELECT campaign_id, unnest(map_entries(CAST(CAST(funded_by AS JSON) AS MAP(VARCHAR, BIGINT)))) AS share
    FROM campaigns WHERE funded_by IS NOT NULL AND funded_by <> 'null'
),
-- The whole that shares refer to: 10000, or their sum if that is larger, so that the parts never exceed the discount.
wholes AS (
    SELECT campaign_id, greatest(10000, sum(share.value)) AS whole, sum(share.value) AS assigned FROM funded GROUP BY campaign_id
),
shares AS (
    SELECT campaign_id, share.key AS funder, share.value::HUGEINT AS bp FROM funded
    UNION ALL
    SELECT campaign_id, NULL, whole - assigned FROM wholes WHERE assigned < whole
),
-- The uses of a campaign are split one after another. Each funder gets its share of all uses so far (by largest
-- remainder), minus what it got before. So a single use is split by largest remainder, and over many uses no funder is
-- a whole minor unit away from its exact share. The rounding depends only on the sum so far modulo the whole: `before`
-- and `upto` are this remainder before and after the use.
running AS (
    SELECT *, ((upto - discount_minor) % whole + whole) % whole AS before
    FROM (
        SELECT coupon_id, campaign_id, discount_minor, whole,
               sum((discount_minor % whole + whole) % whole) OVER (
                   PARTITION BY campaign_id, currency ORDER BY used_at, coupon_id) % whole AS upto
        FROM taken JOIN wholes USING (campaign_id)
    )
),
rounded AS (
    SELECT campaign_id, funder, rest, rest * bp // whole - (rest * bp % whole < 0)::BIGINT AS part,
           rest * bp - part * whole AS remainder, bp, whole
    FROM (SELECT DISTINCT campaign_id, whole, unnest([upto, before]) AS rest FROM running)
    JOIN shares USING (campaign_id)
),
parts AS (
    SELECT campaign_id, funder, rest, part + (place <= sum(remainder) OVER (PARTITION BY campaign_id, rest) // whole)::BIGINT AS part
    FROM (
        SELECT *, row_number() OVER (PARTITION BY campaign_id, rest ORDER BY remainder DESC, bp DESC, funder NULLS LAST) AS place
        FROM rounded
    )
),
borne AS (
    SELECT r.coupon_id, s.funder,
           ((r.discount_minor - r.upto + r.before) // r.whole * s.bp + p.part - b.part)::BIGINT AS amount_minor
    FROM running r JOIN shares s ON s.campaign_id = r.campaign_id
    JOIN parts p ON p.campaign_id = r.campaign_id AND p.rest = r.upto AND p.funder IS NOT DISTINCT FROM s.funder
    JOIN parts b ON b.campaign_id = r.campaign_id AND b.rest = r.before AND b.funder IS NOT DISTINCT FROM s.funder
)
SELECT order_id, paid_at AS taken_at, channel, store, region, currency, d.kind AS kind, NULL AS campaign_id, NULL AS coupon_type,
       NULL AS coupon_id, d.funder AS funder, d.amount_minor AS amount_minor, true AS sold
FROM (SELECT *, unnest(discounts) AS d FROM stated) WHERE d.kind <> 'coupon'
UNION ALL
SELECT order_id, paid_at, channel, store, region, currency, 'coupon', NULL, NULL, NULL,
       CASE WHEN len(funders) = 1 THEN funders[1] END, amount_minor, true
FROM beyond WHERE amount_minor <> 0
UNION ALL
SELECT t.order_id, t.taken_at, if(t.sold, t.channel, NULL), if(t.sold, t.store, NULL), if(t.sold, t.region, NULL), t.currency,
       'coupon', t.campaign_id, t.coupon_type, t.coupon_id,
       CASE WHEN b.coupon_id IS NOT NULL THEN b.funder WHEN len(t.funders) = 1 THEN t.funders[1] END,
       CASE WHEN b.coupon_id IS NOT NULL THEN b.amount_minor ELSE t.discount_minor END,
       t.sold
FROM taken t LEFT JOIN borne b ON b.coupon_id = t.coupon_id
WHERE ($since::TIMESTAMP IS NULL OR t.taken_at >= $since) AND ($until::TIMESTAMP IS NULL OR t.taken_at < $until)
