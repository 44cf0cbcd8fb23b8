"""Expiry with its cause: which coupons, why, when; and that no restart or second sweeper changes what comes out."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.consumers.sweeper import expire, sweep
from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.codec import micros
from coupon_ledger.ledger.errors import LogUnavailable
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.log import EventLog, Record
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.publisher import Publisher
from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.due import SOURCE, due
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from tests.command_line import (
    DATABASE,
    LOG,
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
from tests.due_by_scan import due_by_scan
from tests.examples import examples
from tests.folding import by_reference, clear, fold_in, scratch_store, stored
from tests.owners import Owner, owning

Data = dict[str, Any]
Due = tuple[str, str, datetime]
"""Type, reason and instant of what a sweep is to append."""

START = datetime(2026, 11, 1, tzinfo=UTC)
END = START + timedelta(days=10)
"""`valid_until` of every coupon here."""
EXTENDED = END + timedelta(days=5)
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
        "extended": {"valid_until": EXTENDED},
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


def found_by_coupon(store: Store, until: datetime = LATER) -> dict[str, list[Due]]:
    """What is due of each coupon of which something is."""
    by_coupon: dict[str, list[Due]] = {}
    for frame in due(store, until.replace(tzinfo=None)):
        for coupon, kind, reason, at in frame.select("coupon_id", "type", "reason", "occurred_at").rows():
            by_coupon.setdefault(coupon, []).append((kind, reason, at.replace(tzinfo=UTC)))
    return by_coupon


def found(store: Store, until: datetime = LATER) -> list[Due]:
    """What is due of coupon c-1."""
    return found_by_coupon(store, until).get("c-1", [])


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

WHY: Mapping[str, tuple[list[Data], list[Due]]] = {
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
    "given back before its time": (
        [CREATED, GRANTED, USED, told("returned", 9.5)],
        [("expired", "not_used", END + _TICK)],
    ),
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
    "given back at the last instant that there is": (
        [CREATED, GRANTED, USED, told("returned", datetime.max.replace(tzinfo=UTC))],
        [],
    ),
    "extended": ([CREATED, GRANTED, told("extended", 4)], [("expired", "not_used", EXTENDED + _TICK)]),
    "extended after its time, before it was swept": (
        [CREATED, GRANTED, told("extended", 11)],
        [("expired", "not_used", EXTENDED + _TICK)],
    ),
    "its time was made shorter": (
        [CREATED, GRANTED, told("extended", 4, valid_until=START + timedelta(days=6))],
        [("expired", "not_used", START + timedelta(days=6) + _TICK)],
    ),
    "its time was made to have ended before": (
        [CREATED, GRANTED, told("extended", 8, valid_until=START + timedelta(days=6))],
        [("expired", "not_used", START + timedelta(days=8) + _TICK)],
    ),
    "extended without an end before": (
        [told("created", 0, valid_until=None), ISSUED, told("extended", 4)],
        [("expired", "not_claimed", EXTENDED + _TICK)],
    ),
    "an extension of what is used changes nothing": (
        [CREATED, GRANTED, USED, told("extended", 9.5), told("returned", 11)],
        [("expired", "order_cancelled", START + timedelta(days=11) + _TICK)],
    ),
    "extended after it came back": (
        [CREATED, GRANTED, USED, told("returned", 11), told("extended", 12)],
        [("expired", "not_used", EXTENDED + _TICK)],
    ),
    "its campaign ended between its time and the longer one": (
        [CREATED, ISSUED, told("extended", 4), told("ended", 12)],
        [("expired", "campaign_ended", EXTENDED + _TICK)],
    ),
    "held by the first of two": (
        [told("created", 0, valid_until=None), GRANTED, RESERVED, told("reserved", 8, "z", hold_until=LATER)],
        [("released", "hold_timeout", AFTER_HOLD)],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Swept:
    """What became of all cases, folded together, each on a coupon and a campaign of its name."""

    due: Mapping[str, list[Due]]
    due_again: Mapping[str, list[Due]]
    states: Mapping[str, str]
    broken: list[str]
    """Cases in which what was swept broke a rule."""


@pytest.fixture(scope="module")
def swept(scratch: Store) -> Swept:
    events = [
        {**event, **{key: case for key in ("coupon_id", "campaign_id") if key in event}}
        for case, (lived, _) in WHY.items()
        for event in lived
    ]
    clear(scratch)
    fold_all(scratch, events)
    at_first = found_by_coupon(scratch)
    more = appended(scratch, LATER)
    clear(scratch)
    fold_all(scratch, [*events, *more])
    broken = scratch.rows("SELECT key FROM violations WHERE starts_with(event_id, 'sweep:')")
    states = dict(scratch.rows("SELECT coupon_id, state FROM coupons"))
    return Swept(at_first, found_by_coupon(scratch), states, [key for (key,) in broken])


@pytest.mark.parametrize("case", WHY)
def test_every_cause_has_its_reason_and_instant(case: str, swept: Swept) -> None:
    """Else marketing would blame the wrong thing: coupons that nobody could take for coupons that nobody wanted."""
    assert swept.due.get(case, []) == WHY[case][1]


@pytest.mark.parametrize("case", [case for case, (_, expected) in WHY.items() if expected])
def test_what_was_swept_stays_swept(case: str, swept: Swept) -> None:
    """Else each sweep would append again, for ever, what has no effect."""
    assert case not in swept.due_again
    assert swept.states[case] == ("expired" if WHY[case][1][-1][0] == "expired" else "issued")
    assert case not in swept.broken


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


# --- the same as by a scan of everything


@pytest.mark.slow
def test_the_same_is_due_as_by_a_scan_of_everything(store: Store) -> None:
    """Else some coupons would never expire, or for another reason."""
    check_against_a_scan(store, random.Random(20261111), lives=60)


@pytest.mark.slow
@examples(20)
@given(seed=st.integers(0, 2**32))
def test_the_same_is_due_as_by_a_scan_of_everything_whatever_came(sweepers: list[Store], seed: int) -> None:
    clear(sweepers[0])
    check_against_a_scan(sweepers[0], random.Random(seed), lives=30)


def check_against_a_scan(store: Store, random_: random.Random, lives: int) -> None:
    """Any lives of coupons in campaigns that ended or not, at instants around the end of the coupons."""
    events = []
    for number in range(lives):
        campaign = {"campaign_id": f"k-{number % 5}"}
        for event in drawn(random_, extending=True):
            place = {"coupon_id": f"{number}-{event['coupon_id']}", "event_id": f"{number}-{event['event_id']}"}
            events.append(event | place | (campaign if event["type"] == "created" else {}))
    for number in range(12):
        kind, at = random_.choice(("published", "ended")), random_.choice((-1, 9, 10, 11))
        events.append(told(kind, at, f"standing-{number}", campaign_id=f"k-{random_.randrange(5)}"))
    fold_all(store, random_.sample(events, len(events)))
    by = itemgetter("coupon_id", "event_id")
    for until in (END - timedelta(hours=3), END + timedelta(hours=random_.randint(-2, 4)), LATER):
        naive = until.replace(tzinfo=None)
        wanted = sorted(due_by_scan(store, naive), key=by)
        for piece in (7, 50_000):
            found = [event for rows in due(store, naive, piece) for event in rows.iter_rows(named=True)]
            assert [{k: v for k, v in e.items() if v is not None} for e in sorted(found, key=by)] == [
                {k: v for k, v in e.items() if v is not None} for e in wanted
            ]


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


def drawn(random_: random.Random, *, extending: bool = False) -> list[Data]:
    """Lives of a few coupons, legal and not, around their end; an order holds a coupon once. `extending`: their end may
    move (then what a sweep finds depends on whether the extension came first)."""
    moments = [END + timedelta(hours=h, microseconds=m) for h in range(-4, 5) for m in (0, 0, 1)]
    events = []
    for number in range(random_.randint(1, 4)):
        coupon = {"coupon_id": f"c-{number}"}
        events.append(told("created", 0, f"{number}-c", **coupon))
        held = random_.random() < 0.6
        kinds = random_.choices(
            ("issued", "claimed", "used", "returned", "released", "revoked", "extended"),
            (3, 3, 3, 4, 2, 0.3, 2 * extending),
            k=random_.randint(0, 7),
        )
        for n, kind in enumerate([*kinds, *(["reserved"] if held else [])]):
            fields: Data = {**coupon}
            if kind == "issued" and random_.random() < 0.5:
                fields["user_id"] = "u-1"
            if kind in ("used", "returned"):
                fields["order_id"] = random_.choice(("o-1", "o-1", "o-2"))
            if kind == "reserved":
                fields["hold_until"] = random_.choice([None, *moments])
            if kind == "extended":
                fields["valid_until"] = random_.choice([*moments, LATER])
            events.append(told(kind, random_.choice(moments), f"{number}-{n}", **fields))
    return events


@examples(5)
@given(seed=st.integers(0, 2**32))
@pytest.mark.slow
def test_sweeps_at_any_time_by_anybody_lead_to_the_same_states(sweepers: list[Store], seed: int) -> None:
    """Else which coupons a customer may use would depend on when a job happened to run."""
    swept_anyhow(sweepers, seed)


@pytest.mark.slow
@examples(50)
@given(seed=st.integers(0, 2**32))
def test_sweeps_at_many_times_lead_to_the_same_states(sweepers: list[Store], seed: int) -> None:
    swept_anyhow(sweepers, seed)


def swept_anyhow(sweepers: list[Store], seed: int) -> None:
    """Two sweepers with a database each, at any times, killed and started again, while facts arrive in any order.

    Tables equal the reference, and states are those of one sweep at the end that knows everything.
    """
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
    for coupon, row in reference.rows.items():
        # By the table, a reservation that is told after the sweep is expired under its order's hands.
        assert (row["state"], alone[coupon]["state"]) in {*((s, s) for s in STATES), ("expired", "reserved")}
    before = by_reference(lifecycle.fold, delivered(events)).rows
    for coupon, row in reference.rows.items():
        was = before[coupon]["state"]
        if was in ("used", "revoked"):
            assert row["state"] == was, "what really happened to a coupon stands"
        elif was != "reserved":
            assert row["state"] == "expired"


@pytest.mark.long
def test_two_who_know_the_same_append_the_same(sweepers: list[Store]) -> None:
    """Else two sweepers at once would leave two expiries of one coupon, one of them a violation."""
    shared = Shared(sweepers[:2])
    shared.append([{**told(k, at, f"{n}-{k}"), "coupon_id": f"c-{n}"} for n in range(9) for k, at in LIVES[n % 3]])
    for number in (0, 1):
        shared.consume(number)
    mine, theirs = (appended(store, LATER) for store in sweepers[:2])
    assert mine == theirs and len(mine) == 9


LIVES = [
    [("created", 0)],
    [("created", 0), ("issued", 1), ("claimed", 2)],
    [("created", 0), ("issued", 1), ("claimed", 2), ("used", 9), ("returned", 12)],
]


@pytest.mark.long
def test_an_expiry_names_what_it_was_made_of(store: Store) -> None:
    """Else one that was made without knowing the grant would count as a repeat of the one that knew it."""
    grants = [[GRANTED], [told("issued", 1, "another", user_id="u-1")], [GRANTED, told("claimed", 11)]]
    first, other, first_again = [swept_events(store, [CREATED, *grant])[0]["event_id"] for grant in grants]
    assert first != other
    assert first == first_again, "what came after its end is no part of it"


@pytest.mark.long
def test_what_overtakes_a_sweep_wins_and_is_swept_again_when_it_comes_back(store: Store) -> None:
    """Else a coupon that was used in time would stay expired, or, given back, would be usable for ever."""
    log = [CREATED, GRANTED]
    log += swept_events(store, log)
    log += [told("used", 9.9)]
    fold_all(store, log)
    assert store.rows("SELECT state::VARCHAR FROM coupons") == [("used",)]
    assert found(store) == []
    clear(store)
    log += [told("returned", 15)]
    log += swept_events(store, log)
    fold_all(store, log)
    assert store.rows("SELECT state::VARCHAR, reason FROM coupons") == [("expired", "order_cancelled")]


# --- the command, and the process that consumes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log and a database of the test's own, empty, in the working folder."""
    monkeypatch.chdir(tmp_path)
    done("init")
    return tmp_path


