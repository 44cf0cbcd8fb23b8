"""Counts of events by the hour, kept up by difference: after every batch what the journal and the coupons say."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections import event_counts as counts
from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import sql
from coupon_ledger.projections.live import cross
from coupon_ledger.projections.live.apply import fold_in, prepare
from coupon_ledger.projections.store import Store
from tests.examples import TIMES
from tests.folding import emptied, frame_of, scratch_store
from tests.histories import cut, history, positioned

pytestmark = pytest.mark.long

Event = dict[str, Any]
START = datetime(2026, 11, 11, 0, 30, tzinfo=UTC)
SEED = 20261111
_LIVES = (
    "created issued claimed used",
    "created issued claimed reserved used returned expired",
    "created issued issued claimed",
    "created reserved issued claimed claimed",
    "created issued revoked",
    "created issued extended claimed extended used",
    "created created issued claimed",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("counts")) as opened:
        yield opened


def lives(seed: int) -> Iterator[Sequence[Delivery]]:
    """Mostly lives as they should be, on channels that change, over some hours; some late, twice or with another
    content; creations that carry more than they need in some worlds alone."""
    r = random.Random(seed)
    odd, number, told = r.random() < 0.3, count(), []
    for coupon in range(r.randrange(1, 12)):
        kinds = (r.choice(_LIVES) if r.random() < 0.9 else " ".join(r.choices(types(COUPON), k=4))).split()
        at = START
        for kind in kinds:
            at += timedelta(minutes=r.choice((0, 5, 40, 200)))
            told.append(_event(r, f"c-{coupon}", kind, at, f"e-{next(number)}", odd=odd))
    told.sort(key=lambda e: e["occurred_at"] + timedelta(minutes=r.choice((0, 0, 0, 0, 300))))
    for event in r.choices(told, k=len(told) // 8):
        told.append(event | r.choice(({}, {"source": "x"}, {"occurred_at": START})))
    yield from cut(r, positioned(r, told))


def _event(r: random.Random, coupon: str, kind: str, at: datetime, event_id: str, *, odd: bool) -> Event:
    channel = r.choice(("app", "web"))
    more: Event = {"source": "s", "event_id": event_id, "type": kind, "occurred_at": at, "coupon_id": coupon}
    if kind == "created" or r.random() < 0.03:
        more |= {"campaign_id": r.choice(("k-1", "k-2")), "coupon_type": r.choice(("cash", "gift"))}
    if kind in ("issued", "claimed") or (odd and r.random() < 0.4):
        more["channel"] = channel
    if kind in ("claimed", "reserved", "used") or (kind == "issued" and r.random() < 0.4):
        more["user_id"] = "u-1"
    if kind == "extended":
        more["valid_until"] = at
    if kind in ("reserved", "released", "used", "returned"):
        more["order_id"] = "o-1"
    if kind in ("expired", "revoked") or (odd and r.random() < 0.2):
        more["reason"] = r.choice(("not_used", "not_claimed"))
    return more | ({"discount_minor": 5} if kind == "used" else {})


def check(store: Store, batches: Sequence[Sequence[Delivery]]) -> None:
    with emptied(store):
        store.cache(counts.Known).odd_creations = None
        for batch in batches:
            with store.transaction():
                cross.settle(store, [fold_in(store, prepare(COUPON, frame_of(COUPON, batch)))[1]])
            kept = store.rows("SELECT * EXCLUDE (key_hash) FROM event_counts")
            anew = store.rows(sql("coupon_ledger.projections.event_counts", "event_counts"))
            assert sorted(map(repr, kept)) == sorted(map(repr, anew))
        hashes = store.rows("SELECT key_hash FROM event_counts ORDER BY ALL")
        with store.transaction():
            counts.EVENT_COUNTS.clear(store)
            counts.fill(store)
        assert store.rows("SELECT key_hash FROM event_counts ORDER BY ALL") == hashes, "found by the same hashes"


@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_after_every_batch_they_are_what_the_journal_says(store: Store, seed: int) -> None:
    """A dashboard would show numbers that no event explains."""
    check(store, list(lives(seed)))


def test_a_creation_with_a_channel_that_comes_after_another_moved(store: Store) -> None:
    """A count would go below zero: what was found about the journal would be true no more."""
    told = [("created", "a", None), ("issued", "a", "x"), ("created", "b", "y"), ("issued", "b", "z")]
    batches = []
    for number, (kind, coupon, channel) in enumerate(told):
        event = {"event_id": f"{kind}-{coupon}", "type": kind, "occurred_at": START + timedelta(hours=number)}
        event |= {"source": "s", "coupon_id": coupon, "campaign_id": "k", "coupon_type": "cash"}
        batches.append([Delivery(event | ({"channel": channel} if channel else {}), 10**15 + number, 0, number)])
    check(store, batches)


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_to_coupons(store: Store, seed: int) -> None:
    check(store, history(COUPON, seed, 60, keys=8).batches)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_in_many_worlds(store: Store, part: int) -> None:
    print(f"seed {SEED}")
    for seed in range(SEED + 100 * part, SEED + 100 * part + 6 * TIMES):
        check(store, list(lives(seed)))
        check(store, history(COUPON, seed, 80, keys=10).batches)


def test_an_ordinary_life_needs_no_look_into_the_journal(store: Store) -> None:
    """Each batch would scan all of it, and consuming slow down as it grows."""
    r = random.Random(SEED)
    told = [
        _event(r, f"c-{n}", kind, START + timedelta(hours=hour), f"{kind}-{n}", odd=False)
        for hour, kind in enumerate(("created", "issued", "claimed", "used"))
        for n in range(20)
    ]
    deliveries = positioned(r, told)
    with patch.object(lookup, "of_journal", side_effect=AssertionError("looked into the journal")):
        check(store, [deliveries[at : at + 20] for at in range(0, 80, 20)])


def test_they_are_of_the_database_file_anew(tmp_path: Path) -> None:
    """A rebuild of this projection alone starts from a database that never had the table."""
    with scratch_store(tmp_path) as store:
        store.execute("DROP TABLE event_counts")
        with store.transaction():
            counts.EVENT_COUNTS.clear(store)
            counts.fill(store)
        assert store.rows("SELECT count(*) FROM event_counts") == [(0,)]
