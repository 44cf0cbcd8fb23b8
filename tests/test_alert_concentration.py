"""Concentration rules against a plain model that counts the window anew at every tick. If they differ, a campaign that
ten devices empty goes unseen; if batches matter, a rebuild tells another story than the page did."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.projections.alerts import concentration
from coupon_ledger.projections.alerts.rules import Rule
from tests.alert_worlds import (
    Found,
    Life,
    World,
    at_ticks,
    batches_of,
    consumed,
    deliveries,
    details_in,
    in_order,
)
from tests.examples import examples
from tests.folding import scratch_store

_RULES: list[dict[str, Any]] = [
    {"events": ["claimed"], "of": "device_id", "top": 1, "share": 0.5, "at_least": 3, "window": "PT180S"},
    {"events": ["claimed"], "of": "device_id", "top": 2, "share": 0.8, "at_least": 3, "window": "PT180S"},
    {"events": ["claimed", "used"], "of": "ip", "by": [], "top": 2, "share": 0.7, "at_least": 4, "window": "PT150S"},
    {"events": ["claimed"], "of": "user_id", "by": ["campaign_id", "channel"], "top": 1, "share": 0.6, "at_least": 2},
]
_FIELDS = {
    "type": ("created", "claimed", "claimed", "claimed", "used"),
    "user_id": ("u1", "u2", "u3", None),
    "channel": ("app", "web"),
    "ip": ("1.1.1.1", "2.2.2.2", "3.3.3.3", None),
    "device_id": ("d1", "d1", "d2", "d3", None),
    "phone_prefix": ("100",),
}


def rule(number: int, **of: Any) -> Rule:
    expr = {"kind": "concentration", "window": "PT600S", **_RULES[number]}
    every = ("PT60S", "PT60S", "PT60S", "PT120S")[number]
    return Rule.model_validate({"name": f"r{number}", "expr": expr, "every": every, "keep": "PT180S", **of})


def _deliveries(random_: random.Random, events: int) -> list[Delivery]:
    gaps = (0, 0, 1, 5, 10, 20, 40, 90, 400)
    return deliveries(random_, events, gaps, late=(0, 0, 0, 30, 100, 200, 700), fields=_FIELDS)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    random_ = random.Random(draw(st.integers(0, 2**32)))
    made = _deliveries(random_, draw(st.integers(1, 60)))
    hold = draw(st.sampled_from(["PT0S", "PT120S"]))
    keep = draw(st.sampled_from(["PT0S", "PT60S", "PT180S"]))
    return World(made, [rule(n, hold=hold, keep=keep) for n in range(len(_RULES))])


def modelled(world: World) -> tuple[set[Found], dict[tuple[str, str, datetime], Any]]:
    """What the rules find, counting every window anew at every tick; and its details."""
    seen = in_order(world)
    found: dict[Found, Any] = {}
    for r in world.rules:
        of: Any = r.expr
        life = Life(r)
        for tick, window in at_ticks(seen, r):
            for key in {tuple((n, s.value(n)) for n in of.by) for s in window}:
                events = [s for s in window if tuple((n, s.value(n)) for n in of.by) == key]
                if None in dict(key).values() or len(events) < of.at_least:
                    continue
                values = Counter(s.value(of.of) for s in events if s.value(of.of) is not None)
                top = sorted(values.items(), key=lambda one: (-one[1], one[0]))[: of.top]
                share = sum(number for _, number in top) / len(events)
                if share >= of.share:
                    life.true(key, tick, share, {"count": len(events), "top": [list(one) for one in top]})
        found |= dict(life.found(seen[-1].clock))
    return set(found), {(name, key, opened): details for (name, key, opened, *_), details in found.items()}


@pytest.mark.long
@examples(8)
@given(world=worlds(), seed=st.integers(0, 2**32))
def test_episodes_are_those_of_the_model_whatever_the_batches(
    world: World, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random_ = random.Random(seed)
    episodes, details = modelled(world)
    for batches in ([world.deliveries], batches_of(random_, world.deliveries)):
        few, at_once = random_.choice([(-1_000_000, 2), (10_000, 100_000)])  # forgets at every tick, or never
        with (
            patch.multiple(concentration, _FEW=few, _AT_ONCE=at_once),
            scratch_store(tmp_path_factory.mktemp("concentration")) as store,
        ):
            assert consumed(store, world, batches, random_) == episodes
            assert details_in(store) == details


def test_the_model_finds_something() -> None:
    """Or equal results would mean nothing."""
    world = World(_deliveries(random.Random(5), 300), [rule(n) for n in range(len(_RULES))])
    assert {name for name, *_ in modelled(world)[0]} == {f"r{n}" for n in range(len(_RULES))}
