"""The reports for marketing, finance and risk: `report roi`, `report channels`, `report finance`, …

A report has one or several parts. For people, each part is a table with a title, in their language. The machine formats
have plain figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from coupon_ledger.cli.asking import FIRST_ROWS, answered, rows_of, say_as_of, together
from coupon_ledger.cli.expire import expiries
from coupon_ledger.cli.metrics import explained
from coupon_ledger.cli.options import (
    goods_rate_option,
    instant_option,
    limit_option,
    output_option,
    past_options,
    settings_options,
    timeout_option,
    zone_option,
)
from coupon_ledger.cli.output import Fit, limited, print_row, print_rows
from coupon_ledger.cli.tables import echo_wrapped, warn
from coupon_ledger.ledger.errors import LedgerError, WrongQuestion
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import note, of_error
from coupon_ledger.questions.finance.parameters import Restated, Split
from coupon_ledger.questions.parameters import about
from coupon_ledger.reports.columns import in_natural_order
from coupon_ledger.reports.experiment import with_the_intervals_that_count
from coupon_ledger.reports.labels import say, text_of, total_label
from coupon_ledger.reports.parts import (
    ACCOUNTS,
    ADDS_NOTHING,
    CHANNELS,
    COHORTS,
    DETAILS,
    DOUBTS,
    FINANCE,
    FUNNEL,
    LINES,
    MONTHS_LATER,
    MOVES,
    ROI,
    SEGMENTS,
    WITHOUT_BUDGET,
    WITHOUT_COST,
    WITHOUT_VALUE,
    Part,
    by_month,
    doubt_in_words,
    one_row_a_slice,
)
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from datetime import datetime

    from coupon_ledger.questions.registry import AsOf

Command = TypeVar("Command", bound=Callable[..., Any])

_SHOWN: Final = 20


_OPTION: Final = {"goods_rates": "goods-rate", "where": "campaign"}
"""The option of each parameter that has another name than its option."""


@click.group()
def report() -> None:
    """Reports: what campaigns earned and caused, what coupons cost and who bears it, who the customers are, why
    coupons expired.

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
    """Add the options that every report has."""
    explain = click.option(
        "--explain", is_flag=True, help="For one part: list the coupons, orders or people behind its numbers."
    )
    zone = zone_option("Time zone of days and months.", exposed=True)
    for option in (output_option, settings_options("database"), past_options, zone, limit_option(_SHOWN), explain):
        command = option(command)
    return command


@report.command()
@_parts_argument(FINANCE)
@click.option(
    "--by",
    metavar="A,B",
    help="split: kind, campaign, category, coupon-type, channel, store, region, funder, day; margin: channel, store,"
    " region, day",
)
@click.option("--campaign", help=about(Split, "campaign"))
@instant_option("--since", about(Split, "since"))
@instant_option("--until", about(Split, "until"))
@goods_rate_option
@click.option(
    "--days",
    type=click.IntRange(min=1),
    help="budget: number of days over which the spending rate is measured. [default: 7]",
)
@_shared
def finance(parts: tuple[str, ...], **options: Any) -> None:
    """Show what coupons cost and who bears it (财务): all PARTs, or the named ones.

    split: discounts by kind, campaign, category of goods, channel, store, funder or day. margin: net sales and margin.
    categories: sales, discounts and margin by category of goods. budget: what is spent and left of each budget, and
    when it will run out. cash: money in and out by day. losses: money lost to broken rules. refunds: money given back
    to customers, and discounts clawed back. statement: opening, movements and closing of the outstanding coupons,
    balanced to the cent. doubts: what in the data makes figures doubtful, and how such data are counted.
    reconciliation: how the numbers of all reports add up.

    One row per currency; currencies are never added up. The machine formats have minor units (cents).

    \b
    coupon-ledger report finance
    coupon-ledger report finance split --by kind,funder --since 2026-11-01
    coupon-ledger report finance statement --campaign k-1 --since 2026-11-01 --until 2026-12-01
    coupon-ledger report finance margin --goods-rate DAIRY=75 --goods-rate 80
    coupon-ledger report finance losses --campaign k-1 --explain --output csv
    coupon-ledger report finance --known-at 2026-11-12 --output json
    """
    if options["by"] and not (parts and all("by" in FINANCE[name].takes for name in parts)):
        raise click.UsageError("--by goes with split or margin: name it, such as `report finance split --by funder`")
    _report(FINANCE, parts, **options)


