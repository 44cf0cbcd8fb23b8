"""The detector: four ways in which a row can be unusual, each measured as a surprise, and their weighted sum.

1. *Season*: how far the value is from what it is at this time of the day or week (`seasons`).
2. *Shape*: how far the last 16 rows are from the nearest stretch of the past (`shapes`).
3. *Value*: how far the value is from the nearest that ever was.
4. *Level*: how far the mean of the last 6 rows is from the mean of everything before.

Always true: what a row gets depends on the rows up to it, so a prefix of a series has a prefix of its scores; a score
is in [0, 1]; a missing value has score 0 and teaches nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from coupon_ledger.analysis.detector.floors import Floor, binomial_surprise, poisson_surprise
from coupon_ledger.analysis.detector.seasons import Seasons
from coupon_ledger.analysis.detector.shapes import Nearest
from coupon_ledger.analysis.detector.tail import KEPT, Tail

THRESHOLD: Final = 0.5
WARM_UP: Final = 150
"""Rows with a value that are only learned from."""

_SHAPE_ROWS: Final = 16
_LEVEL_ROWS: Final = 6
_WEIGHTS: Final = (1.0, 1.0, 0.5, 0.5)
"""Of season, shape, value and level."""
_HALF: Final = 5.4
"""The weighted surprise with score 0.5."""
_LEAST: Final = 1e-9
_GRAIN: Final = 1e-6
"""A difference that means nothing, as a share of the value."""
_BAND: Final = 0.99
_SEEN: Final = 13
"""Values of a slot that its running mean is made of."""
_REST_SHARE: Final = 0.05
_REST_ROWS: Final = 50
_MORE: Final = 1.25
"""A row is news again if its surprise is so many times that of the last news."""
_UNUSUAL: Final = 3.0
"""A surprise below is never news."""
_REPEATED: Final = 0.3
"""What remains of a score that is no news."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`low`, `high`: the band that 99 of 100 values of this season lie in; NaN while none is known. A row can be
    unusual within it: by its shape. `score`: 0 to 1."""

    low: float
    high: float
    score: float


class Detector:
    """Reads one series, row by row in order of time. Memory and time per row are bounded by the last 40,000 rows."""

    def __init__(self, *, floor: Floor = "none", warm_up: int = WARM_UP) -> None:
        """`floor`: of counts (poisson) or of rates (binomial); no row scores higher than chance alone allows."""
        self._floor = floor
        self._warm_up = warm_up
        self._rows = 0
        self._seasons = Seasons()
        self._shape = Nearest(_SHAPE_ROWS)
        self._values = _Values()
        self._level = _Level()
        self._past = (Tail(), Tail(), Tail(), Tail())
        self._recent: deque[_Expected] = deque(maxlen=_LEVEL_ROWS)
        self._news = _News()
        self._trials = 0.0
        """The running mean of the trials."""

    def step(self, at: datetime, value: float, trials: float = math.nan, *, announced: bool = False) -> Reading:
        """The reading of the next row. `at`: without a zone, the clock that the seasons go by. `trials`: of a rate, for
        the binomial floor. `announced`: nothing is scored, nothing learned."""
        at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        season = self._seasons.best(at_s)
        forecast = season.forecast(at_s)
        low, high = self._band(forecast, trials)
        if math.isnan(value) or math.isinf(value) or announced:
            return Reading(low, high, 0.0)
        statistics = (
            abs(value - forecast),
            self._shape.step(value),
            self._values.distance(value),
            self._level.distance(value),
        )
        surprise = self._surprise(statistics, value)
        if self._floor != "none":
            surprise = min(surprise, self._chance(value, forecast, trials, season.count(at_s)))
        self._values.add(value)
        self._level.add(value)
        self._seasons.learn(at_s, self._proven(value, forecast, trials))
        self._rows += 1
        if self._rows <= self._warm_up:
            return Reading(low, high, 0.0)
        return Reading(low, high, self._news.score(surprise))

    def _surprise(self, statistics: Sequence[float], value: float) -> float:
        """The weighted sum of the surprises; each statistic joins its past."""
        grain = _GRAIN * abs(value) + _LEAST
        total = 0.0
        for statistic, past, weight in zip(statistics, self._past, _WEIGHTS, strict=True):
            if not math.isnan(statistic):
                total += weight * past.surprise(statistic, grain)
                past.add(statistic)
        return total

    def _proven(self, value: float, forecast: float, trials: float) -> float:
        """What the season learns: of a rate with fewer trials than usual, less."""
        if self._floor != "binomial" or not trials > 0:
            return value
        usual = self._trials or trials
        self._trials += (trials - self._trials) / (_SEEN if self._trials else 1)
        return value if math.isnan(forecast) else (value * trials + forecast * usual) / (trials + usual)

    def _band(self, forecast: float, trials: float) -> tuple[float, float]:
        half = self._past[0].quantile(_BAND)
        if self._floor == "poisson":
            half = max(half, 2.6 * math.sqrt(max(forecast, 0.0) + 1))
        elif self._floor == "binomial" and trials > 0:
            half = max(half, 2.6 * math.sqrt(max(forecast * (1 - forecast), 0.0) / trials))
        return forecast - half, forecast + half

    def _chance(self, value: float, forecast: float, trials: float, seen: int) -> float:
        """The most that the row and the rows just before can prove against chance."""
        expected = self._level.mean if math.isnan(forecast) else forecast
        if math.isnan(expected):
            return 0.0
        pseudo = 1 / min(max(seen, 1), _SEEN)  # of an event: a slot without any proves no rate of zero
        if self._floor == "poisson":
            row = _Expected(value, expected, pseudo, 1.0)
        elif trials > 0:
            row = _Expected(value * trials, expected * trials, pseudo, trials)
        else:
            return 0.0
        self._recent.append(row)
        return max(row.surprise(self._floor), sum(self._recent, _Expected(0.0, 0.0, 0.0, 0.0)).surprise(self._floor))


class _Expected(NamedTuple):
    """Events, how many were expected, part of an event to add to these, and trials."""

    events: float
    expected: float
    pseudo: float
    trials: float

    def __add__(self, other: object) -> _Expected:
        assert isinstance(other, _Expected)
        return _Expected(*(a + b for a, b in zip(self, other, strict=True)))

    def surprise(self, floor: Floor) -> float:
        expected = self.expected + (self.pseudo if self.events > self.expected else 0.0)
        if floor == "poisson":
            return poisson_surprise(self.events, expected) if self.events != self.expected else 0.0
        return binomial_surprise(self.events / self.trials, expected / self.trials, self.trials)


class _Values:
    """The values of the past, sorted."""

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._order: deque[float] = deque()

    def add(self, value: float) -> None:
        insort(self._sorted, value)
        self._order.append(value)
        if len(self._order) > KEPT:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]

    def distance(self, value: float) -> float:
        """To the nearest value of the past; NaN without one."""
        after = bisect_left(self._sorted, value)
        near = self._sorted[max(after - 1, 0) : after + 1]
        return min((abs(value - other) for other in near), default=math.nan)


class _Level:
    """The mean of the last rows, and of all before them."""

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._mean = 0.0
        self._count = 0

    @property
    def mean(self) -> float:
        """Of everything before the last rows; NaN without it."""
        return self._mean if self._count else math.nan

    def distance(self, value: float) -> float:
        """Between the two means, if `value` is the last of the last rows; NaN while there are too few."""
        if len(self._last) < _LEVEL_ROWS or not self._count:
            return math.nan
        return abs((math.fsum(self._last) - self._last[0] + value) / _LEVEL_ROWS - self._mean)

    def add(self, value: float) -> None:
        self._last.append(value)
        if len(self._last) > _LEVEL_ROWS:
            self._count += 1
            self._mean += max(1 / self._count, 1 / KEPT) * (self._last.popleft() - self._mean)


class _News:
    """Lowers the score of a row that is hardly more unusual than a row shortly before, so that one anomaly is one
    alert. *Shortly before* is within 5% of the rows so far, 50 at least: the longer a series is known, the longer a
    repeated anomaly is no news."""

    def __init__(self) -> None:
        self._row = 0
        self._last = (-math.inf, 0.0)
        """The latest row that was news, and its surprise."""

    def score(self, surprise: float) -> float:
        self._row += 1
        score = surprise / (surprise + _HALF)
        if surprise < _UNUSUAL:
            return score
        before, most = self._last
        if self._row - before <= max(_REST_ROWS, _REST_SHARE * self._row) and surprise <= _MORE * most:
            return _REPEATED * score
        self._last = (self._row, surprise)
        return score
