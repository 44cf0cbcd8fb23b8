"""The DuckDB file: the one place that opens it.

One process owns the file while it is open for writing. Rows and offsets change in one transaction or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import polars as pl

from ledger.address_space import limited
from ledger.errors import (
    StoreError,
    StoreFull,
    StoreNotInitialised,
    StoreOwned,
    StoreVersionMismatch,
    ValueOutOfRange,
    masked,
)
from ledger.rules import GRACE_MINUTES, STATES, SWEPT
from projections import generations
from projections.generations import wal_file
from projections.key_filter import KeyFilter
from projections.live import journal
from projections.versions import VERSIONS, differing, written_versions
from projections.wide import as_decimals, as_integers

VERSION: Final = 3
"""Of the tables that are no projection's. A database of another version is not touched."""

# DuckDB filters given frames with Arrow, which warns on standard error of the empty buffers of empty lists.
os.environ.setdefault("ACERO_ALIGNMENT_HANDLING", "ignore")

# Checkpoints rewrite what changed; far apart they cost little (the default of 16 MB costs most of the rate).
WAL_LIMIT: Final = 256_000_000
"""Bytes of write-ahead log from which on a commit is followed by a checkpoint."""

VIEWS: Final = ("judged_violations",)
"""Each a `.sql` file of `projections.live`."""

LISTED: Final = 2_000
"""Up to so many values go into a query as a list, at a third of what a frame costs."""

# Of DuckDB in the owner; what it does not need at once goes back to the file. The batches need twice as much again.
_MEMORY: Final = "300MB"
_MEMORY_OF_SLOW: Final = "1200MB"
"""While a slow question runs beside the batches: lists and sorted groups cannot go back to the file."""

# Its compression of strings takes a fifth less time and space than that of DuckDB's default, which old versions read.
_STORAGE: Final = "v1.5.0"

_AGAIN_S: Final = 0.02
_READERS_S: Final = 5.0

# Joins with given frames would push their bounds into pyarrow, which cannot compare string views.
_DISABLED: Final = "join_filter_pushdown"


class _NoPandas:
    """DuckDB looks for pandas' own values among the parameters of every query, and imports it for that where it is
    installed: a fifth of a second of each command. Nothing here comes from pandas; whoever else wants it gets it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        asking = sys._getframe(1) if name == "pandas" else None
        while asking is not None and asking.f_code.co_filename.startswith("<frozen importlib"):
            asking = asking.f_back
        if asking is not None and asking.f_globals is globals():
            raise ModuleNotFoundError("pandas is not needed here", name=name)


sys.meta_path.insert(0, _NoPandas)


# The one place that says which violations are no fault: those of an event of the ledger's own sweeps that a fact told
# later overtook. Another content under such an event's id is one.
_SUPERSEDED: Final = f"""
    CREATE TEMP MACRO superseded(event_id, violation) AS
        starts_with(event_id, '{SWEPT}') AND violation <> 'conflicting_duplicate'
"""


class Reading:
    """What queries need: one connection to the database, for one thread at a time.

    Queries know `superseded(event_id, violation)`: this violation is no fault; and the rules of macros.sql.
    """

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self._direct = connection
        connection.execute(_SUPERSEDED + ";" + sql(__package__, "macros"))

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return self._direct

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        """The result of a query, as columns."""
        with _failing_clearly(self.path, self._direct):
            return as_integers(self._connection.execute(sql, parameters).pl())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a query of a few rows, at a fifth of the cost of columns."""
        with _failing_clearly(self.path, self._direct):
            return self._connection.execute(sql).fetchall()

    def batches(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), rows: int = 50_000
    ) -> Iterator[pl.DataFrame]:
        """The result of a query, piece by piece, for results that should not be in memory whole.

        At least one piece, so that the columns are known where no row is found.
        """
        with _failing_clearly(self.path, self._direct):
            yield from frames_of(self._connection.execute(sql, parameters).to_arrow_reader(rows))

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Run one statement; returns how many rows it inserted, updated or deleted."""
        with _failing_clearly(self.path, self._direct):
            found = self._connection.execute(sql, parameters).fetchone()
        return int(found[0]) if found and isinstance(found[0], int) else 0

    @contextlib.contextmanager
    def holding(self, name: str, query: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """Let queries read the result of this one by name: asked once, kept in the database's own form."""
        self.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", parameters)
        yield
        self.execute(f"DROP TABLE temp.{name}")  # after an error it goes with the transaction

    @contextlib.contextmanager
    def given(self, **frames: pl.DataFrame) -> Iterator[None]:
        """Let queries read these frames by name."""
        streams = {name: _Stream(frame) for name, frame in frames.items()}
        for name, stream in streams.items():
            self._connection.register(name, stream)
        try:
            yield
        finally:
            for name, stream in streams.items():
                self._connection.unregister(name)
                stream.release()


