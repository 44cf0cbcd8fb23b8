"""Kafka's murmur2 of many keys at once, with NumPy."""

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
    """Kafka's 32-bit murmur2 of each key, as unsigned numbers of shape (n,).

    Keys of one length are hashed together, one word of each at a time: the cost is per distinct length and word, not
    per key.
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
    """Murmur2 of each row; every row is a whole key."""
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
