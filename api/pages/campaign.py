"""*Campaign*: what it is, five numbers, and tabs: how far its coupons got, its days, its channels and people, what it
caused, its money, its review."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coupon_ledger.api.client import Remote
from coupon_ledger.api.pages.components import (
    Beside,
    Cards,
    Cell,
    ChartPanel,
    Chips,
    Component,
    Facts,
    Link,
    Panel,
    State,
    Tabs,
)
from coupon_ledger.api.pages.looking import Looking, Page, to_the_second, together
from coupon_ledger.api.pages.now import card
from coupon_ledger.api.pages.sections import components_of
from coupon_ledger.api.pages.series import main_currency, short_label
from coupon_ledger.api.service.asking import on_behalf_of
from coupon_ledger.reports.labels import label, say, shown, word, word_of
from coupon_ledger.reports.review import CampaignAnswers, Section, review_of
from coupon_ledger.reports.short import Quantity, short_money
from coupon_ledger.reports.svg.bars import Bar, Bars, Funnel, Step
from coupon_ledger.reports.svg.figure import HALF, Figure
from coupon_ledger.reports.svg.grids import week
from coupon_ledger.reports.svg.lines import Line, Lines, Note
from coupon_ledger.reports.text import Row
from coupon_ledger.reports.view import view

TABS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "": ("Funnel", ("funnel", "losses")),
    "trend": ("Trend", ("anomalies",)),
    "channels": ("Channels", ("channels",)),
    "people": ("People", ("customers",)),
    "caused": ("What it caused", ("incrementality",)),
    "money": ("Money", ("cost", "losses")),
    "review": ("Review", ("goal", "comparison")),
}
"""By the parameter `tab`: its name, and the sections of the review that it shows."""
CARDS: Final = ("claimed_events", "net_used_events", "coupon_gmv_minor", "discount_cost_minor", "simple_roi")
_TERMS: Final = (
    "mechanic visibility coupon_type face_value_minor percent_off_bp min_spend_minor quantity per_user_limit claim_from"
    " claim_until budget_minor funded_by exclusion_group"
).split()


async def page(looking: Looking) -> Page:
    name = looking.values["campaign"]
    tab = looking.query.get("tab", "")
    found = await looking.rows("campaign", campaign=name)
    about = found[0]
    tabs = [Link(say(title), looking.here(tab=key), key == tab) for key, (title, _) in TABS.items()]
    parts: list[Component] = [await _cards(looking, name), Tabs(say("Views of the campaign"), tabs)]
    if tab not in TABS:
        parts.append(
            State("empty", say("There is no such view of a campaign."), say("see its funnel"), looking.here(tab=""))
        )
    else:
        parts += await _first_of_tab(looking, name, about, tab)
        sections = await _sections(looking, name, TABS[tab][1])
        for key, section in sections.items():
            parts += components_of(key, section)
    return Page(
        about["name"] or name,
        parts,
        under=_under(looking, about),
        crumbs=[Link(word_of("pages", "campaigns"), looking.href("/campaigns"))],
        slices=("channel", "coupon_type"),
    )


async def _cards(looking: Looking, campaign: str) -> Cards:
    where = {**(looking.filters.where("channel", "coupon_type") or {}), "campaign": [campaign]}
    grain = looking.filters.grain
    grain = "hour" if grain == "minute" else grain
    totals, parts = await together(
        looking.metrics(CARDS, where=where, compare=looking.filters.compare),
        looking.metrics(CARDS[:4], where=where, compare=looking.filters.compare, grain=grain),
    )
    currency = main_currency(totals, "coupon_gmv_minor")
    return Cards([card(looking, name, totals, parts, currency) for name in CARDS])


def _under(looking: Looking, about: Row) -> Chips:
    currency = about["currency"]
    chips = [Link(about["campaign_id"], "")]
    if about["status"]:
        chips.insert(0, Link(word(about["status"]), "", tone="resolved" if about["status"] == "published" else "quiet"))
    if about["claim_from"] is not None and about["claim_until"] is not None:
        first, last = (f"{view().local(about[end]):%Y-%m-%d %H:%M}" for end in ("claim_from", "claim_until"))
        chips.append(Link(say("claims {first} – {last}", first=first, last=last), ""))
    if about["stock_left"] is not None:
        chips.append(
            Link(say("{left:count} of {stock:count} left", left=about["stock_left"], stock=about["quantity"]), "")
        )
    if about["budget_minor"] is not None and about["discount_minor"] is not None:
        spent = about["discount_minor"] / about["budget_minor"] if about["budget_minor"] else 0
        text = say(
            "{share:percent} of the budget {budget}", share=spent, budget=short_money(about["budget_minor"], currency)
        )
        chips.append(Link(text, "", tone="broken" if spent > 1 else "attention" if spent > 0.8 else ""))
    if about["violations"]:
        href = looking.to("campaign", about["campaign_id"], tab="money")
        chips.append(Link(say("{n:count} broken rule{n:s}", n=about["violations"]), href, tone="attention"))
    return Chips(chips)


async def _first_of_tab(looking: Looking, campaign: str, about: Row, tab: str) -> list[Component]:
    """What a tab shows before the sections of the review."""
    if tab == "":
        return [Beside([_funnel(looking, about), _states(about)]), _terms(about)]
    if tab == "trend":
        return await _trend(looking, campaign)
    if tab == "channels":
        return await _channels(looking, campaign)
    return []


def _funnel(looking: Looking, about: Row) -> ChartPanel:
    states = {one["state"]: one["coupons"] for one in about["states"]}
    used = states.get("used", 0)
    steps = [
        Step(label("coupons"), about["coupons"]),
        Step(label("entered"), about["entered"]),
        Step(word("used"), used, looking.href("/campaigns", state="used")),
    ]
    title = say("How far the coupons got")
    return ChartPanel(Figure(Funnel(title, title, Quantity("coupons"), steps), "so-far", HALF))


def _states(about: Row) -> ChartPanel:
    bars = [Bar(word(one["state"]), one["coupons"]) for one in about["states"] if one["coupons"]]
    title = say("Where its coupons are now")
    return ChartPanel(Figure(Bars(title, title, Quantity("coupons"), bars), "states", HALF))


def _terms(about: Row) -> Panel:
    short = to_the_second(about) | {"funded_by": _funders(about["funded_by"])}
    facts = [(label(name), Cell(shown(name, short, about["currency"]))) for name in _TERMS if about[name] is not None]
    return Panel(say("Terms"), [Facts(facts)])


def _funders(text: str | None) -> str | None:
    """Who pays, with their shares."""
    if text is None:
        return None
    shares = json.loads(text)
    return ", ".join(f"{word(funder)} {share / 100:g}%" for funder, share in shares.items())


async def _trend(looking: Looking, campaign: str) -> list[Component]:
    where = {"campaign": [campaign]}
    names = ["claimed_events", "used_events"]
    grain = looking.filters.grain
    lines, hours, versions = await together(
        looking.metrics(names, where=where, grain=grain, compare=looking.filters.compare),
        looking.metrics(["used_events"], where=where, grain="hour"),
        looking.rows("campaign", campaign=campaign),
    )
    notes = [
        Note(one["occurred_at"], word(one["type"]), "amendment")
        for one in versions[0]["versions"]
        if lines and lines[0]["starts_at"] <= one["occurred_at"] <= lines[-1]["starts_at"]
    ]
    behind = [row.get("claimed_events_before") for row in lines]
    chart = Lines(
        title=say("Claims and uses"),
        about=say("Both in this period; behind them what they are compared with"),
        quantity=Quantity("events"),
        times=[row["starts_at"] for row in lines],
        lines=[Line(short_label(name), [row[name] for row in lines]) for name in names],
        behind=Line(say("claimed before"), behind) if any(behind) else None,
        notes=notes,
    )
    shown_parts: list[Component] = [
        ChartPanel(Figure(chart, "trend"), csv=looking.metrics_csv(names, where=where, grain=grain))
    ]
    if any(row["used_events"] for row in hours):
        title, about = say("When coupons are used"), say("Uses by weekday and hour")
        grid = week(title, about, Quantity("events"), _by_hour(hours))
        shown_parts.append(ChartPanel(Figure(grid, "week")))
    return shown_parts


def _by_hour(rows: Sequence[Row]) -> list[list[float | None]]:
    """The sums by weekday (Monday first) and hour of day, in the reader's zone."""
    sums: list[list[float | None]] = [[0.0] * 24 for _ in range(7)]
    for row in rows:
        at = view().local(row["starts_at"])
        sums[at.weekday()][at.hour] = (sums[at.weekday()][at.hour] or 0) + (row["used_events"] or 0)
    return sums


