"""One coupon, order or user: its state, its life on both clocks, what is connected with it. And the search that leads
there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coupon_ledger.api.pages.components import (
    Cell,
    Chips,
    Component,
    Entry,
    Facts,
    Link,
    Panel,
    Slider,
    State,
    Table,
    Timeline,
    table_of,
)
from coupon_ledger.api.pages.looking import Looking, Page, to_the_second
from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.plain import plain
from coupon_ledger.reports.labels import label, say, shown, word, word_of
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

_STATE: Final = (
    "owner order_id campaign_id coupon_type face_value_minor percent_off_bp min_spend_minor discount_minor valid_from"
    " valid_until issue_channel claim_channel reason created_at issued_at claimed_at reserved_at used_at ended_at"
).split()
_ORDER: Final = (
    "user_id status channel store region currency gross_minor net_minor refunded_minor coupon_discount_minor"
    " cost_of_goods_minor placed_at paid_at cancelled_at reason"
).split()
_MOST: Final = 100
_MOST_STOPS: Final = 60


async def coupon(looking: Looking) -> Page:
    """A coupon, now or at an instant on either clock."""
    name = looking.values["coupon"]
    cut = {key: looking.query[key] for key in ("at", "known_at") if looking.query.get(key)}
    [row], history, whole = await asyncio.gather(
        looking.rows("state", coupon=name, **cut),
        looking.rows("history", coupon=name, **cut),
        looking.rows("history", coupon=name),
    )
    facts = _facts(looking, row, _STATE)
    clock = "known_at" if "known_at" in cut else "at"
    parts: list[Component] = [
        Panel(say("Through time"), [_slider(looking, whole, clock)], _clocks(looking, clock)),
        Panel(say("State"), [Facts(facts)]),
        Panel(say("Its life"), [Timeline([_entry(looking, event) for event in history])]),
    ]
    wrong = sum(len(event["violations"]) for event in history)
    chips = [Link(word(row["state"]), "", tone="here"), Link(say("{n:count} event{n:s}", n=row["events"]), "")]
    if wrong:
        chips.append(Link(say("{n:count} broken rule{n:s}", n=wrong), "", tone="broken"))
    return Page(name, parts, under=Chips(chips), crumbs=_up(looking, row["campaign_id"]), slices=None)


def _up(looking: Looking, campaign: str | None) -> list[Link]:
    up = [Link(word_of("pages", "campaigns"), looking.href("/campaigns"))]
    return [*up, Link(campaign, looking.to("campaign", campaign))] if campaign else up


def _facts(looking: Looking, row: Row, names: Sequence[str]) -> list[tuple[str, Cell]]:
    short = to_the_second(row)
    return [
        (label(name), Cell(shown(name, short, row.get("currency")), href=looking.to(name, row[name])))
        for name in names
        if row.get(name) is not None
    ]


def _slider(looking: Looking, history: Sequence[Row], clock: str) -> Slider:
    """Stops after each of the coupon's events, by when they happened or by when they became known."""
    column = "occurred_at" if clock == "at" else "recorded_at"
    instants = sorted({event[column] for event in history})[-_MOST_STOPS:]
    stops = [(plain(at), view().instant(at.replace(microsecond=0))) for at in instants] + [("", say("now"))]
    chosen = looking.query.get(clock, "")
    at = next((n for n, (value, _) in enumerate(stops) if value == chosen), len(stops) - 1)
    return Slider(say("as it was at") if clock == "at" else say("as known at"), clock, stops, at)


def _clocks(looking: Looking, clock: str) -> list[Link]:
    other = "known_at" if clock == "at" else "at"
    text = say("by when it became known") if other == "known_at" else say("by when it happened")
    last = "2999-01-01T00:00:00Z"
    return [Link(text, looking.here(**{"at": None, "known_at": None, other: last}))]


def _entry(looking: Looking, event: Row) -> Entry:
    data = event["data"]
    data = json.loads(data) if isinstance(data, str) else dict(data or {})
    currency = data.get("currency") or event["currency"]
    facts = [
        Link(f"{label(name)} {_value(name, value, currency)}", looking.to(name, value))
        for name, value in data.items()
        if value is not None and name not in ("currency", "attributes")
    ]
    excused = {*event["superseded"], *event["explained"]}
    faults = [word(code) for code in event["violations"] if code not in excused]
    facts += [Link(say("{code:word}, but no fault", code=code), "") for code in excused]
    return Entry(
        title=word(event["type"]),
        occurred=view().instant(event["occurred_at"]),
        recorded=view().instant(event["recorded_at"]),
        move=f"{word(event['before'])} → {word(event['after'])}" if event["before"] != event["after"] else "",
        facts=facts,
        faults=faults,
        position=f"coupon.events {event['partition']}@{event['offset']} · {event['source']} · {event['event_id']}",
    )


