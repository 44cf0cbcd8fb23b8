"""`backup` and `restore-db`: copy the database into a file while a consumer runs, and put such a file in its place."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from coupon_ledger.cli.options import LOG, output_option, settings_options
from coupon_ledger.cli.output import print_row, print_rows
from coupon_ledger.cli.progress import progress
from coupon_ledger.ledger.settings import Settings

if TYPE_CHECKING:
    from coupon_ledger.projections.backup import Copied
    from coupon_ledger.projections.store import Store
    from coupon_ledger.questions.registry import AsOf

_PIECE: Final = 8 << 20
_PATIENCE_S: Final = 30.0
_AGAIN_S: Final = 0.05


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an existing backup.")
@click.option(
    "--verify", is_flag=True, help="Also compare and show the full digest of all tables; several times slower."
)
@settings_options("database")
@output_option
def backup(file: Path, force: bool, verify: bool, settings: Settings, output: str) -> None:
    """Copy the database into a file, as of one commit, while a consumer runs.

    If a consumer owns the database, it makes the copy, and keeps consuming and answering meanwhile. The copy has a
    temporary name until it was read back and compared, so a file called FILE is always complete. The copy is a
    database that commands can read (`--database FILE`) and `restore-db` can put in place. It does not contain the
    log: back up the log with `archive`.

    \b
    coupon-ledger backup /backup/ledger.duckdb
    coupon-ledger backup /backup/ledger.duckdb --force --verify --output json
    """
    from coupon_ledger.ledger.errors import UnusableFile
    from coupon_ledger.projections.backup import check, placed
    from coupon_ledger.questions.registry import as_of

    if file.resolve() == settings.database.resolve():
        raise UnusableFile(f"backup {file}: is the database itself; name another file")
    started = time.monotonic()
    place = file.absolute()
    with placed(place, force=force) as part:
        copied = copy_of(settings.database, part, full=verify)
        with _opened(part) as copy:
            check(copy, copied)
            state = as_of(copy)
    row: dict[str, Any] = {
        "backup": str(file),
        "bytes": place.stat().st_size,
        "rows": sum(rows for rows, _ in copied.sums.values()),
        "commits": state.commits,
        "committed_at": state.committed_at,
        "data_clock": state.data_clock,
        "seconds": round(time.monotonic() - started, 3),
        "full_digest": copied.full,
    }
    if output == "table":
        print_row(row, output)
        click.echo()
        print_rows(state.positions, output)
    else:
        print_row({**row, "positions": state.positions}, output)


def copy_of(database: Path, part: Path, *, full: bool = False) -> Copied:
    """Copy the database to the file `part`, and return what to compare the copy with. The owner makes the copy; if
    nobody owns the database, this process does. `full`: also compute the full digest of all tables."""
    from coupon_ledger.api.client import Remote, asking
    from coupon_ledger.projections.backup import copy_to
    from coupon_ledger.projections.database import check_version
    from coupon_ledger.projections.store import open_for_copy

    with progress("copying", 0, "rows") as bar:
        with asking(database) as source:
            if isinstance(source, Remote):
                return source.backup(part.absolute(), full, bar.update)
        with open_for_copy(database, check_version) as cursor:
            return copy_to(cursor, part, full=full, progress=bar.update)


def _opened(part: Path) -> Store:
    """Open the copy `part` for reading.

    The owner that made the copy may still have it open, until the end of the owner's last transaction that listed the
    attached databases. If so, this retries for `_PATIENCE_S` seconds, and then raises `StoreOwned`.
    """
    from coupon_ledger.ledger.errors import StoreOwned
    from coupon_ledger.projections.database import open_database

    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return open_database(part, read_only=True)
        except StoreOwned:
            if time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)


@click.command("restore-db")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@settings_options(*LOG, "database")
@output_option
def restore_db(file: Path, settings: Settings, output: str) -> None:
    """Put the backup FILE in the place of the database. `consume` then continues from the backup's positions.

    The command refuses if the database is in use, if the backup is damaged or of another version, if the backup was
    made from another log, or if the log has deleted the records that follow the backup's positions. The previous
    database is kept, and the command says where.

    \b
    coupon-ledger restore-db /backup/ledger.duckdb
    coupon-ledger consume
    """
    from coupon_ledger.projections.backup import part_of
    from coupon_ledger.projections.ownership import held
    from coupon_ledger.projections.store import put_in_place

    with held(settings.database):  # fail now rather than after the copy
        lag, state = _examined(file, settings)
    with part_of(settings.database) as part:
        _copy_file(file, part)
        kept = put_in_place(part, settings.database)
    row = {
        "database": str(settings.database),
        "backup": str(file),
        "kept": str(kept) if kept else None,
        "commits": state.commits,
        "committed_at": state.committed_at,
        "data_clock": state.data_clock,
        "lag": lag,
    }
    print_row(row, output)


def _examined(file: Path, settings: Settings) -> tuple[int, AsOf]:
    """Check the backup `file` against the log. Returns how many records of the log the backup has not folded yet, and
    which state the backup contains.

    Raises `StoreError` if the backup is damaged or of another version, `LogTruncated` if the backup's positions are
    outside the log, `LogReplaced` if the backup was made from another log.
    """
    from coupon_ledger.consumers.log_identity import difference
    from coupon_ledger.ledger.errors import LogReplaced, LogTruncated, StoreError, StoreVersionMismatch
    from coupon_ledger.ledger.opening import open_log
    from coupon_ledger.ledger.topics import INPUT_TOPICS
    from coupon_ledger.projections import checkpoints
    from coupon_ledger.projections.backup import read_whole
    from coupon_ledger.projections.database import open_database
    from coupon_ledger.projections.identity import read_log
    from coupon_ledger.questions.registry import as_of

    try:
        with open_database(file, read_only=True) as copy:
            read_whole(copy)
            accounts, state, known = checkpoints.load(copy), as_of(copy), read_log(copy)
    except StoreVersionMismatch:
        raise
    except StoreError as error:
        what = str(error).removeprefix("database").partition("; ")[0]
        raise StoreError(f"backup{what}; nothing was changed, name another backup") from error
    log = open_log(settings.log)
    try:
        partitions = log.partitions(INPUT_TOPICS)
        earliest, ends = log.earliest_positions(partitions), log.end_positions(partitions)
        outside = checkpoints.outside(accounts, earliest, ends)
        other = None if outside else difference(known, log)
    finally:
        log.close()
    if other is not None:
        raise LogReplaced(
            f"backup {file}: made from another log than {settings.log.url}: {other}; nothing was changed: check --log,"
            " or name another backup"
        )
    for position in outside:
        ahead = position.next_offset > position.end
        problem = "it is ahead of the log" if ahead else "what lies between is not in the log any more"
        remedy = "is this the log that it was made from? Check --log" if ahead else "`restore` the log from an archive"
        raise LogTruncated(
            f"backup {file}: {position}: {problem}; nothing was changed: {remedy}, or name another backup"
        )
    return sum(end - (accounts[p].next_offset if p in accounts else 0) for p, end in ends.items()), state


def _copy_file(file: Path, to: Path) -> None:
    """Copy the backup `file` to `to` and flush the copy to disk. If the backup was used as a database and so has a
    write-ahead log, apply it to the copy."""
    from coupon_ledger.ledger.errors import StoreFull, UnusableFile
    from coupon_ledger.projections.database import open_database
    from coupon_ledger.projections.generations import wal_file

    try:
        with progress("copying", file.stat().st_size, "bytes") as bar, file.open("rb") as source, to.open("wb") as copy:
            while piece := source.read(_PIECE):
                copy.write(piece)
                bar.advance(len(piece))
            copy.flush()
            os.fsync(copy.fileno())
        if wal_file(file).exists():
            shutil.copyfile(wal_file(file), wal_file(to))
            open_database(to).close()  # applies it to the file
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise StoreFull(
                f"database {to}: the disk is full; free space and run again, nothing was changed"
            ) from error
        raise UnusableFile(f"backup {file}: cannot be copied ({error.strerror}); check the rights") from error