@report.command()
@_parts_argument(SEGMENTS)
@goods_rate_option
@_shared
def segments(parts: tuple[str, ...], **options: Any) -> None:
    """Show who the customers are (客户): named segments by recency, frequency and money; tiers; new and returning
    customers among users of coupons; clusters; what correlates with using coupons and with returning; who is about to
    lapse.

    A customer is a user with a paid order that was neither cancelled nor refunded in full. projected_minor is a model's
    forecast for the next 90 days (BG/NBD and Gamma-Gamma); no other number includes it.

    \b
    coupon-ledger report segments
    coupon-ledger report segments tiers lapsing
    coupon-ledger report segments rfm --at 2026-11-11 --output csv
    coupon-ledger report segments rfm --explain --output csv
    """
    _report(SEGMENTS, parts, **options)


@report.command()
@_parts_argument(COHORTS)
@_shared
def cohorts(parts: tuple[str, ...], **options: Any) -> None:
    """Show how many customers ordered again (留存与复购).

    retention: month by month after the first order. coupon: month by month after the first order with a coupon.
    repurchase: within 7, 30, 60 and 90 days of the first order with a coupon.

    \b
    coupon-ledger report cohorts
    coupon-ledger report cohorts repurchase --output json
    coupon-ledger report cohorts retention --explain --limit 50
    """
    _report(COHORTS, parts, **options)


@report.command()
@_parts_argument(FUNNEL)
@click.option("--campaign", help=about(Split, "campaign"))
@instant_option("--since", "behaviour: only from then on.")
@instant_option("--until", "behaviour: only before then.")
@_shared
def funnel(parts: tuple[str, ...], **options: Any) -> None:
    """Show how far coupons got (issued, claimed, used), and how far people got (view, cart, order, paid, returned).

    \b
    coupon-ledger report funnel
    coupon-ledger report funnel behaviour --campaign k-1 --since 2026-11-01
    coupon-ledger report funnel coupons --campaign k-1 --explain
    """
    _report(FUNNEL, parts, **options)


@report.command()
@click.option("--campaign", "campaigns", multiple=True, help="Only this campaign (repeatable).")
@instant_option("--since", about(Split, "since"))
@instant_option("--until", about(Split, "until"))
@goods_rate_option
@_shared
def roi(campaigns: tuple[str, ...], **options: Any) -> None:
    """Show what each campaign earned and cost (投入产出).

    Simple ROI = (margin of the orders with its coupons - booked costs) / (discount + booked costs). It is not
    incremental: some of these orders would have come anyway. `report experiments` shows what campaigns caused;
    `attribution show --roi` divides orders among touches. --explain lists the coupons and orders.

    \b
    coupon-ledger report roi
    coupon-ledger report roi --goods-rate 75 --since 2026-11-01 --output csv
    coupon-ledger report roi --campaign k-1 --explain
    """

    def joined() -> None:
        parameters = {"campaign": campaigns[0]} | {name: options[name] for name in ("at", "known_at", "positions")}
        title = (
            "How the numbers join, whatever the period"
            if options["since"] or options["until"]
            else "How the numbers join"
        )
        click.echo(click.style("\n" + say(title), bold=True))
        _print_reconciliation(_rows(options["settings"], "finance-reconciliation", parameters))

    one = len(campaigns) == 1
    _report(ROI, (), where=_of_campaigns(campaigns), below=joined if one else None, **options)


@report.command()
@instant_option("--known-from", about(Restated, "known_from"), cut=True)
@click.option("--campaign", help=about(Restated, "campaign"))
@instant_option("--since", about(Restated, "since"))
@instant_option("--until", about(Restated, "until"))
@goods_rate_option
@zone_option()
@timeout_option
@settings_options("database")
@output_option
def restated(settings: Settings, output: str, **filters: Any) -> None:
    """Show figures as known then, as known now, and why they differ (数字追溯): orders, sales, goods cost and margin,
    discounts, booked costs and simple ROI, with each cause of a change.

    One line per cause. …_told_late (order, use, return, refund, cost, goods_cost): recorded only after --known-from.
    cancelled_late: the order was cancelled since. …_corrected: the value was corrected.

    In each column except cases, known_then + causes = known_now. cases: the number of orders, uses and costs in a line
    (under a cause, uses without a discount are left out, since they change nothing). simple_roi_bp: the simple ROI of
    the orders with a coupon, NOT incremental, in basis points (12,500 is 1.25). In the line of a cause, it is the
    change when the causes are applied one after another, in the order of the lines. For the coupons behind it: `diff
    --known-from`.

    \b
    coupon-ledger report restated --known-from 2026-11-12
    coupon-ledger report restated --known-from 2026-11-12 --campaign k-1 --since 2026-11-01 --until 2026-11-12
    """
    with answered(settings, output, "restated", **filters) as answer:
        rows = list(rows_of(answer))
    print_rows(rows, output)
    _warn_of_costs([[row for row in rows if row["line"].startswith("known_")]])


