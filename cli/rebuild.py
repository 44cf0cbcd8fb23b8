"""`rebuild`: build a new database beside the live one, compare the two, and swap them; or swap back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.options import LOG, operator_options, output_option, settings_options, signed
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.errors import RebuiltDiffers
from coupon_ledger.ledger.settings import Settings
from coupon_ledger.ledger.words import Note, note
from coupon_ledger.projections.versions import VERSIONS

if TYPE_CHECKING:
    from coupon_ledger.consumers.rebuild import Compared, DifferentRow, Rebuild
    from coupon_ledger.ledger.log import EventLog


_EQUAL: Final = "every table that can be compared is equal"
_ROWS: Final = 10
"""Number of rows shown per table that differs."""
Announce = Callable[[str, "Note | str"], None]


@click.command()
@click.option(
    "--from",
    "source",
    type=click.Choice(["log", "archive"]),
    default="log",
    show_default=True,
    help="What to read: the log, or its archive first and then the rest from the log.",
)
@click.option("--archive", type=click.Path(path_type=Path), help="Folder of the archive.")
@click.option(
    "--projection",
    "only",
    type=click.Choice(list(VERSIONS)),
    multiple=True,
    help="Rebuild only this projection (repeatable), and copy the others. `rules` folds the coupons again, too.",
)
@click.option("--compare-only", is_flag=True, help="Build and compare, but do not swap.")
@click.option("--accept-differences", metavar="WHY", help="Swap although tables differ: the change is intended.")
@click.option("--anew", is_flag=True, help="Discard what an interrupted rebuild has built.")
@click.option("--rollback", is_flag=True, help="Bring back the previous generation.")
@operator_options
@settings_options(*LOG, "database", "batch-size", "instant-skew-days", "skewed-events")
@output_option
def rebuild(
    source: str,
    archive: Path | None,
    only: tuple[str, ...],
    compare_only: bool,
    accept_differences: str | None,
    anew: bool,
    rollback: bool,
    why: str | None,
    operator: str | None,
    settings: Settings,
    output: str,
) -> None:
    """Build a new database from the log, beside the live one; compare every table; then swap the two.

    Meanwhile the live database keeps consuming and answering. A rebuild may be interrupted or killed: the live database
    is not touched, and the next run repeats only the last few seconds of work. The digests of all tables are compared
    at the same positions. If all are equal, the new database replaces the live one: running questions finish on the
    old one, later ones see the new one, and no question fails. The old one is kept, and --rollback brings it back. If
    tables differ, nothing is swapped, and the differing tables and rows are shown.

    A database that another version of coupon-ledger filled is rebuilt the same way; only projections with the same
    version are compared. Swaps and rollbacks are recorded with the operator's name and the reason; see `operations`.

    \b
    coupon-ledger rebuild
    coupon-ledger rebuild --from archive --archive /backup/ledger
    coupon-ledger rebuild --projection rules --projection orders
    coupon-ledger rebuild --compare-only
    coupon-ledger rebuild --accept-differences "discounts of gifts count since release 1.4"
    coupon-ledger rebuild --rollback --why "release 1.4 counted gifts twice"
    """
    if rollback and (archive or only or compare_only or accept_differences or anew):
        raise click.UsageError("--rollback goes alone")
    if (source == "archive") != (archive is not None):
        raise click.UsageError("--from archive and --archive FOLDER go together")
    by = signed(why if rollback else accept_differences or why or _EQUAL, operator)
    from coupon_ledger.consumers.intake import use_rules
    from coupon_ledger.consumers.tuning import tune_process
    from coupon_ledger.ledger.address_space import check_for_batches

    check_for_batches(settings.batch_size)
    from coupon_ledger.projections.generations import rebuilt_file, remove

    use_rules(settings)
    tune_process()
    announce = _announce if output == "table" else _discard
    log = _log(settings, archive)
    try:
        if rollback:
            outcome = _swapped(settings, log, announce, by, "rebuild_rolled_back")
        else:
            outcome = _rebuilt(
                settings, log, announce, only, anew=anew, accepted=accept_differences is not None, output=output
            )
            if not compare_only:
                action = "differences_accepted" if outcome.get("different") else "rebuild_swapped"
                outcome["swap"] = _swapped(settings, log, announce, by, action)
            elif not outcome.get("different"):
                remove(rebuilt_file(settings.database))
    finally:
        log.close()
    if output != "table":
        print_row(outcome, output)


def _log(settings: Settings, archive: Path | None) -> EventLog:
    if archive is None:
        from coupon_ledger.ledger.opening import open_log

        return open_log(settings.log)
    from coupon_ledger.ledger.continued_log import open_continued

    return open_continued(settings.log, archive)


def _rebuilt(
    settings: Settings,
    log: EventLog,
    announce: Announce,
    only: tuple[str, ...],
    *,
    anew: bool,
    accepted: bool,
    output: str,
) -> dict[str, Any]:
    """Build the new database and compare it with the live one. Returns what the command reports: the number of folded
    `records`, the `seconds` that it took, and, if the two were compared, the result of the comparison.

    `only`: the projections to rebuild (empty: all). `anew`: ignore what an interrupted rebuild has built. `accepted`:
    whether tables may differ; if not, and some do, raises `RebuiltDiffers`.
    """
    from coupon_ledger.api.client import asking
    from coupon_ledger.consumers.rebuild import LiveDatabase
    from coupon_ledger.consumers.rebuild import Rebuild as Run

    live = LiveDatabase(settings.database, lambda: asking(settings.database))
    started = time.monotonic()
    copy = partial(_copied, settings.database) if only else None
    with (
        progress("rebuilding", 0) as bar,
        Run(live, log, settings.batch_size, bar.update, only=only, copy=copy, anew=anew) as run,
    ):
        if run.already and not only:
            announce(
                "going on", note("behind the {n:count} record{n:s} that an interrupted rebuild folded", n=run.already)
            )
        records = run.build()
        seconds = time.monotonic() - started
        rate = f"{records / max(seconds, 1e-9):,.0f}/s"
        done = "{n:count} record{n:s} in {seconds} s ({rate})"
        announce("built", note(done, n=records, seconds=f"{seconds:.1f}", rate=rate))
        compared = run.compare()
        rows = _different_rows(run, compared)
    outcome: dict[str, Any] = {"records": records, "seconds": round(seconds, 3)}
    if compared is not None:
        outcome |= _compared(compared, announce) | {"rows": rows}
        if compared.different and not accepted:
            if output == "table":
                print_rows(outcome["different"], output)
                print_rows(rows, output)
            else:
                print_row(outcome, output)
            raise RebuiltDiffers(
                f"database {settings.database}: {len(compared.different)} of its tables are not what the log gives;"
                " nothing was swapped. Where the change is meant: --accept-differences WHY"
            )
    return outcome


def _copied(database: Path, to: Path) -> None:
    """Copy the database to the file `to`, even if another version of coupon-ledger filled the database."""
    from coupon_ledger.cli.backup import copy_of
    from coupon_ledger.ledger.errors import StoreVersionMismatch
    from coupon_ledger.projections.backup import copy_to
    from coupon_ledger.projections.generations import file_of
    from coupon_ledger.projections.store import Store

    try:
        copy_of(database, to)
    except StoreVersionMismatch:
        with closing(Store.open_generation(database, file_of(database), read_only=False)) as store:
            copy_to(store.cursor(), to)


def _compared(compared: Compared, announce: Announce) -> dict[str, Any]:
    for name in compared.other_versions:
        other = "the live {table} were filled by another version of coupon-ledger, and are not compared"
        announce("versions", note(other, table=name))
    alike = "{n} tables are equal at the same positions"
    both = "{n} tables are equal at the same positions, {different} are not"
    counts = {"n": len(compared.equal), "different": len(compared.different)}
    announce("compared", note(both, **counts) if compared.different else note(alike, n=counts["n"]))
    announce("facts", compared.facts)
    different = [
        {
            "table": table.table,
            "live_rows": table.live.rows,
            "rebuilt_rows": table.rebuilt.rows,
            "live": table.live.full,
            "rebuilt": table.rebuilt.full,
        }
        for table in compared.different
    ]
    return {
        "facts": compared.facts,
        "equal": list(compared.equal),
        "different": different,
        "other_versions": list(compared.other_versions),
    }


def _different_rows(run: Rebuild, compared: Compared | None) -> list[dict[str, Any]]:
    """Up to `_ROWS` differing rows of each table that differs. Empty if another version of coupon-ledger filled some of
    the live tables."""
    if compared is None or compared.other_versions:
        return []
    return [_row(row) for table in compared.different for row in run.different_rows(table.table, _ROWS)]


def _row(row: DifferentRow) -> dict[str, Any]:
    only = {"live": "only in the live one", "rebuilt": "only in the rebuilt one"}
    fields = {name: f"{live} → {rebuilt}" for name, (live, rebuilt) in row.fields.items()}
    return {"table": row.table, "row": _in_words(row.row), "difference": only.get(row.where) or _in_words(fields)}


def _in_words(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _swapped(settings: Settings, log: EventLog, announce: Announce, by: tuple[str, str], action: str) -> dict[str, Any]:
    """Make the rebuilt database the live one (if `action` is `rebuild_rolled_back`: the previous database), and record
    the operation. Returns the operation's details. `by`: the operator and the reason."""
    from coupon_ledger.api.client import owner_of
    from coupon_ledger.consumers.owner import take_place
    from coupon_ledger.ledger import operations

    owner, back = owner_of(settings.database), action == "rebuild_rolled_back"
    if owner is None:
        done = asdict(take_place(settings.database, log, settings.batch_size, back=back))
    else:
        done = owner.succeed(back=back)
        paused = "the owner consumed nothing for {seconds} s, and answered meanwhile"
        announce("", note(paused, seconds=f"{done['seconds']:.2f}"))
    since = "{file}; {n:count} record{n:s} came since it was compared"
    announce("live", note(since, file=done["file"], n=done["records"]))
    if done["previous"]:
        announce(
            "kept", note("{file}, which `coupon-ledger rebuild --rollback --why …` brings back", file=done["previous"])
        )
    who, why = by
    operations.append(log, action, why=why, operator=who, subject=settings.database.name, details=done)
    return done


def _announce(what: str, words: Note | str) -> None:
    """Print one line: the heading `what` (a template, which is translated here), then `words`."""
    from coupon_ledger.cli.tables import echo_under
    from coupon_ledger.reports.labels import text_of

    echo_under(what, text_of(words) if isinstance(words, Note) else words)


def _discard(what: str, words: Note | str) -> None:
    pass
