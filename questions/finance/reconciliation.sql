-- How do the numbers of the reports reconcile? Grain: one line of an account and currency. The lines of an account add
-- up from the top: a `total` is the sum of all lines above it that are not totals. `number`: orders or coupons, null
-- for a line with money only; `amount_minor`: money, null for a line with a count only. Without $campaign, the accounts
-- lead from paid orders to those with a coupon; from the coupon discounts that orders state to those of coupons in use;
-- from net sales to the cash flow; from coupons in use to their orders. With $campaign, the account leads from the
-- campaign's coupons in use to the orders that attribution by redeemed coupons credits it with. Input: `given_back`
-- (given_back.sql).
WITH uses_now AS (
    SELECT c.coupon_id, c.campaign_id, c.order_id, c.discount_minor, coalesce(o.currency, c.currency) AS currency,
           coalesce(stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor), false) AS sold
    FROM coupons c LEFT JOIN orders o ON o.order_id = c.order_id
    WHERE c.state = 'used'
),
on_orders AS (
    SELECT order_id, sum(discount_minor) AS used_minor, count(*) AS uses FROM uses_now WHERE sold GROUP BY ALL
),
paid AS (
    SELECT o.order_id, o.currency, o.net_minor, coalesce(o.refunded_minor, 0) AS refunded_minor, o.cancelled_at IS NOT NULL AS cancelled,
           stands(o.paid_at, o.cancelled_at, o.net_minor, o.refunded_minor) AS stands, u.order_id IS NOT NULL AS with_coupon,
           coalesce(u.used_minor, 0) AS used_minor, coalesce(g.back_minor, 0) AS back_minor,
           list_sum([d.amount_minor FOR d IN o.discounts IF d.kind = 'coupon']) AS told_minor,
           coupon_discount(o.discounts, u.used_minor, g.back_minor) AS coupon_minor
    FROM orders o
    LEFT JOIN on_orders u ON u.order_id = o.order_id
    LEFT JOIN given_back g ON g.order_id = o.order_id
    WHERE o.paid_at IS NOT NULL AND $campaign IS NULL
),
mine AS (
    SELECT u.*, CASE WHEN o.used_minor > 0 THEN u.discount_minor / o.used_minor ELSE 1.0 / o.uses END AS part
    FROM uses_now u LEFT JOIN on_orders o ON o.order_id = u.order_id
    WHERE $campaign IS NULL OR u.campaign_id = $campaign
),
lines AS (
    SELECT 'orders' AS account, 1 AS place, 'paid_orders' AS line, false AS total, currency, count(*)::DOUBLE AS number,
           sum(net_minor) AS amount_minor
    FROM paid GROUP BY ALL
    UNION ALL
    SELECT 'orders', 2, 'cancelled', false, currency, -count(*), -sum(net_minor) FROM paid WHERE cancelled GROUP BY ALL
    UNION ALL
    SELECT 'orders', 3, 'refunded_in_full', false, currency, -count(*), -sum(net_minor)
    FROM paid WHERE NOT stands AND NOT cancelled GROUP BY ALL
    UNION ALL
    SELECT 'orders', 4, 'refunded_in_part', false, currency, 0, -sum(refunded_minor)
    FROM paid WHERE stands AND refunded_minor <> 0 GROUP BY ALL
    UNION ALL
    SELECT 'orders', 5, 'orders_that_stand', true, currency, count(*), sum(net_minor - refunded_minor)
    FROM paid WHERE stands GROUP BY ALL
    UNION ALL
    SELECT 'orders', 6, 'without_a_coupon_in_use', false, currency, -count(*), -sum(net_minor - refunded_minor)
    FROM paid WHERE stands AND NOT with_coupon GROUP BY ALL
    UNION ALL
    SELECT 'orders', 7, 'orders_with_a_coupon', true, currency, count(*), sum(net_minor - refunded_minor)
    FROM paid WHERE stands AND with_coupon GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 1, 'named_by_orders', false, currency, NULL, sum(told_minor)
    FROM paid WHERE stands AND told_minor IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 2, 'returned_since', false, currency, NULL, sum(coupon_minor - told_minor)
    FROM paid WHERE stands AND told_minor <> coupon_minor GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 3, 'named_by_coupons_alone', false, currency, NULL, sum(coupon_minor)
    FROM paid WHERE stands AND told_minor IS NULL AND coupon_minor <> 0 GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 4, 'on_orders_that_do_not_stand', false, currency, NULL, sum(discount_minor)
    FROM mine WHERE $campaign IS NULL AND NOT sold GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 5, 'coupon_discounts', true, currency, NULL, sum(amount_minor) FROM (
        SELECT currency, coupon_minor AS amount_minor FROM paid WHERE stands
        UNION ALL SELECT currency, discount_minor FROM mine WHERE $campaign IS NULL AND NOT sold
    ) GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 6, 'of_no_known_use', false, currency, NULL, -sum(coupon_minor - used_minor)
    FROM paid WHERE stands AND coupon_minor <> used_minor GROUP BY ALL
    UNION ALL
    SELECT 'coupon_discount', 7, 'of_coupons_in_use', true, currency, NULL, sum(discount_minor)
    FROM mine WHERE $campaign IS NULL GROUP BY ALL
    UNION ALL
    SELECT 'cash', 1, 'net_sales', false, currency, NULL, sum(net_minor - refunded_minor) FROM paid WHERE stands GROUP BY ALL
    UNION ALL
    SELECT 'cash', 2, 'refunds_above_orders', false, currency, NULL, -sum(refunded_minor - net_minor)
    FROM paid WHERE NOT stands AND refunded_minor > net_minor GROUP BY ALL
    UNION ALL
    SELECT 'cash', 3, 'refunds_without_payment', false, currency, NULL, -sum(refunded_minor)
    FROM orders WHERE $campaign IS NULL AND paid_at IS NULL AND refunded_minor IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT 'cash', 4, 'booked_costs', false, currency, NULL, -sum(amount_minor)
    FROM campaign_events WHERE $campaign IS NULL AND type = 'cost_booked' GROUP BY ALL
    UNION ALL
    SELECT 'coupons', 1, 'coupons_in_use', false, currency, count(*), sum(discount_minor) FROM mine GROUP BY ALL
    UNION ALL
    SELECT 'coupons', 2, 'on_orders_that_do_not_stand', false, currency, -count(*), -sum(discount_minor)
    FROM mine WHERE NOT sold GROUP BY ALL
    UNION ALL
    SELECT 'coupons', 3, 'further_coupons_of_an_order', false, currency, count(DISTINCT order_id) - count(*), NULL
    FROM mine WHERE sold GROUP BY ALL HAVING count(*) > count(DISTINCT order_id)
    UNION ALL
    SELECT 'coupons', 4, 'orders_with_its_coupons', true, currency, count(DISTINCT order_id), sum(discount_minor)
    FROM mine WHERE sold GROUP BY ALL
    UNION ALL
    SELECT 'coupons', 5, 'of_coupons_of_others', false, currency, round(sum(part) - count(DISTINCT order_id), 4), NULL
    FROM mine WHERE $campaign IS NOT NULL AND sold GROUP BY ALL HAVING abs(sum(part) - count(DISTINCT order_id)) >= 0.00005
    UNION ALL
    SELECT 'coupons', 6, 'orders_credited_by_redeemed', true, currency, round(sum(part), 4), NULL
    FROM mine WHERE $campaign IS NOT NULL AND sold GROUP BY ALL
),
flow AS (
    SELECT 'cash' AS account, 5 AS place, 'cash_flow' AS line, true AS total, currency, NULL::DOUBLE AS number,
           sum(amount_minor) AS amount_minor
    FROM lines WHERE account = 'cash' GROUP BY ALL
)
SELECT account, line, total, currency, number, amount_minor
FROM (SELECT * FROM lines UNION ALL SELECT * FROM flow)
ORDER BY list_position(['orders', 'coupon_discount', 'cash', 'coupons'], account), currency NULLS LAST, place