def event(kind: str, coupon: str, at: str, **fields: Any) -> Data:
    return coupon_event(kind, f"{coupon}-{kind}-{at}", coupon_id=coupon, occurred_at=at, **fields)


UNTIL = "2026-11-11T00:00:00Z"


def lives(coupons: int = 4) -> list[Data]:
    """Every fourth: nobody's on app, nobody's on shop, claimed and given back late, claimed."""
    events = []
    for n in range(coupons):
        c, worth = f"c-{n:06}", {"valid_until": UNTIL, "face_value_minor": 500, "currency": "CNY"}
        events.append(event("created", c, "2026-11-01T00:00:00Z", **worth))
        events.append(event("issued", c, "2026-11-02T00:00:00Z", channel="shop" if n % 4 == 1 else "app"))
        if n % 4 > 1:
            events.append(event("claimed", c, "2026-11-03T00:00:00Z"))
        if n % 4 == 2:
            events.append(event("used", c, "2026-11-04T00:00:00Z", order_id=f"o-{n}"))
            events.append(event("returned", c, "2026-11-12T00:00:00Z", order_id=f"o-{n}"))
    return events


def publish(events: Sequence[Data]) -> None:
    done("publish", "-", stdin=ndjson(events))


@pytest.mark.long
def test_expire_appends_and_reports_what_was_lost(place: Path) -> None:
    """Else nobody could say what a campaign's unused coupons would have cost, or why they were not used."""
    publish(lives())
    done("consume")
    planned = done("expire", "--dry-run", "--until", "2026-11-13", "-o", "json").json
    assert [(r["reason"], r["campaign_id"], r["coupons"], r["face_value_minor"]) for r in planned] == [
        ("not_claimed", "k-1", 2, 1000),
        ("not_used", "k-1", 1, 500),
        ("order_cancelled", "k-1", 1, 500),
    ]
    before = ends([COUPON])
    assert done("expiries", "-o", "json").json == [] and before == len(lives()), "a dry run writes nothing"
    swept = {r["reason"]: r["events"] for r in done("expire", "--until", "2026-11-13", "-o", "json").json}
    assert swept == {"not_claimed": 2, "not_used": 1, "order_cancelled": 1}
    assert "nothing is due" in done("expire", "--until", "2026-11-13").out
    assert ends([COUPON]) == before + 4
    lost = done("expiries", "-o", "json").json
    assert {(r["reason"], r["channel"]): (r["coupons"], r["face_value_minor"]) for r in lost} == {
        ("not_claimed", "app"): (1, 500),
        ("not_claimed", "shop"): (1, 500),
        ("not_used", "app"): (1, 500),
        ("order_cancelled", "app"): (1, 500),
    }
    by_channel = done("expiries", "--by", "channel", "-o", "json").json
    assert {r["channel"]: r["coupons"] for r in by_channel} == {"app": 3, "shop": 1}
    assert sum(r["coupons"] for r in done("expiries", "--since", "2026-11-12", "-o", "json").json) == 1
    whole = {r["coupon_id"]: r["ended_at"] for r in done("expiries", "--explain", "-o", "json").json}
    assert len(whole) == 4
    for first in sorted(whole.values()):
        asked = {name: done("expiries", "--explain", name, first, "-o", "json").json for name in ("--since", "--until")}
        ids = {name: {r["coupon_id"] for r in rows} for name, rows in asked.items()}
        assert ids["--since"] == {c for c, at in whole.items() if at >= first}
        assert ids["--until"] == whole.keys() - ids["--since"]
    table = done("expiries").out
    assert "Expiries by cause" in table and "not claimed" in table
    assert "未领取" in done("expiries", "--lang", "zh").out
    one_sentence(ledger("expiries", "--by", "colour"), 2, "'colour'", "channel")


