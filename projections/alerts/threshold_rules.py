"""Threshold rules: a metric over a sliding window against a fixed value, against itself one period before, or against
a target or plan.

Windows move in steps of the rule's `every`. A step is judged when its last bucket is closed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from coupon_ledger.projections.alerts.buckets import NOTHING, Buckets, Closed, Slice, Sums
from coupon_ledger.projections.alerts.chunk import Released, instant
from coupon_ledger.projections.alerts.episodes import Episodes, micros_of
from coupon_ledger.projections.alerts.evaluator import Stored
from coupon_ledger.projections.alerts.measures import MEASURES, SLICES
from coupon_ledger.projections.alerts.planned import Plan
from coupon_ledger.projections.alerts.rules import Rule, Threshold
from coupon_ledger.projections.alerts.terms import Terms
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.store import Store

BEFORE: Final[Mapping[str, tuple[timedelta, ...]]] = {
    "last_hour": (timedelta(hours=1),),
    "last_day": (timedelta(days=1),),
    "last_week": (timedelta(weeks=1),),
    "last_year": (timedelta(days=364),),
    "last_7_days": tuple(timedelta(days=day) for day in range(1, 8)),
}
"""How far back the windows are that a window is compared with. A year is 52 whole weeks, so that days of the week are
compared with their like."""
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

    def save(self, store: Store) -> None:
        for rule in self._rules:
            rule.buckets.save(store)


class _Window:
    """The sums of one slice over the last buckets. Sums are whole numbers, so adding and taking away is exact."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._in: deque[tuple[int, int, int]] = deque()
        self._of = self._per = 0

    def at(self, number: int) -> Sums:
        """The sums of the window whose last bucket is `number`."""
        while self._in and self._in[0][0] <= number - self._length:
            _, of, per = self._in.popleft()
            self._of, self._per = self._of - of, self._per - per
        return Sums(float(self._of), float(self._per))

    def add(self, number: int, sums: Sums) -> None:
        of, per = int(sums.of), int(sums.per)
        self._in.append((number, of, per))
        self._of, self._per = self._of + of, self._per + per

    def __bool__(self) -> bool:
        return bool(self._in)


class _Windows:
    """Of each slice, the window that ended `back` buckets ago."""

    def __init__(self, length: int, back: int = 0) -> None:
        self._length = length
        self._back = back
        self._of: dict[Slice, _Window] = {}
        self._waiting: deque[tuple[int, dict[Slice, Sums]]] = deque()
        """Buckets that the windows will reach."""

    def move(self, number: int, sums: dict[Slice, Sums]) -> None:
        """Let the windows end `back` buckets before `number`, the next bucket, which has these sums."""
        if sums:
            self._waiting.append((number, sums))
        while self._waiting and self._waiting[0][0] <= number - self._back:
            earlier, those = self._waiting.popleft()
            for key, one in those.items():
                self._of.setdefault(key, _Window(self._length)).add(earlier, one)

    def slices(self) -> Iterable[Slice]:
        return self._of

    def at(self, key: Slice, number: int) -> Sums:
        """The sums of the slice, `back` buckets before `number`."""
        window = self._of.get(key)
        if window is None:
            return NOTHING
        sums = window.at(number - self._back)
        if not window:
            del self._of[key]
        return sums


