"""What chance alone makes of counts and rates: the least uncertainty that a value has, however regular the past was."""

from __future__ import annotations

import math
from typing import Final, Literal

Floor = Literal["none", "poisson", "binomial"]

_LEAST: Final = 1e-12


def poisson_surprise(count: float, expected: float) -> float:
    """How surprising `count` is if counts are Poisson with mean `expected`: -log10 of an upper bound (Chernoff's) on
    P(X >= count) if `count` is above the mean, on P(X <= count) if it is below. 0 if both are equal.

    P(X >= x) <= exp(-(x log(x/m) - x + m)) for x > m, and the same for P(X <= x), x < m (Boucheron, Lugosi and Massart
    2013, "Concentration Inequalities", section 2.2). The bound is never below the probability, so the surprise is never
    overstated."""
    count, expected = max(count, 0.0), max(expected, _LEAST)
    gained = count * math.log(count / expected) if count > 0 else 0.0
    return max(gained - count + expected, 0.0) / math.log(10)


def binomial_surprise(rate: float, expected: float, trials: float) -> float:
    """As `poisson_surprise`, of a rate of successes among `trials`: trials * KL(rate, expected) (Hoeffding 1963,
    Journal of the American Statistical Association 58, theorem 1)."""
    rate = min(max(rate, 0.0), 1.0)
    expected = min(max(expected, _LEAST), 1 - _LEAST)
    gained = rate * math.log(rate / expected) if rate > 0 else 0.0
    lost = (1 - rate) * math.log((1 - rate) / (1 - expected)) if rate < 1 else 0.0
    return max(trials * (gained + lost), 0.0) / math.log(10)
