-- The rules about money that all queries share: what counts as a sale, and what its goods cost. Every connection
-- creates these macros. `rates`, `goods_rates`: cost of goods by category, in basis points of the amount paid. Queries
-- pass the parameter $goods_rates, the result of `questions.metrics.money.goods_rates` for the option `--goods-rate`.

-- Whether an order is fully refunded: it has a refund, and its refunds sum to at least the amount paid. So an order of
-- 0 with a refund of 0 is fully refunded. Larger refunds are reported separately (`refund_above_order` in
-- finance-doubts). `refunded_minor`: null for an order without refunds.
CREATE TEMP MACRO refunded_whole(net_minor, refunded_minor) AS
    coalesce(refunded_minor >= net_minor, false);

-- Whether an order stands: it is paid, and neither cancelled nor fully refunded. Only orders that stand are sales.
-- `cancelled_at`: null if a payment follows every cancellation.
CREATE TEMP MACRO stands(paid_at, cancelled_at, net_minor, refunded_minor) AS
    paid_at IS NOT NULL AND cancelled_at IS NULL AND NOT refunded_whole(net_minor, refunded_minor);

-- Net sales of an order: the amount paid minus its refunds.
CREATE TEMP MACRO net_sales(net_minor, refunded_minor) AS net_minor - coalesce(refunded_minor, 0);

-- GMV of a paid order: its list price minus its refunds, which count up to the amount paid.
CREATE TEMP MACRO gmv(gross_minor, net_minor, refunded_minor) AS
    gross_minor - greatest(least(coalesce(refunded_minor, 0), net_minor), 0)::BIGINT;

-- Cost of goods by rate: the amount paid times the rate of the category. A category without a rate has the rate of '',
-- which stands for all other categories. Rounded to minor units. Null if there is neither rate.
CREATE TEMP MACRO rated_cost(net_minor, category, rates) AS
    round(net_minor::DOUBLE * coalesce(rates[coalesce(category, '')], rates['']) / 10000)::BIGINT;

-- Cost of the goods of one line of an order: the line's own figure, otherwise by rate.
CREATE TEMP MACRO line_cost(line, rates) AS
    coalesce(line.cost_minor, rated_cost(line.net_minor, line.category, rates));

-- Cost of an order's goods before refunds: the order's own figure (`own_minor`), otherwise the sum of its lines' costs.
-- For an order without lines, the cost by the rate of ''. Null if the cost of any line is unknown.
CREATE TEMP MACRO goods_bought(own_minor, lines, net_minor, rates) AS
    coalesce(own_minor, CASE
        WHEN coalesce(len(lines), 0) = 0 THEN rated_cost(net_minor, '', rates)
        WHEN list_count([line_cost(line, rates) FOR line IN lines]) = len(lines)
        THEN list_sum([line_cost(line, rates) FOR line IN lines]) END);

-- Cost of an order's goods after refunds. If a share of the amount paid is refunded, the cost falls by the same share.
CREATE TEMP MACRO goods_cost(own_minor, lines, net_minor, refunded_minor, goods_rates) AS
    CASE WHEN coalesce(refunded_minor, 0) = 0 OR net_minor <= 0
         THEN goods_bought(own_minor, lines, net_minor, goods_rates::MAP(VARCHAR, BIGINT))
         ELSE round(goods_bought(own_minor, lines, net_minor, goods_rates::MAP(VARCHAR, BIGINT))
                    * (greatest(net_minor - refunded_minor, 0) / net_minor))::HUGEINT END;

-- The source of an order's cost of goods: 'order' (its own figure), 'lines' (all lines have their own figure) or 'rate'
-- (at least one line, or the whole order, has its cost by rate). Null if the cost is unknown.
CREATE TEMP MACRO goods_cost_by(own_minor, lines, net_minor, goods_rates) AS
    CASE WHEN own_minor IS NOT NULL THEN 'order'
         WHEN len(lines) > 0 AND list_count([line.cost_minor FOR line IN lines]) = len(lines) THEN 'lines'
         WHEN goods_bought(own_minor, lines, net_minor, goods_rates::MAP(VARCHAR, BIGINT)) IS NOT NULL THEN 'rate' END;

-- Coupon discount of an order. `used_minor`: the discounts of the coupons that are in use on the order; `back_minor`:
-- the discounts of uses that were returned since. If the order names no discount of kind 'coupon', the result is
-- `used_minor`. Otherwise it is the sum of the named ones minus `back_minor`, but at least the smaller of that sum and
-- `used_minor`.
CREATE TEMP MACRO coupon_discount(discounts, used_minor, back_minor) AS
    CASE WHEN NOT coalesce(list_contains([d.kind FOR d IN discounts], 'coupon'), false) THEN coalesce(used_minor, 0)
         ELSE greatest(list_sum([d.amount_minor FOR d IN discounts IF d.kind = 'coupon']) - coalesce(back_minor, 0),
                       least(list_sum([d.amount_minor FOR d IN discounts IF d.kind = 'coupon']), coalesce(used_minor, 0))) END;
