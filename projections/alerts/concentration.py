"""Concentration rules: a few values of a field have a large share of all events of a slice.

They are judged at ticks (`sliding.py`). The events of each value are counted exactly. Bounds of these counts over many
ticks at once say where a rule may hold, so ticks at which none can are not looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.projections.alerts.chunk import Int64, Released
from coupon_ledger.projections.alerts.episodes import Episodes, Key, micros_of
from coupon_ledger.projections.alerts.evaluator import Remade
from coupon_ledger.projections.alerts.numbered import Numbered
from coupon_ledger.projections.alerts.rules import Concentration, Rule
from coupon_ledger.projections.alerts.sliding import Counts, Keys, Passed, Sliding, Ticks, judge
from coupon_ledger.projections.connection import Reading

_VALUE_BITS: Final = 32
_VALUE: Final = (1 << _VALUE_BITS) - 1
_AT_ONCE: Final = 100_000
"""So many events are pending at most, so that none of the pieces takes long."""
_FEW: Final = 10_000
"""So many values of before may always be kept."""


class ConcentrationRules(Remade):
    """All concentration rules in force, in groups that count the same."""

    def __init__(self, rules: Iterable[tuple[Rule, Episodes]]) -> None:
        self._counted: dict[tuple[Any, ...], _Counted] = {}
        for rule, episodes in rules:
            of = rule.expr
            assert isinstance(of, Concentration)
            ticks = Ticks(micros_of(rule.every), micros_of(of.window))
            same = (frozenset(of.events), of.by, of.of, ticks)
            if same not in self._counted:
                self._counted[same] = _Counted(*same)
            self._counted[same].rules.append((of, episodes))

    @property
    def columns(self) -> set[str]:
        """The columns of the journal that the rules need."""
        return {column for counted in self._counted.values() for column in counted.columns}

    @property
    def longest(self) -> int:
        """The longest window, in microseconds."""
        return max((counted.ticks.window for counted in self._counted.values()), default=0)

    def warm_up(self, earlier: Released) -> None:
        """Count events from before the first piece."""
        for counted in self._counted.values():
            counted.warm_up(earlier)

    def see(self, reading: Reading, piece: Released) -> None:
        """Judge the ticks that the clock passes in `piece`, which follows the pieces before."""
        for counted in self._counted.values():
            counted.see(piece)


class _Counted:
    """Counts of the values of one field in each slice. A key of `_inside` has the slice's number, then the value's plus
    one; 0 for events without a value, which count in their slice only."""

    def __init__(self, types: frozenset[str], by: tuple[str, ...], of: str, ticks: Ticks) -> None:
        self.columns = {*by, of}
        self.ticks = ticks
        self.rules: list[tuple[Concentration, Episodes]] = []
        self._types = types
        self._by = by
        self._of = of
        self._slices = Numbered()
        self._values = Numbered()
        self._inside = Sliding()
        self._pending: list[pl.DataFrame] = []

    def warm_up(self, earlier: Released) -> None:
        self._take(earlier)
        self._count()
        self._inside.move(int(earlier.clock[-1]) // self.ticks.every)

    def see(self, piece: Released) -> None:
        passed = Passed(piece, self.ticks.every)
        self._take(piece)
        if sum(map(len, self._pending)) > _AT_ONCE:
            self._count()
        if passed.first <= passed.last:
            self._count()
            judge(self, passed.first, passed.last, passed)
            self._inside.move(passed.last)
            self._forget()
        for _, episodes in self.rules:
            episodes.advance(int(piece.clock[-1]))

    def _take(self, piece: Released) -> None:
        """Keep the events of the piece until a tick is passed, or they are many."""
        mask = piece.of_types(self._types)
        for column in self._by:
            mask = mask & piece.events[column].is_not_null().to_numpy()
        rows, enters, leaves = self.ticks.of(piece, np.flatnonzero(mask))
        if len(rows):
            slices = pl.struct(self._by) if self._by else pl.lit("")
            events = piece.events[rows].select(slice=slices, value=self._of)
            self._pending.append(events.with_columns(enters=pl.Series(enters), leaves=pl.Series(leaves)))

    def _count(self) -> None:
        """Hand the pending events over to `_inside`."""
        if not self._pending:
            return
        events = pl.concat(self._pending)
        self._pending.clear()
        known = events["value"].is_not_null()
        values = np.zeros(len(events), dtype=np.int64)
        values[known.to_numpy()] = self._values.of(events["value"].filter(known)) + 1
        keys = self._slices.of(events["slice"]) << _VALUE_BITS | values
        self._inside.add(keys, events["enters"].to_numpy(), events["leaves"].to_numpy())

    def _forget(self) -> None:
        """Forget slices and values that have no event any more, once they are many."""
        if len(self._values) + len(self._slices) < 2 * len(self._inside.keys) + _FEW:
            return
        keys = self._inside.all_keys()
        values = np.unique(keys & _VALUE)
        slice_numbers = self._slices.keep(np.unique(keys >> _VALUE_BITS))
        value_numbers = np.r_[0, self._values.keep(values[values > 0] - 1) + 1]
        self._inside.renumber(
            lambda keys: slice_numbers[keys >> _VALUE_BITS] << _VALUE_BITS | value_numbers[keys & _VALUE]
        )

    @property
    def _at_least(self) -> int:
        return min(of.at_least for of, _ in self.rules)

    # --- as `Judged`

    def move(self, tick: int) -> None:
        self._inside.move(tick)

    def next_change(self) -> int | None:
        return self._inside.next_change()

    def possible(self, last: int) -> bool:
        keys, counts = self._inside.upper(last)
        least = {number: total for number, _, _, total in _slices(*self._inside.lower(last), 1)}
        for number, first, end, most in _slices(keys, counts, self._at_least):
            for of, _ in self.rules:
                if most >= of.at_least:
                    fewest = max(of.at_least, least.get(number, 0))
                    if _top(keys[first:end], counts[first:end], of.top) / fewest >= of.share:
                        return True
        return False

    def judge(self, last: int, passed: Passed) -> None:
        keys, counts = self._inside.keys, self._inside.counts
        for number, first, end, total in _slices(keys, counts, self._at_least):
            for of, episodes in self.rules:
                if total >= of.at_least:
                    of_slice = keys[first:end], counts[first:end]
                    share = _top(*of_slice, of.top) / total
                    if share >= of.share:
                        self._true(of, episodes, number, of_slice, range(self._inside.tick, last + 1), passed)

    def _true(
        self,
        of: Concentration,
        episodes: Episodes,
        number: int,
        of_slice: tuple[Keys, Counts],
        ticks: range,
        passed: Passed,
    ) -> None:
        """Note that a rule holds for a slice at all these ticks."""
        key = self._key(number)
        total = int(of_slice[1].sum())
        share = _top(*of_slice, of.top) / total
        for tick in ticks:
            clock = tick * self.ticks.every
            details = None
            if episodes.rises(key, clock, share):
                details = {"count": total, "top": self._largest(*of_slice, of.top)}
            episodes.true(key, clock, passed.place(tick), share, of.share, details)

    def _key(self, number: int) -> Key:
        [values] = self._slices.values(np.array([number]))
        return tuple((name, values[name]) for name in self._by)

    def _largest(self, keys: Keys, counts: Counts, top: int) -> list[tuple[str, int]]:
        """The values with most events, each with their number."""
        named = keys & _VALUE > 0
        keys, counts = keys[named], counts[named]
        if len(counts) > top:
            enough = counts >= np.partition(counts, -top)[-top]
            keys, counts = keys[enough], counts[enough]
        values = self._values.values((keys & _VALUE) - 1)
        return sorted(zip(values, counts.tolist(), strict=True), key=lambda one: (-one[1], one[0]))[:top]


def _slices(keys: Keys, counts: Counts, at_least: int) -> Iterator[tuple[int, int, int, int]]:
    """Each slice with so many events: its number, where its keys begin and end, and how many events it has."""
    if not len(keys):
        return
    numbers = keys >> _VALUE_BITS
    first: Int64 = np.flatnonzero(np.diff(numbers, prepend=-1))
    totals = np.add.reduceat(counts.astype(np.int64), first)
    ends = np.append(first[1:], len(keys))
    of_slices = np.stack([numbers[first], first, ends, totals], axis=1)
    yield from of_slices[totals >= at_least].tolist()


def _top(keys: Keys, counts: Counts, top: int) -> int:
    """How many events the `top` values have together. `keys`, `counts`: those of one slice."""
    if keys[0] & _VALUE == 0:
        counts = counts[1:]
    if len(counts) > top:
        counts = np.partition(counts, -top)[-top:]
    return int(counts.sum())
