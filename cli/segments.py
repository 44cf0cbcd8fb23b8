"""`segments`: define rules that choose customers, and show who is in a segment, its size over time, and its user
ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.appending import appending
from coupon_ledger.cli.asking import FIRST_ROWS, answered, rows_of
from coupon_ledger.cli.options import (
    LOG,
    duration_option,
    instant_option,
    limit_option,
    operator_options,
    output_option,
    past_options,
    settings_options,
    signed,
    zone_option,
)
from coupon_ledger.cli.output import limited, print_rows
from coupon_ledger.ledger.errors import UnknownSegment
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from datetime import datetime, timedelta

DEFINED: Final = "segment_defined"
_SHOWN: Final = 20
_COLUMNS: Final = (
    "user_id currency segment orders net_sales_minor last_paid_at coupon_order_share received used".split()
)
_MOST_INSTANTS: Final = 60


@click.group()
def segments() -> None:
    """Choose customers by a saved rule (动态人群): those who satisfy it now, or did at an instant.

    A rule is an SQL condition on a customer's columns: orders, net_sales_minor, recency_days, tenure_days,
    mean_gap_days, coupon_orders, coupon_order_share, discount_share, received, used, full_price_after, segment,
    high_value, active, bargain_hunter, alive, projected_minor, currency, attributes (JSON text of the profile,
    including tags).

    \b
    coupon-ledger segments define asleep --rule "segment = 'cant_lose' AND used > 0" --why "win them back"
    coupon-ledger segments show asleep
    coupon-ledger segments export asleep > ids.csv
    """


@segments.command()
@click.argument("name")
@click.option("--rule", required=True, metavar="CONDITION", help="SQL condition that chooses the customers.")
@operator_options
@settings_options(*LOG, "database")
def define(name: str, rule: str, why: str | None, operator: str | None, settings: Settings) -> None:
    """Define or redefine the segment NAME, and show its size. The rule is recorded in coupon.operations.

    \b
    coupon-ledger segments define big --rule "net_sales_minor > 100000" --why "winter sale"
    coupon-ledger segments define vip --rule "attributes LIKE '%\\"tag\\":\\"vip\\"%'" --why "invitations"
    """
    from coupon_ledger.ledger import operations

    who, because = signed(why, operator)
    with answered(settings, "table", "customers", rule=rule) as answer:
        inside = sum(frame.height for frame in answer.frames)
    with appending(settings) as log:
        operations.append(log, DEFINED, why=because, operator=who, subject=name, details={"rule": rule})
    click.echo(say("segment {name}: {n:count} customer{n:s} in it, by {rule}", name=name, n=inside, rule=rule))


@segments.command("list")
@settings_options(*LOG)
@output_option
def list_segments(settings: Settings, output: str) -> None:
    """List the segments with their rules, who defined them and why.

    \b
    coupon-ledger segments list
    """
    print_rows(list(_defined(settings).values()), output)


@segments.command()
@click.argument("name")
@limit_option(_SHOWN)
@zone_option()
@past_options
@settings_options(*LOG, "database")
@output_option
def show(name: str, limit: int | None, settings: Settings, output: str, **past: Any) -> None:
    """Show the customers in the segment NAME, those with the highest net sales first.

    \b
    coupon-ledger segments show asleep
    coupon-ledger segments show asleep --at 2026-11-01 --output csv
    """
    rule = _rule(name, settings)
    at_most = limit or (_SHOWN if output == "table" else None)
    with answered(settings, output, "customers", rule=rule, limit=at_most and at_most + 1, **past) as answer:
        rows, more = limited(rows_of(answer), at_most) if at_most else (list(rows_of(answer)), False)
        print_rows(rows, output, _COLUMNS if output == "table" else None)
    if more and output == "table":
        click.echo(say(FIRST_ROWS, n=at_most), err=True)


@segments.command()
@click.argument("name")
@zone_option()
@past_options
@settings_options(*LOG, "database")
def export(name: str, settings: Settings, **past: Any) -> None:
    """Write the user ids of the segment NAME to standard output, one per line, under the header user_id. The list can
    be used for the next campaign, or as input of `experiment assign`.

    \b
    coupon-ledger segments export asleep > ids.csv
    """
    with answered(settings, "csv", "customers", rule=_rule(name, settings), **past) as answer:
        ids = sorted({row["user_id"] for row in rows_of(answer)})
    click.echo("\n".join(["user_id", *ids]))


@segments.command()
@click.argument("name")
@zone_option()
@instant_option("--since", "The first instant.")
@instant_option("--until", "The last instant. [default: now]")
@duration_option("--every", "Interval between instants.", "7d")
@settings_options(*LOG, "database")
@output_option
def size(
    name: str, since: datetime | None, until: datetime | None, every: timedelta, settings: Settings, output: str
) -> None:
    """Show how many customers were in the segment NAME over time. Its current rule is applied at every instant.

    \b
    coupon-ledger segments size asleep --since 2026-09-01 --every 7d
    """
    from datetime import UTC
    from datetime import datetime as clock

    end = until or clock.now(UTC)
    if since is None or since > end:
        raise click.UsageError("--since is needed, before --until")
    if (end - since) // every >= _MOST_INSTANTS:
        raise click.UsageError(f"more than {_MOST_INSTANTS} instants; make --every longer or --since later")
    rule = _rule(name, settings)
    rows: list[Row] = []
    at = since
    while at <= end:
        with answered(settings, "none", "customers", rule=rule, at=at) as answer:
            customers = list(rows_of(answer))
        by_currency: dict[str | None, list[Row]] = {}
        for row in customers:
            by_currency.setdefault(row["currency"], []).append(row)
        for currency, inside in by_currency.items() or [(None, [])]:
            net = sum(row["net_sales_minor"] for row in inside)
            rows.append({"at": at, "currency": currency, "customers": len(inside), "net_sales_minor": net})
        at += every
    print_rows(rows, output)


def _rule(name: str, settings: Settings) -> str:
    defined = _defined(settings)
    if name not in defined:
        known = f"there are {', '.join(defined)}" if defined else "none was defined"
        raise UnknownSegment(f"segment {name}: not known, {known}; see `coupon-ledger segments define`")
    return str(defined[name]["rule"])


def _defined(settings: Settings) -> dict[str, Row]:
    """By name, the latest definition of each segment: `name`, `rule`, `defined_at`, `operator` and `reason`."""
    from coupon_ledger.ledger.operations import operations_of

    return {
        str(done.subject): {
            "name": done.subject,
            "rule": (done.details or {}).get("rule"),
            "defined_at": done.occurred_at,
            "operator": done.operator,
            "reason": done.reason,
        }
        for done in operations_of(settings.log, DEFINED)
    }
