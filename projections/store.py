"""Opens the DuckDB file, the one place that does. It knows no tables; `database.py` defines them.

One process owns the file while it is open for writing. Rows and offsets change in one transaction or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import polars as pl

from coupon_ledger.ledger.errors import (
    StoreError,
    StoreFull,
    StoreNotInitialised,
    StoreOwned,
)
from coupon_ledger.projections import generations
from coupon_ledger.projections.connection import (
    AGAIN_S,
    DISABLED,
    LISTED,
    Adding,
    Cursor,
    Reading,
    add_rows,
    configuration,
    sql,
    threads,
)
from coupon_ledger.projections.duckdb_errors import failing_clearly
from coupon_ledger.projections.generations import wal_file
from coupon_ledger.projections.ownership import held, owner, owner_file, this_process

_READERS_S: Final = 5.0
Cached = TypeVar("Cached", bound="Cache")


class Cache:
    """Facts about the tables that a subclass keeps true. A store has one of each kind (`Store.cache`)."""

    def inserted(self, table: str, rows: pl.DataFrame) -> None:
        """Called when these rows are added."""

    def rolled_back(self) -> None:
        """Called when the current transaction is rolled back."""


class Store(Reading):
    """An open database. Use as a context manager.

    Inserts run in a thread of their own while the caller computes; the next use of the connection waits for them and
    raises their errors.

    `after_commit`: called after each commit, in the thread that committed.
    """

    def __init__(self, path: Path, file: Path, connection: duckdb.DuckDBPyConnection) -> None:
        super().__init__(path, connection)
        self.file = file
        """The file that `path` points to, or another generation."""
        self._owner: Path | None = None
        self.after_commit: Callable[[], None] = lambda: None
        self._caches: dict[type[Cache], Cache] = {}
        self._sizes: dict[str, int] = {}
        self._threads = threads(alone=True)
        self._inserting: Future[None] | None = None
        self._inserter = ThreadPoolExecutor(1, "insert")
        self.deleted = 0
        """Rows deleted by row number since compaction.py last looked."""

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        self._inserted()
        return self._direct

    def _inserted(self) -> None:
        """Wait for the insert under way, and raise its error."""
        if self._inserting is not None:
            inserting, self._inserting = self._inserting, None
            inserting.result()

    def cache(self, kind: type[Cached]) -> Cached:
        """The store's cache of that kind, created on first use."""
        found = self._caches.setdefault(kind, kind())
        assert isinstance(found, kind)
        return found

    @classmethod
    def create(cls, path: Path, make: Callable[[Callable[..., Any]], None], check: Callable[[Store], None]) -> bool:
        """Create a database at `path`. Returns False if one exists already.

        `make`: creates the tables, with the function it receives for executing statements; `check`: as for `open`.
        """
        _check_name(path)
        if path.exists():
            # In use means that it exists; any other problem with it is raised.
            with contextlib.suppress(StoreOwned), cls.open(path, check, read_only=True):
                pass
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()  # its generations are gone
        generations.make_room(path)
        # Created under another name first, so that a database exists whole or not at all.
        fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
        try:
            with failing_clearly(path), duckdb.connect(fresh, config=configuration(False)) as connection:
                connection.begin()  # each statement by itself would wait for the disk
                make(connection.execute)
                connection.commit()
            os.link(fresh, path)  # unlike a rename, never over one that another process just made
        except FileExistsError:
            return False
        except OSError as error:
            raise disk_failed(f"database {path}: cannot be made", error) from error
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
                wal_file(fresh).unlink(missing_ok=True)
        return True

    @classmethod
    def open(cls, path: Path, check: Callable[[Store], None], *, read_only: bool = False) -> Store:
        """Open for writing (and so own it) or for reading. `check`: raises if the database must not be used.

        Raises `StoreNotInitialised`, `StoreOwned` (naming the owner), `StoreVersionMismatch`, `StoreError`.
        """
        _check_name(path)
        if not path.exists():
            raise StoreNotInitialised(f"database {path}: not there; make it with `coupon-ledger init`")
        store = cls.open_generation(path, generations.file_of(path), read_only=read_only)
        while generations.file_of(path) != store.file:  # another generation took its place
            store.close()
            store = cls.open_generation(path, generations.file_of(path), read_only=read_only)
        try:
            check(store)
            if not read_only:
                generations.settle(path)
                store.own()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open_generation(cls, path: Path, file: Path, *, read_only: bool = True) -> Store:
        """Open a generation of the database at `path`, of any version, without owning it.

        Opening for writing waits some seconds for processes that only read the file; if an owner holds it, `StoreOwned`
        is raised at once.
        """
        deadline = time.monotonic() + _READERS_S
        _check_kind(path, file)
        while True:
            try:
                with failing_clearly(path):
                    return cls(path, file, duckdb.connect(file, read_only=read_only, config=configuration(read_only)))
            except StoreOwned as owned:
                if read_only or owner(path).get("pid") == owned.pid or time.monotonic() > deadline:
                    raise
            time.sleep(AGAIN_S)

    def own(self) -> None:
        """Write the owner file, which names the owner; DuckDB's lock keeps others out. Raises `StoreError`."""
        if owner_file(self.path).is_dir():
            raise StoreError(f"owner file {owner_file(self.path)}: is a folder; rename it or remove it")
        self._owner = owner_file(self.path)
        self.announce({})

    def disown(self) -> None:
        """Leave the owner file to the generation that succeeds this one."""
        self._owner = None

    def announce(self, more: Mapping[str, Any]) -> None:
        """Write the owner file, with `more` about the owner (`url`, …). Readers see it whole or not at all."""
        file = owner_file(self.path)
        fresh = file.with_name(file.name + ".new")
        try:
            fresh.write_text(json.dumps(this_process() | dict(more)), encoding="utf-8")
            fresh.replace(file)
        except OSError as error:
            raise disk_failed(f"database {self.path}: cannot write {file.name} beside it", error) from error

    def close(self) -> None:
        try:
            self._inserted()
        finally:
            self._inserter.shutdown()
            with contextlib.suppress(duckdb.Error):
                self._direct.close()
            if self._owner is not None:
                self._owner.unlink(missing_ok=True)
                self._owner = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything executed inside durably, or nothing. Raises `StoreFull`."""
        with failing_clearly(self.path):
            self._sizes.clear()
            self._connection.begin()
            try:
                yield
                self._connection.commit()
            except BaseException:
                with contextlib.suppress(Exception):
                    self._inserted()
                with contextlib.suppress(duckdb.Error):
                    self._direct.rollback()
                for cache in self._caches.values():
                    cache.rolled_back()
                raise
        self.after_commit()

    def make_tables(self, package: str) -> None:
        """Create the tables of a package's schema in a database that is older than they are."""
        for statement in sql(package, "schema").split(";\n"):
            if statement.strip():
                self.execute(statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))

    def size(self, table: str) -> int:
        """Estimated number of rows, deleted ones included; only costs may depend on it. It does not change within a
        transaction."""
        if table not in self._sizes:
            self._sizes = dict(
                self.rows(
                    "SELECT table_name, estimated_size FROM duckdb_tables() WHERE database_name = current_database()"
                )
            )
        return self._sizes[table]

    def share_cores(self, *, alone: bool) -> None:
        """Leave one core to the decoding of the next batch; none if `alone`, with hardly anything to decode."""
        if self._threads != threads(alone=alone):
            self._threads = threads(alone=alone)
            self.execute(f"SET threads = {self._threads}")

    def beside(self) -> Adding:
        """Another connection to the same database, for another thread that adds rows."""
        return Adding(self.path, self._connection.cursor())

    def cursor(self) -> Cursor:
        """Another connection to the same database, for another thread that reads."""
        return Cursor(self.path, self._connection.cursor())

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Add these rows; columns that they lack become null. Returns before the insert is done."""
        if rows.height:
            for cache in self._caches.values():
                cache.inserted(table, rows)
            self._inserted()
            self._inserting = self._inserter.submit(self._insert, table, rows)

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        with failing_clearly(self.path):
            add_rows(self._direct, table, rows)

    def delete(self, table: str, row_ids: pl.Series) -> None:
        """Delete the rows with these row numbers."""
        if not len(row_ids):
            return
        among = f"DELETE FROM {table} WHERE rowid BETWEEN $first AND $last AND rowid IN"
        bounds = {"first": row_ids.min(), "last": row_ids.max()}
        if len(row_ids) <= LISTED:
            numbers = {"gone": row_ids.to_list()}
            self.deleted += self.execute(f"{among} (SELECT unnest($gone::BIGINT[]))", bounds | numbers)
        else:
            with self.given(gone=row_ids.to_frame("row_id")):
                self.deleted += self.execute(f"{among} (SELECT row_id FROM gone)", bounds)

    def replace(self, table: str, stored: pl.DataFrame, wished: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Replace `stored`, rows of the table with their `row_id`, by `wished`. Only the difference is written; returns
        the rows removed and the rows added. Columns that `wished` lacks are not compared."""
        gone, come, columns = stored, wished, wished.columns
        if stored.height and wished.height:
            stored = stored.cast(wished.schema)  # sums have 64 or 128 bits, depending on the values
            gone = stored.join(wished, on=columns, how="anti", nulls_equal=True)
            come = wished.join(stored, on=columns, how="anti", nulls_equal=True)
        self.delete(table, gone["row_id"])
        self.insert(table, come)
        return gone, come

    @contextlib.contextmanager
    def filters_pushed_down(self) -> Iterator[None]:
        """Push a join's values down into the scan as filters. Only for queries without registered frames."""
        self.execute("SET disabled_optimizers = ''")
        try:
            yield
        finally:
            self.execute(f"SET disabled_optimizers = '{DISABLED}'")


