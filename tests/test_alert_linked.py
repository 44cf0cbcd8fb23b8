"""Linked rules against a plain model that draws the graph of users anew at every tick. If they differ, a ring of
accounts goes unseen; if batches matter, a rebuild tells another story than the page did."""

from __future__ import annotations

import json
import random
from datetime import datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.projections.alerts import linked
from coupon_ledger.projections.alerts.in_force import stored
from coupon_ledger.projections.alerts.linked_groups import components
from coupon_ledger.projections.alerts.linked_members import members
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.store import Store
from tests.alert_worlds import (
    Found,
    Life,
    Seen,
    World,
    at_ticks,
    batches_of,
    ceiling,
    consumed,
    deliveries,
    details_in,
    in_order,
)
from tests.examples import examples
from tests.folding import scratch_store

_RULES: list[dict[str, Any]] = [
    {"over": ["device_id"], "users": 2, "at_least": 3, "hub_above": 3, "window": "PT180S"},
    {"over": ["ip", "device_id"], "users": 3, "hub_above": 4, "window": "PT600S"},
    {"over": ["phone_prefix"], "events": ["claimed", "used"], "users": 2, "hub_above": 2, "window": "PT100S"},
    {"over": ["device_id"], "users": 3, "hub_above": 3, "window": "PT180S"},
]
_FIELDS = {
    "type": ("created", "claimed", "claimed", "claimed", "used"),
    "user_id": ("u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"),
    "channel": ("app",),
    "ip": ("1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4", None, None),
    "device_id": ("d1", "d2", "d3", "d4", "d5", None),
    "phone_prefix": ("100", "101", "102", "103", None),
}


def rule(number: int, **of: Any) -> Rule:
    expr = {"kind": "linked", **_RULES[number]}
    every = ("PT60S", "PT120S", "PT60S", "PT60S")[number]
    return Rule.model_validate({"name": f"r{number}", "expr": expr, "every": every, "keep": "PT180S", **of})


def _deliveries(random_: random.Random, events: int) -> list[Delivery]:
    gaps = (0, 0, 1, 5, 10, 20, 40, 90, 400)
    return deliveries(random_, events, gaps, late=(0, 0, 0, 30, 100, 200, 700), fields=_FIELDS)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    random_ = random.Random(draw(st.integers(0, 2**32)))
    made = _deliveries(random_, draw(st.integers(1, 70)))
    hold = draw(st.sampled_from(["PT0S", "PT120S"]))
    keep = draw(st.sampled_from(["PT0S", "PT60S", "PT180S"]))
    return World(made, [rule(n, hold=hold, keep=keep) for n in range(len(_RULES))])


def _having(window: list[Seen], of: Any) -> dict[tuple[str, str], set[str]]:
    """The users of each value."""
    having: dict[tuple[str, str], set[str]] = {}
    for s in window:
        for name in of.over:
            if s.event[name] is not None:
                having.setdefault((name, s.event[name]), set()).add(s.event["user_id"])
    return having


def _groups(window: list[Seen], of: Any) -> list[set[str]]:
    """The groups of users, found by walking from user to user."""
    sharing = [users for users in _having(window, of).values() if len(users) <= of.hub_above]
    left = {s.event["user_id"] for s in window}
    groups = []
    while left:
        group = {left.pop()}
        while more := {u for users in sharing if users & group for u in users} - group:
            group |= more
        left -= group
        events = sum(s.event["user_id"] in group for s in window)
        if len(group) >= of.users and events >= of.at_least:
            groups.append(group)
    return groups


def _latest(group: set[str], window: list[Seen], r: Rule) -> str:
    """The user whose last event is in the window at the most ticks to come."""
    of: Any = r.expr
    leaves: dict[str, datetime] = {}
    for s in window:
        if s.event["user_id"] in group:
            user = s.event["user_id"]
            leaves[user] = max(ceiling(s.at + of.window, r.every), leaves.get(user, s.at))
    return min(user for user, at in leaves.items() if at == max(leaves.values()))


def _details(group: set[str], window: list[Seen], of: Any) -> dict[str, Any]:
    events = [s.event["user_id"] for s in window if s.event["user_id"] in group]
    theirs = {value: users for value, users in _having(window, of).items() if users & group}
    values = [[*value, len(users)] for value, users in theirs.items() if 1 < len(users) <= of.hub_above]
    hubs = [[*value, len(users)] for value, users in theirs.items() if len(users) > of.hub_above]
    users = [[user, events.count(user)] for user in group]
    lists: dict[str, list[list[Any]]] = {"users": users, "values": values, "hubs": hubs}
    numbers = {name: len(of_name) for name, of_name in lists.items()}
    first = {f"first_{name}": sorted(some, key=lambda one: (-one[-1], one)) for name, some in lists.items()}
    return {"count": len(events), **numbers, **first}


