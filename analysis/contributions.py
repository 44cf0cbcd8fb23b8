"""What the parts of a total contributed to its distance from what was expected. The contributions add up to it.

A sum: a part is expected to have the share of the expectation that it had of the sum in an earlier period. Its
contribution is its value without that.

A ratio: each part changes it by its own rate and by its weight. With `A`, `B` the numerators and denominators now, `a`,
`b` those of an earlier period, scaled so that its ratio is the expected one `E`, the contribution of part `i` is
`B_i / B * (A_i / B_i - E) - b_i / b * (a_i / b_i - E)`: a part whose rate and weight are as before contributes nothing.
(The shift-share decomposition of a ratio into rate and mix effects, with both in one number for each part: Kitagawa,
"Components of a difference between two rates", 1955.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Final, NamedTuple, TypeVar

Part = TypeVar("Part")
_DECIMALS: Final = {"sum": 2, "ratio": 6}


class Sums(NamedTuple):
    """What a part adds to the numerator (`of`) and, for a ratio, to the denominator (`per`)."""

    of: float
    per: float = 0.0


@dataclass(frozen=True, slots=True)
class Contribution:
    """One part: its value, what was expected of it, and its contribution, in the unit of the total; rounded to two
    decimals for sums and six for ratios. `value` and `expected` are None for a ratio without a denominator."""

    value: float | None
    expected: float | None
    contribution: float


def of_sums(now: Mapping[Part, Sums], before: Mapping[Part, Sums], expected: float) -> dict[Part, Contribution] | None:
    """The contribution of each part to the sum of `now` less `expected`; None if nothing was before that could say what
    is expected of which part."""
    base = sum(sums.of for sums in before.values())
    if not base and expected:
        return None
    scale = expected / base if base else 0.0
    parts = {part: (now.get(part, Sums(0)).of, before.get(part, Sums(0)).of * scale) for part in {**before, **now}}
    rounded = _rounded({part: value - usual for part, (value, usual) in parts.items()}, _DECIMALS["sum"])
    return {
        part: Contribution(round(value, 2), round(usual, 2), rounded[part]) for part, (value, usual) in parts.items()
    }


def of_ratios(
    now: Mapping[Part, Sums], before: Mapping[Part, Sums], expected: float
) -> dict[Part, Contribution] | None:
    """The contribution of each part to the ratio of `now` less `expected`; None if one of the ratios is not defined."""
    per, per_before = (sum(sums.per for sums in parts.values()) for parts in (now, before))
    of_before = sum(sums.of for sums in before.values())
    if not per or not per_before or (not of_before and expected):
        return None
    scale = expected * per_before / of_before if of_before else 0.0
    found, rates = {}, {}
    for part in {**before, **now}:
        mine, usual = now.get(part, Sums(0)), before.get(part, Sums(0))
        rates[part] = (_rate(mine.of, mine.per), _rate(usual.of * scale, usual.per))
        found[part] = (mine.of - expected * mine.per) / per - (usual.of * scale - expected * usual.per) / per_before
    rounded = _rounded(found, _DECIMALS["ratio"])
    return {part: Contribution(*rates[part], rounded[part]) for part in found}


def _rate(of: float, per: float) -> float | None:
    return round(of / per, _DECIMALS["ratio"]) if per else None


def _rounded(values: Mapping[Part, float], decimals: int) -> dict[Part, float]:
    """The values rounded so that they add up to their rounded sum, by the method of the largest remainder."""
    scaled = {part: value * 10**decimals for part, value in values.items()}
    whole = {part: floor(value) for part, value in scaled.items()}
    left = round(sum(scaled.values())) - sum(whole.values())
    by_remainder = sorted(scaled, key=lambda part: scaled[part] - whole[part], reverse=True)
    for part in by_remainder[:left]:
        whole[part] += 1
    return {part: value / 10**decimals for part, value in whole.items()}
