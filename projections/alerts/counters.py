"""Upper bounds of how often each key occurred lately, in memory that does not grow with the number of keys.

A bound is never below the true count, so a key whose bound is below a rule's threshold surely does not fire. A key
whose bound reaches the threshold must be counted exactly.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

_LEAST: Final = 1 << 12
_MOST: Final = 1 << 22
"""Four million counters of four bytes: 16 MB."""
_MOST_SEEN: Final = 1 << 21
"""Two million hashes of eight bytes: 16 MB."""


class Counters:
    """Counts of hashed keys in the last one to two windows.

    Time is divided into *generations* of one window each. The counters of the latest two are kept. A window that ends
    within the latest generation lies in these two. Keys share a counter if their hashes do, which only raises a
    bound.
    """

    def __init__(self, window: int) -> None:
        """`window`: microseconds."""
        self.window = window
        self._seen = np.zeros(_LEAST, dtype=np.uint64)
        """Pairs of the latest generation, those that were seen last. One that is not here may have been seen, too."""
        self._latest: int | None = None
        self._now = np.zeros(_LEAST, dtype=np.uint32)
        self._before = np.zeros(_LEAST, dtype=np.uint32)
        self._counted = 0

    def bounds(self, hashes: UInt64) -> Int64:
        """Per hash, an upper bound of its count in any window that ends at or after the clock of the last `add`."""
        return _at(self._now, hashes).astype(np.int64) + _at(self._before, hashes)

    def add(self, hashes: UInt64, at: Int64, clock: int, pairs: UInt64 | None = None) -> None:
        """Count events. `at`: their instants in microseconds; `clock`: the clock after them. `pairs`: if distinct
        values are counted, a hash of each event's key and value; a pair that was surely seen in its generation does not
        count again."""
        self._move_to(clock // self.window)
        generation = at // self.window
        assert self._latest is not None
        latest = generation == self._latest
        now, before = hashes[latest], hashes[generation == self._latest - 1]
        if pairs is not None:
            now = now[self._unseen(pairs[latest])]
        np.add.at(self._now, _slots(self._now, now), 1)
        np.add.at(self._before, _slots(self._before, before), 1)
        self._counted += len(now)

    def _unseen(self, pairs: UInt64) -> Mask:
        slots = pairs & np.uint64(len(self._seen) - 1)
        unseen: Mask = self._seen[slots] != pairs
        self._seen[slots] = pairs
        return unseen

    def _move_to(self, generation: int) -> None:
        if self._latest == generation:
            self._grow()
            return
        follows = self._latest is not None and generation == self._latest + 1
        size = _size(self._counted if follows else 0)
        self._before = self._now if follows else np.zeros(_LEAST, dtype=np.uint32)
        self._now = np.zeros(size, dtype=np.uint32)
        self._seen = np.zeros(min(size, _MOST_SEEN), dtype=np.uint64)
        self._latest, self._counted = generation, 0

    def _grow(self) -> None:
        """Double the counters while they are crowded. A counter's two successors both start with its count, which is
        still an upper bound for each."""
        while self._counted > len(self._now) and len(self._now) < _MOST:
            self._now = np.concatenate([self._now, self._now])
            if len(self._seen) < _MOST_SEEN:
                self._seen = np.concatenate([self._seen, self._seen])


def _slots(counters: Counts, hashes: UInt64) -> UInt64:
    slots: UInt64 = hashes & np.uint64(len(counters) - 1)
    return slots


def _at(counters: Counts, hashes: UInt64) -> Counts:
    found: Counts = counters[_slots(counters, hashes)]
    return found


def _size(events: int) -> int:
    return min(_MOST, max(_LEAST, 1 << (2 * events).bit_length()))
