"""What is inside a sliding window at the ticks of a topic's clock.

A *tick* is a multiple of a rule's `every` since the epoch, and is counted in them. Ticks judge the events that were
released before the clock reached them and that are not older than the window. So each event enters at the first tick
after it was released, and leaves at the first tick at which it is older than the window.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from coupon_ledger.projections.alerts.chunk import Int64, Place, Released

Keys = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Ticks:
    """`every` and `window`: microseconds."""

    every: int
    window: int

    def of(self, piece: Released, rows: Int64) -> tuple[Int64, Int64, Int64]:
        """Those of these rows that are inside the window at some tick, and at which tick each enters and leaves."""
        enters = piece.clock[rows] // self.every + 1
        leaves = -((-(piece.at[rows] + self.window)) // self.every)
        inside = leaves > enters
        return rows[inside], enters[inside], leaves[inside]


class Passed:
    """The ticks that the clock passes in a piece, from `first` to `last`."""

    def __init__(self, piece: Released, every: int) -> None:
        self.every = every
        before = int(piece.clock[0]) if piece.before is None else piece.before
        self.first = before // every + 1
        self.last = int(piece.clock[-1]) // every
        self._piece = piece

    def place(self, tick: int) -> Place:
        """The place of the first event whose clock reaches the tick."""
        return self._piece.place(int(np.searchsorted(self._piece.clock, tick * self.every)))


class Judged(Protocol):
    """A state that moves from tick to tick, and is judged at each."""

    def move(self, tick: int) -> None:
        """Go on to the state at this tick."""

    def next_change(self) -> int | None:
        """The next tick at which the state differs; None if there is none yet."""

    def possible(self, last: int) -> bool:
        """Whether a rule may hold at a tick from here to `last`. It may say so in vain, but never overlooks one."""

    def judge(self, last: int, passed: Passed) -> None:
        """Judge the ticks from here to `last`, at which the state is the same."""


def judge(state: Judged, first: int, last: int, passed: Passed) -> None:
    """Judge the ticks from `first` to `last`, as if one by one. Stretches at which nothing is possible are skipped: the
    halves of a stretch are looked at only if something may hold in it."""
    if first > last:
        return
    state.move(first)
    change = state.next_change()
    if change is None or change > last:
        state.judge(last, passed)
    elif state.possible(last):
        middle = max(change, (first + last + 1) // 2)
        judge(state, first, middle - 1, passed)
        judge(state, middle, last, passed)


class Sliding:
    """How often each key occurs in a window, at one tick. Keys are numbers.

    Memory: one key for each event in the window, and a key with its count for each distinct one.
    """

    def __init__(self) -> None:
        self.tick = -(2**62)
        self.keys: Keys = _NONE
        """In order."""
        self.counts: Counts = np.empty(0, dtype=np.int32)
        self._waiting: Keys = _NONE
        self._enters: Int64 = _NONE
        self._leaves: Int64 = _NONE
        self._leaving: dict[int, list[Keys]] = {}
        self._ends: list[int] = []

    def add(self, keys: Keys, enters: Int64, leaves: Int64) -> None:
        """Add events, each with the ticks at which it enters and leaves. No event enters before one of an earlier
        call."""
        self._waiting = np.concatenate([self._waiting, keys])
        self._enters = np.concatenate([self._enters, enters])
        self._leaves = np.concatenate([self._leaves, leaves])

    def move(self, tick: int) -> None:
        """Go on to the counts at this tick."""
        if tick <= self.tick:
            return
        self.tick = tick
        removed = self.leaving(tick)
        ended = bisect_right(self._ends, tick)
        for end in self._ends[:ended]:
            del self._leaving[end]
        del self._ends[:ended]
        number = int(np.searchsorted(self._enters, tick, side="right"))
        stay = self._leaves[:number] > tick
        added, leaves = self._waiting[:number][stay], self._leaves[:number][stay]
        self._waiting, self._enters, self._leaves = (of[number:] for of in (self._waiting, self._enters, self._leaves))
        self._to_leave(added, leaves)
        self.keys, self.counts = _merged(self.keys, self.counts, added, removed)

    def _to_leave(self, keys: Keys, leaves: Int64) -> None:
        order = np.argsort(leaves, kind="stable")
        keys, leaves = keys[order], leaves[order]
        starts = np.flatnonzero(np.diff(leaves, prepend=leaves[:1] - 1))
        for end, of_end in zip(leaves[starts].tolist(), np.split(keys, starts[1:]), strict=False):
            if end not in self._leaving:
                self._leaving[end] = []
                insort(self._ends, end)
            self._leaving[end].append(of_end.copy())

    def next_change(self) -> int | None:
        """The next tick at which an event enters or leaves; None if no event is here."""
        return min([*self._ends[:1], *self._enters[:1].tolist()], default=None)

    def leaving(self, last: int) -> Keys:
        """The keys, once for each event in the window that leaves at or before `last`."""
        ends = self._ends[: bisect_right(self._ends, last)]
        return np.concatenate([_NONE, *(keys for end in ends for keys in self._leaving[end])])

    def upper(self, last: int) -> tuple[Keys, Counts]:
        """The keys that are inside at a tick from here to `last`, and bounds that their counts do not pass then."""
        number = int(np.searchsorted(self._enters, last, side="right"))
        return _merged(self.keys, self.counts, self._waiting[:number], _NONE)

    def lower(self, last: int) -> tuple[Keys, Counts]:
        """The keys that are inside at all ticks from here to `last`, and counts that they have at least."""
        return _merged(self.keys, self.counts, _NONE, self.leaving(last))

    def last_leaves(self, number: int) -> Int64:
        """Per key below `number`, the tick at which its last event that is inside leaves; -1 without one."""
        leaves = np.full(number, -1, dtype=np.int64)
        for end in self._ends:
            for keys in self._leaving[end]:
                leaves[keys] = end
        return leaves

    def all_keys(self) -> Keys:
        """The keys of all events that are inside or will enter."""
        return np.union1d(self.keys, self._waiting)

    def renumber(self, numbers: Renumbering) -> None:
        """Give all keys new numbers, in the same order."""
        self.keys = numbers(self.keys)
        self._waiting = numbers(self._waiting)
        self._leaving = {end: [numbers(keys) for keys in parts] for end, parts in self._leaving.items()}


class Renumbering(Protocol):
    """New numbers for keys."""

    def __call__(self, keys: Keys, /) -> Keys: ...


def _merged(keys: Keys, counts: Counts, added: Keys, removed: Keys) -> tuple[Keys, Counts]:
    """Keys in order and their counts, with some added, and some of them removed. Leaves the arrays as they are."""
    if not len(added) and not len(removed):
        return keys, counts
    changed, where = np.unique(np.concatenate([added, removed]), return_inverse=True)
    change = np.bincount(where[: len(added)], minlength=len(changed))
    change -= np.bincount(where[len(added) :], minlength=len(changed))
    at = np.searchsorted(keys, changed)
    known = np.zeros(len(changed), dtype=np.bool_)
    inner = at < len(keys)
    known[inner] = keys[at[inner]] == changed[inner]
    counts = counts.copy()
    counts[at[known]] += change[known].astype(np.int32)
    if not known.all():
        new = ~known
        keys = np.insert(keys, at[new], changed[new])
        counts = np.insert(counts, at[new], change[new].astype(np.int32))
    left = counts > 0
    return (keys, counts) if left.all() else (keys[left], counts[left])
