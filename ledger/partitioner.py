"""Which partition a key belongs to, and how a read is shared among partitions.

Always true: `partitions_of` equals Kafka's default partitioner, `toPositive(murmur2(key)) % partitions`
(org.apache.kafka.clients.producer.internals.BuiltInPartitioner), for every key, the empty one too. So a log
can move between the embedded backend and Kafka and every key stays with its partition number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

Uint32Array = npt.NDArray[np.uint32]

_SEED: Final = 0x9747B28C
_M: Final = np.uint32(0x5BD1E995)
_R: Final = np.uint32(24)

K = TypeVar("K")


def partitions_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int64]:
    """The partition number of each key: shape (n,), values in [0, partitions)."""
    hashes = murmur2(keys) & np.uint32(0x7FFFFFFF)
    return hashes.astype(np.int64) % partitions


def murmur2(keys: Sequence[bytes]) -> Uint32Array:
    """Kafka's 32-bit murmur2 of each key, as unsigned numbers of shape (n,).

    Keys of one length are hashed together, a word of all of them at a time: the cost is per distinct length
    and word, not per key.
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


def fair_shares(available: Mapping[K, int], limit: int) -> dict[K, int]:
    """How many of `limit` records each partition gives, where `available` says how many it has.

    Equal shares; what a partition cannot use goes to the others. Only partitions that give something are in
    the answer; the sum is min(limit, sum(available)).
    """
    shares: dict[K, int] = {}
    waiting = sorted((k for k, n in available.items() if n > 0), key=lambda k: available[k])
    for place, key in enumerate(waiting):
        # Rounded up, so that a limit below the number of partitions still gives records.
        share = min(available[key], -(-limit // (len(waiting) - place)))
        if share == 0:
            break
        shares[key] = share
        limit -= share
    return shares
