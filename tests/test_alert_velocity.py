"""Velocity rules against a plain model that counts every window anew at every event. If they differ, a device farm is
missed or a shop is accused; if batches matter, a rebuild tells another story than the page did."""

from __future__ import annotations

import random
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
from tests.alert_worlds import (
    SECOND,
    START,
    Found,
    Life,
    World,
    batches_of,
    consumed,
    deliveries,
    in_order,
    instant_of,
)
from tests.examples import examples
from tests.folding import frame_of, scratch_store

_FIELDS = {
    "type": ("created", "claimed", "claimed", "claimed", "used"),
    "user_id": ("u1", "u2", "u3", None),
    "channel": ("app", "web"),
    "ip": ("1.1.1.1", "2.2.2.2", None),
    "device_id": ("d1", "d2", None),
    "phone_prefix": ("100", "101", "102", "104", "x"),
}
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


@st.composite
def worlds(draw: st.DrawFn) -> World:
    seed = draw(st.integers(0, 2**32))
    random_ = random.Random(seed)
    events = draw(st.integers(1, 60))
    hold = draw(st.sampled_from(["PT0S", "PT8S"]))
    return World(_deliveries(random_, events), [rule(n, hold=hold) for n in range(len(_RULES))])


def _deliveries(random_: random.Random, events: int) -> list[Delivery]:
    return deliveries(random_, events, gaps=(0, 0, 1, 2, 5), late=(0, 0, 0, 1, 4, 30), fields=_FIELDS)


def modelled(world: World) -> set[Found]:
    """What the rules find, counting every window anew at every event."""
    seen = in_order(world)
    found: set[Found] = set()
    for r in world.rules:
        of: Any = r.expr
        life = Life(r)

        def counts(i: int, of: Any = of) -> bool:
            event = seen[i].event
            if event["type"] not in of.events or any(seen[i].value(n) not in v for n, v in of.where.items()):
                return False
            return of.after is None or any(
                seen[j].event["type"] == of.after.event
                and seen[j].event["coupon_id"] == event["coupon_id"]
                and seen[i].at - of.after.within <= seen[j].at <= seen[i].at
                for j in range(i)
            )

        for i, now in enumerate(seen):
            key = tuple((n, now.value(n)) for n in of.by)
            if None in dict(key).values() or not counts(i) or now.at <= now.clock - of.window:
                continue
            window = [
                s
                for j, s in enumerate(seen[: i + 1])
                if counts(j)
                and tuple((n, s.value(n)) for n in of.by) == key
                and s.at > now.clock - of.window
                and s.at > s.clock - of.window
            ]
            number = _number(of, [s.value(of.distinct or of.consecutive or "type") for s in window])
            if number >= of.at_least:
                life.true(key, now.clock, number)
        found |= {episode for episode, _ in life.found(seen[-1].clock)}
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


@pytest.mark.long
@examples(25)
@given(world=worlds(), seed=st.integers(0, 2**32))
def test_episodes_are_those_of_the_model_whatever_the_batches(
    world: World, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random_ = random.Random(seed)
    expected = modelled(world)
    for batches in ([world.deliveries], batches_of(random_, world.deliveries)):
        with scratch_store(tmp_path_factory.mktemp("velocity")) as store:
            assert consumed(store, world, batches, random_) == expected


@pytest.mark.long
def test_the_model_finds_something() -> None:
    """Or equal results would mean nothing."""
    world = World(_deliveries(random.Random(5), 300), [rule(n) for n in range(len(_RULES))])
    assert {name for name, *_ in modelled(world)} == {f"r{n}" for n in range(len(_RULES))}


def test_a_rule_judges_what_is_recorded_after_it_came_into_force(tmp_path: Path) -> None:
    """A rule that is switched on must not accuse people of what was over before, but it knows the window before."""
    made = _deliveries(random.Random(7), 120)
    with scratch_store(tmp_path) as store:
        half = next(n for n in range(60, 120) if made[n].recorded_at > made[n - 1].recorded_at)
        first, second = made[:half], made[half:]
        until = instant_of(first[-1].recorded_at).replace(tzinfo=None)
        with store.transaction():
            put_in_force(store, [rule(1)])
            apply(store, COUPON, frame_of(COUPON, first))
            engine.release(store, {COUPON: until})
        with store.transaction():
            assert put_in_force(store, [rule(0), rule(1)]) == ["r0"]
            store.cache(engine.Engine).forget()
            apply(store, COUPON, frame_of(COUPON, second))
            engine.release(store, {COUPON: instant_of(second[-1].recorded_at).replace(tzinfo=None)})
        rows = store.rows("SELECT rule, min(opened_recorded_at) FROM alert_episodes GROUP BY rule ORDER BY rule")
        assert [name for name, _ in rows] == ["r0", "r1"]
        assert rows[0][1] > until >= rows[1][1]
        again = store.rows("SELECT * EXCLUDE (episode_hash) FROM alert_episodes ORDER BY ALL")
        with store.transaction():
            store.execute("DELETE FROM alert_episodes")
            store.execute("DELETE FROM alert_progress")
            store.cache(engine.Engine).forget()
            engine.release(store, {COUPON: instant_of(second[-1].recorded_at).replace(tzinfo=None)})
        assert store.rows("SELECT * EXCLUDE (episode_hash) FROM alert_episodes ORDER BY ALL") == again


def test_one_event_with_a_clock_of_long_ago_hides_no_key(tmp_path: Path) -> None:
    """A phone whose clock stands at the year 1 must not make the rule blind to others that are read in the same batch.
    400 addresses fire one after the other, over more than a window."""
    events = [{"ip": f"ip{n // 3}", "occurred_at": START + timedelta(milliseconds=100 * n)} for n in range(1_200)]
    events.append({"ip": "ip0", "occurred_at": datetime(1, 1, 1, tzinfo=UTC)})
    made = [
        Delivery(
            {"event_id": f"e{n}", "source": "test", "coupon_id": f"c{n}", "type": "claimed", "channel": "app"}
            | {"user_id": "u", **event},
            round(START.timestamp() * SECOND) + n * SECOND // 10,
            0,
            n,
        )
        for n, event in enumerate(events)
    ]
    with scratch_store(tmp_path) as store:
        found = consumed(store, World(made, [rule(0)]), [made], random.Random(1))
    assert len(found) == 400


@pytest.mark.parametrize("restart", [False, True])
def test_a_log_that_begins_at_the_year_1_is_judged(tmp_path: Path, restart: bool) -> None:
    """Else a publisher that sends an empty date first stops the consumer for good: the window would begin before the
    first instant there is."""
    made = [
        Delivery(
            {"event_id": f"e{n}", "source": "test", "coupon_id": f"c{n}", "type": "claimed", "channel": "app"}
            | {"user_id": "u", "ip": "1.1.1.1", "occurred_at": datetime(1, 1, 1, tzinfo=UTC) + timedelta(seconds=n)},
            round(START.timestamp() * SECOND) + n * SECOND,
            0,
            n,
        )
        for n in range(6)
    ]
    with scratch_store(tmp_path) as store:
        with store.transaction():
            put_in_force(store, [rule(0)])
        for batch in (made[:2], made[2:4], made[4:]):
            with store.transaction():
                apply(store, COUPON, frame_of(COUPON, batch))
                engine.release(store, {COUPON: instant_of(batch[-1].recorded_at).replace(tzinfo=None)})
            if restart:
                store.cache(engine.Engine).rolled_back()
        assert store.rows("SELECT rule, times FROM alert_episodes") == [("r0", 4)]
