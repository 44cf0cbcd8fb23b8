"""Dense numbers for values, so that events in a window can be counted by numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from coupon_ledger.projections.alerts.chunk import Int64, UInt64


class Numbered:
    """Values, numbered in the order in which they came, from 0. Two values are the same if their hashes of 64 bits
    are."""

    def __init__(self) -> None:
        self._hashes: UInt64 = np.empty(0, dtype=np.uint64)
        self._numbers: Int64 = np.empty(0, dtype=np.int64)
        self._values: pl.Series | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    def of(self, values: pl.Series) -> Int64:
        """The number of each value. New values get new numbers."""
        hashes, first, where = np.unique(_hashed(values), return_index=True, return_inverse=True)
        at, known = self._look_up(hashes)
        numbers = np.empty(len(hashes), dtype=np.int64)
        numbers[known] = self._numbers[at[known]]
        new = ~known
        if new.any():
            numbers[new] = len(self) + np.arange(new.sum())
            named = values.gather(first[new])
            self._values = named if self._values is None else self._values.append(named)
            self._hashes = np.insert(self._hashes, at[new], hashes[new])
            self._numbers = np.insert(self._numbers, at[new], numbers[new])
        return numbers[where]

    def find(self, values: pl.Series) -> Int64:
        """The number of each value, -1 for those that have none."""
        at, known = self._look_up(_hashed(values))
        numbers = np.full(len(values), -1, dtype=np.int64)
        numbers[known] = self._numbers[at[known]]
        return numbers

    def named(self, numbers: Int64) -> pl.Series:
        """The values with these numbers."""
        return pl.Series() if self._values is None else self._values.gather(numbers)

    def values(self, numbers: Int64) -> list[Any]:
        """The values with these numbers, as a list."""
        return self.named(numbers).to_list()

    def keep(self, numbers: Int64) -> Int64:
        """Forget all values but those with these numbers, in order. Returns the new number of each former one."""
        now = np.full(len(self), -1, dtype=np.int64)
        now[numbers] = np.arange(len(numbers))
        kept = now[self._numbers] >= 0
        self._hashes, self._numbers = self._hashes[kept], now[self._numbers[kept]]
        self._values = None if self._values is None else self._values.gather(numbers).rechunk()
        return now

    def _look_up(self, hashes: UInt64) -> tuple[Int64, Any]:
        at = np.searchsorted(self._hashes, hashes)
        known = np.zeros(len(hashes), dtype=np.bool_)
        inner = at < len(self._hashes)
        known[inner] = self._hashes[at[inner]] == hashes[inner]
        return at, known


def _hashed(values: pl.Series) -> UInt64:
    hashes: UInt64 = values.hash(seed=0).to_numpy()
    return hashes
