"""How the columns of tables are shown to people: headings with units, cells, alignment, and the order of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from coupon_ledger.ledger.amounts import NOTHING, decimals
from coupon_ledger.reports.labels import kind, label, label_of_texts, say, shown
from coupon_ledger.reports.text import Row

_RIGHT: Final = frozenset({"money", "share", "bp", "factor", "factor_bp", "p", "seconds", "count", "number", "name"})


class Column:
    """A column as it is shown. `head`: the heading, with the unit. `cells`: the formatted values. `kinds`: the kinds of
    these values (see `labels.kind`). `right`: whether the cells are right-aligned.

    `currency`: the currency of amounts in rows that name none. `of_all`: the currency that all amounts of the table
    share, which is then shown in the heading; None if they do not share one.
    """

    def __init__(self, name: str, rows: Sequence[Row], currency: str | None, of_all: str | None) -> None:
        self.name = name
        self.kinds = {kind(name, row) for row in rows if row.get(name) is not None}
        one_unit = self.kinds == {"money"} and of_all is not None
        self.cells = [shown(name, row, currency, bare=one_unit) if name in row else NOTHING for row in rows]
        self.right = (bool(self.kinds) and self.kinds <= _RIGHT) or name.startswith("+")
        named = label_of_texts(name) if self.kinds == {"text"} else label(name)
        self.head = named + (f" ({_unit(of_all)})" if one_unit and of_all is not None else "")


def columns_of(
    rows: Sequence[Row], names: Sequence[str], currency: str | None = None, named: bool = False
) -> list[Column]:
    """The columns `names` of the rows, as they are shown. If all amounts have one currency, their headings show it, and
    the column `currency` is left out unless the reader asked for it (`named`). `currency`: the currency of amounts in
    rows that name none."""
    one = _one_currency(rows, currency)
    if one is not None and not named and _amounts(rows, names):
        names = [name for name in names if name != "currency"]
    return [Column(name, rows, currency, one) for name in names]


def _one_currency(rows: Sequence[Row], currency: str | None) -> str | None:
    """The currency that all amounts share; "" if no amount has a known currency. None if the amounts have several
    currencies, or if there are no amounts."""
    currencies = {row.get("currency") or currency or "" for row in rows if _amounts([row], row)}
    return currencies.pop() if len(currencies) == 1 else None


def _amounts(rows: Sequence[Row], names: Iterable[str]) -> bool:
    return any(row.get(name) is not None and kind(name, row) == "money" for name in names for row in rows)


def _unit(currency: str) -> str:
    if decimals(currency) is not None:
        return currency
    minor = say("minor units")
    return f"{minor} {currency}" if currency not in ("", "XXX") else minor


_IN_TIME: Final = frozenset("day week month hour bucket cohort weekday hour_of_day".split())
"""If a table's first column has one of these names, its rows are sorted by time."""


def in_natural_order(rows: list[Row], names: Sequence[str]) -> list[Row]:
    """Sort the rows in natural order (2 before 10) by their first columns. Does so if the first column is a time, or if
    the rows are already sorted by these columns as text. Returns the rows unchanged otherwise."""
    if names and names[0] in _IN_TIME:
        return sorted(rows, key=lambda row: natural(str(row[names[0]])))
    for first in range(min(3, len(names)), 0, -1):
        by = names[:first]
        if not all(isinstance(row.get(name), str | None) for row in rows for name in by):
            continue
        keys = [tuple((row.get(name) is None, row.get(name) or "") for name in by) for row in rows]
        if keys == sorted(keys) and len(set(keys)) > 1:
            return sorted(rows, key=lambda row: tuple(natural(row.get(name)) for name in by))
    return rows


def natural(text: str | None) -> tuple[Any, ...]:
    """The sort key of a text in natural order, where runs of digits are compared as numbers. None is sorted last."""
    parts = re.split(r"([0-9]+)", text or "")
    return (text is None, *((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts))