@pytest.mark.long
def test_the_clock_of_the_data_decides_unless_told_otherwise(place: Path) -> None:
    """Else a consumer that is behind would expire what was used in time, with the use still to be read."""
    publish([*lives(2), event("created", "clock", "2026-11-11T00:00:00Z")])
    assert "nothing is due" in done("expire").out
    publish([event("issued", "clock", "2026-11-11T00:00:01Z")])
    assert sum(r["events"] for r in done("expire", "-o", "json").json) == 2
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    one_sentence(ledger("expire", "--until", tomorrow), 2, "--until", "still to come")


@pytest.mark.slow
def test_a_use_that_is_told_late_is_no_fault_of_the_sweep(place: Path) -> None:
    """Else the list of faults would fill with what is none, and the real ones would not be seen."""
    publish([*lives(1), event("claimed", "c-000000", "2026-11-03T00:00:00Z")])
    done("expire", "--until", "2026-11-12")
    publish([event("used", "c-000000", "2026-11-10T23:59:59Z")])
    done("consume")
    assert done("state", "c-000000", "-o", "json").json["state"] == "used"
    [violation] = done("violations", "--scope", "coupon", "-o", "json").json
    assert (violation["violation"], violation["superseded"]) == ("expired_when_used", True)
    counted = {r["violation"]: r for r in done("violations", "--count", "-o", "json").json}["expired_when_used"]
    assert (counted["violations"], counted["superseded"]) == (0, 1)
    assert "superseded (expired_when_used)" in done("history", "c-000000").out
    status = done("status", "-o", "json").json
    assert (status["violations"], status["superseded"]) == (0, 1)
    assert "0 violations, apart from them 1 superseded" in done("status").out
    then = done("status", "--at", "2026-11-12", "-o", "json").json
    assert (then["violations"], then["superseded"]) == (0, 1)
    counts = {"violations": 0, "superseded": 1, "explained": 0, "provisional": 0}
    assert then["broken"] == [{"violation": "expired_when_used", **counts}]


