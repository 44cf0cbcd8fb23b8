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
    """Discounts: one row per currency and combination of values of the columns in `by`, largest discount first.

    `orders` and `coupons` count the orders and coupons with a discount. `share` is the row's part of all discounts in
    the currency. If `by` includes the category, each discount is divided among the lines of its order. With `explain`:
    one row per discount and funder, sorted by time.

    Raises `WrongQuestion`.
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
        ORDER BY currency, discount_minor DESC{_tie_order(chosen)}
    """
    with _given_back(reading), reading.given(zone=Zone(parameters.zone).offsets()):
        return _limited(reading, query, bound, parameters.limit)


def margin(reading: Reading, parameters: Margin) -> pl.DataFrame:
    """Net sales, cost of goods and margin: one row per currency and combination of values of the columns in `by`.

    An order counts if it stands: paid, and neither cancelled nor refunded in full. The margin covers orders with a
    known cost of goods. `orders_without_cost` counts the others. `orders_by_rate` counts orders whose cost is computed
    from `goods_rates`. With `explain`: one row per order.

    Raises `WrongQuestion`.
    """
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
        GROUP BY ALL ORDER BY currency, net_sales_minor DESC{_tie_order(chosen)}
    """
    with reading.given(zone=Zone(parameters.zone).offsets()):
        return _limited(reading, query, bound, parameters.limit)


def categories(reading: Reading, parameters: Categories) -> pl.DataFrame:
    """Sales, discounts and margin by category of goods: one row per category and currency.

    Refunds, and other amounts stated for a whole order, are divided among its lines. Amounts that cannot be attributed
    to a line have the category '(no lines)', so `net_sales_minor` has the same sum as in `finance-margin`. `below_cost`
    counts lines sold below their cost. `lines_without_cost` counts lines without a known cost, which are left out of
    the margin. `discount_minor` is the category's part of all discounts; `line_discount_minor` sums the discounts that
    the lines state.

    Raises `WrongQuestion`.
    """
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
    """Within the block, queries can read the table `given_back`: discounts of uses that were returned
    (given_back.sql)."""
    with reading.holding("given_back", _query("given_back"), {}):
        yield


def _spread() -> str:
    """SQL for the discounts, each divided among the categories of its order's lines (spread.sql)."""
    return f"WITH taken AS ({_query('discounts')}) SELECT * FROM ({_query('spread')})"


def budgets(reading: Reading, parameters: Budgets) -> pl.DataFrame:
    """Budgets and spending: one row per campaign and currency.

    Spending is the discount of coupons in use plus booked costs. `exhausted_at` is when the rest of the budget will be
    spent at the rate of the last `days` days. It is null if the budget is already spent or the rate is zero.
    `coupons_out` counts the coupons that can still be used. `liability_minor` is the sum of their face values;
    `without_value` counts those without a face value. With `explain`: one row per discount or booking.
    """
    campaign = parameters.campaign
    if parameters.explain:
        query = f"{_query('spending')} ORDER BY spent_at, campaign_id, coupon_id, event_id"
        return _limited(reading, query, {"campaign": campaign}, parameters.limit)
    query = f"WITH spending AS ({_query('spending')}) SELECT * FROM ({_query('budgets')})"
    return reading.frame(query, {"campaign": campaign, "days": parameters.days})


def cash(reading: Reading, parameters: Cash) -> pl.DataFrame:
    """Cash in and out: one row per day and currency.

    Cash in is the payments of orders. Cash out is the refunds, the payments of orders that were cancelled, and the
    booked costs by kind. A discount is not a cash flow; `discount_minor` is given for comparison.

    Raises `WrongQuestion`.
    """
    query = f"WITH taken AS ({_query('discounts')}) SELECT * FROM ({_query('cash')})"
    with _given_back(reading), reading.given(zone=Zone(parameters.zone).offsets()):
        return reading.frame(query, {"campaign": None, "since": parameters.since, "until": parameters.until})


