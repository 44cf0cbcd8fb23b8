"""Assigns keys to partitions, and divides a read among partitions.

Always true: for every key, including the empty one, `partitions_of` returns the same partition as Kafka's default
partitioner, `toPositive(murmur2(key)) % partitions` (org.apache.kafka.clients.producer.internals.BuiltInPartitioner).
So if a log moves between the embedded backend and Kafka, every key keeps its partition number.
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
    """The number (from 0) of each key's partition. `partitions`: how many partitions there are. If there are many keys
    and NumPy is installed, they are hashed together."""
    if len(keys) > _FEW and _has_numpy():
        from coupon_ledger.ledger.murmur2 import murmur2

        numbers: list[int] = ((murmur2(keys) & 0x7FFFFFFF) % partitions).tolist()
        return numbers
    return [(murmur2_of_one(key) & 0x7FFFFFFF) % partitions for key in keys]


def murmur2_of_one(key: bytes) -> int:
    """The 32-bit murmur2 hash of one key, as Kafka computes it: an unsigned integer. Written in plain Python for small
    programs that publish to an embedded log: `ledger.murmur2` needs NumPy, and loading Kafka's client takes longer than
    such a program runs."""
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
    """Whether NumPy is installed. A system that only publishes does not need it."""
    return find_spec("numpy") is not None


def fair_shares(available: Mapping[K, int], limit: int) -> dict[K, int]:
    """How many records to take from each partition, `limit` at most in total. `available`: how many records each
    partition has.

    All partitions get equal shares. What a partition has too few records to use is divided among the others. A
    partition from which nothing is taken is left out. The total is min(limit, sum(available)).
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
