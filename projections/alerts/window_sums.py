"""Sums of slices in sliding windows over closed buckets, for many buckets at once.

Only buckets of slices with events take room, so a window of a week by the minute over thousands of campaigns is cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from coupon_ledger.projections.alerts.buckets import Slice, Sums
from coupon_ledger.projections.alerts.chunk import Int64, Mask
from coupon_ledger.projections.alerts.terms import Floats

_ROOM: Final = 1024


@dataclass(frozen=True, slots=True)
class Windows:
    """Sums of windows, in arrays with a row per bucket that ends one and a column per slice. `of`, `per`: see `Sums`.
    `any`: whether the window has any event. `any_before`: whether the one that ended a bucket before has."""

    of: Floats
    per: Floats
    any: Mask
    any_before: Mask


class WindowSums:
    """The sums of closed buckets. `columns`: the slices, each with its column in what `ending` returns; in order of
    columns. One that has no events any more may keep its column for a while."""

    def __init__(self, always: Iterable[Slice] = ()) -> None:
        """`always`: slices that have a column even without events, the first ones."""
        self._always = tuple(always)
        self.columns: dict[Slice, int] = {key: column for column, key in enumerate(self._always)}
        # A cell is a slice in a bucket. Cells are in order of buckets; those from `_begin` to `_end` count.
        self._number = np.empty(_ROOM, dtype=np.int64)
        self._column = np.empty(_ROOM, dtype=np.int64)
        self._sums = np.empty((_ROOM, 2), dtype=np.float64)
        self._begin = self._end = 0

    def add(self, buckets: Sequence[tuple[int, Mapping[Slice, Sums]]]) -> None:
        """Add buckets, which follow those that were added before."""
        more = sum(len(sums) for _, sums in buckets)
        if self._end + more > len(self._number):
            self._make_room(more)
        for number, sums in buckets:
            for key, one in sums.items():
                column = self.columns.setdefault(key, len(self.columns))
                self._number[self._end], self._column[self._end] = number, column
                self._sums[self._end] = one
                self._end += 1

    def forget(self, before: int) -> None:
        """Forget the buckets before this one."""
        self._begin = self._from(before)

    def ending(self, numbers: range, length: int, back: int = 0) -> Windows:
        """The windows of `length` buckets that end `back` buckets before these buckets, which follow one another."""
        first, size = numbers.start - back, (len(numbers), len(self.columns))
        base_of, base_per, there = self._between(first - length - 1, first - 1)
        of, per, count = np.zeros(size), np.zeros(size), np.zeros(size)
        # As a window moves on, what enters is added and what leaves is taken away.
        for start, sign in ((first, 1.0), (first - length, -1.0)):
            cells = slice(self._from(start), self._from(start + len(numbers)))
            place = (self._number[cells] - start, self._column[cells])
            of[place] += sign * self._sums[cells, 0]
            per[place] += sign * self._sums[cells, 1]
            count[place] += sign
        some = np.vstack([there, there + np.cumsum(count, axis=0)]) > 0
        return Windows(base_of + np.cumsum(of, axis=0), base_per + np.cumsum(per, axis=0), some[1:], some[:-1])

    def _between(self, after: int, upto: int) -> Floats:
        """Three rows, by column: the sums of the buckets after one and up to another, and how many have events."""
        cells = slice(self._from(after + 1), self._from(upto + 1))
        column, found = self._column[cells], np.zeros((3, len(self.columns)))
        for row, weights in enumerate((self._sums[cells, 0], self._sums[cells, 1], np.ones(len(column)))):
            found[row] = np.bincount(column, weights, found.shape[1])
        return found

    def _from(self, number: int) -> int:
        """The first cell of this bucket or a later one."""
        return self._begin + int(np.searchsorted(self._number[self._begin : self._end], number))

    def _make_room(self, more: int) -> None:
        """Make room for so many cells, and give the columns of slices without any cell to others."""
        kept = slice(self._begin, self._end)
        number, column, sums = (cells[kept] for cells in (self._number, self._column, self._sums))
        alive = set(column.tolist())
        keys = [*self._always, *(k for k, c in self.columns.items() if c in alive and c >= len(self._always))]
        renumbered: Int64 = np.zeros(len(self.columns), dtype=np.int64)
        for new, key in enumerate(keys):
            renumbered[self.columns[key]] = new
        self.columns = {key: new for new, key in enumerate(keys)}
        room = max(_ROOM, 2 * (len(number) + more))
        self._number, self._column = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
        self._sums = np.empty((room, 2), dtype=np.float64)
        self._begin, self._end = 0, len(number)
        self._number[: self._end], self._column[: self._end] = number, renumbered[column]
        self._sums[: self._end] = sums
