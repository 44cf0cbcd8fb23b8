"""*Explore*: any metric over any slice and grain, as a chart and a table. The URL is the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coupon_ledger.api.pages.components import ChartPanel, Choice, Component, Sentences, State, table_of
from coupon_ledger.api.pages.filters import SLICES
from coupon_ledger.api.pages.looking import Looking, Page
from coupon_ledger.api.pages.series import main_currency
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.questions.metrics.definitions import DIMENSIONS, METRICS
from coupon_ledger.questions.metrics.periods import GRAINS
from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.parts import one_row_a_slice
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Bars
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.svg.lines import MOST_SERIES, Line, Lines
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

FIRST: Final = "claimed_events"
_MOST_ROWS: Final = 500
_MOST_BARS: Final = 20


async def page(looking: Looking) -> Page:
    name, by, grain = (looking.query.get(key, "") for key in ("metric", "by", "grain"))
    name = name or FIRST
    if name not in METRICS:
        raise Refusal(404, say("There is no metric called {name}.", name=name[:60]))
    metric = METRICS[name]
    dimensions = [one for one in DIMENSIONS if one in metric.dimensions]
    further = [
        Choice(label("metric"), "metric", [(one, _named(one)) for one in METRICS], name),
        Choice(say("by"), "by", [("", say("nothing")), *((one, label(one)) for one in dimensions)], by),
    ]
    if metric.view != "now":
        grains = [("", say("the whole period")), *((one, label(one)) for one in GRAINS)]
        further.append(Choice(say("every"), "grain", grains, grain))
    now = metric.view == "now"
    period: dict[str, Any] = {"since": None, "until": None} if now else {}
    given: dict[str, Any] = {**period, "by": [by] if by else None, "grain": None if now else grain or None}
    compare = None if now else looking.filters.compare
    rows = one_row_a_slice([dict(row) for row in await looking.metrics([name], **given, compare=compare)])
    parts: list[Component] = [Sentences([metric.meaning])] if metric.meaning and not view().chinese else []
    if not rows or all(row.get(name) is None for row in rows):
        parts.append(
            State("empty", say("No value in this period."), say("look at all time"), looking.here(period="all"))
        )
        return Page(_named(name), parts, slices=tuple(dimensions), further=further)
    currency = main_currency(rows, name) if metric.money else None
    chart = (
        _over_time(looking, name, by, currency, rows)
        if grain and not now
        else _ranked(looking, name, by, currency, rows)
    )
    if chart is not None:
        parts.append(chart)
    columns = [one for one in rows[0] if one not in ("starts_at", "data_clock", "open")]
    hrefs = _links(looking, by, rows[:_MOST_ROWS])
    csv = looking.metrics_csv([name], **given, compare=compare)
    parts.append(table_of("values", _named(name), rows[:_MOST_ROWS], columns, hrefs=hrefs, csv=csv))
    return Page(_named(name), parts, slices=tuple(one for one in SLICES if one in dimensions), further=further)


def _named(name: str) -> str:
    return label(name)


def _over_time(looking: Looking, name: str, by: str, currency: str | None, rows: Sequence[Row]) -> ChartPanel | None:
    mine = [row for row in rows if currency is None or row.get("currency") == currency]
    times = sorted({row["starts_at"] for row in mine})
    values: dict[str, dict[Any, Any]] = {}
    for row in mine:
        values.setdefault(str(row.get(by) or "") if by else "", {})[row["starts_at"]] = row.get(name)
    largest = sorted(values, key=lambda one: -sum(abs(v) for v in values[one].values() if v is not None))[:MOST_SERIES]
    lines = [
        Line((one or say("unknown")) if by else label(name), [values[one].get(at) for at in times]) for one in largest
    ]
    before = {row["starts_at"]: row.get(f"{name}_before") for row in mine}
    behind = None if by or not any(before.values()) else Line(say("before"), [before.get(at) for at in times])
    chart = Lines(label(name), label(name), Quantity(name, currency), times, lines, behind)
    return ChartPanel(Figure(chart, "over-time")) if len(times) > 1 else None


def _ranked(looking: Looking, name: str, by: str, currency: str | None, rows: Sequence[Row]) -> ChartPanel | None:
    mine = [row for row in rows if row.get(name) is not None and (currency is None or row.get("currency") == currency)]
    if not by or len(mine) < 2:
        return None
    largest = sorted(mine, key=lambda row: -abs(row[name]))[:_MOST_BARS]
    hrefs = _links(looking, by, largest).get(by, [""] * len(largest))
    bars = [
        Bar(str(row[by] or say("unknown")), row[name], behind=row.get(f"{name}_before"), href=href or None)
        for row, href in zip(largest, hrefs, strict=True)
    ]
    return ChartPanel(Figure(Bars(label(name), label(name), Quantity(name, currency), bars), "ranked"))


def _links(looking: Looking, by: str, rows: Sequence[Row]) -> dict[str, list[str]]:
    """From a value of a dimension: to the campaign, or to this page within that value."""
    if not by:
        return {}
    if by == "campaign":
        return looking.links([by], rows)
    if by not in SLICES:
        return {}
    return {by: [looking.here(**{by: row[by], "by": None}) if row[by] else "" for row in rows]}