@pytest.mark.slow
def test_a_fault_after_an_expiry_stays_a_fault(place: Path) -> None:
    """Else the use of an expired coupon would be taken for a late report."""
    publish([*lives(1), event("used", "c-000000", "2026-11-10T00:00:00Z")])
    publish([event("created", "x", "2026-11-01T00:00:00Z", valid_until=UNTIL)])
    done("expire", "--until", "2026-11-12")
    publish([event("used", "x", "2026-11-13T00:00:00Z")])
    done("consume")
    told_of_x = [v for v in done("violations", "--scope", "coupon", "-o", "json").json if v["key"] == "x"]
    assert {v["violation"]: v["superseded"] for v in told_of_x} == {
        "used_when_expired": False,
        "outside_validity": False,
    }


@pytest.mark.long
def test_reminders_name_who_can_still_use_what_ends_soon(place: Path) -> None:
    """Else people would be reminded of what is used or over, or too late."""
    soon, far = {"valid_until": "2026-11-03T00:00:00Z"}, {"valid_until": "2026-11-09T00:00:00Z"}
    events = [event("created", c, "2026-11-01T00:00:00Z", **until) for c, until in
              [("mine", soon), ("far", far), ("open", soon), ("used", soon)]]  # fmt: skip
    events += [event("issued", c, "2026-11-01T01:00:00Z", user_id=u) for c, u in
               [("mine", "u-1"), ("far", "u-1"), ("open", None), ("used", "u-1")]]  # fmt: skip
    publish([*events, event("used", "used", "2026-11-01T02:00:00Z")])
    done("consume")
    assert [r["coupon_id"] for r in done("coupons", "expiring", "-o", "ndjson").rows] == ["mine"]
    assert [r["coupon_id"] for r in done("coupons", "expiring", "--within", "1d", "-o", "ndjson").rows] == []
    assert [r["coupon_id"] for r in done("coupons", "expiring", "--within", "9d", "-o", "ndjson").rows] == [
        "mine",
        "far",
    ]
    assert [r["coupon_id"] for r in done("coupons", "-o", "ndjson").rows] == ["far", "mine", "open", "used"]
    one_sentence(ledger("coupons", "expiring", "--within", "soon"), 2, "'soon'", "no length of time")


