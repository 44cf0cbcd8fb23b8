"""Sections of reports as components of pages: their sentences, charts and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from coupon_ledger.api.pages.components import ChartPanel, Component, Panel, Sentences, State, table_of
from coupon_ledger.reports.charts import Chart
from coupon_ledger.reports.labels import label, say, word
from coupon_ledger.reports.review import TABLE_TITLES, Section
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Bars
from coupon_ledger.reports.svg.figure import Chart as Drawn
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.svg.intervals import Interval, Intervals
from coupon_ledger.reports.svg.lines import MOST_SERIES, Line, Lines
from coupon_ledger.reports.text import Row

_MOST_ROWS: Final = 100


def components_of(key: str, section: Section) -> Iterator[Component]:
    """What a page shows of a section. `key`: its name on the page."""
    if section.refused is not None:
        yield Panel(section.title, [State("empty", section.refused)])
        return
    if section.in_short or section.text:
        yield Panel(section.title, [Sentences([*section.in_short, *section.text])])
    if section.warnings:
        yield Sentences(section.warnings, "attention")
    for number, chart in enumerate(section.charts):
        drawn = None if chart.empty else _drawn(chart)
        if drawn is not None:
            yield ChartPanel(Figure(drawn, f"{key}-{number}"))
    for title, rows in section.tables.items():
        if rows:
            yield _table(f"{key}-{len(title)}-{title[:8]}", section, title, rows)


def _table(key: str, section: Section, title: str, rows: Sequence[Row]) -> Component:
    names = section.columns.get(title) or list(rows[0])
    names = [n for n in names if any(row.get(n) is not None for row in rows) and not isinstance(rows[0].get(n), list)]
    heads = section.heads
    renamed = [{heads.get(name, name): value for name, value in row.items()} for row in rows[:_MOST_ROWS]]
    shown = [heads.get(name, name) for name in names]
    return table_of(_id(key), say(TABLE_TITLES[title]) if title in TABLE_TITLES else label(title), renamed, shown,
                    currency=section.currency)  # fmt: skip


def _id(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _drawn(chart: Chart) -> Drawn | None:
    name = next(iter(chart.series))
    quantity = Quantity(name, chart.currency)
    if chart.kind == "bars":
        values = chart.series[name]
        return Bars(
            chart.title, chart.title, quantity, [Bar(_name(n), v) for n, v in zip(chart.names, values, strict=True)]
        )
    if chart.kind == "spans":
        return Intervals(chart.title, chart.title, quantity, list(_intervals(chart)), null=0.0)
    times = [_instant(one) for one in chart.names]
    if any(one is None for one in times):
        return None
    lines = [Line(label(one), values) for one, values in list(chart.series.items())[:MOST_SERIES]]
    return Lines(chart.title, chart.title, quantity, [one for one in times if one is not None], lines)


def _intervals(chart: Chart) -> Iterator[Interval]:
    for number, name in enumerate(chart.names):
        effect, low, high = (chart.series[one][number] for one in ("effect", "low", "high"))
        yield Interval(_name(name), effect, low, high)


def _name(name: str) -> str:
    return word(name)


def _instant(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)[:10])
    except ValueError:
        return None
