"""*Ops*: whether anything is behind or broken: positions and lag, what could not be folded, what is in the tables."""

from __future__ import annotations

from typing import Any, Final

from coupon_ledger.api.pages.components import (
    Cards,
    Cell,
    Component,
    Head,
    Link,
    NumberCard,
    Panel,
    State,
    Table,
    Tabs,
    table_of,
)
from coupon_ledger.api.pages.looking import Looking, Page
from coupon_ledger.ledger.amounts import NOTHING
from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.view import view

_MOST: Final = 200


async def page(looking: Looking) -> Page:
    tab = looking.query.get("tab", "")
    tabs = [
        Link(say(title), looking.here(tab=key), key == tab)
        for key, title in (("", "Positions"), ("dead-letters", "Dead letters"), ("violations", "Broken rules"))
    ]
    parts: list[Component] = [_cards(looking), Tabs(say("Views of the ledger"), tabs)]
    makers: dict[str, Any] = {"": _positions, "dead-letters": _dead_letters, "violations": _violations}
    if tab in makers:
        parts += await makers[tab](looking)
    return Page(say("Ops"), parts, slices=None)


def _cards(looking: Looking) -> Cards:
    state = looking.state
    clock = NOTHING if state.data_clock is None else view().instant(state.data_clock.replace(microsecond=0))
    committed = NOTHING if state.committed_at is None else view().instant(state.committed_at.replace(microsecond=0))
    return Cards(
        [
            NumberCard(say("records behind"), f"{state.lag:,}", looking.here(), note=say("as of the last commit")),
            NumberCard(say("records since the start"), f"{state.records:,}", looking.here()),
            NumberCard(say("commits"), f"{state.commits:,}", looking.here(), note=committed),
            NumberCard(label("data_clock"), clock[11:] or clock, looking.here(), exact=clock, note=clock[:10]),
        ]
    )


async def _positions(looking: Looking) -> list[Component]:
    [summary] = await looking.rows("summary")
    rows = [
        {"topic": topic, "partition": partition, "next_offset": offset}
        for (topic, partition), offset in sorted(looking.state.positions.items())
    ]
    counts = [(name, value) for name, value in summary.items() if isinstance(value, int)]
    heads = [Head(say("what")), Head(say("number"), right=True)]
    lines = [[Cell(label(name)), Cell(f"{value:,}")] for name, value in counts]
    return [
        table_of("positions", say("Positions by partition"), rows, ["topic", "partition", "next_offset"]),
        Table("counts", say("In the tables"), heads, lines),
    ]


async def _dead_letters(looking: Looking) -> list[Component]:
    rows = await looking.rows("dead-letters", limit=_MOST)
    if not rows:
        return [Panel(say("Dead letters"), [State("empty", say("Every record was folded."))])]
    names = [name for name in rows[0] if not isinstance(rows[0][name], bytes | list | dict)]
    return [table_of("dead-letters", say("Dead letters"), rows, names, csv=looking.csv("dead-letters"))]


async def _violations(looking: Looking) -> list[Component]:
    rows = await looking.rows("violation-counts")
    if not rows:
        return [Panel(say("Broken rules"), [State("empty", say("No rule is broken."))])]
    names = [name for name in rows[0] if not isinstance(rows[0][name], list | dict)]
    return [table_of("violations", say("Broken rules"), rows, names, csv=looking.csv("violations"))]
