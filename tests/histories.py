"""Random histories for Hypothesis and for seeded runs: small worlds in which repeats, conflicts, ties and late events
are frequent, and the ways in which they can arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.rules import NEEDS, types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER, USER

Event = dict[str, Any]

START = datetime(2026, 11, 11, tzinfo=UTC)
_IDS = ("a", "B", "e1", "e10", "e9", "é", "\uffff", "\U00010000")
_MOMENTS = tuple(START + timedelta(minutes=n) for n in range(4))
_ITEMS = [{"kind": "coupon", "amount_minor": 1, "funder": None}, {"kind": "member", "amount_minor": 2, "funder": "f"}]
_LINES = [
    dict.fromkeys(("category", "quantity", "net_minor", "discount_minor", "cost_minor")) | {"sku": "s", "quantity": q}
    for q in (None, 1)
]

# What the fields may be; a field that is missing here is never carried.
_CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    COUPON: {
        "campaign_id": ("k-1", "k-2"),
        "coupon_type": ("cash", "gift"),
        "face_value_minor": (0, 5),
        "percent_off_bp": (0, 1_500),
        "min_spend_minor": (0, 9),
        "currency": ("CNY", "USD"),
        "valid_from": _MOMENTS,
        "valid_until": _MOMENTS,
        "channel": ("app", "shop", ""),
        "reason": ("not_used", "not_claimed"),
        "user_id": ("u-1", "u-2"),
        "order_id": ("o-1", "o-2"),
        "discount_minor": (0, 5),
        "attributes": ('{"a":1,"b":2}', '{"b":2, "a":1.0}', '{"a":2}', "null"),
    },
    ORDER: {
        "user_id": ("u-1", "u-2"),
        "channel": ("app", ""),
        "store": ("s-1", "s-2"),
        "region": ("east", "west"),
        "currency": ("CNY", "USD"),
        "gross_minor": (0, 5, 2**40),
        "net_minor": (0, 4),
        "discounts": ([], _ITEMS[:1], _ITEMS),
        "cost_of_goods_minor": (-1, 3),
        "refund_minor": (0, 1, 2),
        "reason": ("late", ""),
        "coupon_ids": ([], ["c-1"], ["c-2", "c-1"]),
        "lines": ([], _LINES[:1], _LINES),
    },
    CAMPAIGN: {
        "name": ("n-1", "n-2"),
        "rule_id": ("r-1", "r-2"),
        "mechanic": ("coupon", "other"),
        "visibility": ("public", "private"),
        "quantity": (0, 9),
        "per_user_limit": (0, 1),
        "claim_from": _MOMENTS,
        "claim_until": _MOMENTS,
        "coupon_type": ("cash", "gift"),
        "face_value_minor": (0, 5),
        "percent_off_bp": (0, 1_500),
        "min_spend_minor": (0, 9),
        "currency": ("CNY", "USD"),
        "applies_to": ('"all"', '{"skus":["a"]}', '{"skus": ["a"]}', "null"),
        "exclusion_group": ("g-1", "g-2"),
        "priority": (-1, 1),
        "platform_or_store": ("platform", "store"),
        "budget_minor": (0, 7),
        "channel": ("app", "shop"),
        "cost_kind": ("media", "subsidy"),
        "amount_minor": (-5, 5),
        "metric": ("use_rate",),
        "target": (1, 2),
        "funded_by": ('{"platform":10000}', '{"brand":4000,"platform":6000}', '{"platform":6000, "brand":4000}'),
        "user_id": ("u-1",),
        "arm": ("control", "arm"),
    },
    USER: {
        "attributes": ('{"a":1,"b":2}', '{"b":2, "a":1}', "{}"),
        "alias_id": ("m-1", "m-2", "m-é"),
        "kind": ("view", "click"),
        "channel": ("app",),
        "campaign_id": ("k-1",),
    },
}


@dataclass(frozen=True, slots=True)
class History:
    """Deliveries in their order of arrival, in batches. `seed` draws it again."""

    seed: int
    topic: str
    batches: tuple[tuple[Delivery, ...], ...]

    @property
    def deliveries(self) -> list[Delivery]:
        return [d for batch in self.batches for d in batch]


def histories(topic: str, *, conflicts: bool = True, keys: int = 25) -> st.SearchStrategy[History]:
    """Histories by seed: Hypothesis finds the numbers, they draw the rest (much faster than drawing fields)."""
    return st.builds(
        lambda seed, keys, each: history(topic, seed, keys * each, conflicts=conflicts, keys=keys),
        st.integers(0, 2**32),
        st.integers(1, keys),
        st.integers(1, 9),
    )


def history(
    topic: str, seed: int, n: int, *, conflicts: bool = True, keys: int = 2, orderly: bool | None = None
) -> History:
    """`n` drawn events of a few keys, some of them repeated; without `conflicts`, one content per identity.

    `orderly` (drawn unless given): few collisions, and most arrive in the order in which they happened, so that most
    rows advance instead of being folded again.
    """
    random_ = random.Random(f"{topic} {seed} {n}")
    orderly = random_.random() < 0.5 if orderly is None else orderly
    told = [_event(random_, topic, keys, f"{i}" if orderly and random_.random() < 0.9 else None) for i in range(n)]
    if not conflicts:
        told = list({(e[KEY_FIELD[topic]], e["event_id"]): e for e in told}.values())
    told += random_.choices(told, k=random_.randint(0, n // 10 if orderly else n))
    random_.shuffle(told)
    if orderly:
        told.sort(key=lambda e: e["occurred_at"] + random_.choice((0, 0, 0, 0, 0, 1)) * timedelta(minutes=1))
    deliveries = positioned(random_, told)
    if not orderly:
        random_.shuffle(deliveries)
    return History(seed, topic, cut(random_, deliveries))


def positioned(random_: random.Random, told: Sequence[Event]) -> list[Delivery]:
    """Each event at a place of its own: three partitions, recording times that never fall within one."""
    found = []
    offsets, clocks = [0, 0, 0], [1_000_000] * 3
    for event in told:
        p = random_.randrange(3)
        clocks[p] += random_.choice((0, 1, 5))
        found.append(Delivery(event, clocks[p], p, offsets[p]))
        offsets[p] += random_.choice((1, 1, 7))
    return found


def cut(random_: random.Random, deliveries: Sequence[Delivery]) -> tuple[tuple[Delivery, ...], ...]:
    """In about four batches, some of them of one delivery."""
    batches, at = [], 0
    while at < len(deliveries):
        size = max(1, int(len(deliveries) * random_.choice((0, 0.1, 0.3, 0.3, 0.5))))
        batches.append(tuple(deliveries[at : at + size]))
        at += size
    return tuple(batches)


def _event(random_: random.Random, topic: str, keys: int, event_id: str | None) -> Event:
    """With an id of its own it has an instant of its own, too."""
    kind = random_.choice(types(topic))
    event: Event = {
        "event_id": event_id or random_.choice(_IDS),
        "type": kind,
        "occurred_at": START + timedelta(seconds=random_.random() * 240) if event_id else random_.choice(_MOMENTS),
        "source": random_.choice(("shop", "shop", "till")),
        KEY_FIELD[topic]: f"key-{random_.randrange(keys)}",
    }
    for field, values in _CHOICES[topic].items():
        if field in NEEDS[topic][kind]:
            event[field] = random_.choice([v for v in values if v != "null"])
        elif random_.random() < 0.25 and not (field == "reason" and kind == "expired"):
            event[field] = random_.choice((*values, None))
    return event
