"""*Alerts*: the inbox, and one alert with everything behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from coupon_ledger.api.pages.components import (
    AlertLine,
    AlertList,
    Beside,
    Cell,
    Chips,
    Choice,
    Component,
    Entry,
    Facts,
    Link,
    Panel,
    Sentences,
    State,
    Tabs,
    Timeline,
    table_of,
)
from coupon_ledger.api.pages.looking import Looking, Page, to_the_second
from coupon_ledger.reports.alerts import (
    description,
    key_in_words,
    key_of,
    unnamed,
    what_happened,
    what_to_do,
    what_was_done,
)
from coupon_ledger.reports.labels import label, say, shown, word
from coupon_ledger.reports.short import short_money
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

_TONES: Final = {"critical": "broken", "high": "broken", "warning": "attention", "info": "quiet"}
_RANK: Final = {"critical": 0, "high": 1, "warning": 2, "info": 3}
_MOST: Final = 200
_STATES: Final = ("open", "closed", "all")
_SEVERITIES: Final = ("", "critical", "high", "warning", "info")
_LISTS: Final = {
    "coupon_list": ("coupon_id first_at state owner order_id discount_minor", "coupon_id"),
    "user_list": ("user_id events coupons devices ips first_at last_at", "user_id"),
    "order_list": ("order_id coupons user_id net_minor refunded_minor paid_at cancelled_at", "order_id"),
}


async def open_alerts(looking: Looking) -> Sequence[Row]:
    """The open alerts, the most severe and the latest first."""
    return _urgent_first(await looking.rows("alerts", limit=_MOST))


def _urgent_first(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (_RANK.get(row["severity"], 9), -row["opened_at"].timestamp()))


async def inbox(looking: Looking) -> Page:
    state = looking.query.get("state", "open")
    given: dict[str, Any] = {"state": state, "limit": _MOST}
    given |= {name: looking.query[name] for name in ("severity", "rule", "assignee", "key") if looking.query.get(name)}
    rows = _urgent_first(await looking.rows("alerts", **given))
    tabs = Tabs(say("Which alerts"), [Link(word(one), looking.here(state=one), one == state) for one in _STATES])
    severities = [(code, word(code) if code else say("all")) for code in _SEVERITIES]
    parts: list[Component] = [
        tabs,
        Panel(say("Alerts"), [alert_list(looking, rows)], [Link("CSV", looking.csv("alerts", **given))]),
    ]
    if len(rows) == _MOST:
        parts.append(Sentences([say("The first {n:count} are shown; narrow them down.", n=_MOST)]))
    severity = Choice(label("severity"), "severity", severities, looking.query.get("severity", ""))
    return Page(say("Alerts"), parts, further=[severity])


def alert_list(looking: Looking, rows: Sequence[Row]) -> AlertList:
    lines = [
        AlertLine(
            severity=row["severity"],
            severity_name=word(row["severity"]),
            what=in_short(row),
            href=looking.href(f"/alerts/{row['alert_id']}"),
            much="" if row["money_minor"] is None else short_money(row["money_minor"], row["currency"]),
            since=since(row["opened_at"]),
            owner=row["assignee"] or row["acknowledged_by"] or "",
        )
        for row in rows
    ]
    return AlertList(
        lines, State("empty", say("No alert is open here."), say("see those that are closed"), "/alerts?state=closed")
    )


def in_short(row: Row) -> str:
    """The rule and what it is about."""
    return f"{row['rule'].replace('_', ' ')}: {key_in_words(key_of(row))}"


def since(at: datetime) -> str:
    """How long ago, or on which day."""
    seconds = (datetime.now(UTC) - at.replace(tzinfo=UTC)).total_seconds()
    if seconds < 3_600:
        return say("{n:count} min", n=max(0, int(seconds // 60)))
    if seconds < 86_400:
        return say("{n:count} h", n=int(seconds // 3_600))
    return f"{view().local(at):%Y-%m-%d}"


async def alert(looking: Looking) -> Page:
    row, *_ = await looking.rows("alert", alert=looking.values["alert"], limit=20)
    stakes = row["stakes"] or []
    sentences = [*what_happened(row, stakes), *filter(None, (description(row, stakes), unnamed(row)))]
    life, states = row["life"] or [], row["states"] or []
    parts: list[Component] = [Sentences(sentences, _TONES.get(row["severity"], ""))]
    steps, done = list(what_to_do(row, life, states)), list(what_was_done(life))
    parts.append(
        Beside(
            [
                Panel(say("What to do"), [Sentences(steps or [say("nothing is left to do")])]),
                Panel(say("What was done"), [Sentences(done or [say("nothing yet")])]),
            ]
        )
    )
    parts.append(Panel(say("In numbers"), [Facts(_facts(looking, row))]))
    for name, (columns, key) in _LISTS.items():
        rows = row[name] or []
        if rows:
            names = [column for column in columns.split() if column in rows[0]]
            short = [to_the_second(one) for one in rows]
            parts.append(
                table_of(name, label(name), short, names, currency=row["currency"], hrefs=looking.links([key], rows))
            )
    others = row["case_alerts"] or []
    if others:
        parts.append(Panel(say("Other alerts of this case"), [_others(looking, others)]))
    parts.append(Panel(say("Its life"), [Timeline([_entry(event) for event in life])]))
    chips = [
        Link(word(row["severity"]), "", tone=_TONES.get(row["severity"], "")),
        Link(word(row["status"]), ""),
        *(Link(f"{label(name)} {value}", looking.to(name, value)) for name, value in key_of(row).items()),
    ]
    return Page(
        in_short(row), parts, under=Chips(chips), crumbs=[Link(say("Alerts"), looking.href("/alerts"))], slices=None
    )


def _facts(looking: Looking, row: Row) -> list[tuple[str, Cell]]:
    names = (
        "measured threshold peak money_minor opened_at fired_at last_true_at raised_at assignee acknowledged_by"
        " acknowledged_at resolved_at resolved_by outcome saved_minor coupons users orders alert_id"
    )
    short = to_the_second(row)
    return [
        (label(name), Cell(shown(name, short, row["currency"]))) for name in names.split() if row.get(name) is not None
    ]


def _others(looking: Looking, rows: Sequence[Row]) -> AlertList:
    lines = [
        AlertLine(
            one["severity"],
            word(one["severity"]),
            in_short(one),
            looking.href(f"/alerts/{one['alert_id']}"),
            since=since(one["opened_at"]),
        )
        for one in rows
    ]
    return AlertList(lines)


def _entry(event: Row) -> Entry:
    facts = [Link(str(event[name]), "") for name in ("operator", "note", "channel", "reason") if event.get(name)]
    return Entry(
        title=word(event["type"]),
        occurred=view().instant(event["occurred_at"]),
        recorded=view().instant(event["recorded_at"]) if event.get("recorded_at") else "",
        facts=facts,
    )
