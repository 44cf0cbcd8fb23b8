"""Kafka's partitioner, all keys at once."""

from __future__ import annotations

import random

import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from coupon_ledger.ledger import partitioner
from coupon_ledger.ledger.murmur2 import murmur2
from coupon_ledger.ledger.partitioner import fair_shares, murmur2_of_one, partitions_of


def test_hashes_are_kafkas() -> None:
    """Else other producers (Java, kafka-python) would put a coupon's events elsewhere than we do."""
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    keys = [source.randbytes(source.randrange(64)) for _ in range(5000)] + [b""]
    expected = [kafka_murmur2(key) & 0xFFFFFFFF for key in keys]
    assert murmur2(keys).tolist() == expected
    assert [murmur2_of_one(key) for key in keys] == expected


@pytest.mark.parametrize("numpy", [True, False])
def test_few_and_many_keys_are_hashed_alike(numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that only publishes has no NumPy: its coupons' events would lie in other partitions."""
    monkeypatch.setattr(partitioner, "_has_numpy", lambda: numpy)
    keys = [f"c-{n}".encode() for n in range(100)] + [b""]
    wanted = [(kafka_murmur2(key) & 0x7FFFFFFF) % 7 for key in keys]
    assert partitions_of(keys, 7) == wanted
    assert [number for key in keys for number in partitions_of([key], 7)] == wanted


@pytest.mark.parametrize(
    ("key", "signed"),
    # From Apache Kafka's UtilsTest.testMurmur2.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_known_hashes(key: bytes, signed: int) -> None:
    """The same against Java's own examples."""
    assert murmur2([key]).tolist() == [murmur2_of_one(key)] == [signed & 0xFFFFFFFF]


def test_no_keys() -> None:
    """Else an empty batch would be an error."""
    assert partitions_of([], 4) == []


@pytest.mark.parametrize(
    ("available", "limit", "shares"),
    [
        ({"a": 10, "b": 10}, 10, {"a": 5, "b": 5}),
        ({"a": 1, "b": 100}, 10, {"a": 1, "b": 9}),
        ({"a": 0, "b": 3}, 10, {"b": 3}),
        ({"a": 9, "b": 9, "c": 9}, 2, {"a": 1, "b": 1}),
        ({}, 5, {}),
    ],
)
def test_shares(available: dict[str, int], limit: int, shares: dict[str, int]) -> None:
    """Else a busy partition would take the whole batch, or a quiet one waste its share."""
    assert fair_shares(available, limit) == shares
