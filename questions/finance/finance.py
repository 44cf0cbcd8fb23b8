"""Questions about money, listed in `questions.registry.QUESTIONS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.questions.finance.parameters import (
    Budgets,
    Cash,
    Categories,
    Losses,
    Margin,
    Period,
    Reconciliation,
    Restated,
    Split,
    Statement,
)
from coupon_ledger.questions.finance.statement import statement as statement_of
from coupon_ledger.questions.metrics.money import goods_rates as goods
from coupon_ledger.questions.metrics.periods import Zone
from coupon_ledger.questions.parameters import OfPast

SPLIT_BY: Final = {
    "kind": "kind",
    "campaign": "campaign_id",
    "category": "category",
    "coupon-type": "coupon_type",
    "channel": "channel",
    "store": "store",
    "region": "region",
    "funder": "funder",
    "day": "(taken_at + to_microseconds(offset_us))::DATE",
}
MARGIN_BY: Final = {
    "channel": "channel",
    "store": "store",
    "region": "region",
    "day": "(paid_at + to_microseconds(offset_us))::DATE",
}


def split(reading: Reading, parameters: Split) -> pl.DataFrame:
    """Discounts grouped by the parts in `by`: orders, coupons, `discount_minor` and its share of the currency's total;
    largest first. By category, a discount is spread over the lines of its order. `explain`: the single discounts, by
    time. Raises `WrongQuestion`.
    """
    bound = {"campaign": parameters.campaign, "since": parameters.since, "until": parameters.until}
    if parameters.explain:
        with _given_back(reading):
            order = "ORDER BY taken_at, order_id, kind, coupon_id"
            return _limited(reading, f"{_query('discounts')} {order}", bound, parameters.limit)
    chosen = _parts("split", parameters.by, SPLIT_BY)
    taken = _spread() if "category" in chosen else _query("discounts")
    query = f"""
        SELECT *, round(discount_minor / nullif(sum(discount_minor) OVER (PARTITION BY currency), 0), 4) AS share
        FROM (
            SELECT {_named(chosen, SPLIT_BY)} currency, count(DISTINCT order_id) AS orders,
                   count(DISTINCT coupon_id) AS coupons, sum(amount_minor) AS discount_minor
            FROM ({taken}) d {_zoned("d.taken_at", chosen)}
            GROUP BY ALL
        )
        ORDER BY currency, discount_minor DESC{_then(chosen)}
    """
    with _given_back(reading), reading.given(zone=Zone(parameters.zone).offsets()):
        return _limited(reading, query, bound, parameters.limit)


def margin(reading: Reading, parameters: Margin) -> pl.DataFrame:
    """Net sales, cost of goods and margin of orders that stand, grouped by the parts in `by`. The margin covers orders
    with a known cost: not `orders_without_cost`; for `orders_by_rate`, the cost comes from `goods_rates`. `explain`:
    the single orders. Raises `WrongQuestion`."""
    bound = {"since": parameters.since, "until": parameters.until, "goods_rates": goods(parameters.goods_rates)}
    if parameters.explain:
        return _limited(reading, f"{_query('sales')} ORDER BY paid_at, order_id", bound, parameters.limit)
    chosen = _parts("margin", parameters.by, MARGIN_BY)
    query = f"""
        SELECT {_named(chosen, MARGIN_BY)} currency, count(*) FILTER (stands) AS orders,
               sum(gross_minor) FILTER (stands) AS gross_minor,
               sum(refunded_minor) FILTER (stands) AS refunded_minor,
               sum(net_sales_minor) AS net_sales_minor, sum(cost_minor) FILTER (stands) AS cost_minor,
               sum(net_sales_minor - cost_minor) FILTER (stands) AS margin_minor,
               round(margin_minor / nullif(sum(net_sales_minor) FILTER (cost_minor IS NOT NULL), 0), 4) AS margin_rate,
               count(*) FILTER (stands AND cost_minor IS NULL) AS orders_without_cost,
               count(*) FILTER (cost_by = 'rate') AS orders_by_rate
        FROM ({_query("sales")}) s {_zoned("s.paid_at", chosen)}
        GROUP BY ALL ORDER BY currency, net_sales_minor DESC{_then(chosen)}
    """
    with reading.given(zone=Zone(parameters.zone).offsets()):
        return _limited(reading, query, bound, parameters.limit)


def categories(reading: Reading, parameters: Categories) -> pl.DataFrame:
    """Sales, discounts and margin by category of goods, and lines sold below cost. Raises `WrongQuestion`."""
    period = {"since": parameters.since, "until": parameters.until}
    rates = goods(parameters.goods_rates)
    with _given_back(reading):
        taken_off = reading.frame(
            f"SELECT category, currency, sum(amount_minor) AS discount_minor FROM ({_spread()}) GROUP BY ALL",
            {"campaign": None, **period},
        )
    with reading.given(taken_off=taken_off):
        return _limited(reading, _query("categories"), {"goods_rates": rates, **period}, parameters.limit)


@contextmanager
def _given_back(reading: Reading) -> Iterator[None]:
    """Let queries read `given_back` (given_back.sql)."""
    with reading.holding("given_back", _query("given_back"), {}):
        yield


def _spread() -> str:
    """SQL of the discounts, each spread over the lines of its order."""
    return f"WITH taken AS ({_query('discounts')}) SELECT * FROM ({_query('spread')})"


def budgets(reading: Reading, parameters: Budgets) -> pl.DataFrame:
    """Budgets, what is spent of them, and when they will be exhausted at the rate of the last `days` days. `explain`:
    the discounts and bookings behind it."""
    campaign = parameters.campaign
    if parameters.explain:
        query = f"{_query('spending')} ORDER BY spent_at, campaign_id, coupon_id, event_id"
        return _limited(reading, query, {"campaign": campaign}, parameters.limit)
    query = f"WITH spending AS ({_query('spending')}) SELECT * FROM ({_query('budgets')})"
    return reading.frame(query, {"campaign": campaign, "days": parameters.days})


def cash(reading: Reading, parameters: Cash) -> pl.DataFrame:
    """Cash in and out, by day. Raises `WrongQuestion`."""
    query = f"WITH taken AS ({_query('discounts')}) SELECT * FROM ({_query('cash')})"
    with _given_back(reading), reading.given(zone=Zone(parameters.zone).offsets()):
        return reading.frame(query, {"campaign": None, "since": parameters.since, "until": parameters.until})


def losses(reading: Reading, parameters: Losses) -> pl.DataFrame:
    """Money lost to broken rules, by point of loss. `explain`: the single events and coupons."""
    points, campaign = _query("loss_points"), {"campaign": parameters.campaign}
    if parameters.explain:
        order = "ORDER BY lost_minor DESC NULLS LAST, point, coupon_id, event_id"
        return _limited(reading, f"{points} {order}", campaign, parameters.limit)
    return _limited(reading, f"WITH found AS ({points}) {_query('losses')}", campaign, parameters.limit)


def refunds(reading: Reading, parameters: Period) -> pl.DataFrame:
    """Refunds of orders paid in the period, and the discounts clawed back with them."""
    with _given_back(reading):
        return reading.frame(_query("refunds"), parameters.bound)


def reconciliation(reading: Reading, parameters: Reconciliation) -> pl.DataFrame:
    """How the numbers of the reports reconcile: accounts with lines that add up to totals. With `campaign`: from its
    coupons in use to the orders that it is credited with."""
    with _given_back(reading):
        return reading.frame(_query("reconciliation"), parameters.bound)


def doubts(reading: Reading, _: OfPast) -> pl.DataFrame:
    """The data that make figures doubtful."""
    return reading.frame(_query("doubts"))


def statement(reading: Reading, parameters: Statement) -> pl.DataFrame:
    """The liability of coupons that are out, per campaign: opening, moves, closing."""
    return statement_of(reading, parameters.campaign, parameters.since, parameters.until)


def restated(reading: Reading, parameters: Restated) -> pl.DataFrame:
    """Orders, sales, margin, discounts, booked costs and simple return as known at `known_from` and as known now, and
    the changes in between by cause. In each column, the causes sum to the difference. Raises `WrongQuestion`."""
    known_from, campaign = parameters.known_from, parameters.campaign
    if known_from is None:
        raise WrongQuestion("restated: known since when is not said; give --known-from")
    goods_bp = goods(parameters.goods_rates)
    past = Past(reading, Cut(known_at=known_from))
    past.stand_in(ORDER)
    past.stand_in(COUPON, campaign_id=None if campaign is None else [campaign])
    for table, query in _THEN.items():
        reading.execute(f"CREATE TEMP TABLE {table} AS {query}", {"goods_rates": goods_bp} if "$" in query else {})
    past.leave()
    period = {"since": parameters.since, "until": parameters.until}
    return reading.frame(_query("restated"), {"campaign": campaign, "goods_rates": goods_bp, **period})


_THEN: Final = {
    "orders_then": "SELECT order_id, currency, paid_at, cancelled_at, gross_minor, net_minor, refunded_minor,"
    " goods_cost(cost_of_goods_minor, lines, net_minor, refunded_minor, $goods_rates) AS goods_minor FROM orders",
    "uses_then": "SELECT coupon_id, campaign_id, order_id, used_at, currency, discount_minor FROM coupons"
    " WHERE state = 'used'",
    "costs_then": "SELECT campaign_id, event_id, occurred_at, currency, amount_minor FROM campaign_events"
    " WHERE type = 'cost_booked'",
}


def _query(name: str) -> str:
    return sql(__package__, name)


def _limited(reading: Reading, query: str, parameters: Mapping[str, Any], limit: int | None) -> pl.DataFrame:
    at_most = "" if limit is None else f" LIMIT {int(limit)}"
    return reading.frame(query + at_most, parameters)


def _parts(what: str, by: Sequence[str], known: Mapping[str, str]) -> list[str]:
    chosen = [part for part in by if part]
    if unknown := [part for part in chosen if part not in known]:
        raise WrongQuestion(f"{what} by {', '.join(unknown)}: there is no such part; there are {', '.join(known)}")
    return list(dict.fromkeys(chosen))


def _zoned(at: str, chosen: list[str]) -> str:
    """The join with the zone, only if days are chosen, since it sorts all rows."""
    return f"ASOF JOIN zone z ON {at} >= z.since" if "day" in chosen else ""


def _named(chosen: list[str], known: Mapping[str, str]) -> str:
    return "".join(f"{known[part]} AS {part.replace('-', '_')}, " for part in chosen)


def _then(chosen: list[str]) -> str:
    return "".join(f", {part.replace('-', '_')} NULLS LAST" for part in chosen)