@report.command()
@_parts_argument(CHANNELS)
@click.option("--campaign", "campaigns", multiple=True, help="coupons: only this campaign (repeatable).")
@instant_option("--since", about(Split, "since"))
@instant_option("--until", about(Split, "until"))
@goods_rate_option
@_shared
def channels(parts: tuple[str, ...], campaigns: tuple[str, ...], **options: Any) -> None:
    """Show what channels did (渠道): coupons issued, claimed and used, and the orders credited to each.

    For the touches of one order: `attribution show --explain ORDER`.

    \b
    coupon-ledger report channels
    coupon-ledger report channels coupons --campaign k-1 --output csv
    coupon-ledger report channels credit --explain --output csv
    """
    _report(CHANNELS, parts, where=_of_campaigns(campaigns), **options)


@report.command()
@goods_rate_option
@click.option("--explain", is_flag=True, help="List the people of the arms and what each bought.")
@zone_option()
@past_options
@settings_options("database")
@output_option
def experiments(
    goods_rates: dict[str, int] | None, explain: bool, settings: Settings, output: str, **past: Any
) -> None:
    """Show what every campaign with arms caused (增量): per treatment, incremental margin and return with a 95%
    interval. For one campaign in detail: `experiment show CAMPAIGN`. For its people and orders: `experiment people
    CAMPAIGN`.

    \b
    coupon-ledger report experiments
    coupon-ledger report experiments --goods-rate 70 --known-at 2026-12-01 --output csv
    """
    with answered(settings, "none", "experiments", **past) as answer:
        campaigns = [row["campaign_id"] for row in rows_of(answer)]
    rows: list[Row] = []
    for campaign in campaigns:
        parameters = past | ({"goods_rates": goods_rates} if goods_rates else {})
        try:
            if explain:
                with answered(settings, "none", "experiment-people", campaign=campaign, **parameters) as answer:
                    rows += [{"campaign_id": campaign, **row} for row in rows_of(answer)]
                continue
            with answered(settings, "none", "experiment", campaign=campaign, **parameters) as answer:
                [result] = rows_of(answer)
            warned = ", ".join(warning["code"] for warning in result["warnings"]) or None
            whose = {"currency": result["currency"]} if output == "table" else {}
            rows += [{"campaign_id": campaign, **whose, **row, "warnings": warned, "refused": None}
                     for row in result["returns"]]  # fmt: skip
            if not result["returns"]:
                rows.append({"campaign_id": campaign, "refused": say("no margin is known: give --goods-rate")})
        except LedgerError as error:
            refused = text_of(of_error(error)) if output == "table" else str(error)
            rows.append({"campaign_id": campaign, "refused": refused})
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = rows[:_SHOWN] if explain and output == "table" else rows
    columns = None if explain or output != "table" else _EXPERIMENT_COLUMNS.split()
    listed = [{name: row.get(name) for name in names} for row in shown]
    columns = columns and with_the_intervals_that_count([name for name in columns if name in names], listed)
    print_rows(listed, output, columns)
    if len(shown) < len(rows):
        click.echo(say("the first {n:count} rows; --output ndjson shows all", n=_SHOWN), err=True)
    if output == "table" and not rows:
        click.echo(say("no campaign has arms: see `coupon-ledger experiment assign`"))


_EXPERIMENT_COLUMNS: Final = (
    "campaign_id arm currency incremental_margin_minor low_minor high_minor roi roi_low roi_high simple_roi refused"
)


def _of_campaigns(campaigns: tuple[str, ...]) -> dict[str, list[str]] | None:
    return {"campaign": list(campaigns)} if campaigns else None