def _check_kind(path: Path, file: Path) -> None:
    """Raises `StoreError` for a SQLite file, for which DuckDB would look for an extension."""
    try:
        with file.open("rb") as opened:
            start = opened.read(16)
    except OSError:  # DuckDB says what is wrong
        return
    if start == b"SQLite format 3\0":
        raise StoreError(
            f"database {path}: is a SQLite file, such as an event log, and no DuckDB database; name the database with"
            " --database and the log with --log"
        )


def put_in_place(fresh: Path, path: Path) -> Path | None:
    """Put the closed database `fresh`, from the same folder, in place at `path`.

    Returns the file of the one before, now the previous generation; None if there was none. At every moment one of the
    two is at `path`. Raises `StoreOwned`.
    """
    if not path.exists():
        generations.make_room(path)
        fresh.replace(path)
        return None
    with held(path):
        generations.make_live(path, generations.add(path, fresh))
    return generations.previous(path)


def _check_name(path: Path) -> None:
    """Reject a question mark: DuckDB takes what follows for options, and would look for the WAL elsewhere."""
    if "?" in str(path.absolute()):
        raise StoreError(f"database {path}: a path with a question mark cannot be used; name another with --database")


def disk_failed(problem: str, error: OSError) -> StoreError:
    """The error for a failed write beside a database, with the reason and the remedy."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    remedy = "free space and run again" if full else "check the folder's rights"
    return (StoreFull if full else StoreError)(f"{problem} ({error.strerror or error}); {remedy}")


@contextlib.contextmanager
def open_for_copy(path: Path, check: Callable[[Store], None]) -> Iterator[Cursor]:
    """Open the database at `path` read-only, on a cursor that can write a copy elsewhere (`copying_to`).

    Raises what `Store.open` raises for reading.
    """
    with Store.open(path, check, read_only=True) as store:
        file = store.file
    place = str(file).replace("'", "''")
    connection = duckdb.connect(config=configuration(True))
    try:
        with failing_clearly(path):
            connection.execute(f"ATTACH '{place}' AS live (READ_ONLY)")
            connection.execute("USE live")
        yield Cursor(path, connection)
    finally:
        connection.close()
