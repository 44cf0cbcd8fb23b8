"""The id filter of each row: a Bloom filter that says whether the key may have an event with a given id.

The filter has 128 bits (two words of 64), and each id sets four of them. It answers "surely not" or "maybe". For a new
id it answers "maybe" in 0.05% of cases if the key has 5 events, in 0.5% if it has 10, and mostly if it has 50. A false
"maybe" costs a look-up in the journal, never a wrong result. So most new events are folded without reading the journal,
however long it is.

The hash function is defined here and not taken from a library: hashes are stored, so it must be the same on every
machine and in every version.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_FINAL_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_FINAL_2: Final = np.uint64(0x94D049BB133111EB)
_AT_ONCE: Final = 16_384
"""Number of texts that are hashed together. They fit into the processor's cache, which halves the time."""
_LOW_BYTES: Final = np.array([(1 << (8 * k)) - 1 for k in range(9)], dtype=np.uint64)


def stable_hash(texts: pl.Series) -> Int64:
    """A 64-bit hash of the UTF-8 bytes of each text. It takes eight bytes at a time and mixes them as splitmix64 does
    (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_binary())
    buffers = array.buffers()
    offsets = np.frombuffer(buffers[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = (buffers[2].to_pybytes() if buffers[2] is not None else b"") + b"\0" * 8
    words: UInt64 = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    parts = [_hashed(words, offsets[at : at + _AT_ONCE + 1]) for at in range(0, len(array), _AT_ONCE)]
    return np.concatenate(parts).view(np.int64) if parts else np.zeros(0, dtype=np.int64)


def _hashed(words: UInt64, offsets: Int64) -> UInt64:
    start, left = offsets[:-1], np.diff(offsets)
    state = _mixed(left.astype(np.uint64) * _MULTIPLIER)
    # Up to the length of the shortest text, all texts have bytes left, so no rows need to be selected.
    for _ in range(int(left.min()) // 8 if left.size else 0):
        state = _mixed((state ^ words[start]) * _MULTIPLIER + _MULTIPLIER)
        start, left = start + 8, left - 8
    rows = np.flatnonzero(left > 0)
    start, left = start[rows], left[rows]
    while rows.size:
        word = words[start] & _LOW_BYTES[np.minimum(left, 8)]
        state[rows] = _mixed((state[rows] ^ word) * _MULTIPLIER + _MULTIPLIER)
        on = left > 8
        rows, start, left = rows[on], start[on] + 8, left[on] - 8
    return state


def _mixed(x: UInt64) -> UInt64:
    x = (x ^ (x >> np.uint64(30))) * _FINAL_1
    x = (x ^ (x >> np.uint64(27))) * _FINAL_2
    return x ^ (x >> np.uint64(31))


def bits_of(id_hashes: Int64) -> tuple[Int64, Int64]:
    """The four filter bits of each id, as two words: low and high. `id_hashes`: `stable_hash` of the ids."""
    hashes = id_hashes.view(np.uint64)
    low, high = np.zeros_like(hashes), np.zeros_like(hashes)
    for k in range(4):
        place = (hashes >> np.uint64(7 * k)) & np.uint64(127)
        bit = np.uint64(1) << (place & np.uint64(63))
        low |= np.where(place < 64, bit, np.uint64(0))
        high |= np.where(place < 64, np.uint64(0), bit)
    return low.view(np.int64), high.view(np.int64)


def key_hash(key: str) -> int:
    """`stable_hash` of one key."""
    return int(stable_hash(pl.Series([key]))[0])
