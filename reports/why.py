"""One sentence that says by how much a number changed, and the causes that changed it most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coupon_ledger.ledger.words import Note, note
from coupon_ledger.reports.text import Row

_MOST: Final = 4
"""Number of causes that the sentence names."""
_HEADS: Final = ("before", "after", "change")


def headline(rows: Sequence[Row], metric: str, unit: str, since: Note) -> Note:
    """The sentence for the rows of one currency. `unit`: that of the metric. `since`: what the earlier number is."""
    before, after, change = (_of(rows, head)[metric] for head in _HEADS)
    currency = rows[0].get("currency")

    def value(number: Any) -> Note:
        return _value(number, unit, currency)

    if change is None:
        return note("{metric:label} has no value on one of the sides, so no change can be given: {before} and {after}",
                    metric=metric, before=value(before), after=value(after))  # fmt: skip
    causes = _causes(rows, metric, unit, currency)
    values = {"metric": metric, "since": since, "after": value(after), "causes": causes}
    if not causes:
        return note("{metric:label} is {after}, as it was: nothing changed it {since}", **values)
    if not change:
        return note("{metric:label} is {after}, as it was; what changed {since} cancels out: {causes}", **values)
    values["amount"] = _difference(abs(change), unit, currency)
    if change > 0:
        return note("{metric:label} rose by {amount} {since}, to {after}: {causes}", **values)
    return note("{metric:label} fell by {amount} {since}, to {after}: {causes}", **values)


def _of(rows: Sequence[Row], cause: str) -> Row:
    return next(row for row in rows if row["cause"] == cause)


def _causes(rows: Sequence[Row], metric: str, unit: str, currency: str | None) -> list[Note]:
    """The largest causes, then what all others add up to."""
    lines = [row for row in rows if row["cause"] not in _HEADS and row[metric]]
    lines.sort(key=lambda row: -abs(row[metric]))
    shown = lines if len(lines) <= _MOST + 1 else lines[:_MOST]
    notes = [_cause(row, _difference(row[metric], unit, currency)) for row in shown]
    others = sum(row[metric] for row in lines[len(shown) :])
    return [*notes, *([note("{amount} others", amount=_difference(others, unit, currency))] if others else [])]


def _cause(row: Row, amount: Note) -> Note:
    of = row.get("slice")
    if of is None and row.get("metric") is not None:
        of = note("{metric:label}", metric=row["metric"])
    if of is None:
        return note("{amount} {cause:word}", amount=amount, cause=row["cause"])
    return note("{amount} {cause:word} ({of})", amount=amount, cause=row["cause"], of=of)


def _difference(number: Any, unit: str, currency: str | None) -> Note:
    """A difference of values. That of shares is in percentage points."""
    return note("{n:factor} percentage points", n=100 * number) if unit == "ratio" else _value(number, unit, currency)


def _value(number: Any, unit: str, currency: str | None) -> Note:
    if number is None:
        return note("{n}", n=None)
    if unit == "minor":
        return note("{amount:money}", amount=(round(number), currency))
    if unit == "ratio":
        return note("{n:percent}", n=number)
    return note("{n:count}", n=number) if isinstance(number, int) else note("{n:factor}", n=number)
