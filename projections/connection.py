"""Connections to the DuckDB file: to read, to read beside the writer, to add rows beside it; frames in and out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import polars as pl

from coupon_ledger.ledger.rules import SWEPT
from coupon_ledger.projections.duckdb_errors import failing_clearly
from coupon_ledger.projections.wide import as_decimals, as_integers

# Checkpoints rewrite what changed; far apart they cost little (the default of 16 MB costs most of the rate).
WAL_LIMIT: Final = 256_000_000
"""Bytes of write-ahead log from which a commit triggers a checkpoint."""

LISTED: Final = 2_000
"""Maximum number of values that go into a query as a list, which costs a third of a frame."""

# DuckDB's limit in the owner; it evicts what it does not need at once to the file. Batches need twice as much again.
_MEMORY: Final = "300MB"

_MEMORY_OF_SLOW: Final = "1200MB"
"""The limit while a slow question runs beside the batches: lists and sorted groups cannot be evicted."""

# Its string compression takes a fifth less time and space than that of DuckDB's default, which old versions can read.
STORAGE: Final = "v1.5.0"

AGAIN_S: Final = 0.02

# Joins with registered frames would push their bounds into pyarrow, which cannot compare string views.
DISABLED: Final = "join_filter_pushdown"


# DuckDB filters registered frames with Arrow, which warns on standard error about the empty buffers of empty lists.
os.environ.setdefault("ACERO_ALIGNMENT_HANDLING", "ignore")


class _NoPandas:
    """Keeps DuckDB from importing pandas. DuckDB checks the parameters of every query for pandas values, and imports
    pandas for that if it is installed: a fifth of a second per command. Other importers still get it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        asking = sys._getframe(1) if name == "pandas" else None
        while asking is not None and asking.f_code.co_filename.startswith("<frozen importlib"):
            asking = asking.f_back
        if asking is not None and asking.f_globals.get("__package__") == __package__:
            raise ModuleNotFoundError("pandas is not needed here", name=name)


sys.meta_path.insert(0, _NoPandas)

# The only definition of violations that are no fault: those of the ledger's own sweep events that a fact which arrived
# later overtook. A conflict under such an event's id is a fault.
_SUPERSEDED: Final = f"""
    CREATE TEMP MACRO superseded(event_id, violation) AS
        starts_with(event_id, '{SWEPT}') AND violation <> 'conflicting_duplicate'
"""


