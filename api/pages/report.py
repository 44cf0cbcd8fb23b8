"""Pages of a report: a tab for each of its parts, with a chart where one says more than the table. *Finance* and
*Customers* are such pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from coupon_ledger.api.pages.components import (
    Cards,
    ChartPanel,
    Chips,
    Component,
    Link,
    NumberCard,
    Sentences,
    State,
    Tabs,
    table_of,
)
from coupon_ledger.api.pages.looking import Looking, Maker, Page, to_the_second
from coupon_ledger.reports.columns import in_natural_order
from coupon_ledger.reports.labels import label, say, text_of, word
from coupon_ledger.reports.parts import COHORTS, DETAILS, DOUBTS, FINANCE, MOVES, SEGMENTS, Part, doubt_in_words
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Bars
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.svg.grids import Grid
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

_MOST_ROWS: Final = 200
_MOST_BARS: Final = 12
_BARS: Final[Mapping[str, str]] = {
    "split": "discount_minor",
    "margin": "net_sales_minor",
    "categories": "margin_minor",
    "losses": "lost_minor",
    "refunds": "refunded_minor",
    "rfm": "customers",
    "tiers": "customers",
}
"""By part: the column that its chart shows."""
_SHORT: Final[Mapping[str, str]] = {
    "split": "Discounts",
    "margin": "Margin",
    "categories": "Categories",
    "budget": "Budgets",
    "cash": "Cash",
    "losses": "Losses",
    "refunds": "Refunds",
    "statement": "Statement",
    "doubts": "Doubts",
    "reconciliation": "Reconciliation",
    "rfm": "Segments",
    "tiers": "Tiers",
    "at-use": "New or returning",
    "clusters": "Clusters",
    "use": "What goes with use",
    "repurchase": "Repurchase",
    "lapsing": "About to lapse",
    "retention": "Cohorts",
    "coupon": "Cohorts with a coupon",
}
"""By part: what its tab says."""
_HIDDEN: Final = frozenset({"data_clock", "open"})


def page_of(title: str, parts: Mapping[str, Part]) -> Maker:
    async def page(looking: Looking) -> Page:
        tab = looking.query.get("tab", next(iter(parts)))
        tabs = [Link(say(_SHORT[name]), looking.here(tab=name, sort=None), name == tab) for name in parts]
        shown_parts: list[Component] = [Tabs(say("Parts of this report"), tabs)]
        if tab not in parts:
            said = say("This report has no such part.")
            return Page(say(title), [*shown_parts, State("empty", said, say("see its first part"), looking.path)])
        shown_parts += await _shown(looking, tab, parts[tab])
        return Page(say(title), shown_parts, slices=("campaign",))

    return page


async def _shown(looking: Looking, name: str, part: Part) -> list[Component]:
    options = {
        "by": part.by or None,
        "campaign": looking.filters.slice.get("campaign"),
        "since": looking.filters.since,
        "until": looking.filters.until,
        "zone": view().zone,
        "limit": _MOST_ROWS,
    }
    parameters = part.main.parameters(options)
    rows = list(await looking.rows(part.asks, **parameters))
    if not rows:
        return [
            State("empty", say("Nothing of this in the period."), say("look at all time"), looking.here(period="all"))
        ]
    currencies = sorted({row.get("currency") or "" for row in rows} - {""})
    chosen = looking.query.get("currency") or _largest(rows)
    if len(currencies) > 1 and name != "doubts":
        rows = [row for row in rows if row.get("currency") in (chosen, None)]
    if name == "doubts":
        return [Sentences([text_of(doubt_in_words(row)) for row in rows if row["doubt"] in DOUBTS], "attention")]
    found: list[Component] = []
    if len(currencies) > 1:
        found.append(Chips([Link(one, looking.here(currency=one), one == chosen) for one in currencies]))
    if name == "statement":
        found += _statement(looking, rows)
    if name in ("retention", "coupon"):
        found += _cohorts(rows)
    if name in _BARS:
        found += _bars(looking, name, rows)
    names = [
        column
        for column in rows[0]
        if any(row.get(column) is not None for row in rows)
        and not isinstance(rows[0][column], list | dict)
        and column not in _HIDDEN
        and column not in DETAILS.get(name, "").split()
    ]
    ordered = in_natural_order([to_the_second(row) for row in rows], names)
    hrefs = looking.links({"campaign_id"} & set(names), ordered)
    found.append(
        table_of(
            name, say(part.title), ordered[:_MOST_ROWS], names, hrefs=hrefs, csv=looking.csv(part.asks, **parameters)
        )
    )
    return found


def _largest(rows: Sequence[Row]) -> str | None:
    """The currency of most rows."""
    counts = Counter(row["currency"] for row in rows if row.get("currency"))
    return counts.most_common(1)[0][0] if counts else None


def _bars(looking: Looking, name: str, rows: Sequence[Row]) -> list[Component]:
    """The largest rows as bars: one chart for each currency."""
    column = _BARS[name]
    if column not in rows[0]:
        return []
    by = next((one for one in rows[0] if isinstance(rows[0][one], str) and one != "currency"), None)
    if by is None:
        return []
    panels: list[Component] = []
    for currency in sorted({row.get("currency") or "" for row in rows}):
        mine = [row for row in rows if (row.get("currency") or "") == currency and row[column] is not None]
        largest = sorted(mine, key=lambda row: -abs(row[column]))[:_MOST_BARS]
        if len(largest) < 2:
            continue
        bars = [Bar(word(row[by]) if row[by] else say("unknown"), row[column]) for row in largest]
        title = f"{label(column)} ({currency})" if currency else label(column)
        chart = Bars(title, title, Quantity(column, currency or None), bars)
        panels.append(ChartPanel(Figure(chart, f"{name}-{currency or 'all'}")))
    return panels


def _statement(looking: Looking, rows: Sequence[Row]) -> list[Component]:
    """Opening, movements and closing as cards, for each currency."""
    cards = []
    for row in rows:
        move = row.get("move") or row.get("line")
        if move in (MOVES[0], MOVES[-1]):
            amount = next((one for one in row if one.endswith("_minor")), None)
            if amount is not None:
                quantity = Quantity(amount, row.get("currency"))
                cards.append(
                    NumberCard(
                        word(str(move)), quantity.short(row[amount]), looking.here(), quantity.exact(row[amount])
                    )
                )
    return [Cards(cards)] if cards else []


def _cohorts(rows: Sequence[Row]) -> list[Component]:
    """Shares that came again, by cohort and months since."""
    first = next((name for name in ("cohort", "month") if name in rows[0]), None)
    share = next((name for name in ("share", "retention", "came_again_share") if name in rows[0]), None)
    later = next((name for name in ("months_later", "months", "month_number") if name in rows[0]), None)
    if first is None or share is None or later is None:
        return []
    cohorts = sorted({str(row[first]) for row in rows})
    months = sorted({row[later] for row in rows})
    values = {(str(row[first]), row[later]): row[share] for row in rows}
    grid: list[list[float | None]] = [[values.get((cohort, month)) for month in months] for cohort in cohorts]
    title = say("Who came again")
    chart = Grid(title, title, Quantity(share), [one[:7] for one in cohorts], [f"+{one}" for one in months], grid)
    return [ChartPanel(Figure(chart, "cohorts"))]


finance = page_of("Finance", FINANCE)
customers = page_of("Customers", {**SEGMENTS, **COHORTS})
