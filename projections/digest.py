"""Order-independent digests of the tables: the same facts give the same number, wherever they came from.

A row's digest is the MD5 of its columns as JSON; a table's is the sum of its rows' digests, as two 64-bit halves
modulo 2^64, with the number of rows. Rows in another order, another batch cut or another file change nothing; one
other value changes both halves.

*facts*: business columns only. *full*: every column, positions and book-keeping included; equal for the same log up
to the same positions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from projections.live import journal
from projections.store import Reading

_BOOK_KEEPING: Final = {
    "key_hash",
    "order_hash",
    "last_type",
    "ids_low",
    "ids_high",
    "first_recorded_at",
    *journal.POSITION,
}
_ROWS: Final = {COUPON: "coupons", ORDER: "orders", CAMPAIGN: "campaigns", USER: "users"}

FACTS: Final = (*(journal.JOURNAL[t] for t in INPUT_TOPICS), *_ROWS.values(), "violations")
"""Tables of facts. Conflicting contents are no facts: which of them stands depends on who came first."""
FULL: Final = (*FACTS, *(journal.CONFLICTS[t] for t in INPUT_TOPICS), "dead_letters", "checkpoints")

_LATER: Final = {
    names[topic]: journal.later_fields(topic)
    for names in (journal.JOURNAL, journal.CONFLICTS)
    for topic in INPUT_TOPICS
}
"""Columns that came with a later version of the schema: where they are null they are as if they were not there, so that
the same facts have the same digest in every release."""

_HALF: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Digest:
    """`facts` is None for a table that holds none."""

    table: str
    rows: int
    facts: str | None
    full: str


def digests(store: Reading) -> list[Digest]:
    """One digest a table, and as the last one, named `all`, that of all together."""
    found = [_of(store, table) for table in FULL]
    total = Digest(
        "all",
        sum(d.rows for d in found),
        _combined([f"{d.table} {d.facts}" for d in found if d.facts]),
        _combined([f"{d.table} {d.full}" for d in found]),
    )
    return [*found, total]


def facts_digest(store: Reading) -> str:
    """The digest of all facts together."""
    return digests(store)[-1].facts or ""


def _of(store: Reading, table: str) -> Digest:
    columns = store.frame(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND table_name = $table",
        {"table": table},
    )
    names = sorted(columns["column_name"].to_list())
    rows, full = _sum(store, table, names)
    facts = _sum(store, table, [n for n in names if n not in _BOOK_KEEPING])[1] if table in FACTS else None
    return Digest(table, rows, facts, full)


def _sum(store: Reading, table: str, names: list[str]) -> tuple[int, str]:
    later = [n for n in names if n in _LATER.get(table, ())]
    row = _json([n for n in names if n not in later])
    for name in later:
        row += f" || CASE WHEN {name} IS NULL THEN '' ELSE {_json([name])} END"
    query = f"""
        SELECT count(*), coalesce(sum(md5_number_lower(row)::HUGEINT), 0)::VARCHAR,
               coalesce(sum(md5_number_upper(row)::HUGEINT), 0)::VARCHAR
        FROM (SELECT {row} AS row FROM {table})
    """
    count, low, high = store.frame(query).row(0)
    return count, f"{int(high) % _HALF:016x}{int(low) % _HALF:016x}"


def _json(names: list[str]) -> str:
    return f"to_json(struct_pack({', '.join(f'{n} := {n}' for n in names)}))::VARCHAR"


def _combined(parts: list[str]) -> str:
    return hashlib.md5("\n".join(parts).encode(), usedforsecurity=False).hexdigest()