class Cursor(Reading):
    """Reads beside the writer. Between `begin` and `end` every query sees the same committed state."""

    _interrupted = False

    def begin(self) -> None:
        self._interrupted = False
        with _failing_clearly(self.path):
            self._connection.execute("BEGIN TRANSACTION READ ONLY")

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        self._check()
        return super().frame(sql, parameters)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        self._check()
        return super().rows(sql)

    def batches(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), rows: int = 50_000
    ) -> Iterator[pl.DataFrame]:
        self._check()
        return super().batches(sql, parameters, rows)

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        self._check()
        return super().execute(sql, parameters)

    def _check(self) -> None:
        """DuckDB forgets an interruption that comes between two queries."""
        if self._interrupted:
            raise duckdb.InterruptException("interrupted")

    @contextlib.contextmanager
    def copying_to(self, path: Path) -> Iterator[str]:
        """A transaction that sees one committed state of this database and writes into a new one at `path`: the name
        of that one in queries. All of it is at `path` afterwards, in one file; after an error, what is there is no
        database. The database that is read goes on whatever happens to the copy.
        """
        name = "copied"
        self._interrupted = False
        place = str(path).replace("'", "''")
        with _failing_clearly(path):
            # A write-ahead log would only be read if what is half-written were opened.
            self._connection.execute(
                f"ATTACH '{place}' AS {name} (STORAGE_VERSION '{_STORAGE}', RECOVERY_MODE no_wal_writes)"
            )
            try:
                self._connection.execute("BEGIN TRANSACTION")
                yield name
                self._connection.execute("COMMIT")
                self._checkpoint(name)
            finally:
                self.end()
                with contextlib.suppress(duckdb.Error):
                    self._connection.execute(f"DETACH {name}")

    @classmethod
    @contextlib.contextmanager
    def to_copy(cls, path: Path) -> Iterator[Cursor]:
        """Reads the database at `path` without any right to write it, and can write a copy elsewhere (`copying_to`).

        Raises what opening a `Store` for reading raises.
        """
        with Store.open(path, read_only=True) as store:
            file = store.file
        place = str(file).replace("'", "''")
        connection = duckdb.connect(config=_configuration(True))
        try:
            with _failing_clearly(path):
                connection.execute(f"ATTACH '{place}' AS live (READ_ONLY)")
                connection.execute("USE live")
            yield cls(path, connection)
        finally:
            connection.close()

    def _checkpoint(self, name: str) -> None:
        """When nobody reads there: a transaction that looks into the catalog does so in that of every database."""
        while True:
            try:
                self._connection.execute(f"CHECKPOINT {name}")
                return
            except duckdb.TransactionException as error:
                if "Cannot CHECKPOINT" not in str(error):
                    raise
            self._check()
            time.sleep(_AGAIN_S)

    def end(self) -> None:
        """Let go of the state; also after a query that failed or was interrupted."""
        with contextlib.suppress(duckdb.Error):
            self._connection.rollback()

    @contextlib.contextmanager
    def roomy(self) -> Iterator[None]:
        """More memory for DuckDB meanwhile. One at a time."""
        self._direct.execute(f"SET memory_limit = '{_MEMORY_OF_SLOW}'")
        try:
            yield
        finally:
            with contextlib.suppress(duckdb.Error):  # what still needs more keeps it, until the next one gives it back
                self._direct.execute(f"SET memory_limit = '{_MEMORY}'")

    def interrupt(self) -> None:
        """End what is asked since `begin`. The one method that another thread may call."""
        self._interrupted = True
        with contextlib.suppress(duckdb.ConnectionException):  # closed meanwhile, nothing is asked any more
            self._connection.interrupt()

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