def _value(name: str, value: Any, currency: str | None) -> str:
    from datetime import datetime

    if isinstance(value, str) and name.endswith(("_at", "_from", "_until")):
        try:
            return view().instant(datetime.fromisoformat(value).replace(tzinfo=None))
        except ValueError:
            return value
    if isinstance(value, int | float):
        return shown(name, {name: value, "currency": currency}, currency)
    return word(value) if isinstance(value, str) and name in ("coupon_type", "reason") else str(value)


async def order(looking: Looking) -> Page:
    name = looking.values["order"]
    [row] = await looking.rows("order", order=name)
    currency = row["currency"]
    parts: list[Component] = [Panel(say("The order"), [Facts(_facts(looking, row, _ORDER))])]
    for part in ("coupons", "violations", "discounts", "lines"):
        rows = row.get(part) or []
        if rows:
            parts.append(_list(looking, part, rows, currency))
    chips = [Link(word(row["status"]) if row["status"] else say("not placed"), "", tone="here")]
    return Page(name, parts, under=Chips(chips), slices=None)


async def user(looking: Looking) -> Page:
    name = looking.values["user"]
    [row] = await looking.rows("user", user=name)
    coupons = row["coupons"] or []
    counts = [
        (label(one), Cell(f"{row[one]:,}")) for one in ("usable", "used", "expired", "touches") if row[one] is not None
    ]
    facts = [*counts, (label("person"), Cell(row["person"]))]
    if row["linked"]:
        facts.append((label("linked"), Cell(", ".join(map(str, row["linked"])))))
    parts: list[Component] = [Panel(say("The user"), [Facts(facts)])]
    if coupons:
        parts.append(_list(looking, "coupons", coupons[:_MOST], None, more=len(coupons)))
    else:
        parts.append(State("empty", say("No coupon is or was this user's.")))
    return Page(name, parts, slices=None)


def _list(looking: Looking, key: str, rows: Sequence[Row], currency: str | None, more: int = 0) -> Table:
    names = [
        name
        for name in rows[0]
        if any(row[name] is not None for row in rows) and not isinstance(rows[0][name], list | dict)
    ]
    title = label(key) + (f" ({len(rows):,} / {more:,})" if more > len(rows) else "")
    short = [to_the_second(row) for row in rows]
    return table_of(key, title, short, names, currency=currency, hrefs=looking.links(names, rows))


# ── Search ───────────────────────────────────────────────────────────────────────────────────────────────────

_TRIED: Final = (
    ("coupon", "state"),
    ("order", "order"),
    ("user", "user"),
    ("campaign", "campaign"),
)


async def search(looking: Looking) -> Page:
    """What has this id, code or name."""
    text = looking.query.get("q", "").strip()[:400]
    if not text:
        said = say("Type the id of a coupon, an order, a user or a campaign, a coupon's code, or a campaign's name.")
        return Page(say("Search"), [State("empty", said)], slices=None)
    found = await asyncio.gather(*(_there(looking, question, parameter, text) for parameter, question in _TRIED))
    links = [
        Link(f"{label(what)} {text}", looking.to(what, text))
        for there, (what, _) in zip(found, _TRIED, strict=True)
        if there
    ]
    links += await _by_code(looking, text)
    links += await _by_name(looking, text)
    if not links:
        step = say("check the spelling, or look through the campaigns")
        return Page(
            say("Search"),
            [State("empty", say("Nothing is called {text}.", text=text), step, "/campaigns")],
            slices=None,
            status=404,
        )
    return Page(say("Search"), [Panel(say("Found for {text}", text=text), [Chips(links)])], slices=None)


async def _there(looking: Looking, question: str, parameter: str, text: str) -> bool:
    try:
        return bool(await looking.rows(question, **{parameter: text}))
    except LedgerError:
        return False


async def _by_code(looking: Looking, text: str) -> list[Link]:
    rows = await looking.rows("coupons", code=text, limit=20)
    return [Link(f"{label('coupon')} {row['coupon_id']}", looking.to("coupon", row["coupon_id"])) for row in rows]


async def _by_name(looking: Looking, text: str) -> list[Link]:
    wanted = text.casefold()
    rows = await looking.rows("campaigns")
    named: Mapping[str, str] = {row["campaign_id"]: row["name"] or "" for row in rows if row["campaign_id"]}
    return [
        Link(f"{name or campaign}", looking.to("campaign", campaign))
        for campaign, name in named.items()
        if (wanted in name.casefold() or wanted in campaign.casefold()) and campaign != text
    ][:20]
