"""While a consumer catches up, one topic may have been read further than another. What only seems wrong until the other
topic is read must not reach anyone as a violation."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.codec import SCHEMA_NAME, encode_row
from coupon_ledger.ledger.lifecycle import Delivery, fold
from coupon_ledger.ledger.log import EventLog, TopicPartition
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER
from coupon_ledger.projections.checkpoints import Completeness
from coupon_ledger.projections.store import Store
from tests.examples import TIMES
from tests.folding import scratch_store
from tests.test_cross_rules import START, Told, Violation, World, between_topics, clock_of, facts
from tests.test_verify import log_from

SEED: Final = 20261129
PARTITIONS: Final = 3
OTHER: Final = {COUPON: ORDER, ORDER: COUPON}


def deliveries(seed: int) -> list[Told]:
    """Events of a world as they are recorded: two seconds apart, each in some partition of its topic."""
    draw = random.Random(seed)
    events = [(topic, d.event) for topic, d in World(seed).told]
    placed: list[Told] = []
    next_offset: dict[TopicPartition, int] = {}
    for n, (topic, event) in enumerate(events):
        partition = TopicPartition(topic, draw.randrange(PARTITIONS))
        offset = next_offset.get(partition, 0)
        next_offset[partition] = offset + 1
        recorded = int((START + timedelta(hours=3, seconds=2 * n)).timestamp() * 1_000_000)
        placed.append((topic, Delivery(event, recorded, partition.partition, offset)))
    return placed


def logged(folder: Path, told: Sequence[Told]) -> EventLog:
    records: dict[TopicPartition, list[tuple[bytes, bytes, int]]] = {}
    for topic, d in told:
        key, value = str(d.event[KEY_FIELD[topic]]).encode(), encode_row(SCHEMA_NAME[topic], dict(d.event))
        records.setdefault(TopicPartition(topic, d.partition), []).append((key, value, d.recorded_at))
    return log_from(folder, PARTITIONS, records)


def lagging(told: Sequence[Told], seed: int) -> dict[TopicPartition, int]:
    """How far each partition is read: some to the end, some not at all."""
    draw = random.Random(seed)
    ends: dict[TopicPartition, int] = {}
    for topic, d in told:
        partition = TopicPartition(topic, d.partition)
        ends[partition] = max(ends.get(partition, 0), d.offset + 1)
    return {p: draw.choice((0, end // 3, end // 2, end, end)) for p, end in ends.items()}


def consume(log: EventLog, store: Store, until: dict[TopicPartition, int] | None) -> None:
    for _ in Consumer(log, store, outlet=None, batch_size=20, until=until).run():
        pass


def expected(told: Sequence[Told], until: dict[TopicPartition, int]) -> dict[Violation, bool]:
    """Each violation between topics after reading so far, and whether it is provisional (LIFECYCLE section 4)."""
    read = [(t, d) for t, d in told if d.offset < until[TopicPartition(t, d.partition)]]
    if not read:
        return {}
    by_coupon: dict[str, list[Delivery]] = {}
    for topic, d in read:
        if topic == COUPON:
            by_coupon.setdefault(d.event["coupon_id"], []).append(d)
    folded = {coupon: fold(those) for coupon, those in by_coupon.items()}
    recorded: dict[tuple[str, str, str], int] = {}
    for topic, d in sorted(read, key=lambda p: p[1].position):
        recorded.setdefault((topic, d.event[KEY_FIELD[topic]], d.event["event_id"]), d.recorded_at)
    judged: dict[Violation, bool] = {}
    for violation, _, key, event, counterpart, trigger in between_topics(folded, facts(ORDER, read)):
        if clock_of(read) < trigger["occurred_at"] + timedelta(minutes=15):
            continue
        topic = COUPON if "coupon_id" in trigger else ORDER
        at = recorded[topic, trigger[KEY_FIELD[topic]], trigger["event_id"]]
        judged[violation, key, event["event_id"], counterpart] = any(
            until[p] < max(d.offset + 1 for d in of) and not any(d.offset < until[p] and d.recorded_at > at for d in of)
            for p, of in partitions_of(OTHER[topic], told).items()
        )
    return judged


def partitions_of(topic: str, told: Sequence[Told]) -> dict[TopicPartition, list[Delivery]]:
    found: dict[TopicPartition, list[Delivery]] = {}
    for of, d in told:
        if of == topic:
            found.setdefault(TopicPartition(topic, d.partition), []).append(d)
    return found


def judged(store: Store) -> dict[Violation, bool]:
    rows = store.rows(
        "SELECT violation, key, event_id, counterpart, provisional FROM judged_violations"
        " WHERE scope = 'cross' AND trigger_topic IS NOT NULL"
    )
    return {(violation, key, event, counterpart): marked for violation, key, event, counterpart, marked in rows}


@pytest.mark.long
@pytest.mark.parametrize("part", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 4))])
def test_a_violation_is_provisional_until_the_other_topic_is_read_past_its_trigger(tmp_path: Path, part: int) -> None:
    """A consumer that catches up would raise an alarm for every order that it has not read yet; or a real violation
    would stay hidden."""
    marked = settled = 0
    for n in range(3 * TIMES):
        seed = SEED + 100 * part + n
        print(f"seed {seed}")
        told = deliveries(seed)
        (tmp_path / str(n)).mkdir()
        with closing(logged(tmp_path / str(n), told)) as log, scratch_store(tmp_path / str(n)) as store:
            until = lagging(told, seed)
            consume(log, store, until)
            now = judged(store)
            assert now == expected(told, until)
            marked += sum(now.values())
            consume(log, store, None)
            in_the_end = judged(store)
            assert in_the_end and not any(in_the_end.values())
            settled += len(in_the_end)
    assert marked and settled


@pytest.mark.long
def test_provisional_ones_are_kept_apart_from_those_that_count(tmp_path: Path) -> None:
    """`status` showed 81,465 violations of which 6,980 were real."""
    used = {"user_id": "u", "order_id": "o", "discount_minor": 5}
    created = {"campaign_id": "k", "coupon_type": "cash"}
    order = {"user_id": "u", "currency": "CNY", "gross_minor": 200, "net_minor": 195}

    def at(minute: int, topic: str, key: str, kind: str, **more: object) -> Told:
        head = {"event_id": kind, "type": kind, "occurred_at": START + timedelta(minutes=minute), "source": "s"}
        recorded = int((START + timedelta(days=1, minutes=minute)).timestamp() * 1_000_000)
        return topic, Delivery({**head, KEY_FIELD[topic]: key, **more}, recorded, 0, 0)

    lives = [at(0, COUPON, "c", "created", **created), at(1, COUPON, "c", "issued", channel="app", user_id="u"),
             at(2, COUPON, "c", "used", **used), at(90, COUPON, "d", "created", **created)]  # fmt: skip
    paid = [at(2, ORDER, "o", "paid", **order)]
    told = [(t, Delivery(d.event, d.recorded_at, 0, n)) for those in (lives, paid) for n, (t, d) in enumerate(those)]
    with closing(logged(tmp_path, told)) as log, scratch_store(tmp_path) as store:
        consume(log, store, {TopicPartition(COUPON, 0): 4, TopicPartition(ORDER, 0): 0})
        assert judged(store) == {("orphan_use", "c", "used", "o"): True}
        consume(log, store, None)
        assert judged(store) == {}


def test_what_is_recorded_at_the_same_instant_may_still_wait() -> None:
    """Kafka's clock has milliseconds: the payment may carry the very instant of the last record that was read."""
    coupons, orders = TopicPartition(COUPON, 0), TopicPartition(ORDER, 0)
    noon = datetime(2026, 11, 11, 12)
    progress = Completeness()
    progress.advance({coupons: noon, orders: noon}, {coupons: 5, orders: 3}, {coupons: 5, orders: 9})
    assert progress.complete_until[coupons] == noon
    assert progress.complete_until[orders] < noon
    progress.advance({}, {coupons: 5, orders: 9}, {coupons: 5, orders: 9})
    assert progress.complete_until[orders] == noon


def test_a_topic_with_few_events_holds_nothing_back() -> None:
    """Else a campaign that ends with the sale keeps all alerts of a catch-up waiting until its end, and then a day of
    them is judged in one transaction."""
    coupons, campaigns = TopicPartition(COUPON, 0), TopicPartition(CAMPAIGN, 0)
    morning, noon, night = (datetime(2026, 11, 11, hour) for hour in (8, 12, 23))
    positions, ends = {coupons: 5, campaigns: 1}, {coupons: 9, campaigns: 2}
    progress = Completeness()
    progress.advance({coupons: morning, campaigns: morning}, positions, ends)
    progress.advance({coupons: noon}, positions, ends)
    assert progress.complete_until[campaigns] < morning, "nothing is known of its next record"
    progress.advance({coupons: noon}, positions, ends, {campaigns: night})
    assert noon < progress.complete_until[campaigns] < night
    progress.advance({coupons: noon}, positions, ends, {campaigns: morning})
    assert noon < progress.complete_until[campaigns], "it never goes back"
