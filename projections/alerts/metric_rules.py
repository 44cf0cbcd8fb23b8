"""Metric rules: a bucket of a metric is unusual for its season, trend and level, or unlike the last sale of its kind.

Each slice is a series of its own, read by a `Detector`. A series begins with the first bucket in which its slice has
events, and is forgotten after eight weeks or 2,000 buckets without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from coupon_ledger.analysis.detector import Detector
from coupon_ledger.projections.alerts.buckets import NOTHING, Buckets, Closed, Slice, Sums
from coupon_ledger.projections.alerts.chunk import Released, instant, micros
from coupon_ledger.projections.alerts.episodes import Episodes, micros_of
from coupon_ledger.projections.alerts.evaluator import Stored
from coupon_ledger.projections.alerts.measures import MEASURES, SLICES
from coupon_ledger.projections.alerts.rules import Metric, Rule, Sale
from coupon_ledger.projections.connection import Reading

MOST_SERIES: Final = 2_000
_FORGOTTEN: Final = micros_of(timedelta(weeks=8))
_FORGOTTEN_BUCKETS: Final = 2_000


class MetricRules(Stored):
    """The metric rules of one topic."""

    def __init__(self, topic: str, rules: Iterable[tuple[Rule, Episodes]]) -> None:
        self._rules = [
            _MetricRule(rule, rule.expr, episodes, topic)
            for rule, episodes in rules
            if isinstance(rule.expr, Metric) and MEASURES[rule.expr.metric].topic == topic
        ]

    @property
    def columns(self) -> set[str]:
        return {column for rule in self._rules for column in rule.columns}

    def restore(self, reading: Reading, clock: int | None) -> None:
        for rule in self._rules:
            rule.restore(reading, clock)

    def see(self, reading: Reading, piece: Released) -> None:
        for rule in self._rules:
            rule.see(piece)

    @property
    def buckets(self) -> list[Buckets]:
        return [rule.buckets for rule in self._rules]


@dataclass(slots=True)
class _Series:
    """`latest`: the last bucket with events. `sale_values`: by bucket, the values during announced sales."""

    detector: Detector
    latest: int
    sale_values: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The value of a series in a bucket, and the band that it was expected in."""

    key: Slice
    value: float
    low: float
    high: float
    score: float
    sale: Sale | None


class _MetricRule:
    def __init__(self, rule: Rule, of: Metric, episodes: Episodes, topic: str) -> None:
        self._of = of
        self._measure = MEASURES[of.metric]
        self._slices = tuple(SLICES[topic][name] for name in of.by)
        self._episodes = episodes
        self._series: dict[Slice, _Series] = {}
        self._sales = _Sales(of.sales if of.calendar else ())
        length = micros_of(of.bucket)
        self._patience = min(_FORGOTTEN // length, _FORGOTTEN_BUCKETS)
        self.buckets = Buckets(rule, self._measure, self._slices, length, self._patience)

    @property
    def columns(self) -> set[str]:
        return {*self._measure.columns, *self._slices}

    def restore(self, reading: Reading, clock: int | None) -> None:
        """Learn again from all stored buckets."""
        self.buckets.restore(reading, clock)
        for number, sums in self.buckets.history(reading, -(2**62)):
            self._judged(number, sums)

    def see(self, piece: Released) -> None:
        for closed in self.buckets.see(piece):
            for judged in self._judged(closed.number, closed.sums):
                if judged.score >= self._of.score and self._far(judged):
                    self._true(closed, judged)
            self._episodes.advance(closed.at)

    def _judged(self, number: int, sums: Mapping[Slice, Sums]) -> list[_Judged]:
        """Step all series by one bucket."""
        for key in sums:
            if key not in self._series and len(self._series) < MOST_SERIES:
                self._series[key] = _Series(Detector(floor=self._measure.floor), number)
        judged = []
        for key, series in list(self._series.items()):
            if key in sums:
                series.latest = number
            elif number - series.latest > self._patience:
                del self._series[key]
                continue
            judged.append(self._step(number, key, series, sums.get(key, NOTHING)))
        return judged

    def _step(self, number: int, key: Slice, series: _Series, sums: Sums) -> _Judged:
        value, trials = sums.of, math.nan
        if self._measure.per is not None:
            value, trials = (sums.of / sums.per, sums.per) if sums.per else (math.nan, 0.0)
        start = number * self.buckets.length
        sale = self._sales.at(start, dict(zip(self._of.by, key, strict=True)))
        reading = series.detector.step(instant(start), value, trials, announced=sale is not None)
        if sale is None:
            return _Judged(key, value, reading.low, reading.high, reading.score, None)
        series.sale_values[number] = value
        last_time = self._last_time(series, sale, start)
        return _Judged(key, value, last_time, last_time, 1.0, sale)

    def _last_time(self, series: _Series, sale: Sale, start: int) -> float:
        """The value at the same time of the last sale like this one; NaN if there was none."""
        before = self._sales.like(sale)
        if before is None:
            return math.nan
        then = micros(_naive(before.starts)) + start - micros(_naive(sale.starts))
        return series.sale_values.get(then // self.buckets.length, math.nan)

    def _far(self, judged: _Judged) -> bool:
        """Whether the value is far enough outside the band: both a share of its middle and an absolute distance."""
        if math.isnan(judged.value) or math.isnan(judged.low):
            return False
        above = judged.value - judged.high if self._of.direction != "down" else -math.inf
        below = judged.low - judged.value if self._of.direction != "up" else -math.inf
        far, middle = max(above, below), abs(judged.low + judged.high) / 2
        return far > 0 and far >= self._of.absolute and far >= self._of.relative * middle

    def _true(self, closed: Closed, judged: _Judged) -> None:
        details: dict[str, Any] = {
            "metric": self._of.metric,
            "bucket": instant(closed.number * self.buckets.length).isoformat() + "Z",
            "expected_low": judged.low,
            "expected_high": judged.high,
            "score": round(judged.score, 4),
            "measured": judged.value,
        }
        if judged.sale is not None:
            details["sale"] = judged.sale.name
        less = judged.value < judged.low
        self._episodes.true(
            tuple(zip(self._of.by, judged.key, strict=True)),
            closed.at,
            closed.place,
            judged.value,
            judged.low if less else judged.high,
            details,
            less_is_worse=less,
        )


class _Sales:
    """The announced sales of a rule."""

    def __init__(self, sales: Iterable[Sale]) -> None:
        self._sales = sorted(sales, key=lambda sale: sale.starts)

    def at(self, us: int, key: Mapping[str, str]) -> Sale | None:
        """The sale that goes on at this instant and concerns the slice."""
        for sale in self._sales:
            if micros(_naive(sale.starts)) <= us < micros(_naive(sale.ends)):
                campaign = key.get("campaign")
                if campaign is None or not sale.campaigns or campaign in sale.campaigns:
                    return sale
        return None

    def like(self, sale: Sale) -> Sale | None:
        """The last sale before this one that it names as its like."""
        before = [s for s in self._sales if s.name == sale.like and s.starts < sale.starts]
        return before[-1] if before else None


def _naive(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
