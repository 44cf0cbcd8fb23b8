"""Opens the DuckDB file; no other module does. The tables are defined in `database.py`, and this module knows none of
them.

The process that opens the file for writing owns it. Rows and offsets are written in the same transaction.
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

from coupon_ledger.ledger.errors import StoreError, StoreFull, StoreNotInitialised, StoreOwned
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
    """Base class of data in memory that are derived from the tables. The store calls the methods of this class when
    tables change, so that a subclass can keep its data up to date. A store has at most one cache of each subclass
    (`Store.cache`)."""

    def inserted(self, table: str, rows: pl.DataFrame) -> None:
        """Called when these rows are inserted into a table."""

    def rolled_back(self) -> None:
        """Called when the current transaction is rolled back."""


class Store(Reading):
    """An open database. Use as a context manager.

    An insert runs in its own thread while the caller computes. The next use of the connection waits for it and raises
    its error.

    `after_commit`: a function that is called after each commit, in the thread that committed.
    """

    def __init__(self, path: Path, file: Path, connection: duckdb.DuckDBPyConnection) -> None:
        super().__init__(path, connection)
        self.file = file
        """The file that is open: the live generation of the database `path`, or another one."""
        self._owner: Path | None = None
        self.after_commit: Callable[[], None] = lambda: None
        self._caches: dict[type[Cache], Cache] = {}
        self._sizes: dict[str, int] = {}
        self._threads = threads(alone=True)
        self._inserting: Future[None] | None = None
        self._inserter = ThreadPoolExecutor(1, "insert")
        self.deleted = 0
        """Number of rows deleted since compaction.py last examined the tables."""

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        self._inserted()
        return self._direct

    def _inserted(self) -> None:
        """Wait for the running insert, and raise its error."""
        if self._inserting is not None:
            inserting, self._inserting = self._inserting, None
            inserting.result()

    def cache(self, kind: type[Cached]) -> Cached:
        """The store's cache of the class `kind`. It is created on the first call."""
        cache = self._caches.get(kind)
        if cache is None:
            cache = self._caches[kind] = kind()
        assert isinstance(cache, kind)
        return cache

    @classmethod
    def create(cls, path: Path, make: Callable[[Callable[..., Any]], None], check: Callable[[Store], None]) -> bool:
        """Create a database at `path`. Returns False if one exists already.

        `make`: creates the tables; it receives a function that executes an SQL statement. `check`: as for `open`; it is
        called with an existing database.
        """
        _check_name(path)
        if path.exists():
            # That another process owns the database is no error here. Other problems are raised.
            with contextlib.suppress(StoreOwned), cls.open(path, check, read_only=True):
                pass
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()  # its generations are gone
        generations.make_room(path)
        # The database is created under another name first, so that `path` never names an incomplete one.
        fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
        try:
            with failing_clearly(path), duckdb.connect(fresh, config=configuration(False)) as connection:
                connection.begin()  # otherwise each statement would wait for the disk
                make(connection.execute)
                connection.commit()
            os.link(fresh, path)  # unlike a rename, this fails if another process has just created the database
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
        """Open for writing, which makes this process the owner, or for reading. `check`: a function that is called with
        the open database, and raises if it cannot be used.

        Raises `StoreNotInitialised`, `StoreOwned` (naming the owner), `StoreVersionMismatch`, `StoreError`.
        """
        _check_name(path)
        if not path.exists():
            raise StoreNotInitialised(f"database {path}: not there; make it with `coupon-ledger init`")
        store = cls.open_generation(path, generations.file_of(path), read_only=read_only)
        while generations.file_of(path) != store.file:  # another generation has become live
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
        """Open the generation `file` of the database at `path`, without becoming its owner. Its version is not checked.

        Opening for writing waits a few seconds while other processes read the file. Raises `StoreOwned` after that, or
        at once if another process owns the database; and `StoreError`.
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
        """Write the owner file, which describes this process. Raises `StoreError`. The file only informs: other
        processes are kept out by DuckDB's lock."""
        if owner_file(self.path).is_dir():
            raise StoreError(f"owner file {owner_file(self.path)}: is a folder; rename it or remove it")
        self._owner = owner_file(self.path)
        self.announce({})

    def disown(self) -> None:
        """Make `close` keep the owner file. Called when the store of the next generation takes it over."""
        self._owner = None

    def announce(self, more: Mapping[str, Any]) -> None:
        """Replace the owner file atomically. `more`: further entries about the owner (`url`, …)."""
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
        """Run the block in a transaction. Commit durably, or roll back if the block raises. Raises `StoreFull`."""
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
        """Create the tables of the package's `schema.sql` that do not exist yet, as in an older database."""
        for statement in sql(package, "schema").split(";\n"):
            if statement.strip():
                self.execute(statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))

    def size(self, table: str) -> int:
        """The estimated number of rows of a table, including deleted ones. The estimate stays the same within a
        transaction. It may decide how something is computed, but must not change a result."""
        if table not in self._sizes:
            self._sizes = dict(
                self.rows(
                    "SELECT table_name, estimated_size FROM duckdb_tables() WHERE database_name = current_database()"
                )
            )
        return self._sizes[table]

    def share_cores(self, *, alone: bool) -> None:
        """Set the number of DuckDB's threads. It is one less than the number of cores, so that the next batch can be
        decoded at the same time. `alone`: use all cores, since there is little to decode."""
        if self._threads != threads(alone=alone):
            self._threads = threads(alone=alone)
            self.execute(f"SET threads = {self._threads}")

    def beside(self) -> Adding:
        """Another connection to the same database, for a thread that inserts rows."""
        return Adding(self.path, self._connection.cursor())

    def cursor(self) -> Cursor:
        """Another connection to the same database, for a thread that reads."""
        return Cursor(self.path, self._connection.cursor())

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert these rows, inside the caller's transaction. Missing columns become null. Returns before the insert
        is done."""
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

    def replace(self, table: str, stored: pl.DataFrame, wanted: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Replace the rows `stored`, which were read from the table with their `row_id`, by the rows `wanted`.

        Rows that are in both stay as they are; columns that `wanted` lacks are not compared. Returns the rows that were
        removed and the rows that were added."""
        removed, added, columns = stored, wanted, wanted.columns
        if stored.height and wanted.height:
            stored = stored.cast(wanted.schema)  # sums have 64 or 128 bits, depending on the values
            removed = stored.join(wanted, on=columns, how="anti", nulls_equal=True)
            added = wanted.join(stored, on=columns, how="anti", nulls_equal=True)
        self.delete(table, removed["row_id"])
        self.insert(table, added)
        return removed, added

    @contextlib.contextmanager
    def filters_pushed_down(self) -> Iterator[None]:
        """Within the block, when DuckDB joins two tables, it uses the values in one to skip rows in the scan of the
        other. Do not run queries that read registered frames in the block (see `connection.DISABLED`)."""
        self.execute("SET disabled_optimizers = ''")
        try:
            yield
        finally:
            self.execute(f"SET disabled_optimizers = '{DISABLED}'")


