"""Velocity rules against a plain model that counts every window anew at every event. If they differ, a device farm is
missed or a shop is accused; if batches matter, a rebuild tells another story than the page did."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts import engine
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from tests.examples import examples
from tests.folding import frame_of, scratch_store

START = datetime(2026, 11, 11, tzinfo=UTC)
SECOND = 1_000_000
_RULES: list[dict[str, Any]] = [
    {"events": ["claimed"], "by": ["ip"], "at_least": 3, "window": "PT20S"},
    {"events": ["claimed", "used"], "by": ["device_id"], "distinct": "user_id", "at_least": 2, "window": "PT60S"},
    {"events": ["claimed"], "by": ["campaign_id"], "consecutive": "phone_prefix", "at_least": 3, "window": "PT40S"},
    {"events": ["claimed"], "by": ["campaign_id", "ip"], "at_least": 2, "window": "PT15S"},
    {"events": ["claimed"], "by": ["ip"], "where": {"channel": ["app"]}, "at_least": 2, "window": "PT20S"},
    {
        "events": ["used"],
        "by": ["user_id"],
        "after": {"event": "claimed", "within": "PT3S"},
        "at_least": 2,
        "window": "PT60S",
    },
]


def rule(number: int, **of: Any) -> Rule:
    expr = {"kind": "velocity", **_RULES[number]}
    return Rule.model_validate({"name": f"r{number}", "expr": expr, "keep": "PT10S", **of})


@dataclass(frozen=True)
class World:
    deliveries: list[Delivery]
    """In the order in which partitions are read: by offset within a partition."""
    rules: list[Rule]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    seed = draw(st.integers(0, 2**32))
    random_ = random.Random(seed)
    events = draw(st.integers(1, 60))
    hold = draw(st.sampled_from(["PT0S", "PT8S"]))
    return World(_deliveries(random_, events), [rule(n, hold=hold) for n in range(len(_RULES))])


def _deliveries(random_: random.Random, events: int) -> list[Delivery]:
    recorded = 0
    offsets = [0, 0]
    deliveries = []
    for number in range(events):
        recorded += random_.choice((0, 0, 1, 2, 5)) * SECOND
        late = random_.choice((0, 0, 0, 1, 4, 30))
        coupon = random_.randrange(8)
        partition = coupon % 2
        event = {
            "event_id": f"e{number}",
            "type": random_.choice(("created", "claimed", "claimed", "claimed", "used")),
            "occurred_at": START + timedelta(microseconds=recorded) - timedelta(seconds=late),
            "source": "test",
            "coupon_id": f"c{coupon}",
            "campaign_id": None,
            "coupon_type": "cash",
            "user_id": random_.choice(("u1", "u2", "u3", None)),
            "order_id": "o1",
            "discount_minor": 1,
            "channel": random_.choice(("app", "web")),
            "ip": random_.choice(("1.1.1.1", "2.2.2.2", None)),
            "device_id": random_.choice(("d1", "d2", None)),
            "phone_prefix": random_.choice(("100", "101", "102", "104", "x")),
        }
        if event["type"] == "created":
            event["campaign_id"] = f"k{coupon % 3}"
        elif event["user_id"] is None:
            event["user_id"] = "u4"
        at = round(START.timestamp() * SECOND) + recorded
        deliveries.append(Delivery(event, at, partition, offsets[partition]))
        offsets[partition] += 1
    return deliveries


Found = tuple[str, str, datetime, datetime | None, datetime, datetime | None, float, float, int]


def modelled(world: World) -> set[Found]:
    """What the rules find, counting every window anew at every event."""
    ordered = sorted(world.deliveries, key=lambda d: (d.recorded_at, d.partition, d.offset))
    clock: list[datetime] = []
    at: list[datetime] = []
    campaigns: list[str | None] = []
    known: dict[str, str] = {}
    for d in ordered:
        at.append(min(d.event["occurred_at"], _instant(d.recorded_at)))
        clock.append(max(at[-1], clock[-1]) if clock else at[-1])
        mine = d.event["campaign_id"]
        campaigns.append(mine or known.get(d.event["coupon_id"]))
        if mine:
            known.setdefault(d.event["coupon_id"], mine)
    found: set[Found] = set()
    for r in world.rules:
        of: Any = r.expr

        def value(i: int, name: str) -> Any:
            return campaigns[i] if name == "campaign_id" else ordered[i].event[name]

        def counts(i: int, of: Any = of) -> bool:
            event = ordered[i].event
            if event["type"] not in of.events or any(value(i, n) not in v for n, v in of.where.items()):
                return False
            return of.after is None or any(
                ordered[j].event["type"] == of.after.event
                and ordered[j].event["coupon_id"] == event["coupon_id"]
                and at[i] - of.after.within <= at[j] <= at[i]
                for j in range(i)
            )

        open_: dict[tuple[str, ...], list[Any]] = {}
        done: list[tuple[tuple[str, ...], list[Any]]] = []
        for i in range(len(ordered)):
            key = tuple(value(i, n) for n in of.by)
            if None in key or not counts(i) or at[i] <= clock[i] - of.window:
                continue
            window = [
                j
                for j in range(i + 1)
                if counts(j)
                and tuple(value(j, n) for n in of.by) == key
                and at[j] > clock[i] - of.window
                and at[j] > clock[j] - of.window
            ]
            number = _number(of, [value(j, of.distinct or of.consecutive or "type") for j in window])
            if number < of.at_least:
                continue
            if key in open_ and clock[i] >= open_[key][2] + r.keep:
                done.append((key, open_.pop(key)))
            if key not in open_:
                open_[key] = [clock[i], None, clock[i], None, number, number, 0]
            episode = open_[key]
            episode[2], episode[5], episode[6] = clock[i], max(episode[5], number), episode[6] + 1
            if episode[1] is None and clock[i] >= episode[0] + r.hold:
                episode[1], episode[4] = clock[i], number
        for key, episode in [*done, *open_.items()]:
            over = clock[-1] >= episode[2] + r.keep
            if over and episode[1] is None:
                continue
            closed = episode[2] + r.keep if over else None
            named = json.dumps(dict(zip(of.by, key, strict=True)), separators=(",", ":"))
            found.add((r.name, named, episode[0], episode[1], episode[2], closed, *episode[4:]))
    return found


def _number(of: Any, values: list[Any]) -> int:
    if of.distinct:
        return len({v for v in values if v is not None})
    if not of.consecutive:
        return len(values)
    numbers = {int(v) for v in values if v is not None and v.isdigit()}
    longest = 0
    for n in numbers:
        length = 1
        while n + length in numbers:
            length += 1
        longest = max(longest, length)
    return longest if longest >= of.at_least else 0


def _instant(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def found_in(store: Store) -> set[Found]:
    rows = store.rows(
        "SELECT rule, key, opened_at, fired_at, last_true_at, closed_at, value, peak, times FROM alert_episodes"
    )
    found: set[Found] = set()
    for name, key, opened, fired, last_true, closed, *numbers in rows:
        instants = (None if at is None else at.replace(tzinfo=UTC) for at in (opened, fired, last_true, closed))
        found.add((name, key, *instants, *numbers))
    return found


def consumed(store: Store, world: World, batches: Sequence[Sequence[Delivery]], random_: random.Random) -> set[Found]:
    """Fold the batches. After each, release up to an instant before which nothing is missing, or a bit less."""
    with store.transaction():
        put_in_force(store, world.rules)
    left = list(world.deliveries)
    for batch in batches:
        with store.transaction():
            apply(store, COUPON, frame_of(COUPON, batch))
            left = [d for d in left if d not in batch]
            complete = min((d.recorded_at for d in left), default=max(d.recorded_at for d in world.deliveries) + 1) - 1
            if left and random_.random() < 0.3:
                complete -= random_.randrange(5 * SECOND)
            engine.release(store, {COUPON: _instant(complete).replace(tzinfo=None)})
        if random_.random() < 0.2:
            store.cache(engine.Engine).rolled_back()  # as after a restart: nothing is left in memory
    return found_in(store)


def _batches(random_: random.Random, deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    """Batches in which each partition is read in its order, one partition ahead of the other."""
    waiting = {p: [d for d in deliveries if d.partition == p] for p in (0, 1)}
    batches: list[list[Delivery]] = []
    while any(waiting.values()):
        partition = random_.choice([p for p, left in waiting.items() if left])
        size = random_.randint(1, 12)
        batches.append(waiting[partition][:size])
        waiting[partition] = waiting[partition][size:]
    return batches


@examples(25)
@given(world=worlds(), seed=st.integers(0, 2**32))
def test_episodes_are_those_of_the_model_whatever_the_batches(
    world: World, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random_ = random.Random(seed)
    expected = modelled(world)
    for batches in ([world.deliveries], _batches(random_, world.deliveries)):
        with scratch_store(tmp_path_factory.mktemp("velocity")) as store:
            assert consumed(store, world, batches, random_) == expected


def test_the_model_finds_something() -> None:
    """Or equal results would mean nothing."""
    world = World(_deliveries(random.Random(5), 300), [rule(n) for n in range(len(_RULES))])
    assert {name for name, *_ in modelled(world)} == {f"r{n}" for n in range(len(_RULES))}


def test_a_rule_judges_what_is_recorded_after_it_came_into_force(tmp_path: Path) -> None:
    """A rule that is switched on must not accuse people of what was over before, but it knows the window before."""
    deliveries = _deliveries(random.Random(7), 120)
    with scratch_store(tmp_path) as store:
        half = len(deliveries) // 2
        first, second = deliveries[:half], deliveries[half:]
        until = _instant(first[-1].recorded_at).replace(tzinfo=None)
        with store.transaction():
            put_in_force(store, [rule(1)])
            apply(store, COUPON, frame_of(COUPON, first))
            engine.release(store, {COUPON: until})
        with store.transaction():
            assert put_in_force(store, [rule(0), rule(1)]) == ["r0"]
            store.cache(engine.Engine).forget()
            apply(store, COUPON, frame_of(COUPON, second))
            engine.release(store, {COUPON: _instant(second[-1].recorded_at).replace(tzinfo=None)})
        rows = store.rows("SELECT rule, min(opened_recorded_at) FROM alert_episodes GROUP BY rule ORDER BY rule")
        assert [name for name, _ in rows] == ["r0", "r1"]
        assert rows[0][1] > until >= rows[1][1]
        again = store.rows("SELECT * EXCLUDE (episode_hash) FROM alert_episodes ORDER BY ALL")
        with store.transaction():
            store.execute("DELETE FROM alert_episodes")
            store.execute("DELETE FROM alert_progress")
            store.cache(engine.Engine).forget()
            engine.release(store, {COUPON: _instant(second[-1].recorded_at).replace(tzinfo=None)})
        assert store.rows("SELECT * EXCLUDE (episode_hash) FROM alert_episodes ORDER BY ALL") == again
