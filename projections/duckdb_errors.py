"""Translates DuckDB's errors into the ledger's own, which name the database, the problem and the remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import duckdb

from coupon_ledger.ledger.address_space import limited
from coupon_ledger.ledger.errors import StoreError, StoreFull, StoreVersionMismatch, ValueOutOfRange
from coupon_ledger.projections.ownership import owned_by

_Kinds = type[duckdb.Error] | tuple[type[duckdb.Error], ...]


def _out_of_memory(path: Path, first: str) -> StoreError:
    limit = limited()
    remedy = "ask for less: a campaign, a shorter time"
    if limit is not None:
        remedy = f"raise the limit of {limit / 1e9:.1f} GB of address space (`ulimit -v`), or {remedy}"
    return StoreError(f"database {path}: more memory is needed than DuckDB is given ({first}); {remedy}")


_BY_PHRASE: Final[tuple[tuple[tuple[str, ...], Callable[[Path, str], StoreError]], ...]] = (
    (("lock on file",), owned_by),
    (
        ("No space left", "disk is full", "File too large"),
        lambda path, _: StoreFull(
            f"database {path}: the disk is full; free space and run again, nothing was half-written"
        ),
    ),
    (
        ("newer version", "version number"),
        lambda path, _: StoreVersionMismatch(
            f"database {path}: written by a newer DuckDB than this one ({duckdb.__version__}); "
            "use the coupon-ledger that wrote it"
        ),
    ),
    (
        ("not a valid DuckDB database",),
        lambda path, _: StoreError(f"database {path}: not a DuckDB file; name another with --database"),
    ),
    (
        ("Corrupt database", "Corrupt WAL", "WAL does not match"),
        lambda path, text: StoreError(
            f"database {path}: damaged on disk ({_first(text)}); move it away, with its .wal,"
            " and run `coupon-ledger rebuild`: the log has it all"
        ),
    ),
    (
        ("Current transaction is aborted",),
        lambda path, _: StoreError(
            f"database {path}: an earlier question of the same state failed, and nothing more can be asked of it; ask"
            " again"
        ),
    ),
    (
        ("Is a directory",),
        lambda path, _: StoreError(f"database {path}: a folder; name a file in it with --database"),
    ),
)
"""Phrases in DuckDB's message, and the function that makes the ledger's error from path and message. The first match
wins."""

_BY_CLASS: Final[tuple[tuple[_Kinds, Callable[[Path, str], StoreError]], ...]] = (
    (
        (duckdb.ConversionException, duckdb.OutOfRangeException),
        lambda path, text: ValueOutOfRange(
            f"database {path}: an amount is too large to be added up ({_first(text)}); look for it among"
            " orders and coupons, and have it corrected (`correct`)"
        ),
    ),
    (duckdb.OutOfMemoryException, lambda path, text: _out_of_memory(path, _first(text))),
    (
        (duckdb.IOException, duckdb.SerializationException, duckdb.InvalidInputException),
        lambda path, text: StoreError(
            f"database {path}: cannot be used ({_first(text)}); check the file or name another"
        ),
    ),
)
"""The same by the class of DuckDB's error, for messages that match no phrase of `_BY_PHRASE`."""


def _first(text: str) -> str:
    return text.splitlines()[0]


def _translated(path: Path, error: duckdb.Error) -> StoreError | None:
    text = str(error)
    for words, made in _BY_PHRASE:
        if any(word in text for word in words):
            return made(path, text)
    return next((made(path, text) for kinds, made in _BY_CLASS if isinstance(error, kinds)), None)


@contextlib.contextmanager
def failing_clearly(path: Path, connection: duckdb.DuckDBPyConnection | None = None) -> Iterator[None]:
    """Within the block, replace DuckDB's errors by the ledger's own. An error without a translation in this module is
    raised unchanged. `connection`: the connection to interrupt on Ctrl-C."""
    try:
        yield
    except duckdb.Error as error:
        if (translated := _translated(path, error)) is not None:
            raise translated from error
        raise
    except RuntimeError as error:
        if str(error) == "Query interrupted":  # what DuckDB raises on Ctrl-C
            if connection is not None:
                connection.interrupt()  # otherwise its other threads keep running, and the next query waits for them
            raise KeyboardInterrupt from error
        raise
