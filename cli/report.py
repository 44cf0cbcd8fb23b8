"""Reports for marketing, finance and risk people: `report finance`, `report expiry`.

For people each part is a table under a title in both languages; the machine formats have the bare figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from cli.expire import expiries
from cli.options import instant_option, limit_option, output_option, past_options, settings_options
from cli.output import Row, print_row, print_rows
from cli.show import answered, rows_of
from ledger.plain import plain
from ledger.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN: Final = 20
_MOVES: Final = ("opening", "issued", "returned", "used", "expired", "revoked", "closing")
_DOUBTS: Final = {
    "order_names_unknown_coupon": "orders name coupons that nobody created (未知券): their discount is in no campaign",
    "order_not_above_zero": "paid orders of nothing or less (零元或负数订单): counted as they are",
    "refund_above_order": "refunds above what was paid (超额退款): counted in full, net sales go below zero",
    "coupon_of_another_currency": "coupons used on an order of another currency (币种不一致): the order's stands",
    "use_without_paid_order": "uses whose order nobody has paid (无支付订单): their discount counts, no sale does",
    "campaign_without_cost": "campaigns for which no cost was booked (未登记成本): their cost is the discount alone",
    "order_without_cost_of_goods": "orders whose cost of goods is not known (无商品成本): no margin; --rate helps",
    "funding_not_whole": "campaigns whose funders' shares are not 100% (出资比例不足或超出): the rest has no funder",
}


@dataclass(frozen=True)
class Part:
    """`asks`: the question. `takes`: which options it takes, as parameters of the question."""

    title: str
    asks: str
    takes: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


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
        ("by", "rates", "zone", "explain", "limit", *_PERIOD),
    ),
    "categories": Part(
        "品类 · categories: sales, discount, margin, sold below cost",
        "finance-categories",
        ("rates", "limit", *_PERIOD),
    ),
    "budget": Part("预算 · budget, spent, forecast", "finance-budgets", ("campaign", "days")),
    "cash": Part("现金流 · cash by day", "finance-cash", ("zone", *_PERIOD)),
    "losses": Part("损失点 · money lost to broken rules", "finance-losses", ("campaign",)),
    "refunds": Part("退款 · refunds, and discounts clawed back", "finance-refunds", _PERIOD),
    "statement": Part("券负债对账 · statement of coupons that are out", "finance-statement", ("campaign", *_PERIOD)),
    "doubts": Part("数据提示 · what makes figures doubtful", "finance-doubts"),
}


@click.group()
def report() -> None:
    """Reports: what coupons cost, who bears it, why they expired.

    \b
    coupon-ledger report finance
    coupon-ledger report finance split --by kind,funder
    coupon-ledger report expiry --by reason
    """


report.add_command(expiries, "expiry")


@report.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(_FINANCE)), metavar="[PART]...")
@click.option(
    "--by",
    metavar="A,B",
    help="split: kind, campaign, coupon-type, channel, store, region, funder, day; margin: the last four but funder.",
)
@click.option("--campaign", help="Only of this campaign.")
@instant_option("--since", "Only from then on.")
@instant_option("--until", "Only before then.")
@click.option("--zone", help="Time zone of days. [default: Asia/Shanghai]")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    metavar="CATEGORY=PERCENT",
    callback=lambda ctx, param, values: _rates(values, ctx, param),
    help="Cost of goods of a category where orders do not say it, in percent of what was paid; '*' for any other.",
)
@click.option("--days", type=click.IntRange(min=1), help="budget: the rate of how many last days. [default: 7]")
@click.option("--explain", is_flag=True, help="split, margin: the discounts or orders that a number is made of.")
@limit_option(_SHOWN)
@past_options
@settings_options("database")
@output_option
def finance(
    parts: tuple[str, ...], explain: bool, limit: int | None, settings: Settings, output: str, **asked: Any
) -> None:
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
    coupon-ledger report finance margin --rate DAIRY=75 --rate '*=80'
    coupon-ledger report finance split --campaign k-1 --explain --output csv
    coupon-ledger report finance --known-at 2026-11-12 --output json
    """
    past = {name: asked.pop(name) for name in ("at", "known_at", "positions")}
    chosen = list(dict.fromkeys(parts)) or list(_FINANCE)
    if output in ("ndjson", "csv") and len(chosen) > 1:
        raise click.UsageError(f"{output} holds one table: name one part, such as `report finance split`")
    if explain and (len(chosen) > 1 or "explain" not in _FINANCE[chosen[0]].takes):
        raise click.UsageError("--explain goes with one part, split or margin")
    if (asked["by"] and any("by" not in _FINANCE[name].takes for name in parts)) or (asked["by"] and not parts):
        raise click.UsageError("--by goes with split or margin: name it, such as `report finance split --by funder`")
    given = asked | {"explain": explain or None, "limit": limit or (_SHOWN + 1 if output == "table" else None)}
    found: dict[str, list[Row]] = {}
    for name in chosen:
        part = _FINANCE[name]
        told = {n: given[n] for n in part.takes if given.get(n) is not None}
        with answered(settings, output if name == chosen[-1] else "quiet", part.asks, **told, **past) as answer:
            rows = list(rows_of(answer))
        if output == "table":
            _print_part(name, part.title, rows, limit or _SHOWN)
        else:
            found[name] = rows
    if output == "json" and len(chosen) > 1:
        print_row(plain(found), output)
    elif output != "table":
        print_rows(found[chosen[0]], output)


def _print_part(name: str, title: str, rows: list[Row], limit: int) -> None:
    click.echo(click.style(f"\n{title}", bold=True))
    if name == "statement":
        _print_statement(rows)
    elif name == "doubts":
        for row in rows:
            worth = "" if row["amount_minor"] is None else f", {row['amount_minor']:,} {row['currency'] or ''}".rstrip()
            click.echo(f"! {row['cases']:,} {_DOUBTS[row['doubt']]}{worth}")
        if not rows:
            click.echo("none")
    else:
        print_rows(_readable(rows[:limit]), "table")
        if len(rows) > limit:
            click.echo(f"… more than {limit}; --limit shows more")


def _print_statement(rows: list[Row]) -> None:
    """As accounts are written: what was there, what came, what went, what is there."""
    for unit, words in (("coupons", "coupons (张)"), ("minor", "face value (面值)")):
        told = [
            {"campaign_id": row["campaign_id"], "currency": row["currency"], **{m: row[f"{m}_{unit}"] for m in _MOVES}}
            for row in rows
            if any(row[f"{m}_{unit}"] for m in _MOVES)
        ]
        click.echo(f"{words}: opening + issued + returned - used - expired - revoked = closing")
        print_rows(told, "table")


def _readable(rows: Iterable[Row]) -> Iterator[Row]:
    """Columns that no row has a value in tell nothing."""
    listed = list(rows)
    empty = {name for name in (listed[0] if listed else ()) if all(row[name] is None for row in listed)}
    return ({name: value for name, value in row.items() if name not in empty} for row in listed)


def _rates(values: tuple[str, ...], ctx: click.Context, param: click.Parameter) -> str | None:
    found: dict[str, int] = {}
    for value in values:
        category, equals, percent = value.rpartition("=")
        try:
            found[category] = round(float(percent) * 100)
        except (ValueError, OverflowError):
            equals = ""
        if not equals or not 0 <= found[category] <= 10_000:
            raise click.BadParameter(f"{value!r} is no CATEGORY=PERCENT of 0 to 100, such as DAIRY=75", ctx, param)
    return json.dumps(found) if found else None
