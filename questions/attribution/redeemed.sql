-- Which coupons were used on the orders that stand? Grain: one campaign, channel (of the claim, else of the issue),
-- `kind` and currency of orders. Each order counts once: it is split over the coupons used on it in proportion to their
-- discounts, or evenly if these are all zero. Campaign and channel are '(unknown coupon)' for orders that name coupons
-- of which none is known to be used on them, and '(none)' for orders that name no coupon. `margin_minor` covers orders
-- with a known cost of goods (`goods`: goods.sql). $campaign: only orders with a coupon of that campaign; null: all.
WITH of_campaign AS MATERIALIZED (
    SELECT DISTINCT order_id FROM coupons WHERE state = 'used' AND campaign_id = $campaign
),
credited_orders AS (
    SELECT p.order_id, coalesce(currency, '(unknown)') AS currency, sales_minor,
           coalesce(p.cost_of_goods_minor, g.cost_minor) AS cost_of_goods_minor, names_coupons
    FROM paths p LEFT JOIN goods g ON g.order_id = p.order_id
    WHERE p.order_id IS NOT NULL AND ($since IS NULL OR ended_at >= $since) AND ($until IS NULL OR ended_at < $until)
      AND ($campaign IS NULL OR p.order_id IN (FROM of_campaign))
),
used AS (
    SELECT order_id, campaign_id, coalesce(claim_channel, issue_channel) AS channel, coalesce(discount_minor, 0) AS took
    FROM coupons
    WHERE state = 'used' AND order_id IS NOT NULL AND ($campaign IS NULL OR order_id IN (FROM of_campaign))
),
together AS (
    SELECT order_id, sum(took)::DOUBLE AS took, count(*) AS coupons FROM used GROUP BY order_id
),
parts AS (
    SELECT u.order_id, coalesce(u.campaign_id, '(no campaign)') AS campaign_id,
           coalesce(u.channel, '(unknown)') AS channel, 'used' AS kind,
           CASE WHEN t.took > 0 THEN u.took / t.took ELSE 1.0 / t.coupons END AS part
    FROM used u JOIN together t ON t.order_id = u.order_id
),
credited AS (
    SELECT o.*, coalesce(p.part, 1.0) AS part,
           CASE WHEN p.part IS NULL THEN if(o.names_coupons, '(unknown coupon)', '(none)') END AS nobody,
           coalesce(nobody, p.campaign_id) AS campaign_id, coalesce(nobody, p.channel) AS channel,
           coalesce(nobody, p.kind) AS kind
    FROM credited_orders o LEFT JOIN parts p ON p.order_id = o.order_id
)
SELECT campaign_id, channel, kind, currency, sum(part) AS orders, sum(part * sales_minor) AS sales_minor,
       coalesce(sum(part * (sales_minor - cost_of_goods_minor)), 0) AS margin_minor,
       sum(part) FILTER (cost_of_goods_minor IS NULL) AS without_cost
FROM credited GROUP BY ALL