def expired(owner: Owner) -> int:
    rows = owner.answer("expiries", by="reason")["rows"]
    return sum(row["coupons"] for row in rows)


@pytest.mark.slow
def test_a_consumer_that_follows_sweeps_by_itself(place: Path) -> None:
    """Else coupons would stay usable in the tables until somebody thinks of a job."""
    publish(lives(40))
    with owning("--sweep-every", "1s") as owner:
        # The data's clock stands at the instant of the returns.
        wait_until(lambda: expired(owner) == 30, "the sweep")
        publish([event("created", "clock", "2026-11-12T00:00:01Z")])
        wait_until(lambda: expired(owner) == 40, "the sweep of what came back")
    assert ends([COUPON]) == len(lives(40)) + 41
    one_sentence(ledger("consume", "--sweep-every", "1s"), 2, "--follow")


@pytest.mark.slow
def test_a_consumer_that_owns_the_database_is_asked_to_sweep(place: Path) -> None:
    """Else a nightly job would fail whenever the consumer runs, which is always."""
    publish(lives(40))
    with owning() as owner:
        wait_until(lambda: len(owner.answer("coupons")["rows"]) == 40, "the coupons")
        swept = done("expire", "--until", "2026-11-13", "-o", "json").json
        wait_until(lambda: expired(owner) == 40, "the sweep")
        assert "nothing is due" in done("expire", "--until", "2026-11-13").out
        refused = owner.post("/v1/expire", until="2999-01-01T00:00:00Z")
        unknown = owner.post("/v1/expire", headers={})
    assert {r["reason"]: r["events"] for r in swept} == {"not_claimed": 20, "not_used": 10, "order_cancelled": 10}
    assert refused.status == 422 and "still to come" in refused.json["error"]
    assert unknown.status == 401
    assert ends([COUPON]) == len(lives(40)) + 40