def _report(
    known: Mapping[str, Part],
    parts: tuple[str, ...],
    settings: Settings,
    output: str,
    limit: int | None,
    at: datetime | None,
    known_at: datetime | None,
    positions: str | None,
    explain: bool,
    below: Callable[[], None] | None = None,
    **options: Any,
) -> None:
    """Print the parts named in `parts`, or all `known` ones if none is named. If one of several parts cannot be
    computed from the data, the reason is printed in its place. `explain`: print the coupons, orders or people behind
    the one part instead. `below`: prints what follows the parts for people."""
    chosen = list(dict.fromkeys(parts)) or list(known)
    if output in ("ndjson", "csv") and len(chosen) > 1:
        raise click.UsageError(f"{output} holds one table: name one part, such as `{chosen[0]}`")
    chosen_options = {name for name, value in options.items() if value is not None and name != "zone"}
    for name in parts:
        if unused := sorted(chosen_options - set(known[name].takes)):
            named = ", ".join("--" + _OPTION.get(option, option) for option in unused)
            raise click.UsageError(f"{name} does not take {named}; leave it out, or name another part")
    past = {"at": at, "known_at": known_at, "positions": positions}
    with together(settings):
        _must_be_known(settings, options, past)
        if explain:
            _print_behind(known, chosen, settings, output, options | {"limit": limit}, past)
            return
        answers: dict[str, Any] = {}
        state: AsOf | None = None
        for name in chosen:
            part = known[name]
            parameters = part.main.parameters(options | {"limit": _row_limit(part, limit, output)})
            try:
                answers[name], state = _rows_and_state(settings, part.main.question, parameters | past)
            except WrongQuestion as error:
                if len(chosen) == 1:
                    raise
                answers[name] = {"refused": text_of(of_error(error)) if output == "table" else str(error)}
            if output == "table":
                title = _title(part, options)
                total = _total(part, answers[name], settings, parameters | past)
                _print_part(name, title, answers[name], total, limit or _SHOWN, _needs_all_rows(part))
        if output == "json" and len(chosen) > 1:
            print_row(answers, output)
        elif output != "table":
            print_rows(answers[chosen[0]], output)
        elif below is not None:
            below()
        _warn_of_costs(answers.values())
        if output != "table":
            return
        if "doubts" not in chosen:
            _say_doubts(settings, past)
        _say_what_options_change(known, chosen, chosen_options)
        if state is not None:
            say_as_of(state, past)


def _title(part: Part, options: Mapping[str, Any]) -> str:
    """The part's title, followed by the names of the columns by which the part is grouped, if any."""
    if "by" not in part.takes:
        return say(part.title)
    by = options.get("by") or part.by
    return say(
        "{title} by {by:label}", title=note(part.title), by=[name.strip().replace("-", "_") for name in by.split(",")]
    )


def _say_what_options_change(known: Mapping[str, Part], chosen: list[str], options: Iterable[str]) -> None:
    """For each given option that only some of the chosen parts take, print which parts take it."""
    for option in sorted(options):
        taking = [name for name in chosen if option in known[name].takes]
        if len(taking) < len(chosen):
            click.echo(
                say(
                    "{option} changes these parts alone: {parts}",
                    option="--" + _OPTION.get(option, option),
                    parts=taking,
                ),
                err=True,
            )


def _must_be_known(settings: Settings, options: Mapping[str, Any], past: dict[str, Any]) -> None:
    """Raises `NotThere` if the options name an unknown campaign. Without the error, its zeros would look like those of
    a campaign that sold nothing."""
    named = [options["campaign"]] if options.get("campaign") else (options.get("where") or {}).get("campaign", [])
    for campaign in named:
        counted = _rows(settings, "states", {"campaign": campaign} | past)
        if not any(row["coupons"] for row in counted):
            _rows(settings, "campaign", {"campaign": campaign} | past)


def _say_doubts(settings: Settings, past: dict[str, Any]) -> None:
    """Warn of doubtful data that may affect the numbers shown."""
    cases: dict[str, int] = {}
    for row in _rows(settings, "finance-doubts", past):
        cases[row["doubt"]] = cases.get(row["doubt"], 0) + row["cases"]
    if cases:
        kinds = [
            note("{n:count} {what}", n=number, what=note(DOUBTS[name][0], n=number)) for name, number in cases.items()
        ]
        warn("doubtful data: {kinds}; how each is counted: `report finance doubts`", kinds=kinds)


