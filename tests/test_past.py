"""The past, on either clock: whatever came late, repeated or in conflict, it is the fold of the events in the cut."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger import lifecycle
from coupon_ledger.ledger.codec import SCHEMA_NAME, encode_row
from coupon_ledger.ledger.errors import NotThere
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.log import EventLog, Record, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.projections import past as past_module
from coupon_ledger.projections.connection import Cursor
from coupon_ledger.projections.live import apply as apply_module
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.live.signature import Int64, stable_hash
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.registry import answer
from tests import test_cross_rules as across
from tests.examples import TIMES, examples
from tests.folding import by_reference, emptied, everything, fold_in, scratch_store, stored
from tests.histories import History, histories, history
from tests.test_fold_equivalence import each_topic, expected

SEED = 20261111
SOME = examples(2)
MANY = examples(8)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("past")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that also these few keys are folded in several ranges."""
    monkeypatch.setattr(past_module, "_AT_ONCE", 4)


@contextmanager
def looking(store: Store) -> Iterator[Cursor]:
    cursor = store.cursor()
    cursor.begin()
    yield cursor
    cursor.end()
    cursor.close()


def recorded(delivery: Delivery) -> datetime:
    return EPOCH + timedelta(microseconds=delivery.recorded_at)


def naive(instant: datetime | None) -> datetime | None:
    return instant and instant.astimezone(UTC).replace(tzinfo=None)


def inside(cut: Cut, delivery: Delivery) -> bool:
    """Written again, in other words than SQL's."""
    happened, told = naive(delivery.event["occurred_at"]), naive(recorded(delivery))
    assert happened is not None and told is not None
    return (cut.at is None or happened <= cut.at) and (cut.known_at is None or told <= cut.known_at)


def cuts(random_: random.Random, deliveries: Sequence[Delivery]) -> Iterator[Cut]:
    """At, just before and between what happened and what was recorded; one clock, the other, both."""
    for clocks in ("at", "known_at", "both"):
        some = random_.choice(deliveries)
        at, known_at = naive(some.event["occurred_at"]), naive(recorded(random_.choice(deliveries)))
        assert at is not None and known_at is not None
        at -= timedelta(microseconds=random_.choice((0, 0, 1)))
        yield Cut(at if clocks != "known_at" else None, known_at if clocks != "at" else None)


def check_cut(store: Store, topic: str, deliveries: Sequence[Delivery], cut: Cut) -> None:
    wanted = expected(topic, [d for d in deliveries if inside(cut, d)])
    with looking(store) as cursor:
        past = Past(cursor, cut)
        past.stand_in(topic)
        found = stored(cursor, topic)
        past.close()
        assert found.rows == wanted.rows, cut
        assert found.violations == wanted.violations, cut


def check_history(store: Store, told: History) -> None:
    random_ = random.Random(told.seed)
    with emptied(store):
        fold_in(store, apply, told.topic, told.batches)
        before = everything(store)
        for cut in cuts(random_, told.deliveries):
            check_cut(store, told.topic, told.deliveries, cut)
        assert everything(store) == before, "looking back changes nothing"


@pytest.mark.long
@each_topic
@given(data=st.data())
@SOME
def test_the_past_is_a_fold_of_what_lies_in_the_cut(store: Store, topic: str, data: st.DataObject) -> None:
    """A claim about a past day would be settled by a state that never was."""
    check_history(store, data.draw(histories(topic)))


@pytest.mark.slow
@each_topic
@given(data=st.data())
@MANY
def test_the_past_is_a_fold_at_length(store: Store, topic: str, data: st.DataObject) -> None:
    """The same, in histories that two examples do not come to."""
    check_history(store, data.draw(histories(topic, keys=60)))


@pytest.mark.parametrize("kinds", [1, 3])
@pytest.mark.slow
def test_keys_with_equal_hashes_stay_apart(store: Store, monkeypatch: pytest.MonkeyPatch, kinds: int) -> None:
    def weak(texts: Any) -> Int64:
        hashes: Int64 = stable_hash(texts) % kinds
        return hashes

    monkeypatch.setattr(apply_module, "stable_hash", weak)
    for topic in INPUT_TOPICS:
        check_history(store, history(topic, SEED, 60, keys=20))


def test_a_content_in_conflict_stands_where_the_first_had_not_happened_yet(store: Store) -> None:
    """The first position decides among what lies in the cut; else a coupon's early life would be missing."""
    created = {"event_id": "e", "type": "created", "source": "s", "coupon_id": "c", "campaign_id": "k",
               "coupon_type": "cash"}  # fmt: skip
    minute = timedelta(minutes=1)
    contents = [{**created, "occurred_at": EPOCH + n * minute} for n in (9, 5, 7)]
    told = [Delivery(event, n, 0, n) for n, event in enumerate(contents)]
    with emptied(store):
        fold_in(store, apply, COUPON, [told])
        for at in (4, 5, 6, 7, 8, 9):
            cut = Cut(at=naive(EPOCH + at * minute))
            check_cut(store, COUPON, told, cut)
            with looking(store) as cursor:
                if at == 4:
                    continue
                [row] = next(answer(cursor, "history", {"coupon": "c", "at": cut.at}).frames).to_dicts()
                assert row["occurred_at"] == naive(EPOCH + (9 if at == 9 else 5) * minute)


# ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────


def rows(cursor: Cursor, question: str, **parameters: Any) -> list[dict[str, Any]]:
    return [row for frame in answer(cursor, question, parameters).frames for row in frame.to_dicts()]


each_way = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 1 + 2 * TIMES))]
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_questions_of_the_past_are_those_of_a_ledger_that_ended_there(store: Store, tmp_path: Path, seed: int) -> None:
    """Whatever is asked, narrowed or not: as if the log had ended at the cut. Each question meets each
    kind of cut, on one seed or another."""
    told = history(COUPON, seed, 300, keys=40)
    worlds = [told, *_around_coupons(seed)]
    random_ = random.Random(seed)
    with emptied(store):
        for world in worlds:
            fold_in(store, apply, world.topic, world.batches)
        for n, cut in enumerate(cuts(random_, told.deliveries)):
            with scratch_store(_folder(tmp_path, n)) as ended:
                for world in worlds:
                    fold_in(ended, apply, world.topic, [[d for d in world.deliveries if inside(cut, d)]])
                for question, parameters in ASKED[(seed + n) % 3 :: 3]:
                    assert _asked(store, question, **parameters, at=cut.at, known_at=cut.known_at) == _asked(
                        ended, question, **parameters
                    ), (question, parameters, cut)


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("coupons", {}),
    ("coupons", {"campaign": "k-1", "state": "used"}),
    ("coupons", {"owner": "u-1", "campaign": "k-2"}),
    ("coupons", {"ended_days": 0}),
    ("states", {}),
    ("states", {"campaign": "k-2"}),
    ("user", {"user": "u-1"}),
    ("user", {"user": "m-1"}),
    ("order", {"order": "o-1"}),
    ("totals", {}),
    ("campaigns", {}),
    ("campaign", {"campaign": "k-1"}),
    ("violations", {}),
    ("violations", {"scope": "coupon", "coupon": "key-3"}),
    ("violations", {"scope": "cross"}),
    ("violation-counts", {"scope": "coupon"}),
    *((question, {"coupon": f"key-{n}"}) for question in ("state", "history") for n in range(3)),
]
_NAMES = {
    USER: ("u-1", "u-2", "m-1", "x-1", "x-2"),
    CAMPAIGN: ("k-1", "k-2", "k-3"),
    ORDER: ("o-1", "o-2", "o-3"),
}


@each_way
@pytest.mark.slow
def test_a_position_is_a_consumer_that_stopped_there(tmp_path: Path, seed: int) -> None:
    """What a report was made of on the day, from the positions that it names, could not be shown again."""
    random_ = random.Random(seed)
    worlds = [*_around_coupons(seed), history(COUPON, seed, 120, keys=20 if seed else 8)]
    records = [
        Record(w.topic, d.event[KEY_FIELD[w.topic]].encode(), encode_row(SCHEMA_NAME[w.topic], d.event))
        for w in worlds
        for d in w.deliveries
    ]
    random_.shuffle(records)
    log = open_log(LogSettings(url=f"sqlite:///{tmp_path / 'log.db'}", partitions=3), create=True)
    with closing(log), scratch_store(_folder(tmp_path, 0)) as store, scratch_store(_folder(tmp_path, 1)) as stopped:
        log.create_topics()
        log.append(records)
        _consume(log, store, None)
        ends = log.end_positions(log.partitions(INPUT_TOPICS))
        reached = dict.fromkeys(ends, 0)
        for _ in range(2 if seed else 1):
            reached = {at: random_.randint(reached[at], end) for at, end in ends.items()}
            _consume(log, stopped, reached)
            told = ",".join(f"{at.topic}:{at.partition}:{offset}" for at, offset in reached.items() if offset)
            for question, parameters in ASKED if seed else ASKED[::4]:
                then = _asked(stopped, question, **parameters)
                assert _asked(store, question, **parameters, positions=told) == then, (question, parameters, told)


def _consume(log: EventLog, store: Store, until: dict[TopicPartition, int] | None) -> None:
    for _ in Consumer(log, store, outlet=log, batch_size=70, until=until).run():
        pass


def _around_coupons(seed: int) -> list[History]:
    """`history` names its keys alike everywhere: here the users, campaigns and orders that coupons name."""
    told = [history(topic, seed, 30, keys=len(names)) for topic, names in _NAMES.items()]
    return [
        History(seed, of.topic, tuple(tuple(_renamed(of.topic, d) for d in batch) for batch in of.batches))
        for of in told
    ]


def _renamed(topic: str, delivery: Delivery) -> Delivery:
    key = KEY_FIELD[topic]
    event = {**delivery.event, key: _NAMES[topic][int(delivery.event[key].removeprefix("key-"))]}
    return Delivery(event, delivery.recorded_at, delivery.partition, delivery.offset)


def _folder(tmp_path: Path, n: int) -> Path:
    folder = tmp_path / str(n)
    folder.mkdir()
    return folder