class Reading:
    """A connection for queries, for one thread at a time.

    Queries can call `superseded(event_id, violation)`, true if the violation is no fault, and the macros of macros.sql.
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
        with failing_clearly(self.path, self._direct):
            return as_integers(self._connection.execute(sql, parameters).pl())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a query of a few rows, at a fifth of the cost of `frame`."""
        with failing_clearly(self.path, self._direct):
            return self._connection.execute(sql).fetchall()

    def batches(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), rows: int = 50_000
    ) -> Iterator[pl.DataFrame]:
        """The result of a query in pieces, for results that should not be in memory whole.

        Yields at least one piece, so that the columns are known even without rows.
        """
        with failing_clearly(self.path, self._direct):
            yield from frames_of(self._connection.execute(sql, parameters).to_arrow_reader(rows))

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Run one statement; returns how many rows it inserted, updated or deleted."""
        with failing_clearly(self.path, self._direct):
            found = self._connection.execute(sql, parameters).fetchone()
        return int(found[0]) if found and isinstance(found[0], int) else 0

    @contextlib.contextmanager
    def holding(self, name: str, query: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """Store the result of a query in a temporary table `name` that queries can read meanwhile."""
        self.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", parameters)
        yield
        self.execute(f"DROP TABLE temp.{name}")  # after an error, the rollback removes it

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
        with failing_clearly(self.path):
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
        """Raises if interrupted: DuckDB forgets an interruption that comes between two queries."""
        if self._interrupted:
            raise duckdb.InterruptException("interrupted")

    @contextlib.contextmanager
    def copying_to(self, path: Path) -> Iterator[str]:
        """Open a transaction that sees one committed state of this database and writes into a new one at `path`; yields
        the new one's name in queries. Afterwards all of it is at `path`, in one file; after an error, the file there is
        not a database. Whatever happens to the copy does not affect the database that is read.
        """
        name = "copied"
        self._interrupted = False
        place = str(path).replace("'", "''")
        with failing_clearly(path):
            # A write-ahead log would only be read if a half-written copy were opened.
            self._connection.execute(
                f"ATTACH '{place}' AS {name} (STORAGE_VERSION '{STORAGE}', RECOVERY_MODE no_wal_writes)"
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

    def _checkpoint(self, name: str) -> None:
        """Checkpoint once nobody reads there: a transaction that reads the catalog reads that of every database."""
        while True:
            try:
                self._connection.execute(f"CHECKPOINT {name}")
                return
            except duckdb.TransactionException as error:
                if "Cannot CHECKPOINT" not in str(error):
                    raise
            self._check()
            time.sleep(AGAIN_S)

    def end(self) -> None:
        """Release the state, also after a query that failed or was interrupted."""
        with contextlib.suppress(duckdb.Error):
            self._connection.rollback()

    @contextlib.contextmanager
    def roomy(self) -> Iterator[None]:
        """Raise DuckDB's memory limit meanwhile. One user at a time."""
        with failing_clearly(self.path):
            self._direct.execute(f"SET memory_limit = '{_MEMORY_OF_SLOW}'")
        try:
            yield
        finally:
            with contextlib.suppress(duckdb.Error):  # while more is in use the limit stays, until the next call
                self._direct.execute(f"SET memory_limit = '{_MEMORY}'")

    def interrupt(self) -> None:
        """Interrupt the queries since `begin`. The only method that another thread may call."""
        self._interrupted = True
        with contextlib.suppress(duckdb.ConnectionException):  # closed meanwhile: no query is running
            self._connection.interrupt()

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


class Inserts(Protocol):
    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Add these rows; columns that they lack become null."""


class Adding(Reading):
    """Adds rows beside the writer, which must only add to these tables meanwhile. Everything from the first insert to
    `commit` is one transaction."""

    _begun = False

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        if not rows.height:
            return
        with failing_clearly(self.path):
            if not self._begun:
                self._connection.begin()
                self._begun = True
            add_rows(self._connection, table, rows)

    def commit(self) -> None:
        """Commit durably. Raises `StoreFull`."""
        if self._begun:
            with failing_clearly(self.path):
                self._connection.commit()
            self._begun = False

    def close(self) -> None:
        """Close, and discard what was not committed."""
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


def add_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    names = ", ".join(rows.columns)
    added = _Stream(rows)  # DuckDB finds this variable by name, at half the cost of registering
    try:
        connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM added")
    finally:
        added.release()


def frames_of(reader: Any) -> Iterator[pl.DataFrame]:
    """The batches of an Arrow reader; at least one, so that the columns are known even without rows."""
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
        """Free the frame, since DuckDB keeps what was registered until the transaction ends."""
        self._frame = self._frame.clear()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def live_schema(reading: Reading) -> str:
    """The schema to qualify live tables with, which temporary tables may shadow."""
    [(database,)] = reading.rows("SELECT current_database()")
    return '"' + str(database).replace('"', '""') + '".main'


def sql(package: str, name: str) -> str:
    """The text of the file `name`.sql in a package."""
    return files(package).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def threads(*, alone: bool) -> int:
    cores = os.cpu_count() or 1
    return cores if alone else max(1, cores - 1)


def configuration(read_only: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "storage_compatibility_version": STORAGE,
        "autoinstall_known_extensions": False,
        "disabled_optimizers": DISABLED,
    }
    if not read_only:
        settings["wal_autocheckpoint"] = f"{WAL_LIMIT}B"
        settings["memory_limit"] = _MEMORY
        settings["write_buffer_row_group_count"] = 1
        # They would merge the row groups that each batch leaves half full, over and over (compaction.py does the rest).
        settings["max_vacuum_tasks"] = 0
        settings["threads"] = threads(alone=True)
    return settings