def _row_limit(part: Part, limit: int | None, output: str) -> int | None:
    """The number of rows to ask for (None: all). For a table it is one row more than is shown, or None if the part
    needs all rows, for example for its total."""
    if output != "table":
        return limit
    return None if _needs_all_rows(part) else (limit or _SHOWN) + 1


def _needs_all_rows(part: Part) -> bool:
    return bool(part.sums) or "limit" not in part.takes


def _rows(settings: Settings, question: str, parameters: dict[str, Any]) -> list[Row]:
    return _rows_and_state(settings, question, parameters)[0]


def _rows_and_state(settings: Settings, question: str, parameters: dict[str, Any]) -> tuple[list[Row], AsOf]:
    campaign = parameters.pop("campaign", None) if question == "campaigns" else None
    with answered(settings, "quiet", question, **parameters) as answer:
        rows = one_row_a_slice(list(rows_of(answer)))
    return [row for row in rows if campaign is None or row["campaign_id"] == campaign], answer.as_of


def _print_behind(
    known: Mapping[str, Part],
    chosen: list[str],
    settings: Settings,
    output: str,
    options: dict[str, Any],
    past: dict[str, Any],
) -> None:
    able = [name for name in known if known[name].behind]
    behind = known[chosen[0]].behind
    if len(chosen) != 1 or behind is None:
        raise click.UsageError(f"--explain goes with one part of these: {', '.join(able)}; name it")
    if behind.question == "metric-explained":
        explained(settings, output, behind.parameters(options | {"limit": options["limit"] or _SHOWN}) | past)
        return
    limit = options["limit"] or (_SHOWN if output == "table" else None)
    parameters = behind.parameters(options | {"limit": limit and limit + 1}) | past
    with answered(settings, output, behind.question, **parameters) as answer:
        rows, more = limited(rows_of(answer), limit) if limit else (rows_of(answer), False)
        print_rows(rows, output)
    if more and output == "table":
        click.echo(say(FIRST_ROWS, n=limit), err=True)


def _total(part: Part, rows: list[Row] | dict[str, str], settings: Settings, parameters: dict[str, Any]) -> list[Row]:
    """One row with totals per currency, for currencies that have several rows. Empty if the part has no totals or there
    are fewer than two rows."""
    if isinstance(rows, dict) or len(rows) < 2:
        return []
    first = next(iter(rows[0]))
    if part.whole:
        sums = _rows(settings, part.asks, {n: v for n, v in parameters.items() if n != "by"})
        return [{first: total_label()} | row for row in sums]
    totals: dict[str | None, Row] = {}
    for row in rows if part.sums else ():
        total = totals.setdefault(row["currency"], dict.fromkeys(row) | {"currency": row["currency"], "rows": 0})
        total["rows"] += 1
        for name in part.sums:
            if row.get(name) is not None:
                total[name] = (total[name] or 0) + row[name]
    several = [total for total in totals.values() if total.pop("rows") > 1]
    return [total | ({} if first == "currency" else {first: total_label()}) for total in several]


def _print_part(
    name: str, title: str, rows: list[Row] | dict[str, str], total: list[Row], limit: int, whole: bool
) -> None:
    """Print a part for people: its title, and its rows as a table or in the form of their own that a few parts have.
    `rows`: the rows, or a dict whose `refused` says why there are none. `whole`: whether `rows` are all rows, not just
    the first ones."""
    click.echo(click.style(f"\n{title}", bold=True))
    if isinstance(rows, dict):
        click.echo(say("refused: {why}", why=rows["refused"]))
    elif name == "statement":
        _print_statement(rows, limit)
    elif name == "reconciliation":
        _print_reconciliation(rows)
    elif name == "doubts":
        for row in rows:
            echo_wrapped(f"! {text_of(doubt_in_words(row))}", indent=2)
        if not rows:
            click.echo(say("none"))
    else:
        _print_numbers(name, rows, total, limit, whole)
        _print_warnings(rows)
        if name == "budget":
            _say_spent_without_budget(rows, total)
        if name == "budget" and (unknown := sum(row["without_value"] for row in rows)):
            click.echo(say(WITHOUT_VALUE, n=unknown))