class Inserts(Protocol):
    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Add these rows; columns of the table that they lack are null."""


class Adding(Reading):
    """Adds rows beside the writer, which only adds to these tables meanwhile. From the first insert until `commit` all
    is one transaction."""

    _begun = False

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        if not rows.height:
            return
        with _failing_clearly(self.path):
            if not self._begun:
                self._connection.begin()
                self._begun = True
            _add(self._connection, table, rows)

    def commit(self) -> None:
        """Durably. Raises `StoreFull`."""
        if self._begun:
            with _failing_clearly(self.path):
                self._connection.commit()
            self._begun = False

    def close(self) -> None:
        """What was not committed is not there."""
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


class Store(Reading):
    """An open database. Use as a context manager.

    Inserts go on in a thread of their own while the caller computes; whatever uses the connection next waits for them,
    and gets what went wrong.

    `after_commit`: called after each commit, in the thread that committed.
    """

    def __init__(self, path: Path, file: Path, connection: duckdb.DuckDBPyConnection) -> None:
        super().__init__(path, connection)
        self.file = file
        """What the path stands for, or another generation."""
        self._owner: Path | None = None
        self.after_commit: Callable[[], None] = lambda: None
        self.key_filters: dict[tuple[str, str], KeyFilter] = {}
        """Of the tables and columns that lookup.py looks hashes up in: of all that they have, or had since. More never
        does harm; less would lose rows, so these come by `insert` alone, and a transaction that fails, which may have
        made a filter after it deleted, leaves none."""
        self.found: dict[str, bool] = {}
        """What was found out about the tables, and is kept true by who asks (event_counts)."""
        self.no_rows: dict[str, pl.DataFrame] = {}
        """What lookup.py finds in a table where it finds nothing."""
        self._sizes: dict[str, int] = {}
        self._threads = _threads(alone=True)
        self._inserting: Future[None] | None = None
        self._inserter = ThreadPoolExecutor(1, "insert")
        self.deleted = 0
        """Rows deleted by number, since compaction.py looked."""

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        self._inserted()
        return self._direct

    def _inserted(self) -> None:
        """Wait for the insert under way, and raise what it raised."""
        if self._inserting is not None:
            inserting, self._inserting = self._inserting, None
            inserting.result()

    @classmethod
    def create(cls, path: Path) -> bool:
        """Make an empty database at `path`. Returns False where there is one already."""
        _check_name(path)
        if path.exists():
            # In use means that it is there; anything else that is wrong with it should be known.
            with contextlib.suppress(StoreOwned), cls.open(path, read_only=True):
                pass
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()  # of generations that are gone
        generations.make_room(path)
        # Made under another name first, so that a database is there whole or not at all.
        fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
        try:
            with _failing_clearly(path), duckdb.connect(fresh, config=_configuration(False)) as connection:
                connection.begin()  # each statement by itself would wait for the disk
                for statement in _schema():
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO ledger (version, commits, grace_minutes) VALUES (?, 0, ?)", [VERSION, GRACE_MINUTES]
                )
                connection.executemany("INSERT INTO projections VALUES (?, ?)", [[*v] for v in VERSIONS.items()])
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
    def open(cls, path: Path, *, read_only: bool = False) -> Store:
        """Open for writing (and so own it) or for reading.

        Raises `StoreNotInitialised`, `StoreOwned` (naming the owner), `StoreVersionMismatch`, `StoreError`.
        """
        _check_name(path)
        if not path.exists():
            raise StoreNotInitialised(f"database {path}: not there; make it with `coupon-ledger init`")
        store = cls.open_generation(path, generations.file_of(path), read_only=read_only)
        while generations.file_of(path) != store.file:  # another took its place meanwhile
            store.close()
            store = cls.open_generation(path, generations.file_of(path), read_only=read_only)
        try:
            store.check_version()
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

        Who only reads will soon let go of it, and a consumer can start then; an owner stays, and is told at once.
        """
        deadline = time.monotonic() + _READERS_S
        _check_kind(path, file)
        while True:
            try:
                with _failing_clearly(path):
                    return cls(path, file, duckdb.connect(file, read_only=read_only, config=_configuration(read_only)))
            except StoreOwned as owned:
                if read_only or owner(path).get("pid") == owned.pid or time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_S)

    def own(self) -> None:
        """Tell others who holds the database; DuckDB's lock is what keeps them out. Raises `StoreError`."""
        if owner_file(self.path).is_dir():
            raise StoreError(f"owner file {owner_file(self.path)}: is a folder; rename it or remove it")
        self._owner = owner_file(self.path)
        self.announce({})

    def disown(self) -> None:
        """Leave what tells others to the generation that comes after this one."""
        self._owner = None

    def announce(self, more: Mapping[str, Any]) -> None:
        """Write into the owner file what else others should know (`url`, …). Readers see it whole or not at all."""
        file = owner_file(self.path)
        fresh = file.with_name(file.name + ".new")
        try:
            fresh.write_text(json.dumps(_self_description() | dict(more)), encoding="utf-8")
            fresh.replace(file)
        except OSError as error:
            raise disk_failed(f"database {self.path}: cannot write {file.name} beside it", error) from error

    def check_version(self) -> None:
        """Raises `StoreVersionMismatch` where other code filled it."""
        try:
            found = self._connection.execute("SELECT version FROM ledger").fetchone()
        except duckdb.CatalogException as error:
            raise StoreError(
                f"database {self.path}: a DuckDB file, but not one of coupon-ledger; name another with --database"
            ) from error
        version = found[0] if found else None
        if version != VERSION:
            raise _other_version(self.path, f"version {version} of the tables, this is {VERSION}", version, VERSION)
        for name, before, now in differing(written_versions(self)):
            raise _other_version(self.path, f"version {before} of the projection {name}, this has {now}", before, now)

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
        """All that is executed inside is committed durably, or nothing of it. Raises `StoreFull`."""
        with _failing_clearly(self.path):
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
                self.key_filters.clear()
                raise
        self.after_commit()

    def make_tables(self, package: str) -> None:
        """The tables of that room's schema, in a database that is older than they are."""
        for statement in sql(package, "schema").split(";\n"):
            if statement.strip():
                self.execute(statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))

    def size(self, table: str) -> int:
        """How many rows there are, deleted ones included: an estimate, on which only costs may depend. Within a
        transaction it stays what it was."""
        if table not in self._sizes:
            self._sizes = dict(
                self.rows(
                    "SELECT table_name, estimated_size FROM duckdb_tables() WHERE database_name = current_database()"
                )
            )
        return self._sizes[table]

    def share_cores(self, *, alone: bool) -> None:
        """Leave a core to the decoding of the next batch, or none where there is hardly anything to decode."""
        if self._threads != _threads(alone=alone):
            self._threads = _threads(alone=alone)
            self.execute(f"SET threads = {self._threads}")

    def beside(self) -> Adding:
        """A further connection to the same database, for another thread to add rows by."""
        return Adding(self.path, self._connection.cursor())

    def cursor(self) -> Cursor:
        """A further connection to the same database, for another thread to read by."""
        return Cursor(self.path, self._connection.cursor())

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Add these rows; columns of the table that they lack are null. Returns before it is done."""
        if rows.height:
            for (filtered, column), known in self.key_filters.items():
                if filtered == table and column in rows.columns:
                    known.add(rows[column].drop_nulls())
            self._inserted()
            self._inserting = self._inserter.submit(self._insert, table, rows)

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        with _failing_clearly(self.path):
            _add(self._direct, table, rows)

    def delete(self, table: str, row_ids: pl.Series) -> None:
        """Remove the rows with these numbers."""
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
        """Rows of the table, with their `row_id`, become `wished`: only the difference is written, and returned as what
        went and what came. Columns of the table that `wished` lacks are not compared."""
        gone, come, columns = stored, wished, wished.columns
        if stored.height and wished.height:
            stored = stored.cast(wished.schema)  # sums are of 64 or 128 bits, as the values want
            gone = stored.join(wished, on=columns, how="anti", nulls_equal=True)
            come = wished.join(stored, on=columns, how="anti", nulls_equal=True)
        self.delete(table, gone["row_id"])
        self.insert(table, come)
        return gone, come

    @contextlib.contextmanager
    def filters_pushed_down(self) -> Iterator[None]:
        """A join's values as filters of the scan that it joins; without given frames only."""
        self.execute("SET disabled_optimizers = ''")
        try:
            yield
        finally:
            self.execute(f"SET disabled_optimizers = '{_DISABLED}'")


