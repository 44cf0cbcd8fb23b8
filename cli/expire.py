"""`expire` records that coupons expired; `expiries` shows why coupons expired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coupon_ledger.cli.asking import answered, rows_of
from coupon_ledger.cli.options import LOG, instant_option, output_option, past_options, settings_options, zone_option
from coupon_ledger.cli.output import limited, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.cli.tables import warn
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.questions.parameters import about
from coupon_ledger.questions.states.parameters import Expiries
from coupon_ledger.reports.labels import say
from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coupon_ledger.consumers.runner import Committed

_PARTS = ("reason", "campaign", "channel")
_EXPIRED = (
    "coupon_id campaign_id reason owner currency face_value_minor issue_channel claim_channel valid_until ended_at"
).split()
_SHOWN = 20


@click.command()
@instant_option("--until", "Expire coupons and release holds that are due by then. By default: the data's clock.")
@click.option("--dry-run", is_flag=True, help="Show what would be appended, by reason and campaign; write nothing.")
@settings_options(*LOG, "database", "batch-size", "grace-minutes")
@output_option
def expire(until: datetime | None, dry_run: bool, settings: Settings, output: str) -> None:
    """Append an `expired` event, with the cause, for each coupon past its valid_until, and a `released` event for each
    hold past its hold_until.

    Before and after, the command folds the log to its end; with --dry-run it does not. After an interruption or a kill,
    run it again: nothing is appended twice. If a fact that happened before the expiry arrives later (a use in the last
    minute), that fact wins, and the appended event is superseded. If `consume --follow` owns the database, this command
    asks that consumer to sweep. A consumer with --sweep-every sweeps without being asked.

    \b
    coupon-ledger expire --dry-run
    coupon-ledger expire --until 2026-12-01
    """
    from coupon_ledger.consumers.sweeper import over

    upto = over(until)
    if dry_run:
        with answered(settings, output, "due", until=until) as answer:
            _print_with_unknown(list(rows_of(answer)), output)
        return
    swept = _swept_by_owner(settings, until)
    if swept is None:
        swept = _swept_here(settings, upto)
    rows = [{"reason": reason, "events": number} for reason, number in sorted(swept.items())]
    if output != "table" or rows:
        print_rows(rows, output)
    else:
        click.echo(say("nothing is due"))


def _swept_by_owner(settings: Settings, until: datetime | None) -> Mapping[str, int] | None:
    """Have the database's owner sweep what is due at `until`. Returns how many events it appended, per reason. None if
    nobody owns the database."""
    from coupon_ledger.api.client import owner_of

    owner = owner_of(settings.database)
    return owner.expire(until) if owner is not None else None


def _swept_here(settings: Settings, until: datetime | None) -> Mapping[str, int]:
    from coupon_ledger.consumers.intake import use_rules
    from coupon_ledger.consumers.log_identity import open_log_of
    from coupon_ledger.consumers.runner import Consumer
    from coupon_ledger.consumers.sweeper import expire as sweep_all
    from coupon_ledger.consumers.tuning import tune_process
    from coupon_ledger.projections.database import open_database

    use_rules(settings)
    tune_process()
    with open_database(settings.database) as store:
        log = open_log_of(settings.log, store)
        try:
            with progress("expiring", 0) as bar:
                done = 0

                def committed(commit: Committed) -> None:
                    nonlocal done
                    done += commit.records
                    bar.update(done, done + commit.lag)

                def consumer() -> Consumer:
                    return Consumer(log, store, outlet=log, batch_size=settings.batch_size, grace=settings.grace)

                return sweep_all(store, log, consumer, until, committed)
        finally:
            log.close()


@click.command()
@click.option(
    "--by",
    metavar=",".join(_PARTS),
    default=",".join(_PARTS),
    show_default=True,
    callback=lambda ctx, param, value: _parts(value, ctx, param),
    help=about(Expiries, "by"),
)
@click.option("--campaign", help=about(Expiries, "campaign"))
@instant_option("--since", about(Expiries, "since"))
@instant_option("--until", about(Expiries, "until"))
@click.option("--explain", is_flag=True, help="List the expired coupons.")
@zone_option()
@past_options
@settings_options("database")
@output_option
def expiries(explain: bool, settings: Settings, output: str, **filters: Any) -> None:
    """Show why coupons expired (失效归因), by cause, campaign and channel, with the face value lost.

    Only coupons whose state is expired count. channel: where the coupon was claimed or, if it never was, issued.
    without_value: the number of coupons without a face value (a percentage, a gift).

    \b
    coupon-ledger expiries
    coupon-ledger expiries --by reason --since 2026-11-01 --until 2026-12-01
    coupon-ledger expiries --by campaign,channel --output csv
    coupon-ledger expiries --campaign k-1 --explain --output csv
    """
    if explain:
        _explain(settings, output, filters)
        return
    with answered(settings, output, "expiries", **filters) as answer:
        if output == "table":
            click.echo(say("Expiries by cause"))
        _print_with_unknown(list(rows_of(answer)), output)


def _print_with_unknown(rows: list[Row], output: str) -> None:
    """Print the rows. After a table, warn if coupons have no known face value, since no amount includes them."""
    print_rows(rows, output)
    if output == "table" and (unknown := sum(row["without_value"] for row in rows)):
        warn("{n:count} coupon{n:s} {n:have} no known face value: no amount includes them", n=unknown)


def _explain(settings: Settings, output: str, filters: dict[str, Any]) -> None:
    """Print the coupons that `expiries` counts, in the order of their ids. A table shows the first `_SHOWN`. `filters`:
    the options of `expiries`."""
    past = {name: filters[name] for name in ("campaign", "at", "known_at", "positions")}
    period = {"ended_since": filters["since"], "ended_until": filters["until"]}
    most = _SHOWN + 1 if output == "table" else None
    with answered(settings, output, "coupons", state="expired", limit=most, **period, **past) as answer:
        rows = ({name: row[name] for name in _EXPIRED} for row in rows_of(answer))
        if output != "table":
            print_rows(rows, output)
            return
        shown, more = limited(rows, _SHOWN)
        print_rows(shown, output)
    if more:
        click.echo(say("the first {n:count} rows; --output ndjson shows all", n=_SHOWN), err=True)


def _parts(value: str, ctx: click.Context, param: click.Parameter) -> str:
    unknown = [part for part in value.split(",") if part not in _PARTS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_PARTS)}", ctx, param)
    return value
