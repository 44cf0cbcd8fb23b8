"""*Campaigns*: all of them with what they did in the period, to sort and to open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from coupon_ledger.api.pages.components import Cell, Choice, Head, Link, Sorting, State, Table
from coupon_ledger.api.pages.looking import Looking, Page, together
from coupon_ledger.api.pages.series import short_label
from coupon_ledger.ledger.amounts import NOTHING
from coupon_ledger.reports.labels import label, say, shown, word, word_of
from coupon_ledger.reports.svg.bars import FEW
from coupon_ledger.reports.text import Row

METRICS: Final = (
    "claimed_events",
    "net_used_events",
    "claim_rate",
    "use_rate",
    "coupon_gmv_minor",
    "discount_cost_minor",
    "cost_minor",
    "coupon_margin_minor",
    "simple_roi",
)
STOCK: Final = ("stock", "stock_left", "claims_per_minute_now", "minutes_to_sell_out")
_SORTED: Final = "-discount_cost_minor"
_COLUMNS: Final = (
    "stock_left",
    "claimed_events",
    "net_used_events",
    "use_rate",
    "coupon_gmv_minor",
    "discount_cost_minor",
    "simple_roi",
)
_MOST: Final = 500
_SOON: Final = (15.0, 60.0)
"""Stock that ends within so many minutes is marked as broken, and as needing attention."""


async def campaigns_in(looking: Looking) -> list[Row]:
    """A row for each campaign that has something in the period: names, metrics, stock. Sorted as the URL says."""
    filters = looking.filters
    where = filters.where("campaign", "channel", "coupon_type")
    values, stock, known = await together(
        looking.metrics(METRICS, by=["campaign"], where=where),
        looking.rows("metrics", names=list(STOCK), by=["campaign"], where=filters.where("campaign", "coupon_type")),
        looking.rows("campaigns"),
    )
    names = {row["campaign_id"]: row for row in known}
    left = {row["campaign"]: row for row in stock}
    merged: dict[str, dict[str, Any]] = {}
    for row in values:
        campaign = row["campaign"]
        one = merged.setdefault(campaign, {"campaign": campaign, **_of(names, left, campaign)})
        one |= {name: row[name] for name in METRICS if row.get(name) is not None}
        one["open"] = row["open"]
        if row.get("currency") is not None and row.get("discount_cost_minor") is not None:
            one.setdefault("currency", row["currency"])
    return sorted(merged.values(), key=_order(looking.query.get("sort", _SORTED)), reverse=_reverse(looking))


def _of(names: Mapping[str, Row], stock: Mapping[str, Row], campaign: str) -> dict[str, Any]:
    known, left = names.get(campaign, {}), stock.get(campaign, {})
    return {
        "name": known.get("name") or campaign or say("without a campaign"),
        "status": known.get("status"),
        **{name: known.get(name) for name in ("issued", "owned", "used", "in_use")},
        **{name: left.get(name) for name in STOCK},
    }


def _reverse(looking: Looking) -> bool:
    return looking.query.get("sort", _SORTED).startswith("-")


def _order(sort: str) -> Any:
    name, descending = sort.lstrip("-"), sort.startswith("-")

    def key(row: Row) -> tuple[bool, Any]:
        value = row.get(name)
        if isinstance(value, str):
            return (True, value.casefold())
        missing = value is None
        return (missing != descending, 0 if missing else value)

    return key


def campaign_table(looking: Looking, rows: Sequence[Row], more: int) -> Table:
    """`more`: how many there are in all."""
    sorting = Sorting(looking.here(sort="SORT").replace("SORT", "{sort}"), looking.query.get("sort", _SORTED))
    one = {row.get("currency") for row in rows} - {None}
    currency = one.pop() if len(one) == 1 else None
    heads = [
        Head(label("campaign"), False, *sorting.of("name")),
        *(Head(_head(name, currency), True, *sorting.of(name), about=_about(name)) for name in _COLUMNS),
    ]
    lines = [
        [
            Cell(row["name"], looking.to("campaign", row["campaign"]), about=row["campaign"] or ""),
            *(_cell(name, row, currency) for name in _COLUMNS),
        ]
        for row in rows
    ]
    parameters = {"by": ["campaign"], "where": looking.filters.where("campaign", "channel", "coupon_type")}
    return Table(
        "campaigns",
        word_of("pages", "campaigns"),
        heads,
        lines,
        csv=looking.metrics_csv(METRICS, **parameters),
        empty=State(
            "empty",
            say("No campaign has any coupon event in this period."),
            say("look at the last 30 days"),
            looking.here(period="30d"),
        ),
        more=Link(say("all {n:count}", n=more), looking.href("/campaigns")) if more > len(rows) else None,
    )


def _head(name: str, currency: str | None) -> str:
    return f"{short_label(name)} ({currency})" if currency and name.endswith("_minor") else short_label(name)


def _about(name: str) -> str:
    from coupon_ledger.api.pages.now import definition

    return definition(name)


def _cell(name: str, row: Row, currency: str | None) -> Cell:
    if name == "stock_left":
        return _stock(row)
    value = row.get(name)
    if value is None:
        return Cell(NOTHING, about=say("not known for this campaign"))
    text = shown(name, row, row.get("currency"), bare=currency is not None)
    few = name == "use_rate" and (row.get("claimed_events") or 0) < FEW
    return Cell(text, hollow=few, tone="broken" if name == "simple_roi" and value < 0 else "")


def _stock(row: Row) -> Cell:
    left, stock, minutes = row["stock_left"], row["stock"], row["minutes_to_sell_out"]
    if left is None:
        return Cell(NOTHING, about=say("the campaign has no stock"))
    text = f"{left:,}"
    if minutes is not None:
        text = say("{left} · {n:count} min", left=text, n=round(minutes))
    soon = [
        tone
        for limit, tone in zip(_SOON, ("broken", "attention"), strict=True)
        if minutes is not None and minutes < limit
    ]
    share = left / stock if stock else None
    return Cell(text, share=share, tone=soon[0] if soon else "")


async def page(looking: Looking) -> Page:
    rows = await campaigns_in(looking)
    status = looking.query.get("status", "")
    statuses = sorted({row["status"] for row in rows if row["status"]})
    shown_rows = [row for row in rows if not status or row["status"] == status]
    choice = Choice(label("status"), "status", [("", say("all")), *((one, word(one)) for one in statuses)], status)
    table = campaign_table(looking, shown_rows[:_MOST], more=0)
    return Page(word_of("pages", "campaigns"), [table], slices=("channel", "coupon_type"), further=[choice])
