"""Splits the difference of two numbers into contributions that add up to it exactly.

All numbers are rationals (`fractions.Fraction`), so nothing is rounded.

- `quotient_weights`: a quotient of two sums. It is the Shapley value of numerator and denominator, that is, the mean of
  the two orders in which they can be replaced (Shorrocks, "Decomposition procedures for distributional analysis: a
  unified framework based on the Shapley value", Journal of Economic Inequality 11, 2013; for two factors the same as
  the midpoint rule of Kitagawa, 1955).
- `mix_and_rate`: a quotient over slices. Each slice has a mix effect (its weight changed) and a rate effect (its own
  quotient changed), at the midpoint (Kitagawa, "Components of a difference between two rates", Journal of the American
  Statistical Association 50, 1955).
- `chain`: a product of rates, whose factors are replaced one after another, in order (chain substitution,
  as in factor analysis of accounts; in index theory, the sequential form of the Laspeyres and Paasche split).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, TypeVar

Slice = TypeVar("Slice")
_NONE = Fraction(0)


class Quotient(NamedTuple):
    """A numerator (`of`) and a denominator (`per`)."""

    of: Fraction
    per: Fraction

    @property
    def value(self) -> Fraction | None:
        return self.of / self.per if self.per else None


class MixAndRate(NamedTuple):
    mix: Fraction
    rate: Fraction


def quotient_weights(before: Quotient, after: Quotient) -> tuple[Fraction, Fraction]:
    """By what to multiply each change of the numerator, and each of the denominator, so that the products add up to the
    change of the quotient. Both denominators must differ from 0."""
    of = (1 / before.per + 1 / after.per) / 2
    per = -(before.of + after.of) / 2 / (before.per * after.per)
    return of, per


def mix_and_rate(before: Mapping[Slice, Quotient], after: Mapping[Slice, Quotient]) -> dict[Slice, MixAndRate]:
    """The mix and rate effect of each slice on the quotient of the sums over all slices. Both sums of denominators must
    differ from 0.

    The mix effect is measured against the mean of both quotients, so a slice that grows adds if its own quotient is
    above it. A slice that has no denominator on one side has the same quotient there as on the other.
    """
    sums = [Quotient(*(sum(column, _NONE) for column in zip(*side.values(), strict=True))) for side in (before, after)]
    mean = sum((one.of / one.per for one in sums), _NONE) / 2
    found = {}
    for name in dict.fromkeys((*before, *after)):
        sides = [side.get(name, Quotient(_NONE, _NONE)) for side in (before, after)]
        weights = [one.per / whole.per for one, whole in zip(sides, sums, strict=True)]
        rates = [one.value for one in sides if one.value is not None]
        rate = sum(rates, _NONE) / len(rates) if rates else mean
        moved = weights[1] - weights[0]
        whole = sides[1].of / sums[1].per - sides[0].of / sums[0].per - mean * moved
        mix = (rate - mean) * moved
        found[name] = MixAndRate(mix, whole - mix)
    return found


def chain(before: Sequence[Fraction], after: Sequence[Fraction]) -> list[Fraction] | None:
    """The contributions of the steps of a funnel to the change of its last number. `before`, `after`: the numbers of
    the funnel, from the first to the last. The last number is the first one times the rate from each number to the
    next. The first contribution is that of the first number, the others are those of the rates. None if a number but
    the last is 0, since a rate is then unknown."""
    if not all((*before[:-1], *after[:-1])):
        return None
    old, new = (_factors(numbers) for numbers in (before, after))
    values = []
    for replaced in range(len(old) + 1):
        value = Fraction(1)
        for factor in (*new[:replaced], *old[replaced:]):
            value *= factor
        values.append(value)
    return [later - earlier for earlier, later in pairwise(values)]


def _factors(numbers: Sequence[Fraction]) -> list[Fraction]:
    return [numbers[0], *(later / earlier for earlier, later in pairwise(numbers))]
