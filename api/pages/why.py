"""*Why did this number change?*: the causes of a difference, which add up to it exactly, each followed to what is
behind it. Between two periods, or between what was known of a period earlier and what is known now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from coupon_ledger.api.pages.components import ChartPanel, Chips, Choice, Component, Link, Sentences, State, table_of
from coupon_ledger.api.pages.looking import Looking, Page, to_the_second
from coupon_ledger.api.service.problems import Refusal
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.questions.metrics.definitions import DIMENSIONS, METRICS
from coupon_ledger.reports.labels import label, say, text_of, word
from coupon_ledger.reports.short import Quantity
from coupon_ledger.reports.svg.bars import Bar, Waterfall
from coupon_ledger.reports.svg.figure import Figure
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view
from coupon_ledger.reports.why import headline

FIRST: Final = "coupon_gmv_minor"
_HEADS: Final = ("before", "after", "change")
_COMPARED: Final = {"": "year", "previous": "day", "none": None}
_EARLIER: Final[Mapping[str, timedelta]] = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
_MOST: Final = 200
_STEPS: Final = 14


async def page(looking: Looking) -> Page:
    name, by, known, cause = (looking.query.get(key, "") for key in ("metric", "by", "known", "cause"))
    name = name or FIRST
    if name not in METRICS:
        raise Refusal(404, say("There is no metric called {name}.", name=name[:60]))
    if known and known not in _EARLIER:
        raise Refusal(422, f"known {known[:20]}: there is none of that name; there are {', '.join(_EARLIER)}")
    metric = METRICS[name]
    dimensions = [one for one in DIMENSIONS if one in metric.dimensions]
    further = [
        Choice(label("metric"), "metric", [(one, label(one)) for one, m in METRICS.items() if m.view == "event"], name),
        Choice(say("known"), "known", [("", say("compare periods")), *((one, _ago(one)) for one in _EARLIER)], known),
        Choice(say("by"), "by", [("", say("nothing")), *((one, label(one)) for one in dimensions)], by),
    ]
    given, since = _sides(looking, name, known)
    given |= {"by": by or None}
    title = say("Why did {metric} change?", metric=label(name))
    crumbs = [Link(label(name), looking.href("/explore", metric=name))]
    if cause:
        parts = await _behind(looking, given, cause)
        return Page(
            title,
            parts,
            crumbs=[*crumbs, Link(title, looking.here(cause=None))],
            further=further,
            slices=tuple(dimensions),
        )
    rows = await looking.rows("change-explained", **given)
    parts = []
    for currency in dict.fromkeys(row.get("currency") for row in rows):
        mine = [row for row in rows if row.get("currency") == currency]
        parts += _shown(looking, name, metric.unit, currency, mine, since)
    if not parts:
        parts.append(
            State("empty", say("No value in this period."), say("look at all time"), looking.here(period="all"))
        )
    return Page(title, parts, crumbs=crumbs, further=further, slices=tuple(dimensions))


def _ago(code: str) -> str:
    names = {"15m": "15 minutes ago", "1h": "an hour ago", "1d": "a day ago", "7d": "7 days ago", "30d": "30 days ago"}
    return say("what was known {when}", when=say(names[code]))


def _sides(looking: Looking, name: str, known: str) -> tuple[dict[str, Any], Note]:
    """The parameters of the two sides, and what the earlier number is."""
    filters = looking.filters
    given: dict[str, Any] = {
        "metric": name,
        "where": filters.where(),
        "since": filters.since,
        "until": filters.until,
        "zone": view().zone,
    }
    if known:
        at = (datetime.now(UTC) - _EARLIER[known]).replace(tzinfo=None, microsecond=0)
        return given | {"known_at_before": at}, note("since {at:instant}", at=at)
    compare = _COMPARED[filters.against]
    if filters.since is None or compare is None:
        raise Refusal(422, say("Choose a period, and what it is compared with; or what was known earlier."))
    if compare == "day" and filters.until is not None:
        length = filters.until - filters.since
        days = max(1, -(-length // timedelta(days=1)))
        before = {
            "before_since": filters.since - timedelta(days=days),
            "before_until": filters.until - timedelta(days=days),
        }
        return given | before, note("against the period before")
    return given | {"compare": compare}, note("against last year")


def _shown(
    looking: Looking, name: str, unit: str, currency: str | None, rows: Sequence[Row], since: Note
) -> list[Component]:
    heads = {row["cause"]: row[name] for row in rows if row["cause"] in _HEADS}
    causes = [row for row in rows if row["cause"] not in _HEADS and row[name]]
    said = text_of(headline(rows, name, unit, since))
    parts: list[Component] = [Sentences([said])]
    if heads.get("before") is None or heads.get("change") is None or not causes:
        return parts
    quantity = Quantity(name, currency)
    largest = sorted(causes, key=lambda row: -abs(row[name]))
    steps = [Bar(_named(row), row[name], href=_href(looking, row)) for row in largest[:_STEPS]]
    rest = sum(row[name] for row in largest[_STEPS:])
    if rest:
        steps.append(Bar(say("all others"), rest))
    title = say("From before to after")
    chart = Waterfall(title, said, quantity, Bar(say("before"), heads["before"]), steps, say("after"))
    parts.append(ChartPanel(Figure(chart, f"why-{currency or 'all'}")))
    table = [
        {"cause": _named(row), name: row[name], "share": row["share"], "events": row["events"], "currency": currency}
        for row in rows
    ]
    hrefs = {"cause": ["" if row["cause"] in _HEADS else _href(looking, row) for row in rows]}
    names = ["cause", name, "share", "events"]
    parts.append(table_of(f"causes-{currency or 'all'}", say("Causes"), table, names, currency=currency, hrefs=hrefs))
    return parts


def _named(row: Row) -> str:
    parts = [word(row["cause"])]
    if row.get("metric") is not None:
        parts.append(label(row["metric"]))
    if row.get("slice") is not None:
        parts.append(str(row["slice"]) or say("unknown"))
    return " · ".join(parts)


def _href(looking: Looking, row: Row) -> str:
    return looking.here(cause=row.get("metric") or row["cause"])


async def _behind(looking: Looking, given: Mapping[str, Any], cause: str) -> list[Component]:
    """What is behind a cause: coupons, orders or campaigns, with their part of it."""
    rows = await looking.rows("change-explained", **{**given, "by": None, "explain": cause, "limit": _MOST})
    chips = Chips([Link(word(cause), "", tone="here"), Link(say("back to the causes"), looking.here(cause=None))])
    if not rows:
        return [chips, State("empty", say("Nothing is listed behind this cause."))]
    names = [
        one
        for one in rows[0]
        if any(row[one] is not None for row in rows) and not isinstance(rows[0][one], list | dict)
    ]
    short = [to_the_second(row) for row in rows]
    return [
        chips,
        table_of(
            "behind",
            word(cause),
            short,
            names,
            hrefs=looking.links(names, rows),
            csv=looking.csv("change-explained", **{**given, "by": None, "explain": cause}),
        ),
    ]
