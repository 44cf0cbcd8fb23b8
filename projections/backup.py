"""Backs up the database as of one commit, while the consumer and the readers continue.

The copy has the same storage format, types, compression and log positions as the original, but not the unused space
that replaced rows leave behind. While a copy is made, the original's write-ahead log grows: DuckDB cannot checkpoint
until the copied state has been read.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.errors import StoreError, StoreFull, StoreVersionMismatch, UnusableFile
from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.projections import digest
from coupon_ledger.projections.connection import Cursor, Reading
from coupon_ledger.projections.database import check_version
from coupon_ledger.projections.generations import file_of, wal_file
from coupon_ledger.projections.store import Store

Sum = tuple[int, str]
"""A table's row count and a checksum over its contents; comparable within one version of DuckDB."""

_AT_ONCE: Final = 8 * 122_880
"""Row numbers per INSERT statement, in whole row groups. Progress is reported after each statement."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What `check` needs to verify a copy. `sums`: the checksum (`Sum`) of each table, by name. `full`: the full digest
    of all tables, or None if not requested."""

    sums: dict[str, Sum]
    full: str | None = None


@contextmanager
def placed(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path, to which the block writes a database. If the block succeeds, the file is moved to `path`.

    `force`: replace an existing database that is not in use. Raises `UnusableFile`, `StoreError`.
    """
    _check_place(path, force)
    with part_of(path) as part:
        yield part
        try:
            if force:
                part.replace(path)
            else:
                os.link(part, path)  # unlike a rename, this fails if another process has just created the file
        except OSError as error:
            raise UnusableFile(f"backup {path}: cannot be written ({error.strerror}); name another file") from error


@contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Its name contains this process's id. After the block, the file is removed.
    Such files of processes that no longer run are removed before the block."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.part-*"):
        if not _alive(left.name.removeprefix(f"{path.name}.part-").partition(".")[0]):
            left.unlink(missing_ok=True)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        wal_file(part).unlink(missing_ok=True)


def _check_place(path: Path, force: bool) -> None:
    if not path.parent.is_dir():
        raise UnusableFile(f"backup {path}: there is no folder {path.parent}; make it, or name another file")
    if path.is_dir():
        raise UnusableFile(f"backup {path}: is a folder; name a file in it")
    if not path.exists():
        return
    if not force:
        raise UnusableFile(f"backup {path}: is there already; name another file, or replace it with --force")
    # Refuse to replace a file that is in use or is not a database of the ledger. Another version may be replaced.
    with Store.open_generation(path, file_of(path)) as there, suppress(StoreVersionMismatch):
        check_version(there)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def copy_to(cursor: Cursor, path: Path, *, full: bool = False, progress: Progress = ignore) -> Copied:
    """Copy one committed state of the database to a new file at `path`. Returns what `check` needs.

    `full`: also compute the full digest of the copied state, which takes several times as long. `progress`: called with
    the numbers of rows copied and to copy. Raises `StoreError` if the file exists, and `StoreFull` if the disk is full.
    After an error or an interruption, the new file is removed.
    """
    if path.exists():
        raise StoreError(f"copy {path}: a file is there; name another")
    try:
        return _copied(cursor, path, full, progress)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, StoreFull):
            raise StoreFull(f"copy {path}: the disk is full; free space there, or name another place") from error
        raise


def _copied(cursor: Cursor, path: Path, full: bool, progress: Progress) -> Copied:
    with cursor.copying_to(path) as copy:
        main = _quoted(str(cursor.rows("SELECT current_database()")[0][0]))
        cursor.execute(f"COPY FROM DATABASE {main} TO {copy} (SCHEMA)")
        tables = _tables(cursor)
        total = sum(int(cursor.rows(f"SELECT count(*) FROM {table}")[0][0]) for table in tables)
        done = 0
        for table in tables:
            [(end,)] = cursor.rows(f"SELECT coalesce(max(rowid) + 1, 0) FROM {table}")
            for first in range(0, end, _AT_ONCE):
                done += cursor.execute(
                    f"INSERT INTO {copy}.{table} SELECT * FROM {table} WHERE rowid BETWEEN $first AND $last",
                    {"first": first, "last": first + _AT_ONCE - 1},
                )
                progress(done, total)
        return Copied(read_whole(cursor), digest.digests(cursor)[-1].full if full else None)


def check(copy: Reading, copied: Copied) -> None:
    """Read the whole copy and verify it. Raises `StoreError` if a block is damaged, or if the contents differ from
    `copied`."""
    sums = read_whole(copy)
    different = sorted(t for t in sums.keys() | copied.sums.keys() if sums.get(t) != copied.sums.get(t))
    if different:
        raise StoreError(f"copy {copy.path}: differs from the database in {', '.join(different)}; make it again")
    if copied.full is not None and digest.digests(copy)[-1].full != copied.full:
        raise StoreError(f"copy {copy.path}: its full digest is not the database's; make it again and report it")


def read_whole(reading: Reading) -> dict[str, Sum]:
    """Read every block of the database, so that DuckDB verifies its checksum. Returns the checksum (`Sum`) of each
    table, by name. Raises `StoreError` if a block is damaged."""
    return {table: _sum(reading, table) for table in _tables(reading)}


def _sum(reading: Reading, table: str) -> Sum:
    [(rows, total)] = reading.rows(f"SELECT count(*), coalesce(sum(hash(t)), 0)::VARCHAR FROM {table} t")
    return int(rows), str(total)


def _tables(reading: Reading) -> list[str]:
    names = reading.rows("SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() ORDER BY 1")
    return [name for (name,) in names]


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