@pytest.mark.long
def test_a_sweep_on_either_log(log_settings: LogSettings, tmp_path: Path) -> None:
    """Else what the embedded log promises would not hold in production."""
    create_database(tmp_path / DATABASE)
    log = open_log(log_settings, create=True)
    with open_database(tmp_path / DATABASE) as store:
        log.create_topics()
        publisher = Publisher(log)
        for one in lives(40):
            assert publisher.publish(one)
        publisher.flush()
        swept = expire(store, log, lambda: Consumer(log, store, outlet=log, batch_size=10_000), datetime(2026, 11, 13))
        assert swept == {"not_claimed": 20, "not_used": 10, "order_cancelled": 10}
        assert store.rows("SELECT DISTINCT state::VARCHAR FROM coupons") == [("expired",)]
    log.close()


@pytest.mark.long
def test_a_log_that_takes_nothing_leaves_the_sweep_waiting(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a sweep during an outage would be lost, or said to be done."""
    publish(lives())
    log = open_log(LogSettings(url=f"sqlite:///{LOG}"))

    def refuse(records: Sequence[Record]) -> None:
        raise LogUnavailable("log: cannot be reached")

    with open_database(Path(DATABASE)) as store, monkeypatch.context() as broken:
        for _ in Consumer(log, store, outlet=log, batch_size=100).run():
            pass
        broken.setattr(log, "append", refuse)
        with pytest.raises(LogUnavailable, match="3 records, which wait"):
            sweep(store, log, datetime(2026, 11, 11, 1))
        assert store.rows("SELECT count(*) FROM outbox") == [(3,)]
    log.close()
    assert "nothing is due" in done("expire", "--until", "2026-11-11T01:00:00Z").out, "what waited was not lost"
    assert sum(r["coupons"] for r in done("expiries", "-o", "json").json) == 3
    assert ends([COUPON]) == len(lives()) + 3


# --- killed


class Killed(BaseException):
    pass


class Mortal:
    """A log after whose n-th append, or instead of it, the process is gone."""

    def __init__(self, log: EventLog, n: int, after: bool) -> None:
        self._log, self._left, self._after = log, n, after

    def append(self, records: Sequence[Record]) -> object:
        self._left -= 1
        if self._left > 0:
            return self._log.append(records)
        if self._after:
            self._log.append(records)
        raise Killed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize("after", [False, True], ids=["before the append", "after it"])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.slow
def test_gone_at_an_append_and_started_again_nothing_differs(place: Path, n: int, after: bool) -> None:
    """Between the append and the removal from the outbox lies the one place where a record is appended twice."""
    publish(lives(2_400))  # more than the outbox delivers in one append
    log = open_log(LogSettings(url=f"sqlite:///{LOG}"))
    until = datetime(2026, 11, 13)
    with open_database(Path(DATABASE)) as store, pytest.raises(Killed):
        mortal: Any = Mortal(log, n, after)
        expire(store, mortal, lambda: Consumer(log, store, outlet=log, batch_size=10_000), until)
    log.close()
    done("expire", "--until", "2026-11-13")
    done("init", "--database", "undisturbed.duckdb")
    done("consume", "--database", "undisturbed.duckdb")
    assert facts() == facts("undisturbed.duckdb")
    assert sum(r["coupons"] for r in done("expiries", "-o", "json").json) == 2_400
    assert done("violations", "-o", "json").json == []


@pytest.mark.slow
def test_killed_over_and_over_the_same_comes_out(place: Path) -> None:
    """SIGKILL of the real process as soon as its events appear in the log: the same facts as an undisturbed consumer
    finds in that log, each coupon expired once."""
    publish(lives(8_000))
    done("consume")
    for _ in range(6):
        before = ends([COUPON])
        process = start("expire", "--until", "2026-11-13")
        wait_until(lambda: process.poll() is not None or ends([COUPON]) > before, "an event of the sweep")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        finish(process)
    done("expire", "--until", "2026-11-13")
    done("init", "--database", "undisturbed.duckdb")
    done("consume", "--database", "undisturbed.duckdb")
    assert facts() == facts("undisturbed.duckdb")
    assert sum(r["coupons"] for r in done("expiries", "-o", "json").json) == 8_000
    assert done("violations", "-o", "json").json == []


@pytest.mark.slow
def test_two_processes_at_once_expire_each_coupon_once(place: Path) -> None:
    """Each with a database of its own on one log, as in two data centres: one event a coupon, whoever came first."""
    publish(lives(4_000))
    other = "other.duckdb"
    done("init", "--database", other)
    both = [start("expire", "--until", "2026-11-13", "--database", name) for name in (DATABASE, other)]
    for process in both:
        ran = finish(process)
        assert ran.code == 0, ran.err
    for name in (DATABASE, other):
        done("consume", "--database", name)
    assert facts() == facts(other)
    assert sum(r["coupons"] for r in done("expiries", "-o", "json").json) == 4_000
    assert done("violations", "-o", "json").json == []
