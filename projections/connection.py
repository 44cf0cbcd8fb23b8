"""Connections to the DuckDB file: for reading, for reading beside the writer, and for inserting rows beside it."""

from __future__ import annotations

import contextlib
import os
import secrets
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

# Checkpoints rewrite changed data, so rare ones cost little. With the default of 16 MB they would take most of the
# time.
WAL_LIMIT: Final = 256_000_000
"""Size of the write-ahead log, in bytes, from which a commit triggers a checkpoint."""

LISTED: Final = 2_000
"""Maximum number of values that are passed to a query as a list. A list costs a third as much as a frame."""

# DuckDB's memory limit in the owner. DuckDB writes what does not fit to the file. Folding a batch needs twice as much
# memory outside of DuckDB.
_MEMORY: Final = "300MB"

_MEMORY_OF_SLOW: Final = "1200MB"
"""The limit while a slow question runs beside the batches, since lists and sorted groups cannot be evicted."""

# Older releases of DuckDB can read the default version. The string compression of this one takes a fifth less time and
# space.
STORAGE: Final = "v1.5.0"

AGAIN_S: Final = 0.02

# DuckDB would push the bounds of joins as filters into registered frames. These are scanned by pyarrow, which cannot
# compare string views.
DISABLED: Final = "join_filter_pushdown"


# DuckDB filters registered frames with Arrow, which warns on standard error about the empty buffers of empty lists.
os.environ.setdefault("ACERO_ALIGNMENT_HANDLING", "ignore")


class _NoPandas:
    """An import hook that makes `import pandas` fail within DuckDB. If pandas is installed, DuckDB imports it to check
    query parameters for pandas values, which takes a fifth of a second per command. Other modules can still import
    pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        asking = sys._getframe(1) if name == "pandas" else None
        while asking is not None and asking.f_code.co_filename.startswith("<frozen importlib"):
            asking = asking.f_back
        if asking is not None and asking.f_globals.get("__package__") == __package__:
            raise ModuleNotFoundError("pandas is not needed here", name=name)


sys.meta_path.insert(0, _NoPandas)

# The only definition of superseded violations: an event that the ledger's own sweep appended is illegal, since an
# earlier fact arrived after the sweep. This is no fault, whereas a conflict under the id of a sweep's event is one.
_SUPERSEDED: Final = f"""
    CREATE TEMP MACRO superseded(event_id, violation) AS
        starts_with(event_id, '{SWEPT}') AND violation <> 'conflicting_duplicate'
