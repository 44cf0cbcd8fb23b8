"""Reports for marketing, finance and risk people: `report roi`, `channels`, `finance`, …

For people each part is a table under a title in both languages; the machine formats have the bare figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cli.expire import expiries
from cli.metrics import one_currency
from cli.options import goods_rate_option, instant_option, limit_option, output_option, past_options, settings_options
from cli.output import Row, print_row, print_rows
from cli.show import answered, rows_of
from ledger.errors import LedgerError
from ledger.settings import Settings
from projections.unanswered import WrongQuestion

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Command = TypeVar("Command", bound=Callable[..., Any])

_SHOWN: Final = 20
_WITHOUT_COST: Final = (
    "without_cost",
    "orders_without_cost",
    "lines_without_cost",
    "coupon_orders_without_cost",
    "coupon_orders_without_goods_cost",
)
_MOVES: Final = ("opening", "issued", "returned", "used", "expired", "revoked", "released", "closing")
_DOUBTS: Final = {
    "order_names_unknown_coupon": "orders name coupons that nobody created (未知券): their discount is in no campaign",
    "order_not_above_zero": "paid orders of nothing or less (零元或负数订单): counted as they are",
    "refund_above_order": "refunds above what was paid (超额退款): the order is refunded in full, no sale; cash has"
    " all that went out",
    "coupon_of_another_currency": "coupons used on an order of another currency (币种不一致): the order's stands",
    "use_without_paid_order": "uses whose order nobody has paid (无支付订单): their discount counts, no sale does",
    "use_on_order_undone": "coupons still in use on orders cancelled or refunded in full (未退券): their discount"
    " counts, no sale does",
    "use_that_order_does_not_tell": "uses on orders whose discounts name no coupon (订单未记券折扣): they count on top"
    " of what the order says",
    "use_of_no_campaign": "uses of coupons that no event puts into a campaign (无活动): in no campaign's figures",
    "refund_without_payment": "refunds of orders that were never paid (未支付退款): cash went out, no sale came in",
    "campaign_without_cost": "campaigns for which no cost was booked (未登记成本): their cost is the discount alone",
    "order_without_cost_of_goods": "orders without a known cost of goods (无商品成本): in no margin (--goods-rate)",
    "funding_not_whole": "campaigns whose funders' shares are not 100% (出资比例不足或超出): the rest has no funder",
}


@dataclass(frozen=True)
class Part:
    """`asks`: the question. `takes`: which options it takes, as parameters of the question."""

    title: str
    asks: str
    takes: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


_OPTION: Final = {"goods_rates": "goods-rate", "where": "campaign"}
"""Options whose parameters have other names."""
_PERIOD: Final = ("since", "until")
_FINANCE: Final = {
    "split": Part(
        "折扣构成 · discounts by kind, or by whatever --by names",
        "finance-split",
        ("by", "campaign", "zone", "explain", "limit", *_PERIOD),
    ),
    "margin": Part(
        "毛利 · net sales and margin by channel",
        "finance-margin",
        ("by", "goods_rates", "zone", "explain", "limit", *_PERIOD),
    ),
    "categories": Part(
        "品类 · categories: sales, discount, margin, sold below cost",
        "finance-categories",
        ("goods_rates", "limit", *_PERIOD),
    ),
    "budget": Part("预算 · budget, spent, forecast", "finance-budgets", ("campaign", "days")),
    "cash": Part("现金流 · cash by day", "finance-cash", ("zone", *_PERIOD)),
    "losses": Part("损失点 · money lost to broken rules", "finance-losses", ("campaign",)),
    "refunds": Part("退款 · refunds, and discounts clawed back", "finance-refunds", _PERIOD),
    "statement": Part("券负债对账 · statement of coupons that are out", "finance-statement", ("campaign", *_PERIOD)),
    "doubts": Part("数据提示 · what makes figures doubtful", "finance-doubts"),
}


_SEGMENTS: Final = {
    "rfm": Part(
        "客户分层 · segments by recency, frequency and money (simple ROI: NOT incremental)",
        "customer-segments",
        ("goods_rates",),
    ),
    "tiers": Part("客户等级 · high value, active, bargain hunters", "customer-tiers", ("goods_rates",)),
    "clusters": Part("聚类 · k-means clusters, and how many there should be", "customer-clusters"),
    "use": Part("用券相关因素 · what goes with using coupons", "customer-drivers", fixed={"outcome": "use"}),
    "repurchase": Part(
        "复购相关因素 · what goes with coming again", "customer-drivers", fixed={"outcome": "repurchase"}
    ),
    "lapsing": Part("即将流失 · customers about to lapse", "customers-lapsing", ("limit",)),
}
_COHORTS: Final = {
    "retention": Part("留存 · who came again, by month of the first order", "cohorts", ("zone",)),
    "coupon": Part("用券留存 · by month of the first use of a coupon", "cohorts", ("zone",), {"with_coupon": True}),
    "repurchase": Part("复购 · coming again after the first use of a coupon", "repurchase"),
}
_FUNNEL: Final = {
    "coupons": Part("券漏斗 · how far coupons got", "campaigns"),
    "behaviour": Part("行为漏斗 · how far people got", "behaviour", ("campaign", *_PERIOD)),
}


_ROI: Final = {
    "campaigns": Part(
        "投入产出 · what campaigns earned and cost (simple ROI: NOT incremental)",
        "metrics",
        ("where", "goods_rates", *_PERIOD),
        {
            "by": "campaign",
            "names": "net_uses,coupon_orders,coupon_net_sales_minor,discount_cost_minor,other_cost_minor,"
            "coupon_margin_minor,simple_roi,coupon_orders_without_goods_cost",
        },
    ),
}
_CHANNELS: Final = {
    "coupons": Part(
        "渠道 · coupons by channel",
        "metrics",
        ("where", *_PERIOD),
        {"by": "channel", "names": "issued_events,claimed_events,net_uses,discount_cost_minor"},
    ),
    "credit": Part("渠道归因 · orders credited to channels, by models", "attribution", ("goods_rates", *_PERIOD)),
}


@click.group()
def report() -> None:
    """Reports: what campaigns earned and caused, what coupons cost and who bears it, who the customers are, why coupons
    expired.

    \b
    coupon-ledger report roi --goods-rate 75
    coupon-ledger report finance
    coupon-ledger report finance split --by kind,funder
    coupon-ledger report segments
    coupon-ledger report expiry --by reason
    """


_expiry = copy(expiries)
_expiry.help = (expiries.help or "").replace("coupon-ledger expiries", "coupon-ledger report expiry")
report.add_command(_expiry, "expiry")


def _parts_argument(parts: Mapping[str, Part]) -> Callable[[Command], Command]:
    return click.argument("parts", nargs=-1, type=click.Choice(list(parts)), metavar="[PART]...")


def _shared(command: Command) -> Command:
    """Options of every report."""
    for option in (output_option, settings_options("database"), past_options, limit_option(_SHOWN)):
        command = option(command)
    return command


@report.command()
@_parts_argument(_FINANCE)
@click.option(
    "--by",
    metavar="A,B",
    help="split: kind, campaign, coupon-type, channel, store, region, funder, day; margin: channel, store, region, day",
)
@click.option("--campaign", help="Only of this campaign.")
@instant_option("--since", "Only from then on.")
@instant_option("--until", "Only before then.")
@click.option("--zone", help="Time zone of days. [default: Asia/Shanghai]")
@goods_rate_option
@click.option("--days", type=click.IntRange(min=1), help="budget: the rate of how many last days. [default: 7]")
@click.option("--explain", is_flag=True, help="split, margin: the discounts or orders that a number is made of.")
@_shared
def finance(parts: tuple[str, ...], **given: Any) -> None:
    """Show what coupons cost and who bears it (财务): all PARTs, or those that are named.

    split: discounts by kind, campaign, channel, store, funder, day. margin: net sales and margin. categories: the
    same by goods. budget: spent, left, when it will be gone. cash: in and out by day. losses: money lost to broken
    rules. refunds: given back and clawed back. statement: opening, movements and closing of the coupons that are out,
    balanced to the cent. doubts: what in the data makes figures doubtful, and how it is counted.

    Amounts are in minor units (cents), a row per currency; currencies are never added up.

    \b
    coupon-ledger report finance
    coupon-ledger report finance split --by kind,funder --since 2026-11-01
    coupon-ledger report finance statement --campaign k-1 --since 2026-11-01 --until 2026-12-01
    coupon-ledger report finance margin --goods-rate DAIRY=75 --goods-rate 80
    coupon-ledger report finance split --campaign k-1 --explain --output csv
    coupon-ledger report finance --known-at 2026-11-12 --output json
    """
    if given["explain"] and (len(parts) != 1 or "explain" not in _FINANCE[parts[0]].takes):
        raise click.UsageError("--explain goes with one part, split or margin")
    if given["by"] and not (parts and all("by" in _FINANCE[name].takes for name in parts)):
        raise click.UsageError("--by goes with split or margin: name it, such as `report finance split --by funder`")
    given["explain"] = given["explain"] or None
    _report(_FINANCE, parts, **given)


@report.command()
@_parts_argument(_SEGMENTS)
@goods_rate_option
@_shared
def segments(parts: tuple[str, ...], **given: Any) -> None:
    """Show who the customers are (客户): named segments by recency, frequency and money; tiers; clusters; what goes
    with using coupons and with coming again; who is about to lapse.

    A customer is a user with a paid order that stands. projected_minor is what the next 90 days may bring by a model
    (BG/NBD and Gamma-Gamma); it is no result, and in no other number.

    \b
    coupon-ledger report segments
    coupon-ledger report segments tiers lapsing
    coupon-ledger report segments rfm --at 2026-11-11 --output csv
    """
    _report(_SEGMENTS, parts, **given)


@report.command()
@_parts_argument(_COHORTS)
@click.option("--zone", help="Time zone of months. [default: Asia/Shanghai]")
@_shared
def cohorts(parts: tuple[str, ...], **given: Any) -> None:
    """Show who came again (留存与复购): by month of the first order, by month of the first use of a coupon, and within
    7, 30, 60 and 90 days of it.

    \b
    coupon-ledger report cohorts
    coupon-ledger report cohorts repurchase --output json
    """
    _report(_COHORTS, parts, **given)


@report.command()
@_parts_argument(_FUNNEL)
@click.option("--campaign", help="behaviour: only of this campaign.")
@instant_option("--since", "behaviour: only from then on.")
@instant_option("--until", "behaviour: only before then.")
@_shared
def funnel(parts: tuple[str, ...], **given: Any) -> None:
    """Show how far coupons got (issued, claimed, used), and how far people got (view, cart, order, paid, returned).

    \b
    coupon-ledger report funnel
    coupon-ledger report funnel behaviour --campaign k-1 --since 2026-11-01
    """
    _report(_FUNNEL, parts, **given)


@report.command()
@click.option("--campaign", "campaigns", multiple=True, help="Only of this campaign (several are possible).")
@instant_option("--since", "Only from then on.")
@instant_option("--until", "Only before then.")
@goods_rate_option
@_shared
def roi(campaigns: tuple[str, ...], **given: Any) -> None:
    """Show what each campaign earned and cost (投入产出).

    Simple ROI = (margin of the orders with its coupons - booked costs) / (discount + booked costs). It is not
    incremental: some of these orders would have come anyway. `report experiments` says what campaigns caused;
    `attribution show --roi` shares orders out among touches. Down to the orders: `metrics query --explain`.

    \b
    coupon-ledger report roi
    coupon-ledger report roi --goods-rate 75 --since 2026-11-01 --output csv
    """
    _report(_ROI, (), where=_of_campaigns(campaigns), **given)
    if given["output"] == "table":
        past = {name: given[name] for name in ("at", "known_at", "positions")}
        with answered(given["settings"], "quiet", "finance-doubts", **past) as answer:
            for row in rows_of(answer):
                click.echo(f"warning: {_doubt(row)}", err=True)


@report.command()
@_parts_argument(_CHANNELS)
@click.option("--campaign", "campaigns", multiple=True, help="coupons: only of this campaign (several are possible).")
@instant_option("--since", "Only from then on.")
@instant_option("--until", "Only before then.")
@goods_rate_option
@_shared
def channels(parts: tuple[str, ...], campaigns: tuple[str, ...], **given: Any) -> None:
    """Show what channels did (渠道): coupons issued, claimed and used, and the orders that each is credited with.

    Down to the touches of an order: `attribution show --explain ORDER`.

    \b
    coupon-ledger report channels
    coupon-ledger report channels coupons --campaign k-1 --output csv
    """
    _report(_CHANNELS, parts, where=_of_campaigns(campaigns), **given)


@report.command()
@goods_rate_option
@past_options
@settings_options("database")
@output_option
def experiments(goods_rates: str | None, settings: Settings, output: str, **past: Any) -> None:
    """Show what every campaign with arms caused (增量): a row per treatment, incremental margin and return with its 95%
    interval. All of one campaign: `experiment show CAMPAIGN`; down to people and orders: `experiment people CAMPAIGN`.

    \b
    coupon-ledger report experiments
    coupon-ledger report experiments --goods-rate 70 --known-at 2026-12-01 --output csv
    """
    with answered(settings, "none", "experiments", **past) as answer:
        campaigns = [row["campaign_id"] for row in rows_of(answer)]
    rows: list[Row] = []
    for campaign in campaigns:
        given = past | ({"goods_rates": goods_rates} if goods_rates else {})
        try:
            with answered(settings, "none", "experiment", campaign=campaign, **given) as answer:
                [found] = rows_of(answer)
            rows += [{"campaign_id": campaign, **row, "refused": None} for row in found["returns"]]
            if not found["returns"]:
                rows.append({"campaign_id": campaign, "refused": "no margin is known (无毛利): give --goods-rate"})
        except LedgerError as error:
            rows.append({"campaign_id": campaign, "refused": str(error)})
    names = list(dict.fromkeys(name for row in rows for name in row))
    print_rows([{name: row.get(name) for name in names} for row in rows], output)
    if output == "table" and not rows:
        click.echo("no campaign has arms (无对照实验): see `coupon-ledger experiment assign`")


def _of_campaigns(campaigns: tuple[str, ...]) -> str | None:
    return json.dumps({"campaign": list(campaigns)}) if campaigns else None


def _report(
    known: Mapping[str, Part],
    parts: tuple[str, ...],
    settings: Settings,
    output: str,
    limit: int | None,
    at: datetime | None,
    known_at: datetime | None,
    positions: str | None,
    **asked: Any,
) -> None:
    """Print the chosen parts, all where none is named. A part that the data do not carry says so beside the others."""
    chosen = list(dict.fromkeys(parts)) or list(known)
    if output in ("ndjson", "csv") and len(chosen) > 1:
        raise click.UsageError(f"{output} holds one table: name one part, such as `{chosen[0]}`")
    told_options = {name for name, value in asked.items() if value is not None}
    for name in parts:
        if unused := sorted(told_options - set(known[name].takes)):
            named = ", ".join("--" + _OPTION.get(option, option) for option in unused)
            raise click.UsageError(f"{name} does not take {named}; leave it out, or name another part")
    given = asked | {"limit": limit or (_SHOWN + 1 if output == "table" else None)}
    past = {"at": at, "known_at": known_at, "positions": positions}
    found: dict[str, Any] = {}
    for name in chosen:
        part = known[name]
        told = {n: given[n] for n in part.takes if given.get(n) is not None} | dict(part.fixed)
        try:
            with answered(settings, output if name == chosen[-1] else "quiet", part.asks, **told, **past) as answer:
                found[name] = one_row_a_slice(list(rows_of(answer)))
        except WrongQuestion as error:
            if len(chosen) == 1:
                raise
            found[name] = {"refused": str(error)}
        if output == "table":
            unused = sorted(told_options - set(part.takes) - {"zone"})
            named = ", ".join("--" + _OPTION.get(option, option) for option in unused)
            _print_part(
                name, part.title + (f" (全部 · not by {named})" if unused else ""), found[name], limit or _SHOWN
            )
    if output == "json" and len(chosen) > 1:
        print_row(found, output)
    elif output != "table":
        print_rows(found[chosen[0]], output)
    _warn_of_costs(found.values())


def one_row_a_slice(rows: list[Row]) -> list[Row]:
    """Metrics: without what is the same in all rows, and amounts beside counts where there is one currency."""
    if not rows or "data_clock" not in rows[0]:
        return rows
    currencies = {row.get("currency") for row in rows} - {None}
    if len(currencies) == 1:
        rows = list(one_currency(rows, currencies.pop()))
    return [{name: value for name, value in row.items() if name not in ("open", "data_clock")} for row in rows]


def _print_part(name: str, title: str, rows: list[Row] | dict[str, str], limit: int) -> None:
    click.echo(click.style(f"\n{title}", bold=True))
    if isinstance(rows, dict):
        click.echo(f"refused (数据不足): {rows['refused']}")
    elif name == "statement":
        _print_statement(rows, limit)
    elif name == "doubts":
        for row in rows:
            click.echo(f"! {_doubt(row)}")
        if not rows:
            click.echo("none")
    else:
        print_rows(_readable(rows[:limit]), "table")
        if len(rows) > limit:
            click.echo(f"… more than {limit}; --limit shows more")


def _doubt(row: Row) -> str:
    worth = "" if row["amount_minor"] is None else f", {row['amount_minor']:,} {row['currency'] or ''}".rstrip()
    return f"{row['cases']:,} {_DOUBTS[row['doubt']]}{worth}"


def _warn_of_costs(found: Iterable[Any]) -> None:
    """Where a margin was shown that some orders are not in."""
    rows = [row for part in found if isinstance(part, list) for row in part]
    if columns := sorted({name for row in rows for name in _WITHOUT_COST if row.get(name)}):
        click.echo(
            f"warning: some orders have no known cost of goods (无商品成本; {', '.join(columns)}): they add nothing"
            " to margin and ROI, which are too low by what they earned; --goods-rate helps",
            err=True,
        )


def _print_statement(rows: list[Row], limit: int) -> None:
    """As accounts are written: what was there, what came, what went, what is there."""
    for unit, words in (("coupons", "coupons (张)"), ("minor", "face value (面值)")):
        told = [
            {"campaign_id": row["campaign_id"], "currency": row["currency"], **{m: row[f"{m}_{unit}"] for m in _MOVES}}
            for row in rows
            if any(row[f"{m}_{unit}"] for m in _MOVES)
        ]
        click.echo(f"{words}: opening + issued + returned - used - expired - revoked - released = closing")
        print_rows(told[:limit], "table")
        if len(told) > limit:
            click.echo(f"… more than {limit}; --limit shows more")


def _readable(rows: Iterable[Row]) -> Iterator[Row]:
    """Columns that no row has a value in tell nothing."""
    listed = list(rows)
    empty = {name for name in (listed[0] if listed else ()) if all(row[name] is None for row in listed)}
    return ({name: value for name, value in row.items() if name not in empty} for row in listed)
