-- What a sale is and what its goods cost: the rules of money that all queries share, as macros of each connection.
-- $goods_rates in the queries that use them: the result of `questions.metrics.money.goods_rates` for `--goods-rate`.

-- Is an order fully refunded? It has a refund, and its refunds sum to at least what was paid: an order of nothing that was
-- refunded with nothing is. What went back beyond that is a case of its own (`refund_above_order` of finance's doubts).
-- `refunded_minor`: null without any refund.
CREATE TEMP MACRO refunded_whole(net_minor, refunded_minor) AS
    coalesce(refunded_minor >= net_minor, false);

-- Does an order stand? Paid, neither cancelled nor fully refunded. Only such an order is a sale, in any figure.
-- `cancelled_at`: null where a payment came after every cancellation.
CREATE TEMP MACRO stands(paid_at, cancelled_at, net_minor, refunded_minor) AS
    paid_at IS NOT NULL AND cancelled_at IS NULL AND NOT refunded_whole(net_minor, refunded_minor);

-- What was paid for an order, less its refunds.
CREATE TEMP MACRO net_sales(net_minor, refunded_minor) AS net_minor - coalesce(refunded_minor, 0);

-- What a paid order is in GMV: its list price minus refunds, which are no more than what was paid.
CREATE TEMP MACRO gmv(gross_minor, net_minor, refunded_minor) AS
    gross_minor - greatest(least(coalesce(refunded_minor, 0), net_minor), 0)::BIGINT;

-- Cost by the rate of a category, else by that of any other (''), of what was paid: whole minor units, null without one.
CREATE TEMP MACRO rated_cost(net_minor, category, rates) AS
    round(net_minor::DOUBLE * coalesce(rates[coalesce(category, '')], rates['']) / 10000)::BIGINT;

CREATE TEMP MACRO line_cost(line, rates) AS
    coalesce(line.cost_minor, rated_cost(line.net_minor, line.category, rates));

-- What the goods of an order cost when it was paid: its own figure; else that of its lines, each its own or by the rate;
-- else, without lines, by the rate of any category. Null where one of them is not known.
CREATE TEMP MACRO goods_bought(own_minor, lines, net_minor, rates) AS
    coalesce(own_minor, CASE
        WHEN coalesce(len(lines), 0) = 0 THEN rated_cost(net_minor, '', rates)
        WHEN list_count([line_cost(line, rates) FOR line IN lines]) = len(lines)
        THEN list_sum([line_cost(line, rates) FOR line IN lines]) END);

-- The same after refunds, which take back the same part of the goods as of the money.
CREATE TEMP MACRO goods_cost(own_minor, lines, net_minor, refunded_minor, goods_rates) AS
    CASE WHEN coalesce(refunded_minor, 0) = 0 OR net_minor <= 0
         THEN goods_bought(own_minor, lines, net_minor, goods_rates::MAP(VARCHAR, BIGINT))
         ELSE round(goods_bought(own_minor, lines, net_minor, goods_rates::MAP(VARCHAR, BIGINT))
                    * (greatest(net_minor - refunded_minor, 0) / net_minor))::HUGEINT END;

-- By what it is known: order, lines (all of them say it), rate (of some line at least); null where it is not.
CREATE TEMP MACRO goods_cost_by(own_minor, lines, net_minor, goods_rates) AS
    CASE WHEN own_minor IS NOT NULL THEN 'order'
         WHEN len(lines) > 0 AND list_count([line.cost_minor FOR line IN lines]) = len(lines) THEN 'lines'
         WHEN goods_bought(own_minor, lines, net_minor, goods_rates::MAP(VARCHAR, BIGINT)) IS NOT NULL THEN 'rate' END;

-- What coupons took off an order: what it says of them, but for what a use took off that was given back since
-- (`back_minor`); where it says nothing of coupons, what the coupons in use on it took off (`used_minor`).
CREATE TEMP MACRO coupon_discount(discounts, used_minor, back_minor) AS
    CASE WHEN NOT coalesce(list_contains([d.kind FOR d IN discounts], 'coupon'), false) THEN coalesce(used_minor, 0)
         ELSE greatest(list_sum([d.amount_minor FOR d IN discounts IF d.kind = 'coupon']) - coalesce(back_minor, 0),
                       least(list_sum([d.amount_minor FOR d IN discounts IF d.kind = 'coupon']), coalesce(used_minor, 0))) END;
