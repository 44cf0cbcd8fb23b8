"""Threshold rules: a metric over a sliding window against a fixed value, against itself one period before, or against
a target or plan.

Windows move in steps of the rule's `every`. A step is judged when its last bucket is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np

from coupon_ledger.projections.alerts.buckets import Buckets, Closed, Slice, runs
from coupon_ledger.projections.alerts.chunk import Place, Released, instant
from coupon_ledger.projections.alerts.episodes import Episodes, micros_of
from coupon_ledger.projections.alerts.evaluator import Stored
from coupon_ledger.projections.alerts.measures import MEASURES, SLICES
from coupon_ledger.projections.alerts.planned import Plan
from coupon_ledger.projections.alerts.rules import Rule, Threshold
from coupon_ledger.projections.alerts.terms import Floats, Terms
from coupon_ledger.projections.alerts.window_sums import Windows, WindowSums
from coupon_ledger.projections.connection import Reading

BEFORE: Final[Mapping[str, tuple[timedelta, ...]]] = {
    "last_hour": (timedelta(hours=1),),
    "last_day": (timedelta(days=1),),
    "last_week": (timedelta(weeks=1),),
    "last_year": (timedelta(days=364),),
    "last_7_days": tuple(timedelta(days=day) for day in range(1, 8)),
}
"""How far back the windows are that a window is compared with. A year is 52 whole weeks, so that days of the week are
compared with their like."""
_CELLS: Final = 500_000
"""So many buckets times slices are judged at once, about."""
_BASIS_POINTS: Final = 10_000
"""Targets of ratios are set in basis points."""


class ThresholdRules(Stored):
    """The threshold rules of one topic."""

    def __init__(self, topic: str, rules: Iterable[tuple[Rule, Episodes]]) -> None:
        self._rules = [
            _ThresholdRule(rule, rule.expr, episodes, topic)
            for rule, episodes in rules
            if isinstance(rule.expr, Threshold) and MEASURES[rule.expr.metric].topic == topic
        ]

    @property
    def columns(self) -> set[str]:
        return {column for rule in self._rules for column in rule.columns}

    def restore(self, reading: Reading, clock: int | None) -> None:
        for rule in self._rules:
            rule.restore(reading, clock)

    def see(self, reading: Reading, piece: Released) -> None:
        for rule in self._rules:
            rule.see(reading, piece)

    @property
    def buckets(self) -> list[Buckets]:
        return [rule.buckets for rule in self._rules]


class _ThresholdRule:
    """One rule. Its buckets are judged many at once, in arrays with a row per bucket and a column per slice."""

    def __init__(self, rule: Rule, of: Threshold, episodes: Episodes, topic: str) -> None:
        self._of = of
        self._measure = MEASURES[of.metric]
        self._slices = tuple(SLICES[topic][name] for name in of.by)
        self._episodes = episodes
        length = micros_of(rule.every)
        self._window = max(1, micros_of(of.window) // length)
        self._backs = [micros_of(back) // length for back in BEFORE.get(of.against or "", ())]
        self._patience = self._window + max(self._backs, default=0)
        self._plan = Plan(of.plan, of.by, is_rate=self._measure.per is not None)
        self._targets: Terms | None = None
        start, end = self._plan.span
        planned = range(start // length, -(-end // length))
        self.buckets = Buckets(rule, self._measure, self._slices, length, self._patience, always=planned)
        self._always = tuple(self._plan.slices) if self._slices else ((),)
        """The slices that are judged without events, too."""
        self._sums = WindowSums(self._always)
        self._first: int | None = None
        """The first bucket with events."""

    @property
    def columns(self) -> set[str]:
        return {*self._measure.columns, *self._slices}

    def restore(self, reading: Reading, clock: int | None) -> None:
        self.buckets.restore(reading, clock)
        upto = self.buckets.next
        if upto is not None:
            self._first = self.buckets.first(reading)
            self._sums.add(self.buckets.stored(reading, upto - self._patience - 1, upto))

    def see(self, reading: Reading, piece: Released) -> None:
        if self._of.against == "target" and self._of.target is None:
            self._targets = _targets(reading, self._of.metric, piece.place(len(piece) - 1).recorded_at)
        at_once = max(20, _CELLS // max(1, len(self._sums.columns)))
        for closed in runs(self.buckets.see(piece), at_once):
            if self._first is None:
                self._first = next((one.number for one in closed if one.sums), None)
            self._sums.add([(one.number, one.sums) for one in closed])
            self._judge(piece, closed)
            self._sums.forget(closed[-1].number - self._patience)
            self._episodes.advance(closed[-1].at)

    def _judge(self, piece: Released, closed: Sequence[Closed]) -> None:
        """Judge buckets that follow one another."""
        numbers = range(closed[0].number, closed[-1].number + 1)
        now, *earlier = (self._sums.ending(numbers, self._window, back) for back in (0, *self._backs))
        # A slice is judged while there is something to compare, and once more when nothing is left.
        judged = np.logical_or.reduce([mask for one in (now, *earlier) for mask in (one.any, one.any_before)])
        judged[:, : len(self._always)] = True
        before = self._then(numbers, earlier, now.of.shape)
        value, expected = self._value(now), self._expected(piece, closed, before)
        bound = self._bound(value, expected)
        judged &= (self._evidence(now, before, expected) >= self._of.at_least) & ~np.isnan(value) & ~np.isnan(bound)
        keys = list(self._sums.columns)
        for row, found in groupby(np.argwhere(judged).tolist(), itemgetter(0)):
            place, until = closed[row].place, instant(closed[row].at).isoformat() + "Z"
            for _, column in found:
                figures = (float(array[row, column]) for array in (value, bound, expected))
                self._true(closed[row].at, place, until, keys[column], *figures)

    def _true(self, at: int, place: Place, until: str, key: Slice, value: float, bound: float, expected: float) -> None:
        details: dict[str, Any] = {"metric": self._of.metric, "until": until, "measured": value}
        if self._of.against is not None:
            change = round((value - expected) / abs(expected), 4) if expected else None
            details |= {"against": self._of.against, "before": expected, "change": change}
        named = tuple(zip(self._of.by, key, strict=True))
        self._episodes.true(named, at, place, value, bound, details, less_is_worse=value < bound)

    def _evidence(self, now: Windows, before: _Sums, expected: Floats) -> Floats:
        """How many events speak. Few instead of many are a finding; a rate of few, on either side, is none."""
        if self._measure.per is not None:
            return np.minimum(now.per, before.per) if self._backs else now.per
        return np.maximum(now.of, before.of if self._backs else np.where(np.isnan(expected), before.of, expected))

    def _then(self, numbers: range, earlier: Sequence[Windows], shape: tuple[int, ...]) -> _Sums:
        """The sums that each slice is compared with. Of several windows, the one with the middle value, among the
        latest of those that had a value once the topic had events; an odd number, so that there is a middle."""
        if len(earlier) < 2:
            return _Sums(earlier[0].of, earlier[0].per) if earlier else _Sums(np.zeros(shape), np.zeros(shape))
        first = 2**62 if self._first is None else self._first
        values = np.stack([self._value(windows) for windows in earlier])
        ends = np.array(numbers) - np.array(self._backs)[:, None]
        known = ~np.isnan(values) & (ends >= first)[:, :, None]
        many = known.sum(axis=0)
        odd = many - (many + 1) % 2
        known &= np.cumsum(known, axis=0) <= odd
        in_order = np.argsort(np.where(known, values, np.inf), axis=0, kind="stable")
        middle = np.take_along_axis(in_order, (np.maximum(odd, 0) // 2)[None], axis=0)
        of, per = (
            np.take_along_axis(np.stack(sums), middle, axis=0)[0]
            for sums in ([one.of for one in earlier], [one.per for one in earlier])
        )
        return _Sums(np.where(many > 0, of, 0.0), np.where(many > 0, per, 0.0))

    def _expected(self, piece: Released, closed: Sequence[Closed], before: _Sums) -> Floats:
        """What each value is compared with; NaN if there is nothing."""
        if self._of.against not in ("plan", "target"):
            return self._value(before)
        expected = np.full_like(before.of, np.nan if self._of.target is None else self._of.target)
        if self._of.against == "plan":
            length = self.buckets.length
            for key in self._plan.slices:
                ends = [(one.number + 1) * length for one in closed]
                planned = [self._plan.between(key, end - self._window * length, end) for end in ends]
                expected[:, self._sums.columns[key]] = planned
        elif self._targets is not None:
            recorded = piece.recorded_when(np.array([one.at for one in closed]))
            campaign = self._of.by.index("campaign")
            for key, column in self._sums.columns.items():
                expected[:, column] = self._targets.over(key[campaign], "target", recorded, missing=np.nan)
        return expected

    def _value(self, sums: Windows | _Sums) -> Floats:
        if self._measure.per is None:
            return sums.of
        return np.divide(sums.of, sums.per, out=np.full_like(sums.of, np.nan), where=sums.per != 0)

    def _bound(self, value: Floats, expected: Floats) -> Floats:
        """The bound that each value has passed; NaN if it has passed none."""
        of = self._of
        if of.against is None:
            below = np.full_like(value, np.nan) if of.below is None else np.where(value < of.below, of.below, np.nan)
            return below if of.above is None else np.where(value > of.above, of.above, below)
        change = value - expected
        wanted = {"up": change > 0, "down": change < 0, "both": change != 0}[of.direction]
        far = (np.abs(change) >= of.absolute) & (np.abs(change) >= of.relative * np.abs(expected))
        return np.where(wanted & far, expected, np.nan)


class _Sums(NamedTuple):
    """Numerators and denominators, per bucket and slice."""

    of: Floats
    per: Floats


def _targets(reading: Reading, metric: str, until: datetime) -> Terms:
    """The targets of a ratio that were set for campaigns, with all that was recorded up to `until`."""
    return Terms(
        reading.frame(
            f"SELECT campaign_id, target / {_BASIS_POINTS}::DOUBLE AS target, recorded_at FROM campaign_events"
            " WHERE type = 'target_set' AND metric = $metric AND target IS NOT NULL AND recorded_at <= $until"
            " ORDER BY occurred_at, event_id",
            {"metric": metric, "until": until},
        )
    )
