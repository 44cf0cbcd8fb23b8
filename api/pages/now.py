"""*Now*: how the day goes, beside last year's: claims, uses, sales and discount; the funnel; the campaigns that move;
what needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from coupon_ledger.api.pages.alerts import alert_list, open_alerts
from coupon_ledger.api.pages.campaigns import campaign_table, campaigns_in
from coupon_ledger.api.pages.components import Cards, ChartPanel, Component, Link, NumberCard, Panel, number_card
from coupon_ledger.api.pages.looking import Looking, Page, change_of, nothing, together
from coupon_ledger.api.pages.series import main_currency, series_of, short_label, value_of
from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Funnel, Step
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.svg.lines import Line, Lines
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

COUNTS: Final = ("claimed_events", "net_used_events", "issued_events", "used_events")
MONEY: Final = ("coupon_gmv_minor", "discount_cost_minor", "discount_share", "simple_roi", "gmv_minor")
CARDS: Final = ("claimed_events", "net_used_events", "coupon_gmv_minor", "discount_cost_minor", "simple_roi")
DIMENSIONS: Final = ("campaign", "channel", "coupon_type")
"""By which all of these metrics can be narrowed."""
_MOST_CAMPAIGNS: Final = 10
_MOST_ALERTS: Final = 5


async def page(looking: Looking) -> Page:
    filters = looking.filters
    names = [*COUNTS, *MONEY]
    grain = "hour" if filters.grain in ("minute", "hour") else filters.grain
    totals, parts, lines, alerts, campaigns = await together(
        looking.metrics(names, compare=filters.compare),
        looking.metrics(["claimed_events", "net_used_events", *MONEY[:2]], compare=filters.compare, grain=grain),
        looking.metrics(["claimed_events", "used_events"], compare=filters.compare, grain=_fine(looking)),
        open_alerts(looking) if looking.may("alerts") else nothing(),
        campaigns_in(looking),
    )
    currency = main_currency(totals, "coupon_gmv_minor")
    shown: list[Component] = [
        Cards([card(looking, name, totals, parts, currency) for name in CARDS]),
        ChartPanel(
            Figure(_funnel(looking, campaigns), "funnel"),
            say("of the campaigns below, since they began"),
            csv=looking.csv("campaigns"),
        ),
        ChartPanel(
            Figure(_lines(looking, lines), "lines"),
            csv=looking.metrics_csv(["claimed_events", "used_events"], grain=_fine(looking)),
        ),
        campaign_table(looking, campaigns[:_MOST_CAMPAIGNS], more=len(campaigns)),
    ]
    if looking.may("alerts"):
        links = [Link(say("all alerts"), looking.href("/alerts"))]
        shown.append(Panel(say("Open alerts"), [alert_list(looking, alerts[:_MOST_ALERTS])], links))
    return Page(say("Now"), shown, slices=DIMENSIONS)


def _fine(looking: Looking) -> str:
    """The grain of the chart of claims and uses."""
    filters = looking.filters
    if filters.since is not None and filters.until is not None and filters.until - filters.since <= timedelta(hours=30):
        return "minute"
    return filters.grain


def card(
    looking: Looking, name: str, totals: Sequence[Row], parts: Sequence[Row], currency: str | None, **more: Any
) -> NumberCard:
    """The card of a metric. `totals`: its values in the period, `parts`: in pieces of it."""
    row = value_of(totals, name, currency)
    quantity = Quantity(name, currency)
    history = series_of(parts, name, currency)
    value = row.get(name)
    note = more.pop("note", "")
    if row.get("open") and value is not None and not note:
        note = say("may still change")
    return number_card(
        name,
        short_label(name),
        quantity,
        value,
        looking.href("/explore", metric=name),
        history=[one for _, one in history],
        history_behind=[one.get(f"{name}_before") for one in _rows(parts, name, currency)],
        change=change_of(row, name, looking.filters),
        note=note,
        definition=definition(name),
        position=position(looking),
        why_href=looking.href("/why", metric=name),
        why_unknown=say("no data in this period"),
        **more,
    )


def _rows(parts: Sequence[Row], name: str, currency: str | None) -> list[Row]:
    return [row for row in parts if row.get("currency") == (currency if METRICS[name].money else None)]


def definition(name: str) -> str:
    """What the metric is, in a sentence; in Chinese, its formula."""
    metric = METRICS[name]
    return metric.formula if view().chinese else metric.meaning


def position(looking: Looking) -> str:
    """Which state the numbers of the page are of."""
    return say("commit {n:count}", n=looking.state.commits)


def _funnel(looking: Looking, campaigns: Sequence[Row]) -> Funnel:
    """How far the coupons got of the campaigns that have something in the period."""
    steps = [
        Step(label(name), sum(row.get(name) or 0 for row in campaigns), looking.href("/campaigns"))
        for name in ("issued", "owned", "used", "in_use")
    ]
    about = say("Coupons of the campaigns that moved in this period, since they began")
    return Funnel(say("Funnel"), about, Quantity("coupons"), steps)


def _lines(looking: Looking, rows: Sequence[Row]) -> Lines:
    names = ("claimed_events", "used_events")
    counts = [row for row in rows if row.get("currency") is None]
    before = [row.get("claimed_events_before") for row in counts]
    behind = Line(say("claimed before"), before) if looking.filters.compare and any(before) else None
    return Lines(
        title=say("Claims and uses"),
        about=say("Both in this period; behind them what they are compared with"),
        quantity=Quantity("events"),
        times=[row["starts_at"] for row in counts],
        lines=[Line(short_label(name), [row[name] for row in counts]) for name in names],
        behind=behind,
    )
