-- Which orders stand, and whose are they? Grain: one order that was paid, not cancelled, not fully refunded.
SELECT o.user_id, coalesce(p.person, o.user_id) AS person, o.order_id, o.paid_at AS occurred_at, o.currency,
       coalesce(o.net_minor, 0) - coalesce(o.refunded_minor, 0) AS sales_minor, o.cost_of_goods_minor,
       coalesce(len(o.coupon_ids) > 0, false) AS names_coupons
FROM orders o LEFT JOIN persons p ON p.user_id = o.user_id
WHERE o.paid_at IS NOT NULL AND o.cancelled_at IS NULL AND o.user_id IS NOT NULL
  AND NOT (coalesce(o.refunded_minor, 0) > 0 AND o.refunded_minor >= coalesce(o.net_minor, 0))
