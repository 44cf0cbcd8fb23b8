"""*Replay*: a past day as it was, from minute to minute: the numbers of *Now* at an instant that moves. By what had
happened by then, or by what was known then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from coupon_ledger.api.pages import now
from coupon_ledger.api.pages.components import Component, Link, Player, Tabs
from coupon_ledger.api.pages.filters import CLOCKS
from coupon_ledger.api.pages.looking import Looking, Page
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.plain import plain
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

SPEEDS: Final = (1, 10, 60, 300, 600)
"""Seconds of the past in a second."""
_USUAL: Final = 60
_MOST_MARKS: Final = 12
_FIRST: Final = timedelta(hours=1)
"""A replay begins so long after the start of its period: at the start itself there is nothing to see."""


async def page(looking: Looking) -> Page:
    clock = looking.query.get("clock", CLOCKS[0])
    speed = looking.query.get("speed", str(_USUAL))
    if clock not in CLOCKS or not speed.isdigit() or int(speed) not in SPEEDS:
        raise Refusal(422, say("There is no such clock or speed; go back to the first view of the replay."))
    whole = replace(looking, query={k: v for k, v in looking.query.items() if k not in CLOCKS})
    start, end = whole.filters.since, whole.filters.until
    if start is None or end is None:
        raise Refusal(422, say("Choose a period to replay."))
    at = min(max(getattr(looking.filters, clock) or start + _FIRST, start), end)
    marks = _marks(looking, clock, await _alerts(whole, start, end))
    player = Player(
        name=clock,
        start=plain(start),
        end=plain(end),
        at=plain(at),
        speed=int(speed),
        said=f"{view().local(at):%Y-%m-%d %H:%M:%S}",
        speeds=[Link(f"×{one}", looking.here(speed=one), str(one) == speed) for one in SPEEDS],
        marks=marks,
    )
    clocks = [
        Link(say("as it happened"), looking.here(clock=None, at=None, known_at=None), clock == "at"),
        Link(say("as it was known"), looking.here(clock="known_at", at=None, known_at=None), clock == "known_at"),
    ]
    then = replace(looking, query={**whole.query, clock: plain(at)})
    shown = await now.page(then)
    parts: list[Component] = [Tabs(say("By which clock"), clocks), player, *shown.parts]
    return Page(say("Replay"), parts, slices=shown.slices)


async def _alerts(looking: Looking, start: datetime, end: datetime) -> Sequence[Row]:
    """The alerts that began in the period, the most severe ones."""
    if not looking.may("alerts"):
        return ()
    rows = await looking.rows("alerts", state="all", since=start, until=end, severity="high", limit=200)
    return sorted(rows, key=lambda row: row["opened_at"])[:_MOST_MARKS]


def _marks(looking: Looking, clock: str, alerts: Sequence[Row]) -> list[Link]:
    marks = []
    for row in alerts:
        at = row["opened_at"] if clock == "at" else row["raised_at"] or row["opened_at"]
        text = f"{view().local(at):%H:%M} {row['rule'].replace('_', ' ')}"
        marks.append(Link(text, looking.here(**{clock: plain(at)}), tone="broken"))
    return marks