def _asked(store: Store, question: str, **parameters: Any) -> list[dict[str, Any]] | str:
    with looking(store) as cursor:
        try:
            return rows(cursor, question, **parameters)
        except NotThere as error:
            return type(error).__name__


@each_way
@pytest.mark.slow
def test_differences_are_those_of_two_folds(store: Store, seed: int) -> None:
    """What a late delivery changed would be looked for in the wrong coupons."""
    told = history(COUPON, seed, 200, keys=30)
    random_ = random.Random(seed)
    with emptied(store):
        fold_in(store, apply, COUPON, told.batches)
        for _ in range(4):
            instants = sorted(d.event["occurred_at"] for d in random_.choices(told.deliveries, k=2))
            known = sorted(recorded(d) for d in random_.choices(told.deliveries, k=2))
            at = [naive(i) for i in instants] if random_.random() < 0.7 else [None, None]
            seen = [naive(i) for i in known] if at[0] is None or random_.random() < 0.5 else [None, None]
            ends = [at[1] if random_.random() < 0.8 else None, seen[1] if random_.random() < 0.8 else None]
            check_difference(store, told, Cut(at[0], seen[0]), Cut(ends[0], ends[1]))


def check_difference(store: Store, told: History, earlier: Cut, later: Cut) -> None:
    with looking(store) as cursor:
        found = rows(
            cursor, "diff", from_at=earlier.at, known_from=earlier.known_at, to_at=later.at, known_to=later.known_at
        )
    before, after = (
        by_reference(lifecycle.fold, [d for d in told.deliveries if inside(c, d)]).rows for c in (earlier, later)
    )
    came: dict[str, set[str]] = {}
    for d in told.deliveries:
        # A content's first delivery is what brings it; the others are repeats.
        first = min((e for e in told.deliveries if same_content(e, d)), key=lambda e: e.position)
        if inside(later, first) and not inside(earlier, first):
            came.setdefault(d.event["coupon_id"], set()).add(d.event["event_id"])
    assert [row["coupon_id"] for row in found] == sorted(came)
    for row in found:
        coupon = row["coupon_id"]
        old = before.get(coupon, {})
        assert (row["before"], row["after"]) == (old.get("state"), after[coupon]["state"])
        assert set(row["event_ids"]) == came[coupon]
        changed = {name for name, value in after[coupon].items() if value != old.get(name)}
        assert set(json.loads(row["changed"])) == changed - NOT_COMPARED
    unchanged = after.keys() - came.keys()
    assert {c: before.get(c) for c in unchanged} == {c: after[c] for c in unchanged}


NOT_COMPARED = {
    *("coupon_id", "state", "resting", "events", "last_event_at", "extended_at"),
    *("acquired_at", "acquired_event_id", "acquired_by", "used_event_id"),
}


def same_content(one: Delivery, other: Delivery) -> bool:
    return lifecycle.content(one.event) == lifecycle.content(other.event)


# ── Rules across coupons and between topics ──────────────────────────────────────────────────────────────────


def check_world(store: Store, seed: int) -> None:
    random_ = random.Random(seed)
    world = across.World(seed)
    with emptied(store):
        for batch in world.batches(shuffled=bool(seed % 2)):
            across.consume(store, batch)
        for cut in cuts(random_, [d for _, d in world.told]):
            told = [(topic, d) for topic, d in world.told if inside(cut, d)]
            with looking(store) as cursor:
                past = Past(cursor, cut)
                for topic in (COUPON, ORDER, CAMPAIGN):
                    past.stand_in(topic)
                past.stand_in_across()
                assert across.stored(cursor) == (across.expected(told) if told else {}), (seed, cut)
                past.close()


@examples(5)
@given(seed=st.integers(0, 2**32))
@pytest.mark.slow
def test_the_rules_across_coupons_are_those_of_the_cut(store: Store, seed: int) -> None:
    """Whether a stock was overdrawn at noon would be answered by what came in the evening."""
    check_world(store, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_the_rules_across_coupons_in_many_worlds(store: Store, part: int) -> None:
    print(f"seed {SEED}")
    for seed in range(SEED + 100 * part, SEED + 100 * part + 5 * TIMES):
        check_world(store, seed)


@pytest.mark.long
def test_cuts_are_full_of_trouble() -> None:
    """The tests above would pass on cuts that cut nothing."""
    torn = promoted = late = 0
    for seed in range(SEED, SEED + 30):
        told = history(COUPON, seed, 40, keys=8).deliveries
        for cut in cuts(random.Random(seed), told):
            now, then = (by_reference(lifecycle.fold, those) for those in (told, [d for d in told if inside(cut, d)]))
            torn += sum(now.rows[key] != row for key, row in then.rows.items())
            late += len(now.rows) - len(then.rows)
            ids = {(v[0], v[1], v[4]) for v in now.violations if v[2] == "conflicting_duplicate"}
            kept = {(v[0], v[1], v[4]) for v in then.violations if v[2] == "conflicting_duplicate"}
            promoted += len(ids - kept)
    assert torn > 100 and late > 20 and promoted > 50
