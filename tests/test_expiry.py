"""Expiry with its cause: which coupons, why, when; and that no restart, repeat or second sweeper changes what comes out."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.runner import Consumer
from consumers.sweeper import expire, sweep
from ledger import lifecycle
from ledger.codec import micros
from ledger.errors import LogUnavailable
from ledger.events import parse_event
from ledger.lifecycle import Delivery
from ledger.log import EventLog, Record, open_log
from ledger.publisher import Publisher
from ledger.settings import LogSettings
from ledger.topics import CAMPAIGN, COUPON
from projections.due import SOURCE, due
from projections.live.apply import apply
from projections.store import Store
from tests.command_line import (
    DATABASE,
    LOG,
    PATIENCE_S,
    coupon_event,
    done,
    ends,
    facts,
    finish,
    ledger,
    ndjson,
    one_sentence,
    start,
    wait_until,
)
from tests.folding import by_reference, clear, fold_in, scratch_store, stored
from tests.owners import owning

Data = dict[str, Any]

START = datetime(2026, 11, 1, tzinfo=UTC)
END = START + timedelta(days=10)
"""`valid_until` of every coupon here."""
LATER = END + timedelta(days=30)
_TICK = timedelta(microseconds=1)


def told(kind: str, at: float | datetime, event_id: str | None = None, **fields: Any) -> Data:
    """An event of coupon c-1, so many days after the start."""
    needs: dict[str, Data] = {
        "created": {"campaign_id": "k-1", "coupon_type": "cash", "valid_until": END, "face_value_minor": 500},
        "issued": {"channel": "app"},
        "claimed": {"user_id": "u-1", "channel": "app"},
        "reserved": {"user_id": "u-1", "order_id": "o-1", "hold_until": START + timedelta(days=9)},
        "used": {"user_id": "u-1", "order_id": "o-1", "discount_minor": 5},
        "released": {"order_id": "o-1"},
        "returned": {"order_id": "o-1"},
        "expired": {"reason": "not_used"},
        "revoked": {"reason": "fraud"},
        "ended": {},
        "published": {"name": "K", "coupon_type": "cash"},
    }
    instant = at if isinstance(at, datetime) else START + timedelta(days=at)
    key = {"campaign_id": "k-1"} if kind in ("ended", "published") else {"coupon_id": "c-1"}
    event = {"event_id": event_id or f"{kind}-{at}", "type": kind, "occurred_at": instant, "source": "shop"}
    return {**event, **key, **needs[kind], **fields}


def delivered(events: Sequence[Data]) -> list[Delivery]:
    return [Delivery(event, micros(LATER) + n, 0, n) for n, event in enumerate(events)]


def fold_all(store: Store, events: Sequence[Data]) -> None:
    """As one batch a topic, as if they had arrived in this order."""
    for topic, key in ((COUPON, "coupon_id"), (CAMPAIGN, "campaign_id")):
        mine = [e for e in events if (key == "coupon_id") == ("coupon_id" in e)]
        if mine:
            fold_in(store, apply, topic, [delivered(mine)])


def found(store: Store, until: datetime = LATER) -> list[tuple[str, str, datetime]]:
    """Type, reason and instant of what is due."""
    frames = list(due(store, until.replace(tzinfo=None)))
    rows = pl.concat(frames).select("type", "reason", "occurred_at").rows() if frames else []
    return [(kind, reason, at.replace(tzinfo=UTC)) for kind, reason, at in rows]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("expiry")) as opened:
        yield opened


@pytest.fixture
def store(scratch: Store) -> Store:
    clear(scratch)
    return scratch


CREATED, ISSUED, CLAIMED = told("created", 0), told("issued", 1), told("claimed", 2)
GRANTED = told("issued", 1, user_id="u-1")
RESERVED, USED = told("reserved", 8), told("used", 9)
AFTER_HOLD = START + timedelta(days=9) + _TICK

WHY: Mapping[str, tuple[list[Data], list[tuple[str, str, datetime]]]] = {
    "created alone": ([CREATED], [("expired", "not_issued", END + _TICK)]),
    "put out, and nobody took it": ([CREATED, ISSUED], [("expired", "not_claimed", END + _TICK)]),
    "granted": ([CREATED, GRANTED], [("expired", "not_used", END + _TICK)]),
    "claimed": ([CREATED, ISSUED, CLAIMED], [("expired", "not_used", END + _TICK)]),
    "its campaign ended before anybody took it": (
        [CREATED, ISSUED, told("ended", 5)],
        [("expired", "campaign_ended", END + _TICK)],
    ),
    "its campaign ended, but its owner could still use it": (
        [CREATED, ISSUED, CLAIMED, told("ended", 5)],
        [("expired", "not_used", END + _TICK)],
    ),
    "its campaign ended with it": (
        [CREATED, ISSUED, told("ended", END)],
        [("expired", "not_claimed", END + _TICK)],
    ),
    "its campaign ended and began again": (
        [CREATED, ISSUED, told("ended", 5), told("published", 6)],
        [("expired", "not_claimed", END + _TICK)],
    ),
    "its campaign began again at the instant of its end": (
        [CREATED, ISSUED, told("published", 5), told("ended", 5)],
        [("expired", "campaign_ended", END + _TICK)],
    ),
    "given back before its time": ([CREATED, GRANTED, USED, told("returned", 9.5)], [("expired", "not_used", END + _TICK)]),
    "given back after its time": (
        [CREATED, GRANTED, USED, told("returned", 11)],
        [("expired", "order_cancelled", START + timedelta(days=11) + _TICK)],
    ),
    "given back after its time, and something illegal after that": (
        [CREATED, GRANTED, USED, told("returned", 11), told("claimed", 12)],
        [("expired", "order_cancelled", START + timedelta(days=11) + _TICK)],
    ),
    "released after its time": (
        [CREATED, GRANTED, told("reserved", 8, hold_until=LATER), told("released", 12)],
        [("expired", "not_used", START + timedelta(days=12) + _TICK)],
    ),
    "claimed after its time": ([CREATED, ISSUED, told("claimed", 11)], [("expired", "not_claimed", END + _TICK)]),
    "reserved after its time": (
        [CREATED, GRANTED, told("reserved", 11, hold_until=None)],
        [("expired", "not_used", END + _TICK)],
    ),
    "used": ([CREATED, GRANTED, USED], []),
    "used after its time": ([CREATED, GRANTED, told("used", 11)], []),
    "revoked": ([CREATED, GRANTED, told("revoked", 3)], []),
    "expired": ([CREATED, GRANTED, told("expired", 11)], []),
    "without an end": ([told("created", 0, valid_until=None), GRANTED], []),
    "held too long, and its time is over too": (
        [CREATED, GRANTED, RESERVED],
        [("released", "hold_timeout", AFTER_HOLD), ("expired", "not_used", END + _TICK)],
    ),
    "held beyond its time": (
        [CREATED, GRANTED, told("reserved", 9, hold_until=START + timedelta(days=11))],
        [
            ("released", "hold_timeout", START + timedelta(days=11) + _TICK),
            ("expired", "not_used", START + timedelta(days=11) + 2 * _TICK),
        ],
    ),
    "held by a hold that was over when it began": (
        [told("created", 0, valid_until=None), GRANTED, told("reserved", 8, hold_until=START)],
        [("released", "hold_timeout", START + timedelta(days=8) + _TICK)],
    ),
    "held without a limit": ([CREATED, GRANTED, told("reserved", 8, hold_until=None)], []),
    "held by the first of two": (
        [told("created", 0, valid_until=None), GRANTED, RESERVED, told("reserved", 8, "z", hold_until=LATER)],
        [("released", "hold_timeout", AFTER_HOLD)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WHY)
def test_every_cause_has_its_reason_and_instant(case: str, store: Store) -> None:
    """Else marketing would blame the wrong thing: coupons that nobody could take for coupons that nobody wanted."""
    events, expected = WHY[case]
    fold_all(store, events)
    assert found(store) == expected


@pytest.mark.parametrize("case", [case for case, (_, expected) in WHY.items() if expected])
def test_what_was_swept_stays_swept(case: str, store: Store) -> None:
    """Else each sweep would append again, for ever, what has no effect."""
    events, expected = WHY[case]
    fold_all(store, [*events, *swept_events(store, events)])
    assert found(store) == []
    [state] = store.rows("SELECT state FROM coupons WHERE coupon_id = 'c-1'")
    assert state[0] == ("expired" if expected[-1][0] == "expired" else "issued")
    assert not store.rows(f"SELECT * FROM violations WHERE starts_with(event_id, 'sweep:')")


def swept_events(store: Store, events: Sequence[Data]) -> list[Data]:
    fold_all(store, events)
    swept = appended(store, LATER)
    clear(store)
    return swept


def appended(store: Store, until: datetime) -> list[Data]:
    """What a sweep appends, as events."""
    names = ("event_id", "type", "occurred_at", "coupon_id", "reason", "order_id")
    return [
        {**row, "source": SOURCE, "occurred_at": row["occurred_at"].replace(tzinfo=UTC)}
        for piece in due(store, until.replace(tzinfo=None), piece=2)
        for row in piece.select(names).iter_rows(named=True)
    ]


@pytest.mark.parametrize(("until", "due_then"), [(END, 0), (END + _TICK, 1)])
def test_a_coupon_is_good_to_the_last_microsecond(store: Store, until: datetime, due_then: int) -> None:
    """Else a customer in time at the till would be turned away."""
    fold_all(store, [CREATED, GRANTED])
    assert len(found(store, until)) == due_then


def test_what_came_back_is_not_swept_before_it_came_back(store: Store) -> None:
    """Else a return of tomorrow would have been expired today."""
    fold_all(store, [CREATED, GRANTED, USED, told("returned", 11)])
    assert found(store, START + timedelta(days=11)) == []


# --- whoever sweeps, whenever


class Shared:
    """A log that several sweepers with a database each read and append to."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.records: list[Delivery] = []
        self._read = [0] * len(stores)
        self._stores = stores
        for store in stores:
            clear(store)

    def append(self, events: Sequence[Data]) -> None:
        for event in events:
            n = len(self.records)
            self.records.append(Delivery(event, micros(LATER) + n, 0, n))

    def consume(self, number: int, records: int | None = None) -> None:
        begin = self._read[number]
        end = len(self.records) if records is None else min(begin + records, len(self.records))
        if end > begin:
            fold_in(self._stores[number], apply, COUPON, [self.records[begin:end]])
        self._read[number] = end

    def settle(self, number: int, until: datetime) -> None:
        """Sweep until nothing is due."""
        for _ in range(20):
            self.consume(number)
            swept = appended(self._stores[number], until)
            if not swept:
                return
            self.append(swept)
        pytest.fail("sweeping does not come to an end")


