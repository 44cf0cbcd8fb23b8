"""A Bloom filter in memory for the keys of a table. It recognizes most new keys without reading the table.

For each key it answers "surely not there" or "maybe there". Each key sets four bits. If the filter has 16 bits per key,
one new key in 400 gets a "maybe"; with 8 bits, one in 40. A false "maybe" costs a look-up in the table, never a wrong
result.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

UInt64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_LEAST: Final = 1 << 16
_BITS_SET: Final = 4


class KeyFilter:
    """A filter over key hashes (`signature.stable_hash`)."""

    def __init__(self, key_hashes: pl.Series) -> None:
        self._keys = len(key_hashes)
        self._places = 1 << max(_LEAST, 16 * len(key_hashes)).bit_length()
        self._bytes = np.zeros(self._places // 8, dtype=np.uint8)
        self._set(key_hashes)

    @property
    def crowded(self) -> bool:
        """Whether the filter has fewer than 8 bits per key, and should be replaced by a larger one."""
        return 8 * self._keys > self._places

    def add(self, key_hashes: pl.Series) -> None:
        self._keys += int(np.count_nonzero(~self.maybe(key_hashes)))
        self._set(key_hashes)

    def _set(self, key_hashes: pl.Series) -> None:
        for place in self._of(key_hashes):
            np.bitwise_or.at(self._bytes, place >> 3, (1 << (place & 7)).astype(np.uint8))

    def maybe(self, key_hashes: pl.Series) -> Mask:
        """Per key, whether it may have been added to the filter. False is certain."""
        maybe = np.ones(len(key_hashes), dtype=np.bool_)
        for place in self._of(key_hashes):
            maybe &= (self._bytes[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1
        return maybe

    def _of(self, key_hashes: pl.Series) -> list[npt.NDArray[np.int64]]:
        hashes: UInt64 = key_hashes.to_numpy().view(np.uint64)
        low, high = hashes & np.uint64(0xFFFFFFFF), hashes >> np.uint64(32)
        mask = np.uint64(self._places - 1)
        return [((low + np.uint64(k) * high) & mask).astype(np.int64) for k in range(_BITS_SET)]
