"""`state` and `history` show one coupon, `coupons` lists many, and `diff` lists what changed between two states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.export import write_parquet
from coupon_ledger.cli.lists import SHOWN, print_first
from coupon_ledger.cli.options import (
    duration_option,
    instant_option,
    limit_option,
    output_option,
    past_options,
    position_option,
    settings_options,
    timeout_option,
)
from coupon_ledger.cli.output import print_frames, print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.rules import CHOICES, STATES
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.questions.parameters import about
from coupon_ledger.questions.states.parameters import Coupons, Diff, Expiring
from coupon_ledger.reports.labels import codes_in_words, figure, in_words, label, say, word
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from datetime import timedelta

LONG_ENDED_DAYS = 30


@click.command()
@click.argument("coupon")
@past_options
@settings_options("database")
@output_option
def state(coupon: str, settings: Settings, output: str, **past: Any) -> None:
    """Show COUPON: its state, owner, order, values and instants.

    \b
    coupon-ledger state c-00000001
    coupon-ledger state c-00000001 --output json
    coupon-ledger state c-00000001 --at 2026-11-11T20:00:00+08:00 --known-at 2026-11-12
    coupon-ledger state c-00000001 --at-position coupon.events:2:75632
    """
    with answered(settings, output, "state", coupon=coupon, **past) as answer:
        print_row(answer.row(), output)


@click.command()
@click.argument("coupon")
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
def history(coupon: str, limit: int | None, settings: Settings, output: str, **past: Any) -> None:
    """Show the events of COUPON in canonical order, the state before and after each, and its violations.

    Only the last events are shown: as many as --limit says, by default 50 in a table and all in the machine formats. A
    table says how many earlier ones are left out.

    \b
    coupon-ledger history c-00000001
    coupon-ledger history c-00000001 --limit 5
    coupon-ledger history c-00000001 --output ndjson
    coupon-ledger history c-00000001 --known-at 2026-11-12
    """
    at_most = limit or (SHOWN if output == "table" else None)
    with answered(settings, output, "history", coupon=coupon, limit=at_most, **past) as answer:
        rows = [{**row, "data": json.loads(row["data"])} for row in rows_of(answer)]
        numbers = [row.pop("number") for row in rows]
        [currency] = {row.pop("currency") for row in rows} or {None}
        if output != "table":
            print_rows(rows, output)
            return
        if numbers and numbers[0] > 1:
            left = numbers[0] - 1
            click.echo(say("{n:count} earlier event{n:s} {n:are} left out; --limit shows more", n=left), err=True)
        print_rows((_for_people(row, currency) for row in rows), output)
        for row in rows:
            for violation in row["violations"]:
                if violation == "conflicting_duplicate":
                    click.echo(say(_CONFLICT, violation=violation, event=row["event_id"]))


_CONFLICT: Final = "{violation:word}: another content came under the id {event}; it is not folded"


def _for_people(row: Row, currency: str | None) -> Row:
    """An event of a coupon's history as a row of the table. `currency`: the coupon's currency, used for amounts of
    events that state no currency."""
    data = in_words(row["data"], currency)
    return {
        "occurred_at": row["occurred_at"],
        "type": row["type"],
        "transition": f"{word(row['before'])} → {word(row['after'])}",
        "violations": _violations_in_words(row),
        "event_id": row["event_id"],
        "data": data,
    }


def _violations_in_words(row: Row) -> str | None:
    """The violations of an event in words: faults first, then superseded and explained ones. None if there are none."""
    excused = (*row["superseded"], *row["explained"])
    faults = [code for code in row["violations"] if code not in excused]
    parts = [codes_in_words(faults)] if faults else []
    parts += [say(_EXCUSED[name], codes=codes_in_words(row[name])) for name in _EXCUSED if row[name]]
    return ", ".join(parts) or None


_EXCUSED: Final = {"superseded": "superseded ({codes})", "explained": "explained ({codes})"}


@click.group(invoke_without_command=True)
@click.option("--count", is_flag=True, help="Count coupons per state instead of listing them.")
@click.option("--campaign", help=about(Coupons, "campaign"))
@click.option("--state", type=click.Choice(STATES), help=about(Coupons, "state"))
@click.option("--owner", "--user", "owner", help=about(Coupons, "owner"))
@click.option("--type", "coupon_type", type=click.Choice(CHOICES["coupon_type"]), help=about(Coupons, "coupon_type"))
@click.option("--channel", help=about(Coupons, "channel"))
@click.option("--code", help=about(Coupons, "code"))
@instant_option("--since", about(Coupons, "since"))
@instant_option("--until", about(Coupons, "until"))
@click.option("--all", "everything", is_flag=True, help="In a table, include coupons that ended long ago.")
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.parquet",
    help="Write all of them, unordered, to this Parquet file; it appears once complete.",
)
@past_options
@limit_option(SHOWN)
@settings_options("database")
@output_option
@click.pass_context
def coupons(
    context: click.Context,
    /,
    count: bool,
    everything: bool,
    to: Path | None,
    limit: int | None,
    settings: Settings,
    output: str,
    **filters: Any,
) -> None:
    """List coupons in the order of their ids. A table shows the first ones, the machine formats all.

    Without --all, a table leaves out coupons that expired or were revoked more than 30 days before the data's clock.

    \b
    coupon-ledger coupons --count
    coupon-ledger coupons --campaign 8 --state used
    coupon-ledger coupons --channel app --type cash --since 2026-11-11
    coupon-ledger coupons --code SAVE20
    coupon-ledger coupons --campaign 8 --count --at 2026-11-11T20:00:00+08:00
    coupon-ledger coupons --output ndjson > coupons.ndjson
    coupon-ledger coupons --at 2026-11-12 --to coupons.parquet
    coupon-ledger coupons expiring --within 3d
    """
    if context.invoked_subcommand is not None:
        return
    if to is not None:
        if count:
            raise click.UsageError("--to writes coupons, --count counts them; leave one out")
        _exported(settings, to, limit=limit, ordered=limit is not None, **filters)
        return
    if count:
        with answered(settings, output, "states", **filters) as answer:
            print_frames((frame.drop("long_ended") for frame in answer.frames), output)
        return
    shown = "coupon_id state campaign_id coupon_type owner order_id discount_minor last_event_at events violations"
    if output != "table" or everything:
        print_first(settings, output, limit, shown.split(), "coupons", **filters)
        return
    print_first(settings, output, limit, shown.split(), "coupons", ended_days=LONG_ENDED_DAYS, **filters)
    with answered(settings, "none", "states", ended_days=LONG_ENDED_DAYS, **filters) as answer:
        left_out = sum(row["long_ended"] for row in rows_of(answer))
    if left_out:
        click.echo(say(_LEFT_OUT, n=left_out, days=LONG_ENDED_DAYS), err=True)


_LEFT_OUT: Final = "{n:count} that ended more than {days} days before are left out; --all lists them"


def _exported(settings: Settings, to: Path, **parameters: Any) -> None:
    with answered(settings, "table", "coupons", **parameters) as answer:
        with progress("writing", None, "coupons") as bar:
            rows = write_parquet(answer, to, bar.advance)
        click.echo(say("{n:count} coupon{n:s} written to {file}", n=rows, file=str(to)))


@coupons.command("expiring")
@duration_option("--within", "List coupons that end within this time after the data's clock.", default="3d")
@click.option("--campaign", help=about(Coupons, "campaign"))
@click.option("--channel", help=about(Expiring, "channel"))
@limit_option(SHOWN)
@settings_options("database")
@output_option
def expiring(within: timedelta, limit: int | None, settings: Settings, output: str, **filters: Any) -> None:
    """List coupons that are still usable but end soon, to remind their owners.

    \b
    coupon-ledger coupons expiring --within 3d
    coupon-ledger coupons expiring --within 12h --campaign 8 --output csv
    """
    shown = "valid_until owner coupon_id state campaign_id coupon_type face_value_minor percent_off_bp currency channel"
    print_first(settings, output, limit, shown.split(), "expiring", within_s=int(within.total_seconds()), **filters)


@click.command()
@instant_option("--from", about(Diff, "from_at"), cut=True)
@instant_option("--to", about(Diff, "to_at"), cut=True)
@instant_option("--known-from", about(Diff, "known_from"), cut=True)
@instant_option("--known-to", about(Diff, "known_to"), cut=True)
@position_option("--from-position", "from_positions", about(Diff, "from_positions"))
@position_option("--to-position", "to_positions", about(Diff, "to_positions"))
@click.option("--campaign", help=about(Coupons, "campaign"))
@timeout_option
@settings_options("database")
@output_option
def diff(campaign: str | None, settings: Settings, output: str, **bounds: Any) -> None:
    """List the coupons that have events between two points: each coupon's state at both, what else changed, and the
    events.

    --from and --to name the points by the time at which events happened; --known-from and --known-to by the time at
    which they were recorded, so late events count when the ledger learned of them; --from-position and --to-position
    by positions in the log. The options can be combined: a point includes only events that satisfy all of its options.

    \b
    coupon-ledger diff --from 2026-11-11 --to 2026-11-12 --campaign 8
    coupon-ledger diff --from 2026-11-12 --to 2026-11-12 --known-from 2026-11-12 --known-to 2026-11-13
    coupon-ledger diff --from-position yesterday.json
    """
    states = {"from_at": bounds.pop("from"), "to_at": bounds.pop("to"), **bounds}
    with answered(settings, output, "diff", campaign=campaign, **states) as answer:
        if output in ("ndjson", "csv"):
            print_frames(answer.frames, output)
            return
        rows = ({**row, "changed": json.loads(row["changed"])} for row in rows_of(answer))
        print_rows(rows if output == "json" else map(_difference, rows), output)


def _difference(row: Row) -> Row:
    events = zip(row["types"], row["event_ids"], strict=True)
    return {
        "coupon_id": row["coupon_id"],
        "campaign_id": row["campaign_id"],
        "transition": f"{word(row['before'] or 'not_there')} → {word(row['after'])}",
        "changed": ", ".join(
            f"{label(n)} {figure(n, old)} → {figure(n, new)}" for n, (old, new) in row["changed"].items()
        ),
        "events": ", ".join(f"{word(kind)} {event_id}" for kind, event_id in events),
    }