"""


class Reading:
    """A connection for queries, for use by one thread at a time.

    Queries can call the macros of macros.sql, and `superseded(event_id, violation)`, which is true for a superseded
    violation.
    """

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self._direct = connection
        connection.execute(_SUPERSEDED + ";" + sql(__package__, "macros"))

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return self._direct

    def frame(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> pl.DataFrame:
        """The result of a query, as a frame."""
        with failing_clearly(self.path, self._direct):
            return as_integers(self._connection.execute(sql, parameters).pl())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a query as a list of tuples. For few rows, this costs a fifth of `frame`."""
        with failing_clearly(self.path, self._direct):
            return self._connection.execute(sql).fetchall()

    def batches(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), rows: int = 50_000
    ) -> Iterator[pl.DataFrame]:
        """The result of a query in pieces of about `rows` rows, for results that may not fit into memory.

        Yields at least one piece, so that the columns are known even if there are no rows.
        """
        with failing_clearly(self.path, self._direct):
            yield from frames_of(self._connection.execute(sql, parameters).to_arrow_reader(rows))

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Run one statement. Returns the number of rows that it inserted, updated or deleted."""
        with failing_clearly(self.path, self._direct):
            row = self._connection.execute(sql, parameters).fetchone()
        return int(row[0]) if row and isinstance(row[0], int) else 0

    @contextlib.contextmanager
    def holding(self, name: str, query: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """Store the result of `query` in the temporary table `name`. The table exists until the end of the block."""
        self.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", parameters)
        yield
        self.execute(f"DROP TABLE temp.{name}")  # after an error, the rollback removes it

    @contextlib.contextmanager
    def given(self, **frames: pl.DataFrame) -> Iterator[None]:
        """Within the block, queries can read each of the `frames` as a table. Its name is that of the keyword
        argument."""
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
    """A connection that reads while another one writes. Between `begin` and `end`, all queries see the same committed
    state."""

    _interrupted = False
    _layer: str | None = None
    _variables: tuple[str, ...] = ()

    def begin(self) -> None:
        self._interrupted = False
        self.look_directly()
        with failing_clearly(self.path):
            self._connection.execute("BEGIN TRANSACTION READ ONLY")

    def look_through(self, statements: Sequence[str], variables: Mapping[str, Any]) -> None:
        """From here on, until `look_directly` or `end`, no query sees a live table. The only tables are the views that
        `statements` create, and the temporary tables of this connection, which shadow them.

        The views are in a database in memory of their own, which takes the place of the live one in the search path.
        So a live table without a view is not found. `live_schema` then names the schema of the views.
        `statements`: may contain `live.`, the schema of the live tables, as a prefix of names. `variables`: values that
        the views read with `getvariable`, so that no query's text contains them.
        """
        self.look_directly()
        self._check()
        live, layer = live_schema(self), f"layer_{secrets.token_hex(8)}"
        with failing_clearly(self.path):
            # A connection of its own, since this one's transaction is read-only.
            beside = self._direct.cursor()
            try:
                beside.execute(f"ATTACH ':memory:' AS {layer} (READ_WRITE)")
                self._layer, self._variables = layer, tuple(variables)
                beside.execute(f"USE {layer}")
                beside.execute("BEGIN")
                for name in variables:
                    beside.execute(f"SET VARIABLE {name} = ''")
                for statement in statements:
                    beside.execute(statement.replace("live.", f"{live}."))
                beside.execute("COMMIT")
            finally:
                beside.close()
            for name, value in variables.items():
                self._connection.execute(f"SET VARIABLE {name} = ?", [value])
            self._connection.execute(f"SET search_path = '{layer}.main'")

    def look_directly(self) -> None:
        """End `look_through`: queries see the live tables again."""
        if self._layer is None:
            return
        self._connection.execute("RESET search_path")
        for name in self._variables:
            self._connection.execute(f"RESET VARIABLE {name}")
        self._connection.execute(f"DETACH {self._layer}")
        self._layer = None

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
        """Raises `duckdb.InterruptException` if `interrupt` was called since the last `begin`. Needed since DuckDB
        ignores a call between two queries."""
        if self._interrupted:
            raise duckdb.InterruptException("interrupted")

    @contextlib.contextmanager
    def copying_to(self, path: Path) -> Iterator[str]:
        """Open a transaction that reads one committed state of this database and writes into a new database at `path`.
        Yields the name by which queries refer to the new database.

        After the block, the new database is complete, in one file. After an error, the file is not a valid database.
        The database that is read is not affected.
        """
        name = "copied"
        self._interrupted = False
        place = str(path).replace("'", "''")
        with failing_clearly(path):
            # The copy needs no write-ahead log, since an incomplete copy is never opened.
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
        """Checkpoint the copy `name`. DuckDB refuses while another transaction reads the copy, so try again until it
        succeeds. Any query that reads the catalog causes this, since it reads the catalogs of all attached
        databases."""
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
        """Roll back, which releases the committed state. Also works after a query that failed or was interrupted."""
        with contextlib.suppress(duckdb.Error):
            self._connection.rollback()
        with contextlib.suppress(duckdb.ConnectionException):  # already closed
            self.look_directly()

    @contextlib.contextmanager
    def roomy(self) -> Iterator[None]:
        """Within the block, DuckDB may use the memory that slow questions need. Only one caller may use this at a
        time."""
        with failing_clearly(self.path):
            self._direct.execute(f"SET memory_limit = '{_MEMORY_OF_SLOW}'")
        try:
            yield
        finally:
            with contextlib.suppress(
                duckdb.Error
            ):  # fails while more memory is in use; the next call sets the limit again
                self._direct.execute(f"SET memory_limit = '{_MEMORY}'")

    def interrupt(self) -> None:
        """Interrupt the running query, and make all further ones fail until the next `begin`. The only method that
        another thread may call."""
        self._interrupted = True
        with contextlib.suppress(duckdb.ConnectionException):  # already closed, so no query is running
            self._connection.interrupt()

    def close(self) -> None:
        with contextlib.suppress(duckdb.Error):
            self._connection.close()


class Inserts(Protocol):
    """The interface for inserting rows, which both a store and a connection beside it (`Adding`) have."""

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert these rows. Missing columns become null."""


class Adding(Reading):
    """A connection that inserts rows while the store writes. The store may insert into the same tables, but not delete
    or update in them. All inserts up to `commit` are one transaction."""

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
        """Commit the inserts durably. Raises `StoreFull`."""
        if self._begun:
            with failing_clearly(self.path):
                self._connection.commit()
            self._begun = False

    def close(self) -> None:
        """Close, and roll back uncommitted inserts."""
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
    """The batches of an Arrow reader, as frames. If there are no batches, one frame without rows, which shows the
    columns."""
    empty = True
    for batch in reader:
        empty = False
        yield _frame(batch)
    if empty:
        yield _frame(reader.schema.empty_table())


def _frame(arrow: Any) -> pl.DataFrame:
    frame = pl.from_arrow(arrow)
    assert isinstance(frame, pl.DataFrame)
    return as_integers(frame)


class _Stream:
    """A frame as an Arrow stream, which DuckDB reads without a copy."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = as_decimals(frame)

    def release(self) -> None:
        """Free the frame. Without this, DuckDB keeps it until the transaction ends."""
        self._frame = self._frame.clear()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def live_schema(reading: Reading) -> str:
    """The qualified name of the schema with the live tables. With it, a query reads a live table even if a temporary
    table of the same name shadows it. On a cursor that looks through views (`Cursor.look_through`), the schema of the
    views."""
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
        # Vacuuming would merge half-full row groups after every batch. compaction.py does this at less cost.
        settings["max_vacuum_tasks"] = 0
        settings["threads"] = threads(alone=True)
    return settings
