"""How surprising a statistic is against its own past.

A statistic is a number that is greater the more unusual a row is. Its surprise is -log10 of the probability that an
earlier value is at least as great: 2 for one in a hundred. Every statistic is thereby measured in the same unit,
whatever the unit of the series.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

import numpy as np

KEPT: Final = 20_000
"""Values of the past that count."""
_FIRST: Final = 20
"""No surprise before so many values are known."""
_TAIL: Final = 0.02
"""The share of the values that the tail is fitted to; below it, the rank says the probability."""
_FEWEST: Final = 3
_THINNEST: Final = 0.02
"""The least mean log excess, so that a tail of nearly equal values does not make every new maximum impossible."""
_MOST: Final = 12.0
LATE: Final = 24
"""Values join the past so many rows later, so that an anomaly that grows row by row does not become its own measure."""


class Tail:
    """The past values of one statistic, none of them negative."""

    def __init__(self, kept: int = KEPT, late: int = LATE) -> None:
        self._sorted: list[float] = []
        self._kept = kept
        self._late = late
        self._order: deque[float] = deque()

    def add(self, value: float) -> None:
        self._order.append(value)
        if len(self._order) > self._late:
            insort(self._sorted, self._order[-1 - self._late])
        if len(self._order) > self._kept:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def quantile(self, share: float) -> float:
        """The value below which this share of the past lies; 0 without a past."""
        return self._sorted[int(share * (len(self._sorted) - 1))] if self._sorted else 0.0

    def surprise(self, value: float, grain: float) -> float:
        """-log10 P(X >= value), between 0 and 12. `grain`: a difference that means nothing, in the statistic's unit.

        The rank among the past values; in the upper tail, where ranks end, a Pareto tail above the threshold u with
        Hill's estimate of the mean log excess: P = k/(n+1) exp(-log((x+grain)/(u+grain)) / mean) (Hill 1975, Annals of
        Statistics 3).
        """
        past = self._sorted
        n = len(past)
        if n < _FIRST:
            return 0.0
        above = n - bisect_left(past, value)
        probability = (above + 1) / (n + 1)
        k = max(int(_TAIL * n), _FEWEST)
        if above < k:
            threshold = past[n - k - 1] + grain
            excess = math.log((value + grain) / threshold)
            if excess > 0:
                probability = k / (n + 1) * math.exp(-excess / self._mean_excess(k, threshold, grain))
        return min(-math.log10(max(probability, 1e-300)), _MOST)

    def _mean_excess(self, k: int, threshold: float, grain: float) -> float:
        top = np.array(self._sorted[-k:])
        return max(float(np.log((top + grain) / threshold).mean()), _THINNEST)
