"""Computes Kafka's hash (murmur2) of many keys at once, with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Uint32Array = npt.NDArray[np.uint32]

_SEED: Final = 0x9747B28C
_M: Final = np.uint32(0x5BD1E995)
_R: Final = np.uint32(24)


def murmur2(keys: Sequence[bytes]) -> Uint32Array:
    """The 32-bit murmur2 hash of each key, as Kafka computes it: an array of unsigned integers.

    Keys of the same length are hashed together, 4 bytes of each key at a time. So the number of NumPy operations
    depends on the lengths of the keys, not on the number of keys.
    """
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    buffer = np.frombuffer(b"".join(keys), np.uint8)
    starts = np.cumsum(lengths) - lengths
    hashes = np.empty(len(keys), np.uint32)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        hashes[rows] = _murmur2_matrix(buffer[starts[rows, None] + np.arange(length)])
    return hashes


def _murmur2_matrix(keys: npt.NDArray[np.uint8]) -> Uint32Array:
    """The hash of each row of a matrix of bytes. Each row is one key, so all keys have the same length."""
    count, length = keys.shape
    whole = length & ~3
    words = np.ascontiguousarray(keys[:, :whole]).view("<u4").astype(np.uint32, copy=False)
    hashes = np.full(count, _SEED ^ length, np.uint32)
    for column in range(whole // 4):
        word = words[:, column] * _M
        word ^= word >> _R
        word *= _M
        hashes *= _M
        hashes ^= word
    if length > whole:
        for place in range(length - whole):
            hashes ^= keys[:, whole + place].astype(np.uint32) << np.uint32(8 * place)
        hashes *= _M
    hashes ^= hashes >> np.uint32(13)
    hashes *= _M
    hashes ^= hashes >> np.uint32(15)
    return hashes
