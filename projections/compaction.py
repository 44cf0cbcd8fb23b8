"""Compacts tables whose rows are replaced. DuckDB frees the space of a deleted row only when all rows of its row group
are deleted.

`compact` rewrites the end of a table, where most of the live rows are. It waits until the end has many deleted rows. So
a rewrite costs little, compared to the replacements that deleted these rows. All rows of the old row groups are then
deleted, and the next checkpoint frees them.

DuckDB itself can merge row groups during a checkpoint. This is not used: a commit has to wait for it, and it merges the
journals too, although nothing is deleted in them.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import polars as pl

from coupon_ledger.projections.live.journal import CONFLICTS, JOURNAL
from coupon_ledger.projections.store import Store

_LOOK_AFTER: Final = 100_000
"""Number of deleted rows after which the tables are examined, and which a rewrite must remove at least."""

_DEAD_PER_LIVE: Final = 0.75
"""Minimum number of deleted rows per live row in the part that is rewritten."""
_ROW_GROUP: Final = 122_880

_log = logging.getLogger(__name__)


def compact(store: Store) -> None:
    """Compact every table that has many deleted rows, except the journals. Call between transactions. Readers that are
    running are not affected."""
    if store.deleted < _LOOK_AFTER:
        return
    store.deleted = 0
    names = store.rows("SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()")
    tables = {name for (name,) in names}
    for table in sorted(tables - {*JOURNAL.values(), *CONFLICTS.values()}):
        first = _first_to_rewrite(store, table)
        if first is not None:
            _rewrite(store, table, first)


def _first_to_rewrite(store: Store, table: str) -> int | None:
    """The row number from which on a rewrite of the table's end is worth its cost: the lowest such number. None if no
    rewrite is worth it."""
    [(rows,)] = store.rows(f"SELECT coalesce(max(rowid) + 1, 0) FROM {table}")
    if rows < _LOOK_AFTER:
        return None
    groups = store.frame(
        f"SELECT rowid // {_ROW_GROUP} AS row_group, count(*) AS live FROM {table} GROUP BY ALL ORDER BY row_group DESC"
    ).with_columns(first=pl.col("row_group") * _ROW_GROUP)
    sums = groups.select(
        "first",
        live=pl.col("live").cum_sum(),
        dead=(pl.min_horizontal(pl.lit(_ROW_GROUP), pl.lit(rows) - pl.col("first")) - pl.col("live")).cum_sum(),
    )
    worth_it = (pl.col("dead") >= _LOOK_AFTER) & (pl.col("dead") > _DEAD_PER_LIVE * pl.col("live"))
    first: int | None = sums.filter(worth_it)["first"].min()  # type: ignore[assignment]
    return first


def _rewrite(store: Store, table: str, first: int) -> None:
    started = time.perf_counter()
    with store.transaction():
        [(last,)] = store.rows(f"SELECT max(rowid) FROM {table}")
        moved = store.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid >= {first}")
        store.execute(f"DELETE FROM {table} WHERE rowid BETWEEN {first} AND {last}")
    seconds = time.perf_counter() - started
    _log.info("table %s: %d rows rewritten instead of %d, in %.1f s", table, moved, last + 1 - first, seconds)
