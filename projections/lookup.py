"""Looks up rows by key, at a cost that hardly grows with the tables.

DuckDB scans tables, so a look-up limits what is scanned. It has two steps:

1. Find the row numbers. A filter in memory tells which keys are new, so no search is needed for them. For the other
   keys, the column of key hashes is searched, first at the end of the table: changed rows are replaced, so recently
   changed rows are there. The rest of the column is searched only for keys that were not found at the end.
2. Read the rows with these numbers. Where many of them are near each other, scan the whole range.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from coupon_ledger.projections.connection import LISTED
from coupon_ledger.projections.key_filter import KeyFilter
from coupon_ledger.projections.store import Cache, Store

# Tables with at most this many rows are scanned whole.
_SCANNED_WHOLE: Final = 200_000
OF_LATE: Final = 500_000
"""Number of rows at the end of a table that are searched first."""

# Fetching one row by its number costs as much as scanning all columns of this many rows.
_SCANNED_FOR_ONE: Final = 3_000
# If the numbers of two neighbouring rows differ by more than this, the rows are read by separate queries.
_APART: Final = 20_000
_PUSHED_DOWN: Final = 50
"""Up to this number of values on one side of a join, DuckDB filters the scan of the other side by them (its setting
`dynamic_or_filter_threshold`)."""


class Known(Cache):
    """Caches for tables in which hashes are looked up.

    `filters`: by table and column, a filter with all hashes that are in the column or were in it since the filter was
    built. Extra hashes in a filter are harmless, but a missing hash would lose rows. So an insert adds to the filter,
    and a delete does not change it. A rollback drops all filters, since a filter may have been built after the
    transaction deleted rows: it lacks their hashes. `no_rows`: by table, a frame without rows that has the table's
    columns.
    """

    def __init__(self) -> None:
        self.filters: dict[tuple[str, str], KeyFilter] = {}
        self.no_rows: dict[str, pl.DataFrame] = {}

    def inserted(self, table: str, rows: pl.DataFrame) -> None:
        for (filtered, column), known in self.filters.items():
            if filtered == table and column in rows.columns:
                known.add(rows[column].drop_nulls())

    def rolled_back(self) -> None:
        self.filters.clear()


def of_keys(store: Store, table: str, keys: pl.DataFrame) -> pl.DataFrame:
    """The rows of these keys, with their `row_id`, and possibly rows of other keys with equal hashes.

    `table`: a table with one row per key. `keys`: the columns `key_hash` and the key, named as in the table.
    """
    rows = store.size(table)
    if rows <= _SCANNED_WHOLE:
        return _scanned(store, table, "key_hash", keys["key_hash"])
    wanted = keys.filter(_maybe_there(store, table, "key_hash", keys["key_hash"]))
    since = rows - OF_LATE
    late = _late(store, table, wanted["key_hash"], since)
    older = wanted.join(late, on=keys.columns, how="anti")["key_hash"]
    if since <= 0 or not len(older):
        return late
    return pl.concat([_at(store, table, _search(store, table, "key_hash", older, f"AND t.rowid < {since}")), late])


def of_hashes(store: Store, table: str, column: str, hashes: pl.Series) -> pl.DataFrame:
    """All rows with one of these hashes in `column`, with their `row_id`. Cheap if few rows match."""
    wanted = hashes.filter(_maybe_there(store, table, column, hashes))
    if not len(wanted):
        return _nothing(store, table)
    if store.size(table) <= _SCANNED_WHOLE:
        return _scanned(store, table, column, wanted)
    return _at(store, table, _search(store, table, column, wanted))


def of_journal(store: Store, table: str, key_hashes: pl.Series, since: datetime) -> pl.DataFrame:
    """The rows of a journal with these key hashes, with their `row_id`. `since`: an instant before which none of these
    events was recorded."""
    recorded = f"AND t.recorded_at >= TIMESTAMP '{since}'"
    if store.size(table) <= _SCANNED_WHOLE:
        return _scanned(store, table, "key_hash", key_hashes, recorded)
    return _at(store, table, _search(store, table, "key_hash", key_hashes, recorded))


def of_identities(store: Store, table: str, identities: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """The rows of a journal with these identities (`key_hash`, `event_id`), with their `row_id`. May include rows that
    have the `key_hash` of one identity and the `event_id` of another.

    `since`: an instant. Every event with one of these hashes was recorded at or after it. Only the rows that are
    returned are read completely, so keys with many events cost little.
    """
    hashes = identities["key_hash"].unique()
    events = _scanned(store, table, "key_hash", hashes, f"AND t.recorded_at >= TIMESTAMP '{since}'", ", t.event_id")
    events = events.filter(events["event_id"].is_in(identities["event_id"].implode()))
    return _at(store, table, events["row_id"].sort())


def _maybe_there(store: Store, table: str, column: str, hashes: pl.Series) -> pl.Series:
    """Per hash, whether it may occur in `column` of `table`. False is certain."""
    filters = store.cache(Known).filters
    known = filters.get((table, column))
    if known is None or known.crowded:
        there = store.frame(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")[column]
        known = filters[table, column] = KeyFilter(there)
    return pl.Series(known.maybe(hashes))


def _nothing(store: Store, table: str) -> pl.DataFrame:
    no_rows = store.cache(Known).no_rows
    if table not in no_rows:
        no_rows[table] = store.frame(f"SELECT t.rowid AS row_id, t.* FROM {table} t LIMIT 0")
    return no_rows[table]


def _scanned(
    store: Store, table: str, column: str, hashes: pl.Series, condition: str = "", columns: str = ", t.*"
) -> pl.DataFrame:
    """The rows with one of these hashes in `column`, with their `row_id`. Scans all of `column`, unless `condition`
    limits the scan. `columns`: the SQL for the other columns to return."""
    select = f"SELECT t.rowid AS row_id{columns} FROM {table} t WHERE t.{column} IN"
    if len(hashes) <= LISTED:
        listed = {"wanted": hashes.to_list()}
        return store.frame(f"{select} (SELECT unnest($wanted::BIGINT[])) {condition}", listed)
    with store.given(wanted=hashes.to_frame("wanted")):
        return store.frame(f"{select} (SELECT wanted FROM wanted) {condition}")


def _search(store: Store, table: str, column: str, hashes: pl.Series, condition: str = "") -> pl.Series:
    """The row numbers, ascending, of the rows that have one of these hashes in `column`. `condition`: limits the
    scan."""
    return _scanned(store, table, column, hashes, condition, columns="")["row_id"].sort()


def _late(store: Store, table: str, key_hashes: pl.Series, since: int) -> pl.DataFrame:
    condition = f"AND t.rowid >= {since}"
    if len(key_hashes) * _SCANNED_FOR_ONE > OF_LATE and len(key_hashes) <= LISTED:
        return _scanned(store, table, "key_hash", key_hashes, condition)
    return _at(store, table, _search(store, table, "key_hash", key_hashes, condition))


def _at(store: Store, table: str, row_ids: pl.Series) -> pl.DataFrame:
    """The rows with these row numbers, which are ascending. Where many are near each other, the whole range is scanned;
    the others are fetched by their numbers."""
    numbered = row_ids.to_frame("row_id").with_columns(
        span=(pl.col("row_id").diff() > _APART).fill_null(False).cum_sum()
    )
    spans = numbered.group_by("span").agg(
        first=pl.col("row_id").min(), last=pl.col("row_id").max(), rows=pl.len().cast(pl.Int64)
    )
    dense = spans.filter(pl.col("rows") * _SCANNED_FOR_ONE > pl.col("last") - pl.col("first") + _APART)
    parts = [_nothing(store, table)]
    for first, last in dense.select("first", "last").iter_rows():
        between = row_ids.filter(row_ids.is_between(first, last))
        parts.append(_scanned(store, table, "rowid", between, f"AND t.rowid BETWEEN {first} AND {last}"))
    single = numbered.join(dense, on="span", how="anti")["row_id"]
    if len(single):
        with store.filters_pushed_down():
            for at in range(0, len(single), _PUSHED_DOWN):
                parts.append(_scanned(store, table, "rowid", single[at : at + _PUSHED_DOWN]))
    return pl.concat(parts)