async def _channels(looking: Looking, campaign: str) -> list[Component]:
    where = {"campaign": [campaign]}
    names = ["claimed_events", "used_events"]
    rows = await looking.metrics(names, where=where, by=["channel"], compare=looking.filters.compare)
    panels: list[Component] = []
    for name in names:
        bars = [
            Bar(
                row["channel"] or say("unknown"),
                row[name],
                behind=row.get(f"{name}_before"),
                href=looking.here(channel=row["channel"]),
            )
            for row in sorted(rows, key=lambda row: -(row[name] or 0))[:12]
        ]
        figure = Figure(Bars(label(name), label(name), Quantity("events"), bars), f"channels-{name}", HALF)
        panels.append(ChartPanel(figure, csv=looking.metrics_csv(names, where=where, by=["channel"])))
    return [Beside(panels)] if rows else []


async def _sections(looking: Looking, campaign: str, names: Sequence[str]) -> Mapping[str, Section]:
    """These sections of the campaign's review."""
    past = looking.filters.cut
    key: list[Any] = ["sections", campaign, list(names), view().lang, view().zone, str(past)]

    def made(remote: Remote) -> Mapping[str, Section]:
        with on_behalf_of(looking.caller, remote).snapshot() as source:
            return review_of(CampaignAnswers(source, campaign, past, None, view().zone), list(names))

    return await looking.answers.made(looking.caller, key, made)