def losses(reading: Reading, parameters: Losses) -> pl.DataFrame:
    """Money lost to broken rules: one row per `point` (the way in which money was lost), campaign and currency.

    An event or coupon counts once per point, and can count in several points. The amounts of different points must
    therefore not be added up. With `explain`: one row per point and event.
    """
    points, campaign = _query("loss_points"), {"campaign": parameters.campaign}
    if parameters.explain:
        order = "ORDER BY lost_minor DESC NULLS LAST, point, coupon_id, event_id"
        return _limited(reading, f"{points} {order}", campaign, parameters.limit)
    return _limited(reading, f"WITH loss_points AS ({points}) {_query('losses')}", campaign, parameters.limit)


def refunds(reading: Reading, parameters: Period) -> pl.DataFrame:
    """Refunds of orders that were paid in the period: one row per currency.

    `clawed_back_minor` is the discount of coupons whose use on these orders was returned. `not_clawed_back_minor` is
    the discount of coupons that are still in use on orders that are cancelled or refunded in full.
    """
    with _given_back(reading):
        return reading.frame(_query("refunds"), parameters.bound)


def reconciliation(reading: Reading, parameters: Reconciliation) -> pl.DataFrame:
    """How the numbers of different reports follow from each other: one row per line of an account and currency.

    An account is a list of lines that leads from a number in one report to a number in another. In an account, a
    `total` is the sum of all lines above it that are not totals. Without `campaign`, there are several accounts. With
    `campaign`, there is one, which leads from the campaign's coupons in use to the orders credited to the campaign.
    """
    with _given_back(reading):
        return reading.frame(_query("reconciliation"), parameters.bound)


def doubts(reading: Reading, _: OfPast) -> pl.DataFrame:
    """Kinds of data that make the figures doubtful: one row per kind and currency, with the number of cases and the
    amount concerned. A kind without cases has no row."""
    return reading.frame(_query("doubts"))


def statement(reading: Reading, parameters: Statement) -> pl.DataFrame:
    """The liability of outstanding coupons: one row per campaign (null: coupons without a campaign) and currency.

    A coupon is outstanding while it is issued, claimed or reserved. opening + issued + returned - used - expired -
    revoked - released = closing, both in coupons and in face value. `without_value` counts the coupons issued in the
    period that have no face value. `closing_without_value` counts the coupons without a face value that are outstanding
    at the end.
    """
    return statement_of(reading, parameters.campaign, parameters.since, parameters.until)


def restated(reading: Reading, parameters: Restated) -> pl.DataFrame:
    """How totals changed between what was known at `known_from` and what is known now: one row per line and currency.

    The first line is `known_then` (as known at `known_from`), then there is one line per cause of a change, and the
    last line is `known_now`. The sum of `known_then` and the causes equals `known_now` in every column but `cases`. The
    columns are orders, sales, margin, discounts, booked costs and simple return (`simple_roi_bp`, in basis points).

    Raises `WrongQuestion`.
    """
    known_from, campaign = parameters.known_from, parameters.campaign
    if known_from is None:
        raise WrongQuestion("restated: known since when is not said; give --known-from")
    goods_bp = goods(parameters.goods_rates)
    past = Past(reading, Cut(known_at=known_from))
    past.stand_in(ORDER)
    past.stand_in(COUPON, campaign_id=None if campaign is None else [campaign])
    for table, query in _EARLIER_TABLES.items():
        reading.execute(f"CREATE TEMP TABLE {table} AS {query}", {"goods_rates": goods_bp} if "$" in query else {})
    past.leave()
    period = {"since": parameters.since, "until": parameters.until}
    return reading.frame(_query("restated"), {"campaign": campaign, "goods_rates": goods_bp, **period})


_EARLIER_TABLES: Final = {
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
    """SQL that joins the UTC offsets of the zone to each row. `at`: SQL for the row's instant. `chosen`: the columns of
    `by`. The join sorts all rows, so the SQL is empty unless one of them is the day."""
    return f"ASOF JOIN zone z ON {at} >= z.since" if "day" in chosen else ""


def _named(chosen: list[str], known: Mapping[str, str]) -> str:
    return "".join(f"{known[part]} AS {part.replace('-', '_')}, " for part in chosen)


def _tie_order(chosen: list[str]) -> str:
    return "".join(f", {part.replace('-', '_')} NULLS LAST" for part in chosen)
