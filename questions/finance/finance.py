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
    """Discounts: one row per currency and value of the columns in `by`, largest first.

    `orders` and `coupons` count those with a discount. `share` is the row's part of all discounts in the currency. By
    category, each discount is spread over the lines of its order. With `explain`: one row per discount and funder, by
    time.

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
    """Net sales, cost of goods and margin: one row per currency and value of the columns in `by`.

    Orders count if they stand: paid, and neither cancelled nor refunded in full. The margin covers orders with a known
    cost of goods. `orders_without_cost` counts the others; `orders_by_rate` counts orders whose cost comes from
    `goods_rates`. With `explain`: one row per order.

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

    Refunds and order-level amounts are allocated to the lines. What the lines do not explain has the category '(no
    lines)', so `net_sales_minor` has the same sum as in `finance-margin`. `below_cost` counts lines sold below their
    cost; `lines_without_cost` are left out of the margin. `discount_minor` is the category's part of all discounts,
    `line_discount_minor` what the lines themselves state.

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
    """Provide `given_back` (given_back.sql) to queries in this context."""
    with reading.holding("given_back", _query("given_back"), {}):
        yield


def _spread() -> str:
    """SQL for the discounts, each spread over the lines of its order."""
    return f"WITH taken AS ({_query('discounts')}) SELECT * FROM ({_query('spread')})"


def budgets(reading: Reading, parameters: Budgets) -> pl.DataFrame:
    """Budgets and spending: one row per campaign and currency.

    Spending is the discount of coupons in use plus booked costs. `exhausted_at` says when the rest will be spent at the
    rate of the last `days` days (null if the budget is spent already or the rate is zero). `coupons_out` can still be
    used; `liability_minor` is their face value, without the `without_value` coupons that have none. With `explain`: one
    row per discount or booking.
    """
    campaign = parameters.campaign
    if parameters.explain:
        query = f"{_query('spending')} ORDER BY spent_at, campaign_id, coupon_id, event_id"
        return _limited(reading, query, {"campaign": campaign}, parameters.limit)
    query = f"WITH spending AS ({_query('spending')}) SELECT * FROM ({_query('budgets')})"
    return reading.frame(query, {"campaign": campaign, "days": parameters.days})


def cash(reading: Reading, parameters: Cash) -> pl.DataFrame:
    """Cash in and out: one row per day and currency.

    In: payments of orders. Out: refunds, payments of cancelled orders, booked costs by kind. A discount is not a cash
    flow; `discount_minor` is shown for comparison.

    Raises `WrongQuestion`.
    """
    query = f"WITH taken AS ({_query('discounts')}) SELECT * FROM ({_query('cash')})"
    with _given_back(reading), reading.given(zone=Zone(parameters.zone).offsets()):
        return reading.frame(query, {"campaign": None, "since": parameters.since, "until": parameters.until})


def losses(reading: Reading, parameters: Losses) -> pl.DataFrame:
    """Money lost to broken rules: one row per point of loss, campaign and currency.

    An event or coupon counts once per point, and may count in several points, so points must not be added up. With
    `explain`: one row per point and event.
    """
    points, campaign = _query("loss_points"), {"campaign": parameters.campaign}
    if parameters.explain:
        order = "ORDER BY lost_minor DESC NULLS LAST, point, coupon_id, event_id"
        return _limited(reading, f"{points} {order}", campaign, parameters.limit)
    return _limited(reading, f"WITH loss_points AS ({points}) {_query('losses')}", campaign, parameters.limit)


def refunds(reading: Reading, parameters: Period) -> pl.DataFrame:
    """Refunds of orders paid in the period: one row per currency.

    `clawed_back_minor` is the discount of coupons whose use was returned; `not_clawed_back_minor` that of coupons still
    in use on orders that are cancelled or refunded in full.
    """
    with _given_back(reading):
        return reading.frame(_query("refunds"), parameters.bound)


def reconciliation(reading: Reading, parameters: Reconciliation) -> pl.DataFrame:
    """How the numbers of the reports reconcile: one row per line of an account and currency.

    Within an account, a `total` is the sum of all lines above it that are not totals. With `campaign`, the account
    leads from the campaign's coupons in use to the orders that it is credited with.
    """
    with _given_back(reading):
        return reading.frame(_query("reconciliation"), parameters.bound)


def doubts(reading: Reading, _: OfPast) -> pl.DataFrame:
    """Data that make the figures doubtful: one row per kind of doubt and currency, with the number of cases and the
    money in question. Kinds without cases are left out."""
    return reading.frame(_query("doubts"))


def statement(reading: Reading, parameters: Statement) -> pl.DataFrame:
    """The liability of outstanding coupons: one row per campaign (null: coupons without one) and currency.

    A coupon is outstanding while it is issued, claimed or reserved. opening + issued + returned - used - expired -
    revoked - released = closing, both in coupons and in face value. `without_value` counts issued coupons without a
    face value, `closing_without_value` those outstanding at the end.
    """
    return statement_of(reading, parameters.campaign, parameters.since, parameters.until)


def restated(reading: Reading, parameters: Restated) -> pl.DataFrame:
    """How totals changed between what was known at `known_from` and what is known now: one row per line and currency.

    The lines are `known_then` (as known at `known_from`), one per cause of a change, and `known_now`. In every column
    but `cases`, known_then plus the causes equals known_now. The columns are orders, sales, margin, discounts, booked
    costs and simple return (`simple_roi_bp`, in basis points).

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
    """SQL that joins the zone's UTC offsets. The join sorts all rows, so it is added only if `by` includes days."""
    return f"ASOF JOIN zone z ON {at} >= z.since" if "day" in chosen else ""


def _named(chosen: list[str], known: Mapping[str, str]) -> str:
    return "".join(f"{known[part]} AS {part.replace('-', '_')}, " for part in chosen)


def _tie_order(chosen: list[str]) -> str:
    return "".join(f", {part.replace('-', '_')} NULLS LAST" for part in chosen)
