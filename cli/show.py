"""What people ask the database: `state`, `history`, `coupons`, `campaigns`, `violations`, `digest`, `dead-letters`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from cli.options import columns_option, limit_option, output_option, settings_options
from cli.output import Row, limited, plain, print_frames, print_row, print_rows
from ledger.errors import LedgerError
from ledger.rules import STATES
from ledger.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from projections.store import Store

SHOWN = 50


class NotFound(LedgerError):
    pass


@click.command()
@click.argument("coupon")
@settings_options("database")
@output_option
def state(coupon: str, settings: Settings, output: str) -> None:
    """Show where COUPON stands: its state, owner, order, values and instants.

    \b
    coupon-ledger state c-00000001
    coupon-ledger state c-00000001 --output json
    """
    from projections import queries

    with _reading(settings) as store:
        print_row(queries.coupon(store, coupon), output)


@click.command()
@click.argument("coupon")
@settings_options("database")
@output_option
def history(coupon: str, settings: Settings, output: str) -> None:
    """Show every event of COUPON in canonical order, the state before and after it, and what was wrong with it.

    \b
    coupon-ledger history c-00000001
    coupon-ledger history c-00000001 --output ndjson
    """
    from projections import queries

    with _reading(settings) as store:
        folded, positions = queries.history(store, coupon)
    conflicts = [v for v in folded.violations if v.violation == "conflicting_duplicate"]
    rows = []
    for step in folded.steps:
        event = {k: v for k, v in step.event.items() if v is not None and k != "coupon_id"}
        if "attributes" in event:
            event["attributes"] = json.loads(event["attributes"])
        at = positions[event["event_id"]]
        head = {name: event.pop(name) for name in ("occurred_at", "type", "event_id", "source")}
        rows.append(
            {
                **head,
                "before": step.before,
                "after": step.after,
                "violations": [
                    *step.violations,
                    *(v.violation for v in conflicts if v.event_id == head["event_id"]),
                ],
                "data": event,
                "recorded_at": at["recorded_at"],
                "partition": at["log_partition"],
                "offset": at["log_offset"],
            }
        )
    if output != "table":
        print_rows(rows, output)
        return
    print_rows((_for_people(row) for row in rows), output)
    for conflict in conflicts:
        click.echo(f"conflicting_duplicate: another content came under the id {conflict.event_id}; it is not folded")


def _for_people(row: Row) -> Row:
    data = ", ".join(f"{k}={_value(v)}" for k, v in row["data"].items())
    return {
        "occurred_at": row["occurred_at"],
        "type": row["type"],
        "transition": f"{row['before']} → {row['after']}",
        "violations": ", ".join(row["violations"]) or None,
        "event_id": row["event_id"],
        "data": data,
    }


def _value(value: object) -> str:
    shown = plain(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


@click.command()
@click.option("--count", is_flag=True, help="How many in each state instead of a list.")
@click.option("--campaign", "campaign_id", help="Only of this campaign.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--owner", help="Only of this user.")
@limit_option(SHOWN)
@settings_options("database")
@output_option
def coupons(
    count: bool,
    campaign_id: str | None,
    state: str | None,
    owner: str | None,
    limit: int | None,
    settings: Settings,
    output: str,
) -> None:
    """List coupons by id. The machine formats stream all of them.

    \b
    coupon-ledger coupons --count
    coupon-ledger coupons --campaign 8 --state used
    coupon-ledger coupons --output ndjson > coupons.ndjson
    """
    from projections import queries

    filters = {"campaign_id": campaign_id, "state": state, "owner": owner}
    if count:
        _all(settings, output, lambda store: queries.states(store, filters), None)
        return
    shown = "coupon_id state campaign_id coupon_type owner order_id discount_minor last_event_at events violations"
    _list(settings, output, limit, lambda store, n: queries.coupons(store, filters, n), shown.split())


@click.command()
@columns_option
@settings_options("database")
@output_option
def campaigns(columns: list[str] | None, settings: Settings, output: str) -> None:
    """List campaigns: how many coupons were issued, claimed, used, returned, expired, and the rates.

    Counts are of distinct coupons with such an event. claim_rate: claimed / issued to be claimed. use_rate: in use
    now / owned.

    \b
    coupon-ledger campaigns
    """
    from projections import queries

    _all(settings, output, queries.campaigns, columns)


@click.command()
@click.option("--coupon", "coupon_id", help="Only of this coupon.")
@click.option("--code", "violation", help="Only this rule, for example used_when_used.")
@click.option(
    "--scope",
    type=click.Choice(["coupon", "cross"]),
    help="Only rules of one coupon's life, or those across coupons, campaigns and orders.",
)
@click.option("--count", is_flag=True, help="How many of each instead of a list.")
@limit_option(SHOWN)
@settings_options("database")
@output_option
def violations(
    coupon_id: str | None,
    violation: str | None,
    scope: str | None,
    count: bool,
    limit: int | None,
    settings: Settings,
    output: str,
) -> None:
    """List broken rules by time: which event, which rule, in which state it found the coupon.

    Scope coupon: of one coupon's own events. Scope cross: stock, limits and windows of its campaign, and what coupons
    and orders say of each other (counterpart: the other side).

    \b
    coupon-ledger violations --count
    coupon-ledger violations --scope cross
    coupon-ledger violations --code used_when_used --output csv
    """
    from projections import queries

    filters = {"coupon_id": coupon_id, "violation": violation, "scope": scope}
    if count:
        _all(settings, output, lambda store: queries.violation_counts(store, filters), None)
        return
    shown = "occurred_at key event_id violation state scope counterpart".split()
    _list(settings, output, limit, lambda store, n: queries.violations(store, filters, n), shown)


@click.command()
@columns_option
@settings_options("database")
@output_option
def digest(columns: list[str] | None, settings: Settings, output: str) -> None:
    """Show the digests of all tables.

    facts: equal for the same facts, whatever their arrival, batches, repeats or log. full: every column, equal for
    the same log up to the same positions.

    \b
    coupon-ledger digest
    """
    from dataclasses import asdict

    from projections.digest import digests

    with _reading(settings) as store:
        print_rows((asdict(d) for d in digests(store)), output, columns)


@click.group("dead-letters")
def dead_letters() -> None:
    """Records of the log that were not folded: undecodable bytes, unknown schemas, events that break the rules.

    \b
    coupon-ledger dead-letters list
    """


@dead_letters.command("list")
@limit_option(SHOWN)
@settings_options("database")
@output_option
def list_dead_letters(limit: int | None, settings: Settings, output: str) -> None:
    """List dead letters with position and reason.

    \b
    coupon-ledger dead-letters list
    """
    from projections import queries

    _list(settings, output, limit, queries.dead_letters, None)


@dead_letters.command("show")
@click.argument("topic")
@click.argument("partition", type=int)
@click.argument("offset", type=int)
@click.option("--raw", is_flag=True, help="Write the record's value as it was to standard output.")
@settings_options("database")
@output_option
def show_dead_letter(topic: str, partition: int, offset: int, raw: bool, settings: Settings, output: str) -> None:
    """Show one dead letter with its bytes (in hexadecimal).

    \b
    coupon-ledger dead-letters show coupon.events 2 75632
    coupon-ledger dead-letters show coupon.events 2 75632 --raw > record.bin
    """
    from projections import queries

    with _reading(settings) as store:
        found = queries.dead_letter(store, topic, partition, offset)
    if found is None:
        raise NotFound(f"dead letter {topic} {partition} {offset}: not there; see `coupon-ledger dead-letters list`")
    if raw:
        sys.stdout.buffer.write(found["value"])
    else:
        print_row(found, output)


def _reading(settings: Settings) -> Store:
    from projections.store import Store

    return Store.open(settings.database, read_only=True)


def _all(settings: Settings, output: str, query: Callable[[Store], pl.DataFrame], columns: list[str] | None) -> None:
    with _reading(settings) as store:
        print_frames([query(store)], output, columns)


def _list(
    settings: Settings,
    output: str,
    limit: int | None,
    query: Callable[[Store, int | None], Iterator[pl.DataFrame]],
    shown: list[str] | None,
) -> None:
    """A list that a table cuts short, to the columns that matter most."""
    with _reading(settings) as store:
        if output != "table":
            print_frames(query(store, limit), output)
            return
        at_most = limit or SHOWN
        rows, more = limited(_rows(query(store, at_most + 1)), at_most)
    print_rows(rows, output, shown)
    if more:
        click.echo(f"… more than {at_most}; --limit shows more, --output ndjson all", err=True)


def _rows(frames: Iterator[pl.DataFrame]) -> Iterator[Row]:
    for frame in frames:
        yield from frame.iter_rows(named=True)
