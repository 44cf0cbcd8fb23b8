"""The rows of given keys, found at a cost that hardly grows with the tables.

DuckDB scans. What is scanned whole is little: only the hashes of the keys, of all rows only for keys that are neither
new nor of late; then the rows themselves where they lie near each other. Rows that change are replaced and so lie at
the table's end, and with them whatever is in use.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from projections.key_filter import KeyFilter
from projections.store import Store

# Up to so many rows of a table are scanned whole.
_SCANNED_WHOLE: Final = 200_000
OF_LATE: Final = 500_000
"""Rows at the end of a table that are searched first."""

# Fetching one row by its number costs as much as scanning so many, whole.
_SCANNED_FOR_ONE: Final = 3_000
# Further apart than that, rows are scanned by two queries.
_APART: Final = 20_000
_PUSHED_DOWN: Final = 50
"""DuckDB's `dynamic_or_filter_threshold`: up to so many values of a join become a filter of the scan."""


def of_keys(store: Store, table: str, keys: pl.DataFrame) -> pl.DataFrame:
    """The rows of these keys, with their `row_id`, and perhaps some of others with equal hashes.

    `table`: of entities, a row a key. `keys`: `key_hash` and the key, under its name in the table.
    """
    rows = _rows(store, table)
    if rows <= _SCANNED_WHOLE:
        return _whole(store, table, keys["key_hash"], "")
    if table not in store.key_filters or store.key_filters[table].crowded:
        store.key_filters[table] = KeyFilter(store.frame(f"SELECT key_hash FROM {table}")["key_hash"])
    wanted = keys.filter(pl.Series(store.key_filters[table].maybe(keys["key_hash"])))
    since = rows - OF_LATE
    late = _at(store, table, _search(store, table, wanted["key_hash"], f"AND t.rowid >= {since}"))
    older = wanted.join(late, on=keys.columns, how="anti")["key_hash"]
    if since <= 0 or not len(older):
        return late
    return pl.concat([_at(store, table, _search(store, table, older, f"AND t.rowid < {since}")), late])


def of_journal(store: Store, table: str, key_hashes: pl.Series, since: datetime) -> pl.DataFrame:
    """The rows of a journal with these hashes of keys, with their `row_id`. None was recorded before `since`."""
    recorded = f"AND t.recorded_at >= TIMESTAMP '{since}'"
    if _rows(store, table) <= _SCANNED_WHOLE:
        return _whole(store, table, key_hashes, recorded)
    return _at(store, table, _search(store, table, key_hashes, recorded))


def _rows(store: Store, table: str) -> int:
    """How many rows there are, deleted ones included; an estimate, on which only the cost depends."""
    [(rows,)] = store.rows(f"SELECT estimated_size FROM duckdb_tables() WHERE table_name = '{table}'")
    return int(rows)


def _whole(store: Store, table: str, key_hashes: pl.Series, condition: str, columns: str = ", t.*") -> pl.DataFrame:
    with store.given(wanted=key_hashes.to_frame("key_hash")):
        return store.frame(
            f"SELECT t.rowid AS row_id{columns} FROM {table} t"
            f" WHERE t.key_hash IN (SELECT key_hash FROM wanted) {condition}"
        )


def _search(store: Store, table: str, key_hashes: pl.Series, condition: str) -> pl.Series:
    """The numbers of the rows with these hashes, ascending."""
    return _whole(store, table, key_hashes, condition, columns="")["row_id"].sort()


def _at(store: Store, table: str, row_ids: pl.Series) -> pl.DataFrame:
    """The rows with these numbers, ascending. Where many lie near each other all between them is scanned."""
    found = row_ids.to_frame("row_id").with_columns(span=(pl.col("row_id").diff() > _APART).fill_null(False).cum_sum())
    spans = found.group_by("span").agg(
        first=pl.col("row_id").min(), last=pl.col("row_id").max(), rows=pl.len().cast(pl.Int64)
    )
    dense = spans.filter(pl.col("rows") * _SCANNED_FOR_ONE > pl.col("last") - pl.col("first") + _APART)
    select = f"SELECT t.rowid AS row_id, t.* FROM {table} t"
    parts = []
    with store.given(found=found):
        for first, last in dense.select("first", "last").iter_rows():
            between = f"t.rowid BETWEEN {first} AND {last} AND t.rowid IN (SELECT row_id FROM found)"
            parts.append(store.frame(f"{select} WHERE {between}"))
    single = found.join(dense, on="span", how="anti")["row_id"]
    with store.filters_pushed_down():
        for at in range(0, len(single) if parts else max(1, len(single)), _PUSHED_DOWN):
            numbers = single[at : at + _PUSHED_DOWN].to_list()
            parts.append(
                store.frame(f"{select} WHERE t.rowid IN (SELECT unnest($numbers::BIGINT[]))", {"numbers": numbers})
            )
    return pl.concat(parts)