def _check_kind(path: Path, file: Path) -> None:
    """Raises `StoreError` if `file` is a SQLite file. DuckDB would try to load an extension to open it."""
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
    """Make the closed database `fresh`, a file in the same folder, the live database at `path`.

    Returns the file of the database that was live before and is now the previous generation; None if there was none. At
    every moment, `path` names one of the two. Raises `StoreOwned`.
    """
    if not path.exists():
        generations.make_room(path)
        fresh.replace(path)
        return None
    with held(path):
        generations.make_live(path, generations.add(path, fresh))
    return generations.previous(path)


def _check_name(path: Path) -> None:
    """Raises `StoreError` if the path has a question mark. DuckDB would read the text after it as options."""
    if "?" in str(path.absolute()):
        raise StoreError(f"database {path}: a path with a question mark cannot be used; name another with --database")


def disk_failed(problem: str, error: OSError) -> StoreError:
    """Returns the error to raise if a file beside a database cannot be written: `StoreFull` if the disk is full,
    otherwise `StoreError`. `problem`: the beginning of the error text, to which the reason and the remedy are added."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    remedy = "free space and run again" if full else "check the folder's rights"
    return (StoreFull if full else StoreError)(f"{problem} ({error.strerror or error}); {remedy}")


@contextlib.contextmanager
def open_for_copy(path: Path, check: Callable[[Store], None]) -> Iterator[Cursor]:
    """Yield a cursor that reads the database at `path` and can write a copy of it (`Cursor.copying_to`).

    Raises the same errors as `Store.open` for reading. `check`: as for `Store.open`.
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
