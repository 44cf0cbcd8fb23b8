"""From the changes of the parts of a metric to contributions to the change of the metric.

Always true: the contributions of a currency add up to `after` less `before`, exactly. For a sum of parts, a line
contributes the change of the sum. For a quotient, see `analysis.decomposition.quotient_weights`. In a formula that is
no sum (`greatest`), the lines are applied one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from coupon_ledger.analysis.decomposition import Quotient, quotient_weights
from coupon_ledger.questions.changes.formula import Formula, Parts

_NONE = Fraction(0)


@dataclass
class Line:
    """One cause, in one slice: by how much it changes the parts, and the events behind it. `metric`: the metric that
    the cause is about, if it is about one."""

    cause: str
    slice: object = None
    parts: dict[str, Fraction] = field(default_factory=dict)
    contribution: Fraction | None = None
    events: int | None = None
    metric: str | None = None


def contribute(formula: Formula, before: Parts, after: Parts, lines: Sequence[Line]) -> None:
    """Set the contribution of each line. None if the metric has no value on one side."""
    weights = _weights(formula, before, after)
    if weights is None:
        return
    reached: dict[str, Fraction | None] = {name: value or _NONE for name, value in before.items()}
    for line in lines:
        moved = {name: (value or _NONE) + line.parts.get(name, _NONE) for name, value in reached.items()}
        of = _difference(formula.numerator(moved), formula.numerator(reached))
        per = _difference(formula.denominator(moved), formula.denominator(reached))
        line.contribution = weights[0] * of + weights[1] * per
        reached = dict(moved)


def _weights(formula: Formula, before: Parts, after: Parts) -> tuple[Fraction, Fraction] | None:
    sides = []
    for parts in (before, after):
        of, per = formula.numerator(parts), formula.denominator(parts)
        if of is None or not per:
            return None
        sides.append(Quotient(of, per))
    return quotient_weights(*sides)


def _difference(now: Fraction | None, before: Fraction | None) -> Fraction:
    return (now or _NONE) - (before or _NONE)


def change_of(formula: Formula, before: Parts, after: Parts) -> Fraction | None:
    old, new = formula.value(before), formula.value(after)
    return None if old is None or new is None else new - old


def unexplained(before: Parts, after: Parts, lines: Sequence[Line]) -> dict[str, Fraction]:
    """By how much the changes of the parts in `lines` fall short of the whole change, for each part with a value on
    both sides."""
    rest = {}
    for name, old in before.items():
        new = after.get(name)
        if old is not None and new is not None:
            missing = new - old - sum((line.parts.get(name, _NONE) for line in lines), _NONE)
            if missing:
                rest[name] = missing
    return rest


def summed(parts: Sequence[Mapping[str, Fraction | None]], names: Sequence[str]) -> dict[str, Fraction]:
    """The sums of the parts `names`; a part without a value counts as 0."""
    return {name: sum((one.get(name) or _NONE for one in parts), _NONE) for name in names}
