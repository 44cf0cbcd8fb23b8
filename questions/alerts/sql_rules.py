"""Rules of kind `sql`: each row that the query returns is an offender.

The query is checked (`projections.alerts.safe_sql`) whenever it runs, not only when the rules are read, and runs in a
read-only transaction within limits (`bounded.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import duckdb
import polars as pl

from coupon_ledger.ledger.errors import LedgerError, RuleFailed, ValueOutOfRange
from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.words import Note, note, of_error
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule, Sql
from coupon_ledger.projections.alerts.safe_sql import refusal
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.questions.alerts.bounded import Exceeded, Limits, bounded

MOST: Final = 500
"""Number of offenders of one evaluation. Further rows of the query are not read."""
_LONGEST: Final = 500
_MOST_DETAILS: Final = 20


def offenders(cursor: Cursor, rule: Rule, clock: datetime, limits: Limits | None = None) -> list[Offender]:
    """Run the rule's query, inside the transaction of `cursor`, and return one offender per row, at most `MOST`. If the
    query has more rows, the details of each offender have `cut_at`, that number. `clock`: the data's clock (naive UTC).

    An offender's value is that of the column `value`, else 1; further columns become details. A column `currency` is
    the currency of the money. Of rows with the same key, only the first one counts.

    Raises `RuleFailed`, which names the rule. The transaction must then be ended.
    """
    of = rule.expr
    assert isinstance(of, Sql)
    refused = refusal(cursor, of.query)
    if refused is not None:
        raise _failed(rule, refused)
    rows = _rows(cursor, rule, of.query, limits or Limits(of.timeout.total_seconds()))
    _check_columns(rule, of, rows)
    cut = {"cut_at": MOST} if rows.height > MOST else {}
    found: dict[tuple[tuple[str, str], ...], Offender] = {}
    for row in rows.head(MOST).iter_rows(named=True):
        offender = _offender(rule, of, row, clock, cut)
        found.setdefault(tuple(offender.key.items()), offender)
    return list(found.values())


def _rows(cursor: Cursor, rule: Rule, query: str, limits: Limits) -> pl.DataFrame:
    """The first rows of the query, one more than `MOST` at most."""
    try:
        with bounded(cursor, limits):
            return _first(cursor.batches(query, rows=MOST + 1))
    except Exceeded as error:
        raise _failed(rule, error.why) from error
    except ValueOutOfRange as error:  # the query asks for that value, so DuckDB's own words say what is wrong
        raise _failed(rule, note("fails ({why}); correct it", why=_first_line(error.__cause__ or error))) from error
    except LedgerError as error:
        raise _failed(rule, note("fails ({why}); correct it", why=of_error(error))) from error
    except (duckdb.Error, pl.exceptions.PolarsError) as error:
        raise _failed(rule, note("fails ({why}); correct it", why=_first_line(error))) from error


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:_LONGEST]


def _first(pieces: Iterator[pl.DataFrame]) -> pl.DataFrame:
    taken: list[pl.DataFrame] = []
    number = 0
    for piece in pieces:
        taken.append(piece.head(MOST + 1 - number))
        number += taken[-1].height
        if number > MOST:
            break
    return pl.concat(taken)


def _check_columns(rule: Rule, of: Sql, rows: pl.DataFrame) -> None:
    named = (*of.key, *(name for name in (of.value, of.money) if name))
    absent = [name for name in named if name not in rows.columns]
    if absent:
        raise _failed(
            rule,
            note("returns no column {absent}; it returns {columns}", absent=absent, columns=rows.columns[:50]),
        )


def _offender(rule: Rule, of: Sql, row: dict[str, Any], clock: datetime, cut: dict[str, Any]) -> Offender:
    special = {*of.key, of.value, of.money, "currency"}
    rest = [(name, value) for name, value in row.items() if name not in special]
    details = {name: _short(plain(value)) for name, value in rest[:_MOST_DETAILS]}
    money = None if of.money is None else _number(rule, of.money, row[of.money])
    currency = row.get("currency")
    return Offender(
        key={name: _text(row[name]) for name in of.key},
        value=1.0 if of.value is None else _number(rule, of.value, row[of.value]) or 0.0,
        threshold=0.0,
        since=clock,
        money_minor=None if money is None else round(money),
        currency=None if currency is None or money is None else _text(currency)[:3],
        details=details | cut,
    )


def _number(rule: Rule, column: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        shown = str(_short(plain(value)))
        raise _failed(
            rule, note("returns {value} in {column}, which is no number; correct it", value=shown, column=column)
        )
    return number


def _text(value: Any) -> str:
    return "" if value is None else str(plain(value))[:_LONGEST]


def _short(value: Any) -> Any:
    """The value as JSON types; what is long, as the beginning of its text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)[:_LONGEST]


def _failed(rule: Rule, why: Note) -> RuleFailed:
    return RuleFailed(note("rule {rule}: its query {why}", rule=rule.name, why=why))
