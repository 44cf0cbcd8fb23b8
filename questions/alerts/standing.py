"""The violations that count, with the money at stake in each, for rules of kind `violation`.

Always true: `Standing.read` gives what a first reading would give. Rows of tables are replaced, never updated, so a row
that changed has a row number above all earlier ones. After the first reading, only the violations of keys on which
something changed are read again:
- keys with a violation that was added or removed;
- coupons and orders whose own row changed, and orders of whose coupons one changed;
- keys with a violation that was or is provisional, and with a `wrong_user` one of whose users is linked anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.live.signature import stable_hash

_MOST_AGAIN: Final = 200_000
"""If more keys changed, everything is read again."""
_ROWS: Final = {"row_id": pl.Int64, "key_hash": pl.Int64}
_NEEDED: Final = {"needed": pl.Int64, "key_hash": pl.Int64}


@dataclass(frozen=True, slots=True)
class _Marks:
    """What a change of the tables changes. `file`: the generation of the database. The others: the highest row number
    of a table; for tables whose rows are removed without others taking their place, the number of rows before it."""

    file: str
    violations: tuple[int, int]
    persons: tuple[int, int]
    coupons: int
    sales: int
    orders: int


class Standing:
    """The violations that count, kept in memory between evaluations. For use by one thread at a time."""

    def __init__(self) -> None:
        self._marks: _Marks | None = None
        self._ids = pl.DataFrame(schema=_ROWS)
        self._needs = pl.DataFrame(schema=_NEEDED)
        self._provisional = pl.Series(dtype=pl.Int64)
        self._rows = pl.DataFrame()

    def read(self, reading: Reading, codes: Sequence[str]) -> pl.DataFrame:
        """The violations that count in the state that `reading` sees: the rows of standing_coupons.sql and
        standing_orders.sql. `codes`: only these; none: all."""
        self._refresh(reading)
        return self._rows.filter(pl.col("code").is_in(list(codes))) if codes else self._rows

    def _refresh(self, reading: Reading) -> None:
        before, marks = self._marks, _marks(reading)
        self._marks = None  # if reading fails, the next one is a first reading
        ids = self._ids if before is not None and before.violations == marks.violations else _ids(reading)
        provisional = reading.frame(_PROVISIONAL)["key_hash"]
        changed = None
        if before is not None and marks.file == before.file:
            changed = self._changed(reading, before, marks, ids, provisional)
        if changed is None or len(changed) > _MOST_AGAIN:
            self._rows, self._needs = _read(reading, None)
        elif len(changed):
            again = changed.implode()
            rows, needs = _read(reading, changed)
            self._rows = pl.concat([self._rows.filter(~pl.col("key_hash").is_in(again)), rows])
            self._needs = pl.concat([self._needs.filter(~pl.col("key_hash").is_in(again)), needs])
        self._marks, self._ids, self._provisional = marks, ids, provisional

    def _changed(
        self, reading: Reading, before: _Marks, marks: _Marks, ids: pl.DataFrame, provisional: pl.Series
    ) -> pl.Series:
        """The keys whose violations have to be read again."""
        parts = [self._provisional, provisional]
        if ids is not self._ids:
            for one, other in ((self._ids, ids), (ids, self._ids)):
                parts.append(one.join(other, on=["row_id", "key_hash"], how="anti")["key_hash"])
        # The highest row numbers are lower than before if the last rows were deleted.
        above = {name: min(getattr(before, name), getattr(marks, name)) for name in ("coupons", "sales", "orders")}
        touched = reading.frame(_TOUCHED, above)["key_hash"].unique()
        parts.append(ids.filter(pl.col("key_hash").is_in(touched.implode()))["key_hash"])
        parts.append(self._needs.filter(pl.col("needed").is_in(touched.implode()))["key_hash"])
        if marks.persons != before.persons:
            added = marks.persons[0] - before.persons[0] == marks.persons[1] - before.persons[1]
            above_persons = before.persons[1] if added else -1
            parts.append(reading.frame(_RELINKED, {"persons": above_persons, "all": not added})["key_hash"])
        return pl.concat(parts).unique()


def _ids(reading: Reading) -> pl.DataFrame:
    return reading.frame("SELECT rowid AS row_id, key_hash FROM violations")


def _marks(reading: Reading) -> _Marks:
    [row] = reading.rows(_MARKS)
    file, violations, last_violation, persons, last_person, *others = row
    return _Marks(str(file), (violations, last_violation), (persons, last_person), *others)


_MARKS: Final = """
    SELECT (SELECT path FROM duckdb_databases() WHERE database_name = current_database()),
           (SELECT count(*) FROM violations), (SELECT coalesce(max(rowid), -1) FROM violations),
           (SELECT count(*) FROM persons), (SELECT coalesce(max(rowid), -1) FROM persons),
           (SELECT coalesce(max(rowid), -1) FROM coupons), (SELECT coalesce(max(rowid), -1) FROM coupon_sales),
           (SELECT coalesce(max(rowid), -1) FROM orders)
"""
_PROVISIONAL: Final = """
    SELECT DISTINCT key_hash FROM violations
    WHERE trigger_recorded_at > (
        SELECT min(complete_until) FROM partition_progress WHERE topic IN ('coupon.events', 'order.events'))
"""
_TOUCHED: Final = """
    SELECT key_hash FROM coupons WHERE rowid > $coupons
    UNION ALL SELECT key_hash FROM coupon_sales WHERE rowid > $sales
    UNION ALL SELECT order_hash FROM coupon_sales WHERE rowid > $sales
    UNION ALL SELECT key_hash FROM orders WHERE rowid > $orders
"""
_RELINKED: Final = """
    SELECT DISTINCT v.key_hash FROM violations v
    WHERE v.violation = 'wrong_user'
      AND ($all OR v.user_id IN (SELECT user_id FROM persons WHERE rowid > $persons)
           OR v.owner IN (SELECT user_id FROM persons WHERE rowid > $persons))
"""


def _read(reading: Reading, keys: pl.Series | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The violations of these keys (None: all), and for those of orders, which coupons they depend on."""
    chosen = pl.DataFrame({"key_hash": pl.Series([], dtype=pl.Int64) if keys is None else keys})
    with reading.given(chosen=chosen):
        bound = {"everything": keys is None}
        coupons = reading.frame(_query("standing_coupons"), bound)
        orders = reading.frame(_query("standing_orders"), bound)
    needs = orders.select("key_hash", needed="needed_coupons").explode("needed").drop_nulls()
    hashed = needs.select(needed=pl.Series(stable_hash(needs["needed"]), dtype=pl.Int64), key_hash="key_hash")
    return pl.concat([coupons, orders.drop("needed_coupons")]), hashed.unique()


def _query(name: str) -> str:
    return sql(__package__, name)