def _add(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    names = ", ".join(rows.columns)
    added = _Stream(rows)  # DuckDB finds it by its name, at half the cost of registering it
    try:
        connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM added")
    finally:
        added.release()


def frames_of(reader: Any) -> Iterator[pl.DataFrame]:
    """The batches of an Arrow reader; at least one, so that the columns are known where no row is found."""
    found = False
    for batch in reader:
        found = True
        yield _frame(batch)
    if not found:
        yield _frame(reader.schema.empty_table())


def _frame(arrow: Any) -> pl.DataFrame:
    frame = pl.from_arrow(arrow)
    assert isinstance(frame, pl.DataFrame)
    return as_integers(frame)


class _Stream:
    """A frame as a bare Arrow stream, so that no copy is made on the way."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = as_decimals(frame)

    def release(self) -> None:
        """DuckDB keeps what was registered until the transaction ends, and the frame would live as long."""
        self._frame = self._frame.clear()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def sql(package: str, name: str) -> str:
    """The text of a `.sql` file that lies in that package."""
    return files(package).joinpath(f"{name}.sql").read_text(encoding="utf-8")


_ROOMS: Final = (
    "projections.live",
    "projections.attribution",
    "projections.event_counts",
    "projections.coupon_sales",
    "projections.identity",
)


def _schema() -> list[str]:
    states = ", ".join(f"'{state}'" for state in STATES)
    tables = [t for room in _ROOMS for t in sql(room, "schema").split(";\n") if t.strip()]
    views = [f"CREATE VIEW {name} AS {sql('projections.live', name)}" for name in VIEWS]
    return [f"CREATE TYPE coupon_state AS ENUM ({states})", *tables, *journal.table_statements(), *views]


def _threads(*, alone: bool) -> int:
    cores = os.cpu_count() or 1
    return cores if alone else max(1, cores - 1)


def _configuration(read_only: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "storage_compatibility_version": _STORAGE,
        "autoinstall_known_extensions": False,
        "disabled_optimizers": _DISABLED,
    }
    if not read_only:
        settings["wal_autocheckpoint"] = f"{WAL_LIMIT}B"
        settings["memory_limit"] = _MEMORY
        settings["write_buffer_row_group_count"] = 1
        # It would merge the row groups that each batch leaves half full, over and over (compaction.py does the rest).
        settings["max_vacuum_tasks"] = 0
        settings["threads"] = _threads(alone=True)
    return settings


def _check_kind(path: Path, file: Path) -> None:
    """Raises `StoreError` for a SQLite file, which DuckDB would look for an extension to read."""
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


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody opens the database meanwhile, if it is there. Raises `StoreOwned`."""
    if not path.exists():
        yield
        return
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the lock that DuckDB takes
        except OSError as error:
            raise _owned(path, "") from error
        yield


def put_in_place(fresh: Path, path: Path) -> Path | None:
    """Let the closed database `fresh`, of the same folder, be the one at `path`.

    Returns the one before, as the previous generation; None where there was none. At every moment one of the two is at
    `path`. Raises `StoreOwned`.
    """
    if not path.exists():
        generations.make_room(path)
        fresh.replace(path)
        return None
    with held(path):
        generations.make_live(path, generations.add(path, fresh))
    return generations.previous(path)


def _check_name(path: Path) -> None:
    """DuckDB takes what follows a question mark for options, and would look for the write-ahead log elsewhere."""
    if "?" in str(path.absolute()):
        raise StoreError(f"database {path}: a path with a question mark cannot be used; name another with --database")


def owner_file(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def owner(path: Path) -> dict[str, Any]:
    """What the owner file says; empty where there is none. It may be one that a killed owner left."""
    try:
        said = json.loads(owner_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _self_description() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "command": masked(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def disk_failed(problem: str, error: OSError) -> StoreError:
    """The error for what could not be written beside a database: with the reason and the remedy."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    remedy = "free space and run again" if full else "check the folder's rights"
    return (StoreFull if full else StoreError)(f"{problem} ({error.strerror or error}); {remedy}")


def _other_version(path: Path, written_by: str, before: int | None, now: int | None) -> StoreVersionMismatch:
    newer = (before or 0) > (now or 0)
    remedy = (
        "use that newer coupon-ledger" if newer else "`coupon-ledger rebuild` builds a new one beside it and swaps them"
    )
    return StoreVersionMismatch(f"database {path}: written by {written_by}; {remedy}")


def _owned(path: Path, refusal: str) -> StoreOwned:
    """Who holds the lock that DuckDB names in its refusal. The owner file says more, if it is of that process."""
    held = re.search(r"\(PID (\d+)\)", refusal)
    pid = int(held[1]) if held else None
    said = owner(path)
    words = f"process {pid}" if pid else "another process"
    if {"pid", "command", "since"} <= set(said) and pid in (None, said["pid"]):
        pid, words = said["pid"], f"process {said['pid']} ({said['command']!r}, since {said['since']})"
    error = StoreOwned(f"database {path}: in use by {words}; wait for it or stop it")
    error.pid = pid
    return error


@contextlib.contextmanager
def _failing_clearly(path: Path, asked: duckdb.DuckDBPyConnection | None = None) -> Iterator[None]:
    """DuckDB's errors as ours: which database, what is wrong, what to do. `asked`: what Ctrl-C stops."""
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        if "lock on file" in text:
            raise _owned(path, text) from error
        if "No space left" in text or "disk is full" in text or "File too large" in text:
            raise StoreFull(
                f"database {path}: the disk is full; free space and run again, nothing was half-written"
            ) from error
        if "newer version" in text or "version number" in text:
            raise StoreVersionMismatch(
                f"database {path}: written by a newer DuckDB than this one ({duckdb.__version__}); "
                "use the coupon-ledger that wrote it"
            ) from error
        if "not a valid DuckDB database" in text:
            raise StoreError(f"database {path}: not a DuckDB file; name another with --database") from error
        if any(word in text for word in ("Corrupt database", "Corrupt WAL", "WAL does not match")):
            raise StoreError(
                f"database {path}: damaged on disk ({text.splitlines()[0]}); move it away, with its .wal,"
                " and run `coupon-ledger rebuild`: the log has it all"
            ) from error
        if "Is a directory" in text:
            raise StoreError(f"database {path}: a folder; name a file in it with --database") from error
        if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
            raise ValueOutOfRange(
                f"database {path}: an amount is too large to be added up ({text.splitlines()[0]}); look for it among"
                " orders and coupons, and have it corrected (`correct`)"
            ) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            limit = limited()
            remedy = "ask for less: a campaign, a shorter time"
            if limit is not None:
                remedy = f"raise the limit of {limit / 1e9:.1f} GB of address space (`ulimit -v`), or {remedy}"
            raise StoreError(
                f"database {path}: more memory is needed than DuckDB is given ({text.splitlines()[0]}); {remedy}"
            ) from error
        if isinstance(error, duckdb.IOException | duckdb.SerializationException | duckdb.InvalidInputException):
            first = text.splitlines()[0]
            raise StoreError(f"database {path}: cannot be used ({first}); check the file or name another") from error
        raise
    except RuntimeError as error:
        if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C
            if asked is not None:
                asked.interrupt()  # its other threads go on else, and whatever comes next waits until they are done
            raise KeyboardInterrupt from error
        raise
