-- Which orders stand (macros.sql), and which persons placed them? Grain: one order that stands and names a user.
-- `cost_of_goods_minor`: the cost of goods after refunds, from the order's own figure; null if it has none.
SELECT o.user_id, coalesce(p.person, o.user_id) AS person, o.order_id, o.paid_at AS occurred_at, o.currency,
       (coalesce(o.net_minor, 0) - coalesce(o.refunded_minor, 0))::BIGINT AS sales_minor,
       CASE WHEN o.cost_of_goods_minor IS NOT NULL
            THEN goods_cost(o.cost_of_goods_minor, o.lines, o.net_minor, o.refunded_minor, NULL)::BIGINT END AS cost_of_goods_minor,
       coalesce(len(o.coupon_ids) > 0, false) AS names_coupons
FROM orders o LEFT JOIN persons p ON p.user_id = o.user_id
WHERE stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor) AND o.user_id IS NOT NULL
