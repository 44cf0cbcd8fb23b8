-- Does every coupon in use stand with what its order says of itself?
-- Grain: one row that is missing, superfluous or repeated. An offender: metrics of coupon uses and coupon sales are
-- wrong.
WITH wanted AS (
    SELECT c.key_hash, c.coupon_id, c.order_id, c.used_at, c.acquired_at, c.discount_minor, c.campaign_id, c.coupon_type,
           coalesce(c.claim_channel, c.issue_channel) AS coupon_channel, c.owner, c.currency AS coupon_currency,
           o.user_id AS buyer, o.channel, o.store, o.region, o.currency, o.gross_minor, o.net_minor, o.refunded_minor,
           o.cost_of_goods_minor, CASE WHEN o.cost_of_goods_minor IS NULL THEN o.lines END AS lines, o.paid_at,
           o.cancelled_at
    FROM coupons c LEFT JOIN orders o ON o.order_id = c.order_id
    WHERE c.key_hash BETWEEN $first AND $last AND c.state = 'used'
),
kept AS (
    SELECT key_hash, coupon_id, order_id, used_at, acquired_at, discount_minor, campaign_id, coupon_type, coupon_channel,
           owner, coupon_currency, buyer, channel, store, region, currency, gross_minor, net_minor, refunded_minor,
           cost_of_goods_minor, lines, paid_at, cancelled_at
    FROM coupon_sales WHERE key_hash BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