def modelled(world: World) -> tuple[set[Found], dict[tuple[str, str, datetime], Any]]:
    """What the rules find, drawing the graph anew at every tick; and its details."""
    seen = in_order(world)
    found: dict[Found, Any] = {}
    for r in world.rules:
        of: Any = r.expr
        life = Life(r)
        latest: dict[Any, str] = {}
        for tick, window in at_ticks(seen, r):
            life.over(tick)
            open_ = sorted(life.open, key=lambda key: (life.open[key].opened, key))
            taken = set(open_)
            for group in _groups(window, of):
                mine = [key for key in open_ if latest[key] in group]
                free = sorted(user for user in group if (("user_id", user),) not in taken)
                if not mine and not free:
                    continue
                key = mine[0] if mine else (("user_id", free[0]),)
                life.true(key, tick, len(group), _details(group, window, of))
                latest[key] = _latest(group, window, r)
                life.open[key].details["latest_user"] = latest[key]
        found |= dict(life.found(seen[-1].clock))
    return set(found), {(name, key, opened): details for (name, key, opened, *_), details in found.items()}


@pytest.mark.long
@examples(6)
@given(world=worlds(), seed=st.integers(0, 2**32))
def test_episodes_are_those_of_the_model_whatever_the_batches(
    world: World, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random_ = random.Random(seed)
    episodes, details = modelled(world)
    for batches in ([world.deliveries], batches_of(random_, world.deliveries)):
        few, at_once = random_.choice([(-1_000_000, 2), (10_000, 100_000)])  # forgets at every tick, or never
        with (
            patch.multiple(linked, _FEW=few, _AT_ONCE=at_once),
            scratch_store(tmp_path_factory.mktemp("linked")) as store,
        ):
            assert consumed(store, world, batches, random_) == episodes
            assert details_in(store) == details


def _truth(store: Store) -> dict[str, tuple[Rule, Any, Any, list[str]]]:
    """By episode: the rule, the episode's first and last instants, and the users of its group."""
    rules = {one.rule.name: one.rule for one in stored(store)}
    rows = store.rows("SELECT episode_id, rule, opened_at, last_true_at, details FROM alert_episodes")
    return {
        episode: (rules[name], opened, last, sorted(user for user, _ in json.loads(details)["first_users"]))
        for episode, name, opened, last, details in rows
    }


@pytest.mark.long
@examples(6)
@given(world=worlds(), seed=st.integers(0, 2**32))
def test_all_users_of_a_group_are_found_again_when_few_are_named(
    world: World, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Else `act` revokes the coupons of the first fifty users of a ring, or of bystanders."""
    with scratch_store(tmp_path_factory.mktemp("all_named")) as store:
        consumed(store, world, [world.deliveries], random.Random(seed))
        truth = _truth(store)
    with (
        patch.object(linked, "_SHOWN", 1),
        scratch_store(tmp_path_factory.mktemp("one_named")) as store,
    ):
        consumed(store, world, [world.deliveries], random.Random(seed))
        details = dict(store.rows("SELECT episode_id, details FROM alert_episodes"))
        assert details.keys() == truth.keys()
        for episode, (of, opened, last, users) in truth.items():
            said = json.loads(details[episode])
            found = members(store, of, said, opened, last)
            assert found == users


def test_the_model_finds_something() -> None:
    """Or equal results would mean nothing."""
    world = World(_deliveries(random.Random(5), 300), [rule(n) for n in range(len(_RULES))])
    episodes, details = modelled(world)
    assert {name for name, *_ in episodes} == {f"r{n}" for n in range(len(_RULES))}
    assert any(of["first_hubs"] for of in details.values())
    grown = [of for (_, key, _), of in details.items() if of["latest_user"] not in key]
    assert grown, "groups that go on without the user who named them"


@pytest.mark.long
@examples(100)
@given(number=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_components_are_those_of_a_walk(number: int, seed: int) -> None:
    """Or a group is told as two, each below the threshold."""
    random_ = random.Random(seed)
    edges = [(random_.randrange(number), random_.randrange(number)) for _ in range(random_.randrange(2 * number))]
    first, second = (np.array([edge[end] for edge in edges], dtype=np.int64) for end in (0, 1))
    smallest = list(range(number))
    while any(smallest[a] != smallest[b] for a, b in edges):
        for a, b in edges:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    assert components(first, second, number).tolist() == smallest


def test_linked_ids_are_refused_with_the_reason() -> None:
    """A rule that silently ignored linked ids would miss the rings that somebody wrote it for."""
    expr = {"kind": "linked", "over": ["device_id", "linked"], "users": 3, "window": "PT60S"}
    with pytest.raises(ValidationError, match="user events have a clock of their own; leave out linked"):
        Rule.model_validate({"name": "ring", "expr": expr})
