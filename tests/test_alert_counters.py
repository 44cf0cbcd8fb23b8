"""The counters that clear keys: never below the truth, and close enough to it that few keys are counted exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.projections.alerts.counters import Counters
from tests.examples import examples

WINDOW = 1_000


def hashes_of(keys: np.ndarray) -> np.ndarray:
    """Well-mixed hashes of these numbers (splitmix64's multiplication and shifts)."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(27))


@given(
    seed=st.integers(0, 2**32 - 1),
    keys=st.sampled_from([1, 7, 400]),
    threshold=st.sampled_from([1, 5, 255, 256, 4_000]),
    sizes=st.lists(st.sampled_from([0, 1, 30, 700, 6_000]), min_size=1, max_size=6),
    distinct=st.booleans(),
)
@examples(120)
def test_a_bound_is_never_below_the_truth(
    seed: int, keys: int, threshold: int, sizes: list[int], distinct: bool
) -> None:
    """Else a rule stays silent about a key that reaches its threshold. The truth is counted event by event, for the
    window that ends at the clock; events come late, and the clock leaps over windows."""
    random = np.random.default_rng(seed)
    counters = Counters(WINDOW, [threshold])
    clock, seen = 0, []
    for size in sizes:
        clock += int(random.choice([0, 10, 400, WINDOW, 5 * WINDOW]))
        at = np.maximum(0, clock - (random.exponential(WINDOW / 2, size)).astype(np.int64))
        key, value = random.integers(0, keys, size), random.integers(0, 3, size)
        pairs = hashes_of(key * 10 + value + 1_000_000) if distinct else None
        counters.add(hashes_of(key), at, clock, pairs)
        seen += list(zip(key.tolist(), at.tolist(), value.tolist(), strict=True))
        inside = [(k, v) for k, a, v in seen if a > clock - WINDOW]
        counted = set(inside) if distinct else inside
        true = np.bincount([k for k, _ in counted], minlength=keys)
        bounds = counters.bounds(hashes_of(np.arange(keys)))
        assert (np.minimum(true, threshold) <= bounds).all()


@pytest.mark.parametrize("before", [(), (10,), (10, 1_000, 100_000)])
@pytest.mark.parametrize("late", [False, True])
def test_a_burst_leaves_honest_keys_cleared(before: tuple[int, ...], late: bool) -> None:
    """Else the first second of a flash sale makes each rule read the journal for every user. 200,000 users claim once
    each, also late, after a quiet time or after a long silence."""
    counters = Counters(WINDOW, [6])
    for number, events in enumerate(before):
        keys = np.arange(events) + 10**9 * number
        counters.add(hashes_of(keys), np.full(events, WINDOW * number), WINDOW * number)
    clock = 50 * WINDOW
    counters.add(hashes_of(np.array([1])), np.array([clock]), clock)
    users = np.arange(200_000)
    at = np.full(len(users), clock - WINDOW if late else clock)
    counters.add(hashes_of(users), at, clock + 1)
    assert (counters.bounds(hashes_of(users)) >= 6).mean() < 0.001


def test_memory_follows_the_thresholds() -> None:
    """Else a hundred rules that fire at a thousand take gigabytes on a sale day."""
    sizes = {}
    for threshold in (5, 3_200):
        counters = Counters(WINDOW, [threshold])
        counters.add(hashes_of(np.arange(2_000_000)), np.zeros(2_000_000, dtype=np.int64), 0)
        sizes[threshold] = counters._now.counts.nbytes
    assert sizes[5] <= 1 << 24
    assert sizes[3_200] <= 1 << 18
