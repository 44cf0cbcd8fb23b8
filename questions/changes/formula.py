"""The formulas of metrics, computed exactly: with rationals instead of floating-point numbers.

A formula in metrics.toml is a sum of parts, or a quotient of two such sums (`… / nullif(…, 0)`). A test checks that
each of them can be read here.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from coupon_ledger.questions.metrics.definitions import Metric

Parts = Mapping[str, Fraction | None]

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


@dataclass(frozen=True)
class Formula:
    """A metric as a function of its parts. `per` is None if it is not a quotient."""

    of: ast.expr
    per: ast.expr | None = None

    @classmethod
    def of_metric(cls, metric: Metric) -> Formula:
        tree = ast.parse(metric.base or metric.name, mode="eval").body
        if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Div) and isinstance(tree.right, ast.Call):
            return cls(tree.left, tree.right.args[0])
        return cls(tree)

    def numerator(self, parts: Parts) -> Fraction | None:
        return _value(self.of, parts)

    def denominator(self, parts: Parts) -> Fraction | None:
        return Fraction(1) if self.per is None else _value(self.per, parts)

    def value(self, parts: Parts) -> Fraction | None:
        """The metric's value. None if a part is unknown, or if the denominator is 0."""
        of, per = self.numerator(parts), self.denominator(parts)
        return of / per if of is not None and per else None


def _value(tree: ast.expr, parts: Parts) -> Fraction | None:
    if isinstance(tree, ast.Name):
        return parts[tree.id]
    if isinstance(tree, ast.Constant):
        return Fraction(str(tree.value))
    if isinstance(tree, ast.BinOp):
        left, right = _value(tree.left, parts), _value(tree.right, parts)
        return None if left is None or right is None else _OPERATORS[type(tree.op)](left, right)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "greatest":
        values = [value for one in tree.args if (value := _value(one, parts)) is not None]
        return max(values, default=None)
    raise ValueError(f"formula: {ast.unparse(tree)} cannot be computed exactly")
