"""Answers of one row that has lists in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupon_ledger.reports.text import Row

if TYPE_CHECKING:
    import polars as pl

    from coupon_ledger.questions.registry import Answer


def with_lists(answer: Answer) -> tuple[Row, dict[str, pl.DataFrame]]:
    """Split an answer of one row. Returns its plain values, by column, and its lists of structs as tables, by column.

    A list that is null becomes an empty table, and its column is also among the plain values, as None. This tells a
    null list from an empty one.
    """
    import polars as pl

    frame = next(answer.frames)
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List) and dtype.inner == pl.Struct]
    tables = {}
    for name in lists:
        rows = frame[name][0]
        empty = pl.Series(name, [], dtype=frame.schema[name].inner)  # type: ignore[attr-defined]
        tables[name] = (empty if rows is None else rows).struct.unnest()
    nulls = {name: None for name in lists if frame[name][0] is None}
    return frame.drop(lists).row(0, named=True) | nulls, tables
