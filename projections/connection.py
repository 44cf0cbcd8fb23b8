"""Connections to the DuckDB file: reading, reading beside the writer, adding beside it; frames in and out."""

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
"""Bytes of write-ahead log from which on a commit is followed by a checkpoint."""

LISTED: Final = 2_000
"""Up to so many values go into a query as a list, at a third of what a frame costs."""

# Of DuckDB in the owner; what it does not need at once goes back to the file. The batches need twice as much again.
_MEMORY: Final = "300MB"

_MEMORY_OF_SLOW: Final = "1200MB"
"""While a slow question runs beside the batches: lists and sorted groups cannot go back to the file."""

# Its compression of strings takes a fifth less time and space than that of DuckDB's default, which old versions read.
STORAGE: Final = "v1.5.0"

AGAIN_S: Final = 0.02

# Joins with given frames would push their bounds into pyarrow, which cannot compare string views.
DISABLED: Final = "join_filter_pushdown"


# DuckDB filters given frames with Arrow, which warns on standard error of the empty buffers of empty lists.
os.environ.setdefault("ACERO_ALIGNMENT_HANDLING", "ignore")


class _NoPandas:
    """DuckDB looks for pandas' own values among the parameters of every query, and imports it for that where it is
    installed: a fifth of a second of each command. Nothing here comes from pandas; whoever else wants it gets it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        asking = sys._getframe(1) if name == "pandas" else None
        while asking is not None and asking.f_code.co_filename.startswith("<frozen importlib"):
            asking = asking.f_back
        if asking is not None and asking.f_globals.get("__package__") == __package__:
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
        with failing_clearly(self.path, self._direct):
            return as_integers(self._connection.execute(sql, parameters).pl())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a query of a few rows, at a fifth of the cost of columns."""
        with failing_clearly(self.path, self._direct):
            return self._connection.execute(sql).fetchall()

    def batches(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), rows: int = 50_000
    ) -> Iterator[pl.DataFrame]:
        """The result of a query, piece by piece, for results that should not be in memory whole.

        At least one piece, so that the columns are known where no row is found.
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
        with failing_clearly(path):
            # A write-ahead log would only be read if what is half-written were opened.
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
        """When nobody reads there: a transaction that looks into the catalog does so in that of every database."""
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
        with failing_clearly(self.path):
            if not self._begun:
                self._connection.begin()
                self._begun = True
            add_rows(self._connection, table, rows)

    def commit(self) -> None:
        """Durably. Raises `StoreFull`."""
        if self._begun:
            with failing_clearly(self.path):
                self._connection.commit()
            self._begun = False

    def close(self) -> None:
        """What was not committed is not there."""
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


def add_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
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


def live_schema(reading: Reading) -> str:
    """What stands before the name of a live table, whatever stands before that table."""
    [(database,)] = reading.rows("SELECT current_database()")
    return '"' + str(database).replace('"', '""') + '".main'


def sql(package: str, name: str) -> str:
    """The text of a `.sql` file that lies in that package."""
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
        # It would merge the row groups that each batch leaves half full, over and over (compaction.py does the rest).
        settings["max_vacuum_tasks"] = 0
        settings["threads"] = threads(alone=True)
    return settings