class _ThresholdRule:
    def __init__(self, rule: Rule, of: Threshold, episodes: Episodes, topic: str) -> None:
        self._of = of
        self._measure = MEASURES[of.metric]
        self._slices = tuple(SLICES[topic][name] for name in of.by)
        self._episodes = episodes
        length = micros_of(rule.every)
        self._buckets_in_window = max(1, micros_of(of.window) // length)
        self._backs = [micros_of(back) // length for back in BEFORE.get(of.against or "", ())]
        self._patience = self._buckets_in_window + max(self._backs, default=0)
        self._plan = Plan(of.plan, of.by, is_rate=self._measure.per is not None)
        self._targets: Terms | None = None
        start, end = self._plan.span
        planned = range(start // length, -(-end // length))
        self.buckets = Buckets(rule, self._measure, self._slices, length, self._patience, always=planned)
        self._now = _Windows(self._buckets_in_window)
        self._before = [_Windows(self._buckets_in_window, back) for back in self._backs]
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
            for number, sums in self.buckets.stored(reading, upto - self._patience - 1, upto):
                self._move(number, sums)

    def see(self, reading: Reading, piece: Released) -> None:
        if self._of.against == "target" and self._of.target is None:
            self._targets = _targets(reading, self._of.metric, piece.place(len(piece) - 1).recorded_at)
        for closed in self.buckets.see(piece):
            self._move(closed.number, closed.sums)
            known = {key for windows in (self._now, *self._before) for key in windows.slices()}
            for key in {*known, *self._plan.slices} if self._slices else ((),):
                self._judge(closed, key)
            self._episodes.advance(closed.at)

    def _move(self, number: int, sums: dict[Slice, Sums]) -> None:
        if self._first is None and sums:
            self._first = number
        for windows in (self._now, *self._before):
            windows.move(number, sums)

    def _judge(self, closed: Closed, key: Slice) -> None:
        now, before = self._now.at(key, closed.number), self._then(closed.number, key)
        expected = self._expected(closed, key, before)
        if self._evidence(now, before, expected) < self._of.at_least:
            return
        value = self._value(now)
        bound = self._bound(value, expected)
        if math.isnan(value) or math.isnan(bound):
            return
        less = value < bound
        until = instant(closed.at).isoformat() + "Z"
        details: dict[str, Any] = {"metric": self._of.metric, "until": until, "measured": value}
        if self._of.against is not None:
            change = round((value - expected) / abs(expected), 4) if expected else None
            details |= {"against": self._of.against, "before": expected, "change": change}
        named = tuple(zip(self._of.by, key, strict=True))
        self._episodes.true(named, closed.at, closed.place, value, bound, details, less_is_worse=less)

    def _evidence(self, now: Sums, before: Sums, expected: float) -> float:
        """How many events speak. Few instead of many are a finding; a rate of few, on either side, is none."""
        if self._measure.per is not None:
            return min(now.per, before.per) if self._backs else now.per
        return max(now.of, before.of if self._backs or math.isnan(expected) else expected)

    def _then(self, number: int, key: Slice) -> Sums:
        """The sums that the slice is compared with. Of several windows, the one with the middle value, among the latest
        of those that had a value once the topic had events; an odd number, so that there is a middle."""
        sums = [windows.at(key, number) for windows in self._before]
        if len(sums) < 2:
            return sums[0] if sums else NOTHING
        assert self._first is not None
        known = [
            one
            for one, back in zip(sums, self._backs, strict=True)
            if number - back >= self._first and not math.isnan(self._value(one))
        ]
        if not known:
            return NOTHING
        odd = known[: len(known) - (len(known) + 1) % 2]
        return sorted(odd, key=self._value)[len(odd) // 2]

    def _expected(self, closed: Closed, key: Slice, before: Sums) -> float:
        """What the value is compared with; NaN if there is nothing."""
        match self._of.against:
            case "plan":
                end = (closed.number + 1) * self.buckets.length
                return self._plan.between(key, end - self._buckets_in_window * self.buckets.length, end)
            case "target" if self._targets is not None:
                target = self._targets.at(key[self._of.by.index("campaign")], "target", closed.place.recorded_at)
                return math.nan if target is None else float(target)
            case "target":
                return math.nan if self._of.target is None else self._of.target
        return self._value(before)

    def _value(self, sums: Sums) -> float:
        if self._measure.per is None:
            return sums.of
        return sums.of / sums.per if sums.per else math.nan

    def _bound(self, value: float, expected: float) -> float:
        """The bound that the value has passed; NaN if it has passed none."""
        of = self._of
        if of.against is None:
            if of.above is not None and value > of.above:
                return of.above
            return of.below if of.below is not None and value < of.below else math.nan
        change = value - expected
        if (of.direction == "up" and change < 0) or (of.direction == "down" and change > 0) or change == 0:
            return math.nan
        far = abs(change) >= of.absolute and abs(change) >= of.relative * abs(expected)
        return expected if far else math.nan


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
