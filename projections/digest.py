"""Order-independent digests of the tables: equal facts have equal digests, whatever log or file they come from.

The digest of a row is the MD5 of its columns as JSON. The digest of a table consists of the number of rows and the sum
of the rows' digests, as two 64-bit halves modulo 2^64. The sum does not depend on the order of rows or on how the log
was split into batches. One changed value changes both halves.

Each table has up to two digests. *facts* covers the business columns only. *full* covers all columns, including
positions and book-keeping. Two databases that have read the same log to the same positions have equal full digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import polars as pl

from coupon_ledger.ledger.errors import UnknownTable
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live import journal
from coupon_ledger.projections.tables import IDENTITY

_BOOK_KEEPING: Final = {
    "key_hash",
    "order_hash",
    "last_type",
    "ids_low",
    "ids_high",
    "first_recorded_at",
    *journal.POSITION,
}
_DERIVED: Final = {"violations": {"user_id", "owner", "trigger_topic", "trigger_recorded_at"}}
"""By table, columns that are left out of its digest of facts, since they only repeat values of events: of the
violation's event, or of its counterpart's events."""
_AS_EVER: Final = {"orders": {"refunded_minor": "coalesce(refunded_minor, 0)"}}
"""By table and column, an expression that replaces the column in the digest of facts. With it, an order without refunds
has the same digest as an order with refunds of 0. The digests of their events differ."""
_ROWS: Final = {COUPON: "coupons", ORDER: "orders", CAMPAIGN: "campaigns", USER: "users"}

FACTS: Final = (*(journal.JOURNAL[t] for t in INPUT_TOPICS), *_ROWS.values(), "violations")
"""The tables that have a digest of facts. The tables of conflicts are not among them: which content becomes the fact,
and which one the conflict, depends on the order in which they were recorded."""
FULL: Final = tuple(dict.fromkeys((*FACTS, *IDENTITY)))
"""All tables that have a digest."""
ALL: Final = "all"
"""The name of the combined digest of several tables."""

BUCKETS: Final = 4096
"""Number of buckets into which `buckets` divides the rows of a table by the hashes of their keys."""
_LATER: Final = {
    names[topic]: journal.later_fields(topic)
    for names in (journal.JOURNAL, journal.CONFLICTS)
    for topic in INPUT_TOPICS
} | {"coupons": frozenset({"extended_at"}), "orders": frozenset({"repaid_at"})}
"""By table, the columns that a later release added. Their nulls are left out of the digest, so that equal facts have
equal digests in every release."""

_HALF: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Digest:
    """The digests of one table, in hexadecimal. `facts` is None if the table is not in `FACTS`."""

    table: str
    rows: int
    facts: str | None
    full: str


def digests(store: Reading, tables: Sequence[str] = FULL) -> list[Digest]:
    """The digests of each of these tables, followed by the combined digests of all of them, named `all`."""
    by_table = [_of(store, table) for table in tables]
    total = Digest(
        ALL,
        sum(d.rows for d in by_table),
        _combined([f"{d.table} {d.facts}" for d in by_table if d.facts]),
        _combined([f"{d.table} {d.full}" for d in by_table]),
    )
    return [*by_table, total]


def facts_digest(store: Reading) -> str:
    """The combined digest of all tables of facts."""
    return digests(store)[-1].facts or ""


def buckets(store: Reading, table: str) -> pl.DataFrame:
    """The full digest of each bucket of a table (`bucket`, `rows`, `digest`), to find where two databases differ. The
    bucket of a row depends on the hash of its key, or on its partition if the table has no such hash."""
    names = _columns(store, table)
    return store.frame(f"""
        SELECT {_bucket(names)} AS bucket, count(*) AS rows,
               sum(md5_number_lower(whole)::HUGEINT)::VARCHAR || ' ' || sum(md5_number_upper(whole)::HUGEINT)::VARCHAR
               AS digest
        FROM (SELECT *, {_row(table, names)} AS whole FROM {_known(table)}) GROUP BY bucket ORDER BY bucket
    """)


def rows_of(store: Reading, table: str, bucket: int) -> pl.DataFrame:
    """The rows of one bucket of a table, each as JSON in the column `row`."""
    names = _columns(store, table)
    return store.frame(
        f"SELECT {_json(names)} AS row FROM {_known(table)} WHERE {_bucket(names)} = $bucket ORDER BY row",
        {"bucket": bucket},
    )


def _known(table: str) -> str:
    if table not in FULL:
        raise UnknownTable(f"table {table}: has no digest; there are {', '.join(FULL)}")
    return table


def _bucket(names: list[str]) -> str:
    by = next((name for name in names if name.endswith("_hash")), "log_partition")
    return f"{by} & {BUCKETS - 1}"


def _columns(store: Reading, table: str) -> list[str]:
    columns = store.frame(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND table_name = $table",
        {"table": _known(table)},
    )
    return sorted(columns["column_name"].to_list())


def _of(store: Reading, table: str) -> Digest:
    names = _columns(store, table)
    apart = _BOOK_KEEPING | _DERIVED.get(table, set())
    facts = [n for n in names if n not in apart] if table in FACTS else names
    query = f"""
        SELECT count(*), {_sum("facts")}, {_sum("whole")}
        FROM (SELECT {_row(table, facts, _AS_EVER.get(table, {}))} AS facts, {_row(table, names)} AS whole FROM {table})
    """
    rows, *halves = store.frame(query).row(0)
    low, high, whole_low, whole_high = (int(half) % _HALF for half in halves)
    full = f"{whole_high:016x}{whole_low:016x}"
    return Digest(table, rows, f"{high:016x}{low:016x}" if table in FACTS else None, full)


def _row(table: str, names: list[str], instead: Mapping[str, str] = MappingProxyType({})) -> str:
    """The SQL expression for the text that represents a row and is hashed. `names`: the columns in the text. `instead`:
    by column, the expression to use instead of the column's value."""
    later = [n for n in names if n in _LATER.get(table, ())]
    row = _json([n for n in names if n not in later], instead)
    return row + "".join(f" || CASE WHEN {name} IS NULL THEN '' ELSE {_json([name])} END" for name in later)


def _json(names: list[str], instead: Mapping[str, str] = MappingProxyType({})) -> str:
    return f"to_json(struct_pack({', '.join(f'{n} := {instead.get(n, n)}' for n in names)}))::VARCHAR"


def _sum(row: str) -> str:
    halves = (f"coalesce(sum(md5_number_{half}({row})::HUGEINT), 0)::VARCHAR" for half in ("lower", "upper"))
    return ", ".join(halves)


def _combined(parts: list[str]) -> str:
    return hashlib.md5("\n".join(parts).encode(), usedforsecurity=False).hexdigest()
