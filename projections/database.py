"""The database: one DuckDB file with the tables of all projections. All tables are created together. Each projection
has a version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from coupon_ledger.ledger.errors import StoreError, StoreVersionMismatch
from coupon_ledger.ledger.rules import GRACE_MINUTES, STATES
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.kept import KEPT
from coupon_ledger.projections.live import journal
from coupon_ledger.projections.live.views import VIEWS, view_statement
from coupon_ledger.projections.store import Store
from coupon_ledger.projections.versions import VERSIONS, differing, written_versions

VERSION: Final = 3
"""Version of the tables that belong to no projection. A database with another version cannot be opened."""

_FOLDERS: Final = (
    "coupon_ledger.projections.live",
    *(table.folder for table in KEPT),
    "coupon_ledger.projections.identity",
    "coupon_ledger.projections.operations",
)
"""Packages with a `schema.sql`."""


def create_database(path: Path) -> bool:
    """Create an empty database at `path`. Returns False if one exists already.

    Raises `StoreVersionMismatch` if the existing one was written by another version, `StoreFull`, `StoreError`.
    """
    return Store.create(path, _make, check_version)


def open_database(path: Path, *, read_only: bool = False) -> Store:
    """Open for writing, which makes this process the owner, or for reading.

    Raises `StoreNotInitialised`, `StoreOwned` (naming the owner), `StoreVersionMismatch`, `StoreError`.
    """
    return Store.open(path, check_version, read_only=read_only)


def check_version(store: Reading) -> None:
    """Raises `StoreVersionMismatch` if the tables or a projection have another version than this code, and `StoreError`
    if the file is not a database of the ledger."""
    if not store.rows("SELECT 1 FROM duckdb_tables() WHERE table_name = 'ledger' AND NOT temporary LIMIT 1"):
        raise StoreError(
            f"database {store.path}: a DuckDB file, but not one of coupon-ledger; name another with --database"
        )
    version = next((version for (version,) in store.rows("SELECT version FROM ledger")), None)
    if version != VERSION:
        raise _other_version(store.path, f"version {version} of the tables, this is {VERSION}", version, VERSION)
    for name, before, now in differing(written_versions(store)):
        raise _other_version(store.path, f"version {before} of the projection {name}, this has {now}", before, now)


def _make(execute: Callable[..., Any]) -> None:
    states = ", ".join(f"'{state}'" for state in STATES)
    execute(f"CREATE TYPE coupon_state AS ENUM ({states})")
    for folder in _FOLDERS:
        for statement in filter(str.strip, sql(folder, "schema").split(";\n")):
            execute(statement)
    for statement in (*journal.table_statements(), *map(view_statement, VIEWS)):
        execute(statement)
    execute("INSERT INTO ledger (version, commits, grace_minutes) VALUES (?, 0, ?)", [VERSION, GRACE_MINUTES])
    for name, number in VERSIONS.items():
        execute("INSERT INTO projections VALUES (?, ?)", [name, number])


def _other_version(path: Path, written_by: str, before: int | None, now: int | None) -> StoreVersionMismatch:
    newer = (before or 0) > (now or 0)
    remedy = (
        "use that newer coupon-ledger" if newer else "`coupon-ledger rebuild` builds a new one beside it and swaps them"
    )
    return StoreVersionMismatch(f"database {path}: written by {written_by}; {remedy}")
