"""Assigns keys to partitions, and shares a read among partitions.

Always true: `partitions_of` equals Kafka's default partitioner, `toPositive(murmur2(key)) % partitions`
(org.apache.kafka.clients.producer.internals.BuiltInPartitioner), for every key, including the empty one. So a log can
move between the embedded backend and Kafka, and every key keeps its partition number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from struct import Struct
from typing import Final, TypeVar

_FEW: Final = 16
"""Up to this many keys, hashing one by one is as fast as hashing them together."""
_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_WORD: Final = Struct("<I")

K = TypeVar("K")


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partition number of each key, from 0. Many keys are hashed together if NumPy is installed."""
    if len(keys) > _FEW and _has_numpy():
        from coupon_ledger.ledger.murmur2 import murmur2

        numbers: list[int] = ((murmur2(keys) & 0x7FFFFFFF) % partitions).tolist()
        return numbers
    return [(murmur2_of_one(key) & 0x7FFFFFFF) % partitions for key in keys]


def murmur2_of_one(key: bytes) -> int:
    """Kafka's 32-bit murmur2 of one key, as an unsigned number. Plain Python: `ledger.murmur2` needs NumPy, and loading
    Kafka's client only to hash takes longer than a short program that publishes to an embedded log."""
    whole = len(key) & ~3
    value = _SEED ^ len(key)
    for (word,) in _WORD.iter_unpack(key[:whole]):
        word = word * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        value = value * _M & _MASK ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    value = (value ^ value >> 13) * _M & _MASK
    return value ^ value >> 15


@cache
def _has_numpy() -> bool:
    """NumPy is optional: a system that only publishes need not have it."""
    return find_spec("numpy") is not None


def fair_shares(available: Mapping[K, int], limit: int) -> dict[K, int]:
    """The number of records to take from each partition, `limit` in total. `available`: how many each partition has.

    Shares are equal; what a partition cannot use of its share goes to the others. Partitions without a share are left
    out. The sum is min(limit, sum(available)).
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