def _say_spent_without_budget(rows: list[Row], total: list[Row]) -> None:
    """Explain, per currency, why the totals of the columns budget, spent and left do not add up: some amounts were
    spent without a budget."""
    for sums in total:
        mine = [row for row in rows if row["currency"] == sums["currency"]]
        without = [row["spent_minor"] for row in mine if row["left_minor"] is None and row["spent_minor"]]
        if without and sums["left_minor"] is not None:
            spent = (sum(without), sums["currency"])
            click.echo(say(WITHOUT_BUDGET, spent=spent))


def _print_numbers(name: str, rows: list[Row], total: list[Row], limit: int, whole: bool) -> None:
    """Print the first `limit` rows and the totals of all rows, and say so if there are more rows. `whole`: whether
    `rows` are all rows; if so, the number of rows is printed too."""
    shown = by_month(rows)
    if shown:
        shown = in_natural_order(shown, list(shown[0]))
    print_rows(shown[:limit], "table", _columns(name, shown), total)
    if shown and any(column.startswith("+") for column in shown[0]):
        echo_wrapped(say(MONTHS_LATER))
    if len(shown) > limit and whole:
        click.echo(say("{shown:count} of {n:count} rows; --limit shows more", shown=limit, n=len(shown)))
    elif len(shown) > limit:
        click.echo(say(FIRST_ROWS, n=limit))


def _columns(name: str, rows: list[Row]) -> list[str] | None:
    details = DETAILS.get(name, "").split()
    return [column for column in rows[0] if column not in details] if rows and details else None


def _print_warnings(rows: list[Row]) -> None:
    """If the rows have an ROI: warn that the ROI is too high for campaigns without booked costs."""
    if not rows or "simple_roi" not in rows[0] or "other_cost_minor" not in rows[0]:
        return
    unbooked = [row for row in rows if row["currency"] and not row["other_cost_minor"]]
    if unbooked:
        warn(
            "{n:count} campaign{n:s} {n:have} no booked cost: only the discount counts as cost, so ROI is too high",
            n=len(unbooked),
        )


def _print_reconciliation(rows: list[Row]) -> None:
    """Print each account of the reconciliation as a calculation: a line per item, and `=` before each result."""
    for account, title in ACCOUNTS.items():
        lines = [row for row in rows if row["account"] == account]
        if not lines:
            continue
        click.echo(say(title))
        shown = [
            {
                "currency": row["currency"],
                "number": None if row["number"] is None else f"{row['number']:,.10g}",
                "amount_minor": row["amount_minor"],
                "what": ("= " if row["total"] else "  ") + say(LINES[row["line"]]),
            }
            for row in lines
        ]
        print_rows(shown, "table", fit=Fit(wrap="what"))


def _warn_of_costs(parts: Iterable[Any]) -> None:
    """Warn if the cost of goods of some orders is unknown, so that the margins in `parts` leave these orders out."""
    rows = [row for part in parts if isinstance(part, list) for row in part]
    if any(row.get(name) for row in rows for name in WITHOUT_COST):
        warn("some orders have no known cost of goods: {adds_nothing}", adds_nothing=note(ADDS_NOTHING))


def _print_statement(rows: list[Row], limit: int) -> None:
    """Print the account of outstanding coupons, first in coupons, then in face value: the opening balance, what came,
    what went, and the closing balance."""
    for unit, words in (("coupons", "coupons"), ("minor", "face value")):
        suffix = "_minor" if unit == "minor" else ""
        moved = [
            {"campaign_id": row["campaign_id"], "currency": row["currency"]}
            | {f"{m}{suffix}": row[f"{m}_{unit}"] for m in MOVES}
            for row in rows
            if any(row[f"{m}_coupons"] for m in MOVES)
        ]
        if unit == "minor" and all(row[f"{m}_minor"] is None for row in rows for m in MOVES if row[f"{m}_coupons"]):
            continue  # no value is known
        moved = in_natural_order(moved, ["campaign_id", "currency"])
        how = "{of}: opening + issued + returned - used - expired - revoked - released = closing"
        click.echo(say(how, of=note(words)))
        spare = [name for name in moved[0] if not any(row[name] for row in moved)] if moved else []
        print_rows(moved[:limit], "table", fit=Fit(spare=spare[::-1], keep=f"closing{suffix}"))
        if len(moved) > limit:
            click.echo(say("{shown:count} of {n:count} rows; --limit shows more", shown=limit, n=len(moved)))
    if unknown := sum(row["closing_without_value"] for row in rows):
        click.echo(say(WITHOUT_VALUE, n=unknown))
