"""Batch by batch, in any order and any cut, the tables are what a fold from the start gives."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.codec import JSON_FIELDS, SCHEMA_NAME, encode_row
from coupon_ledger.ledger.events import canonical_json
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.log import EventLog, Position, Record, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.rules import STATES, types
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.projections import checkpoints
from coupon_ledger.projections.live import apply as apply_module
from coupon_ledger.projections.live import fold as fold_module
from coupon_ledger.projections.live.apply import Counts, apply
from coupon_ledger.projections.live.journal import CONFLICTS, JOURNAL
from coupon_ledger.projections.live.signature import Int64, stable_hash
from coupon_ledger.projections.store import Store
from tests.examples import examples
from tests.folding import (
    BOOK_KEEPING,
    Outcome,
    by_reference,
    emptied,
    everything,
    fold_in,
    key_of,
    positions,
    scratch_store,
    stored,
)
from tests.histories import History, cut, histories, history

pytestmark = pytest.mark.vital

SEED = 20261111
SOME = examples(2)
MANY = examples(12)

Row = dict[str, Any]
Event = dict[str, Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("equivalence")) as opened:
        yield opened


# ── An independent model of what stands ──────────────────────────────────────────────────────────────────────


def content(event: Event) -> str:
    """Everything that the event says, as one text."""
    said = {k: json.loads(v) if k in JSON_FIELDS and v is not None else v for k, v in event.items()}
    return repr(sorted((k, _whole(v)) for k, v in said.items() if v is not None))


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((k, _whole(v)) for k, v in value.items())
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Standing:
    """What of these deliveries stands: per identity the content at the first position, and every other content once."""

    def __init__(self, topic: str, deliveries: Sequence[Delivery]) -> None:
        self.facts: list[Delivery] = []
        self.conflicts: list[Delivery] = []
        seen: set[tuple[str, str]] = set()
        told: set[tuple[str, str, str]] = set()
        for d in sorted(deliveries, key=lambda d: (d.recorded_at, d.partition, d.offset)):
            identity = (key_of(topic, d), d.event["event_id"])
            if (*identity, content(dict(d.event))) not in told:
                (self.conflicts if identity in seen else self.facts).append(d)
            seen.add(identity)
            told.add((*identity, content(dict(d.event))))


def last_values(topic: str, facts: Sequence[Delivery]) -> dict[str, Row]:
    """The rows of orders, campaigns or users: a plain loop over the facts in canonical order."""
    rows: dict[str, Row] = {}
    order = types(topic)
    for d in sorted(
        facts,
        key=lambda d: (d.event["occurred_at"], order.index(d.event["type"]), d.event["event_id"].encode()),
    ):
        event = d.event
        row = rows.setdefault(key_of(topic, d), {"events": 0} | EMPTY[topic])
        row["events"] += 1
        row["last_event_at"] = event["occurred_at"]
        if event["type"] in ("cost_booked", "target_set", "assigned"):
            continue  # no terms of a campaign
        for name in row.keys() & event.keys() - DERIVED:
            value = json.loads(event[name]) if name in JSON_FIELDS and event[name] else event[name]
            if value is not None:
                row[name] = canonical_json(value) if name in JSON_FIELDS else value
        ADVANCE[topic](row, event)
    return rows


def _order(row: Row, event: Any) -> None:
    kind = event["type"]
    if kind == "paid":
        if row["cancelled_at"] is not None and row["repaid_at"] is None:
            row["repaid_at"] = event["occurred_at"]
        row["cancelled_at"] = None
    if kind == "refunded":
        row["refunded_minor"] = (row["refunded_minor"] or 0) + event["refund_minor"]
    elif row[f"{kind}_at"] is None:
        row[f"{kind}_at"] = event["occurred_at"]


def _campaign(row: Row, event: Any) -> None:
    if event["type"] in ("drafted", "published", "unpublished", "amended"):
        row["rule_version"] = event["event_id"]
    if event["type"] in ("drafted", "published", "unpublished", "ended"):
        row["status"] = event["type"]


def _user(row: Row, event: Any) -> None:
    if event["type"] == "linked":
        row["aliases"] = sorted({*row["aliases"], event["alias_id"]}, key=str.encode)
    row["touches"] += event["type"] == "touched"


ADVANCE = {ORDER: _order, CAMPAIGN: _campaign, USER: _user}
DERIVED = {
    "placed_at",
    "paid_at",
    "cancelled_at",
    "repaid_at",
    "refunded_minor",
    "rule_version",
    "status",
    "aliases",
    "touches",
}
EMPTY: dict[str, Row] = {
    ORDER: dict.fromkeys(
        "user_id channel store region currency gross_minor net_minor discounts cost_of_goods_minor reason coupon_ids"
        " lines placed_at paid_at cancelled_at repaid_at refunded_minor".split()
    ),
    CAMPAIGN: dict.fromkeys(
        "name status rule_version rule_id mechanic visibility quantity per_user_limit claim_from claim_until"
        " coupon_type face_value_minor percent_off_bp min_spend_minor currency applies_to exclusion_group priority"
        " platform_or_store budget_minor channel funded_by".split()
    ),
    USER: {"attributes": None, "aliases": [], "touches": 0},
}


def expected(topic: str, deliveries: Sequence[Delivery]) -> Outcome:
    """What the tables must say; for coupons by the reference fold, else by the loop above."""
    if topic == COUPON:
        return by_reference(lifecycle.fold, deliveries)
    standing = Standing(topic, deliveries)
    outcome = Outcome(last_values(topic, standing.facts))
    for key, row in outcome.rows.items():
        row[KEY_FIELD[topic]] = key
        row["violations"] = sum(key_of(topic, d) == key for d in standing.conflicts)
    for d in standing.conflicts:
        event = d.event
        outcome.violations[
            key_of(topic, d), event["event_id"], "conflicting_duplicate", None, event["occurred_at"]
        ] += 1
    return outcome


# ── Checks ───────────────────────────────────────────────────────────────────────────────────────────────────


def check_tables(store: Store, topic: str, deliveries: Sequence[Delivery]) -> None:
    """Rows, violations, journal and conflicts are those of a fold from the start."""
    found, wanted = stored(store, topic), expected(topic, deliveries)
    assert found.rows == wanted.rows
    assert found.violations == wanted.violations
    standing = Standing(topic, deliveries)
    for table, those in ((JOURNAL[topic], standing.facts), (CONFLICTS[topic], standing.conflicts)):
        assert positions(store, table, topic) == Counter(
            (key_of(topic, d), d.event["event_id"], naive(d.recorded_at), d.partition, d.offset) for d in those
        )


def naive(micros: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(microseconds=micros)


def check_counts(topic: str, counts: Sequence[Counts], deliveries: Sequence[Delivery]) -> None:
    """Per partition, what was applied and what is in conflict; the rest of what was delivered are repeats."""
    standing = Standing(topic, deliveries)
    delivered = Counter(d.partition for d in deliveries)
    for name, those in (("applied", standing.facts), ("conflicts", standing.conflicts)):
        total: Counter[int] = Counter()
        for count in counts:
            total.update(getattr(count, name))
        assert +total == Counter(d.partition for d in those)
        assert all(0 <= total[p] <= delivered[p] for p in total)
    facts, others = (Counter(d.partition for d in those) for those in (standing.facts, standing.conflicts))
    assert all(facts[p] + others[p] <= delivered[p] for p in delivered)


def check_history(store: Store, told: History) -> None:
    with emptied(store):
        counts = fold_in(store, apply, told.topic, told.batches)
        check_tables(store, told.topic, told.deliveries)
        check_counts(told.topic, counts, told.deliveries)


def topics_of(*fast: str) -> pytest.MarkDecorator:
    """All topics in the whole suite, these by default."""
    return pytest.mark.parametrize(
        "topic", [topic if topic in fast else pytest.param(topic, marks=pytest.mark.slow) for topic in INPUT_TOPICS]
    )


each_topic = topics_of(COUPON, ORDER)  # orders stand for the other three
each_topic_coupons_fast = topics_of(COUPON)


@pytest.mark.long
@each_topic
@given(data=st.data())
@SOME
def test_batch_by_batch_is_a_fold_from_the_start(store: Store, topic: str, data: st.DataObject) -> None:
    """The tables would depend on how the log happened to be read."""
    check_history(store, data.draw(histories(topic)))


@pytest.mark.slow
@each_topic
@given(data=st.data())
@MANY
def test_batch_by_batch_is_a_fold_from_the_start_at_length(store: Store, topic: str, data: st.DataObject) -> None:
    """The tables would, rarely, depend on how the log happened to be read."""
    check_history(store, data.draw(histories(topic, keys=80)))


@pytest.mark.long
@each_topic_coupons_fast
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_a_key_with_many_events_is_a_fold_from_the_start(
    store: Store, monkeypatch: pytest.MonkeyPatch, topic: str, seed: int
) -> None:
    """Such keys are looked up and folded in ways of their own: from the first event on, here."""
    print(f"seed {seed}")
    monkeypatch.setattr(apply_module, "_MANY", 0)
    monkeypatch.setattr(fold_module, "_ROUNDS", 0)
    for orderly in (False, True):
        check_history(store, history(topic, seed, 120, keys=5, orderly=orderly))


def many(n: int, first: int = 0) -> list[Delivery]:
    """Events of one coupon, at their positions, a minute apart: it is held and let go of, over and over."""
    start = datetime(2026, 11, 11, tzinfo=UTC)
    found = []
    for at in range(first, first + n):
        event = {"event_id": f"e-{at}", "source": "s", "coupon_id": "c", "occurred_at": start + timedelta(minutes=at)}
        kind = "claimed" if at == 0 else "reserved" if at % 2 else "released"
        event |= {"type": kind, "user_id": "u", "channel": "app", "order_id": f"o-{at // 4}"}
        found.append(Delivery(event, 10**6 + at, 0, at))
    return found


@pytest.mark.long
def test_a_later_event_of_a_key_with_many_does_not_fold_all_again(store: Store) -> None:
    """One event for a coupon with 60,000 took 18 seconds: its filter says "maybe seen" of every id."""
    told = many(400)
    repeated = [replace(d, offset=1_000 + d.offset, recorded_at=2 * 10**6) for d in told[:3]]
    last = many(3, first=400)
    batches = [told, last[:1], repeated, [*last[1:], *repeated[:1]]]
    batches[-1][-1] = replace(repeated[0], offset=2_000)
    with emptied(store):
        counts = fold_in(store, apply, COUPON, batches)
        check_tables(store, COUPON, [d for batch in batches for d in batch])
        check_counts(COUPON, counts, [d for batch in batches for d in batch])
        assert [count.late for count in counts[1:]] == [0, 0, 0]
        late = Delivery({**many(1)[0].event, "event_id": "late", "type": "issued"}, 3 * 10**6, 0, 3_000)
        counts = fold_in(store, apply, COUPON, [[late]])
        check_tables(store, COUPON, [*(d for batch in batches for d in batch), late])
        assert counts[0].late == 1


def check_arrivals(store: Store, told: History, *, shuffled: bool) -> None:
    """Read again in another way, every column of every table is the same. Positions stay with the deliveries."""
    random_ = random.Random(told.seed)
    deliveries = list(told.deliveries)
    ends = []
    for turn in range(3):
        if turn and shuffled:
            random_.shuffle(deliveries)
        with emptied(store):
            fold_in(store, apply, told.topic, cut(random_, deliveries) if turn else [deliveries])
            ends.append(everything(store))
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.long
@each_topic_coupons_fast
@given(data=st.data())
@examples(2)
def test_no_order_of_arrival_and_no_cut_changes_a_column(store: Store, topic: str, data: st.DataObject) -> None:
    """A rebuild would give another digest than the live tables, conflicts or not."""
    check_arrivals(store, data.draw(histories(topic)), shuffled=True)


@pytest.mark.slow
@each_topic
@given(data=st.data())
@examples(2)
def test_without_conflicts_not_even_positions_matter(store: Store, topic: str, data: st.DataObject) -> None:
    """The same facts through another log would give another facts digest."""
    told = data.draw(histories(topic, conflicts=False))
    random_ = random.Random(told.seed)
    events = [d.event for d in told.deliveries]
    ends = []
    for _ in range(2):
        random_.shuffle(events)
        deliveries = [Delivery(e, 10**6 + n // 2, 0, n) for n, e in enumerate([*events, *events[::2]])]
        with emptied(store):
            fold_in(store, apply, topic, cut(random_, deliveries))
            ends.append(stored(store, topic))
    assert ends[0] == ends[1]
    assert not any(v[2] == "conflicting_duplicate" for v in ends[0].violations)


@pytest.mark.slow
def test_many_coupons_at_once(store: Store) -> None:
    """What is right for one coupon would be wrong among thousands folded together."""
    print(f"seed {SEED}")
    told = history(COUPON, SEED, 4_000, keys=300)
    quarter = len(told.deliveries) // 4
    parts = [told.deliveries[i : i + quarter + 1] for i in range(0, len(told.deliveries), quarter + 1)]
    check_history(store, History(SEED, COUPON, tuple(map(tuple, parts))))


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [1, 3])
def test_keys_with_equal_hashes_stay_apart(store: Store, monkeypatch: pytest.MonkeyPatch, kinds: int) -> None:
    """Two coupons whose hashes happen to be equal would share a row or a journal."""

    def weak(texts: Any) -> Int64:
        hashes: Int64 = stable_hash(texts) % kinds
        return hashes

    print(f"seed {SEED}")
    monkeypatch.setattr(apply_module, "stable_hash", weak)
    for topic in INPUT_TOPICS:
        check_history(store, history(topic, SEED, 60, keys=20))


@pytest.mark.long
def test_an_empty_batch_changes_nothing(store: Store) -> None:
    """A poll without events would stop the consumer."""
    told = history(COUPON, SEED, 10)
    with emptied(store):
        fold_in(store, apply, COUPON, told.batches)
        before = everything(store)
        assert fold_in(store, apply, COUPON, [()]) == [Counts()]
        assert everything(store) == before


@pytest.mark.slow
def test_a_second_reading_changes_no_table(store: Store) -> None:
    """Reading the log again from its beginning would change what is there."""
    for topic in INPUT_TOPICS:
        told = history(topic, SEED, 30, keys=9)
        with emptied(store):
            fold_in(store, apply, topic, told.batches)
            before = everything(store)
            again = fold_in(store, apply, topic, told.batches)
            assert everything(store) == before
            changed: Counter[int] = Counter()
            for count in again:
                changed.update(count.applied)
                changed.update(count.conflicts)
            assert not +changed and not -changed


# ── The whole path ───────────────────────────────────────────────────────────────────────────────────────────


def poison(random_: random.Random) -> list[tuple[str, bytes, str]]:
    """Topic, bytes, and the reason that the dead letter must give."""
    lacking = {
        "event_id": "e",
        "type": "used",
        "occurred_at": datetime(2026, 1, 1, tzinfo=UTC),
        "source": "s",
        "coupon_id": "key-0",
    }
    whole = encode_row("coupon_event", lacking | {"user_id": "u", "order_id": "o", "discount_minor": 1})
    user = encode_row("user_event", lacking | {"type": "profiled", "user_id": "u", "attributes": "{}"})
    bad_json = encode_row("user_event", lacking | {"type": "profiled", "user_id": "u", "attributes": '{"a":"\\ud800"}'})
    found = [
        (COUPON, b"", "undecodable"),
        (COUPON, b"not Avro", "undecodable"),
        (COUPON, whole[:-1], "undecodable"),
        (COUPON, whole + b"\0", "undecodable"),
        (COUPON, b"\xc3\x01" + b"\7" * 8 + whole[10:], "unknown_schema"),
        (COUPON, encode_row("coupon_event", lacking), "invalid_event"),
        (COUPON, user, "wrong_topic"),
        (ORDER, whole, "wrong_topic"),
        (USER, bad_json, "invalid_event"),
        (CAMPAIGN, b"\xc3\x01", "undecodable"),
    ]
    return random_.sample(found, len(found))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[EventLog, dict[str, list[Delivery]], dict[Position, tuple[str, bytes]]]]:
    """A log with all topics and poison between; what was delivered, and per position what must become of the poison."""
    print(f"seed {SEED}")
    random_ = random.Random(SEED)
    records: list[tuple[Record, Event | None, str]] = []
    for topic in INPUT_TOPICS:
        for d in history(topic, SEED, 8).deliveries:
            value = encode_row(SCHEMA_NAME[topic], d.event)
            records.append((Record(topic, random_.choice((b"p", b"q", b"r")), value), dict(d.event), ""))
    records += [(Record(topic, b"p", value), None, reason) for topic, value, reason in poison(random_)]
    random_.shuffle(records)
    log = open_log(
        LogSettings(url=f"sqlite:///{tmp_path_factory.mktemp('world') / 'log.db'}", partitions=3), create=True
    )
    log.create_topics()
    at = [p for i in range(0, len(records), 50) for p in log.append([r for r, _, _ in records[i : i + 50]])]
    recorded = recorded_at(log)
    told: dict[str, list[Delivery]] = {topic: [] for topic in INPUT_TOPICS}
    dead: dict[Position, tuple[str, bytes]] = {}
    for position, (record, event, reason) in zip(at, records, strict=True):
        if event is None:
            dead[position] = (reason, record.value)
        else:
            told[record.topic].append(Delivery(event, recorded[position], position.partition, position.offset))
    yield log, told, dead
    log.close()


def recorded_at(log: EventLog) -> dict[Position, int]:
    places = dict.fromkeys(log.partitions(INPUT_TOPICS), 0)
    return {
        Position(c.topic, c.partition, offset): at
        for c in log.read(places, 100_000)
        for offset, at in zip(c.offsets.tolist(), c.recorded_at.tolist(), strict=True)
    }


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 7)), 1_000])
def test_from_the_logs_bytes_to_the_tables(
    world: tuple[EventLog, dict[str, list[Delivery]], dict[Position, tuple[str, bytes]]],
    tmp_path_factory: pytest.TempPathFactory,
    batch_size: int,
) -> None:
    """Poison in the log would stop the consumer, get lost, or change its neighbours; an account would not add up."""
    log, told, dead = world
    with scratch_store(tmp_path_factory.mktemp("path")) as store:
        read = sum(batch.records for batch in Consumer(log, store, outlet=log, batch_size=batch_size).run())
        assert read == sum(map(len, told.values())) + len(dead)
        for topic, deliveries in told.items():
            check_tables(store, topic, deliveries)
        letters = store.frame("SELECT topic, log_partition, log_offset, reason, value FROM dead_letters").rows()
        assert {Position(t, p, o): (reason, value) for t, p, o, reason, value in letters} == dead
        assert len(letters) == len(dead)
        check_accounts(store, log, told, dead)


def check_accounts(
    store: Store, log: EventLog, told: dict[str, list[Delivery]], dead: dict[Position, tuple[str, bytes]]
) -> None:
    """Per partition: read = applied + repeats + conflicts + dead letters, each of them as it really was."""
    accounts = checkpoints.load(store)
    ends = log.end_positions(log.partitions(INPUT_TOPICS))
    assert accounts.keys() == {p for p, end in ends.items() if end}
    for place, account in accounts.items():
        standing = Standing(place.topic, told[place.topic])
        here = [sum(d.partition == place.partition for d in those) for those in (standing.facts, standing.conflicts)]
        delivered = sum(d.partition == place.partition for d in told[place.topic])
        letters = sum(TopicPartition(p.topic, p.partition) == place for p in dead)
        assert [account.applied, account.conflicts] == here
        assert account.dead_letters == letters
        assert account.repeats == delivered - sum(here)
        assert account.read == delivered + letters
        assert account.next_offset == ends[place]


def test_the_columns_compared_are_all_there_are(store: Store) -> None:
    """A column could be added that nobody checks."""
    for topic, table in (("order.events", "orders"), ("campaign.events", "campaigns"), ("user.events", "users")):
        columns = set(store.frame(f"SELECT * FROM {table}").columns) - set(BOOK_KEEPING)
        assert columns == {*EMPTY[topic], KEY_FIELD[topic], "events", "violations", "last_event_at"}


@pytest.mark.long
def test_histories_are_full_of_trouble() -> None:
    """The tests above would pass on histories in which nothing happens."""
    print(f"seeds {SEED} to {SEED + 99}")
    found: Counter[str] = Counter()
    for seed in range(SEED, SEED + 100):
        told = history(COUPON, seed, 12).deliveries
        outcome = by_reference(lifecycle.fold, told)
        found.update(v[2] for v in outcome.violations)
        found.update(row["state"] for row in outcome.rows.values())
        found["repeats"] += len(told) - sum(row["events"] for row in outcome.rows.values())
    guards = {"no_owner", "wrong_user", "wrong_order", "outside_validity", "conflicting_duplicate"}
    assert set(STATES) <= found.keys()
    assert all(found[name] >= 5 for name in (*guards, "repeats"))
    assert sum("_when_" in name for name in found) > 40