@pytest.fixture(scope="module")
def sweepers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    folders = [tmp_path_factory.mktemp("sweeper") for _ in range(3)]
    with scratch_store(folders[0]) as a, scratch_store(folders[1]) as b, scratch_store(folders[2]) as c:
        yield [a, b, c]


def drawn(random_: random.Random) -> list[Data]:
    """Lives of a few coupons, legal and not, around their end; an order holds a coupon once."""
    moments = [END + timedelta(hours=h, microseconds=m) for h in range(-4, 5) for m in (0, 0, 1)]
    events = []
    for number in range(random_.randint(1, 4)):
        coupon = {"coupon_id": f"c-{number}"}
        events.append(told("created", 0, f"{number}-c", **coupon))
        held = random_.random() < 0.6
        kinds = random_.choices(("issued", "claimed", "used", "returned", "released", "revoked"), (3, 3, 3, 4, 2, 0.3),
                                k=random_.randint(0, 7))  # fmt: skip
        for n, kind in enumerate([*kinds, *(["reserved"] if held else [])]):
            fields: Data = {**coupon}
            if kind == "issued" and random_.random() < 0.5:
                fields["user_id"] = "u-1"
            if kind in ("used", "returned"):
                fields["order_id"] = random_.choice(("o-1", "o-1", "o-2"))
            if kind == "reserved":
                fields["hold_until"] = random_.choice([None, *moments])
            events.append(told(kind, random_.choice(moments), f"{number}-{n}", **fields))
    return events


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_sweeps_at_any_time_by_anybody_lead_to_the_same_states(sweepers: list[Store], seed: int) -> None:
    """Else which coupons a customer may use would depend on when a job happened to run."""
    random_ = random.Random(seed)
    events = drawn(random_)
    arriving = random_.sample(events, len(events))
    shared = Shared(sweepers[:2])
    while arriving:
        shared.append([arriving.pop() for _ in range(min(len(arriving), random_.randint(1, 6)))])
        number = random_.randrange(2)
        shared.consume(number, random_.choice((1, 3, None)))
        if random_.random() < 0.6:
            swept = appended(sweepers[number], END + timedelta(hours=random_.randint(-3, 6)))
            # Killed before all of it was delivered, or after, and then started again.
            shared.append(swept[: random_.randint(0, len(swept))])
            shared.append(swept)
    for number in (0, 1):
        shared.settle(number, LATER)
    shared.consume(0)
    reference = by_reference(lifecycle.fold, shared.records)
    for store in sweepers[:2]:
        assert stored(store, COUPON) == reference

    once = Shared([sweepers[2]])
    once.append(events)
    once.settle(0, LATER)
    alone = stored(sweepers[2], COUPON).rows
    assert {c: row["state"] for c, row in reference.rows.items()} == {c: row["state"] for c, row in alone.items()}
    before = by_reference(lifecycle.fold, delivered(events)).rows
    for coupon, row in reference.rows.items():
        was = before[coupon]["state"]
        if was in ("used", "revoked"):
            assert row["state"] == was, "what really happened to a coupon stands"
        elif was != "reserved":
            assert row["state"] == "expired"
