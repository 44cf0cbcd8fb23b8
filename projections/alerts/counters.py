"""Upper bounds of how often each key occurred lately, in memory that does not grow with the number of keys.

A bound is never below the true count, so a key whose bound is below a rule's threshold surely does not fire. A key
whose bound reaches the threshold must be counted exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Counts = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_LEAST: Final = 1 << 12
_MOST_BYTES: Final = 1 << 24
"""Of the counters of one generation: 16 MB."""
_MOST_SEEN: Final = 1 << 21
"""Two million hashes of eight bytes: 16 MB."""
_FULL: Final = 255
"""Where a counter of one byte stands still."""
_NOISE: Final = 1 / 16
"""On average, the keys that share a counter may add this share of the lowest threshold to each other's bounds."""


class Counters:
    """Counts of hashed keys in the last one to two windows.

    Time is divided into *generations* of one window each. The counters of the latest two are kept. A window that ends
    within the latest generation lies in these two. Keys share a counter if their hashes do, which only raises a
    bound.

    The number of counters follows the events and the thresholds: a bound that is too high by ten makes a rule that
    fires at 5 count most keys exactly, and is nothing to one that fires at 500. Where all thresholds are low, counters
    of one byte are enough.
    """

    def __init__(self, window: int, thresholds: Iterable[int]) -> None:
        """`window`: microseconds. `thresholds`: with which the bounds are compared."""
        known = list(thresholds)
        self.window = window
        self._load = min(known) * _NOISE
        self._type: type[np.unsignedinteger[Any]] = np.uint8 if max(known) <= _FULL else np.uint32
        self._latest: int | None = None
        self._now, self._before = self._new(0), self._new(0)
        self._seen = np.zeros(_LEAST, dtype=np.uint64)
        """Pairs of the latest generation, those that were seen last. One that is not here may have been seen, too."""

    def bounds(self, hashes: UInt64) -> Int64:
        """Per hash, an upper bound of its count in any window that ends at or after the clock of the last `add`; or a
        number that reaches every threshold."""
        return self._now.of(hashes).astype(np.int64) + self._before.of(hashes)

    def add(self, hashes: UInt64, at: Int64, clock: int, pairs: UInt64 | None = None) -> None:
        """Count events. `at`: their instants in microseconds; `clock`: the clock after them. `pairs`: if distinct
        values are counted, a hash of each event's key and value; a pair that was surely seen in its generation does not
        count again."""
        generation, latest = at // self.window, clock // self.window
        now = generation == latest
        if latest != self._latest:
            follows = self._latest is not None and latest == self._latest + 1
            self._before = self._now if follows else self._new(0)
            self._now = self._new(self._before.counted)
            self._seen = np.zeros(min(len(self._now.counts), _MOST_SEEN), dtype=np.uint64)
            self._latest = latest
        if pairs is None:
            self._now.add(hashes[now])
        else:
            self._now.make_room(int(now.sum()))
            self._now.add(hashes[now][self._unseen(pairs[now])])
        self._before.add(hashes[generation == latest - 1])

    def _new(self, events: int) -> _Generation:
        return _Generation(self._type, self._load, events)

    def _unseen(self, pairs: UInt64) -> Mask:
        size = min(len(self._now.counts), _MOST_SEEN)
        self._seen = np.tile(self._seen, size // len(self._seen))
        slots = pairs & np.uint64(size - 1)
        unseen: Mask = self._seen[slots] != pairs
        self._seen[slots] = pairs
        return unseen


class _Generation:
    """The counters of one generation. `counted`: how many events they have counted."""

    def __init__(self, kind: type[np.unsignedinteger[Any]], load: float, events: int) -> None:
        """`load`: the events per counter with which they are crowded. `events`: so many are expected."""
        self.counted = 0
        self._load = load
        self._most = _MOST_BYTES // np.dtype(kind).itemsize
        self.counts: Counts = np.zeros(self._size(events), dtype=kind)

    def of(self, hashes: UInt64) -> Counts:
        return self.counts[self._slots(hashes)]

    def add(self, hashes: UInt64) -> None:
        """Add 1 to the counter of each hash."""
        self.make_room(len(hashes))
        self.counted += len(hashes)
        slots = self._slots(hashes)
        if self.counts.dtype != np.uint8:
            np.add.at(self.counts, slots, 1)
            return
        slots = np.sort(slots)
        first = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]][: len(slots)])
        number = np.diff(np.r_[first, len(slots)])
        slots = slots[first]
        self.counts[slots] = np.minimum(self.counts[slots] + number, _FULL)

    def make_room(self, events: int) -> None:
        """Have more counters if so many more events would crowd them. Each of their successors starts with a counter's
        count, which is still an upper bound."""
        size = self._size(self.counted + events)
        if size > len(self.counts):
            self.counts = np.tile(self.counts, size // len(self.counts))

    def _size(self, events: int) -> int:
        """How many counters so many events need: a power of two."""
        needed = 1 << int(events / self._load).bit_length()
        return min(self._most, max(_LEAST, needed))

    def _slots(self, hashes: UInt64) -> UInt64:
        slots: UInt64 = hashes & np.uint64(len(self.counts) - 1)
        return slots
