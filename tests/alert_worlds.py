"""Small worlds of coupon events for alert rules, folded in any batches, and episodes as a plain model has them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.alerts import engine
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from tests.folding import frame_of

START = datetime(2026, 11, 11, tzinfo=UTC)
SECOND = 1_000_000
Found = tuple[str, str, datetime, datetime | None, datetime, datetime | None, float, float, int]


@dataclass(frozen=True)
class World:
    deliveries: list[Delivery]
    """In the order in which partitions are read: by offset within a partition."""
    rules: list[Rule]


def deliveries(
    random_: random.Random, events: int, gaps: Sequence[int], late: Sequence[int], fields: Mapping[str, Sequence[Any]]
) -> list[Delivery]:
    """So many events of eight coupons on two partitions. `gaps`: seconds between records; `late`: by how many seconds
    events are recorded late; `fields`: the values that fields may have. Only `created` events name their campaign."""
    recorded = 0
    offsets = [0, 0]
    made = []
    for number in range(events):
        recorded += random_.choice(gaps) * SECOND
        coupon = random_.randrange(8)
        partition = coupon % 2
        event = {
            "event_id": f"e{number}",
            "occurred_at": START + timedelta(microseconds=recorded) - timedelta(seconds=random_.choice(late)),
            "source": "test",
            "coupon_id": f"c{coupon}",
            "campaign_id": None,
            "coupon_type": "cash",
            "order_id": "o1",
            "discount_minor": 1,
            **{name: random_.choice(values) for name, values in fields.items()},
        }
        if event["type"] == "created":
            event["campaign_id"] = f"k{coupon % 3}"
        elif event["user_id"] is None:
            event["user_id"] = "u4"
        at = round(START.timestamp() * SECOND) + recorded
        made.append(Delivery(event, at, partition, offsets[partition]))
        offsets[partition] += 1
    return made


def instant_of(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


@dataclass(frozen=True)
class Seen:
    """An event, in the order of the log, with its campaign, when it counts as having happened, and the clock then."""

    event: Mapping[str, Any]
    campaign: str | None
    at: datetime
    clock: datetime

    def value(self, name: str) -> Any:
        return self.campaign if name == "campaign_id" else self.event[name]


def in_order(world: World) -> list[Seen]:
    seen: list[Seen] = []
    known: dict[str, str] = {}
    for d in sorted(world.deliveries, key=lambda d: (d.recorded_at, d.partition, d.offset)):
        at = min(d.event["occurred_at"], instant_of(d.recorded_at))
        mine = d.event["campaign_id"]
        campaign = mine or known.get(d.event["coupon_id"])
        if mine:
            known.setdefault(d.event["coupon_id"], mine)
        seen.append(Seen(d.event, campaign, at, max(at, seen[-1].clock) if seen else at))
    return seen


def at_ticks(seen: Sequence[Seen], rule: Rule) -> Iterator[tuple[datetime, list[Seen]]]:
    """Each tick that the clock passes, and the events of the rule's types that are in the window then."""
    of: Any = rule.expr
    for i in range(1, len(seen)):
        tick = ceiling(seen[i - 1].clock + timedelta(microseconds=1), rule.every)
        while tick <= seen[i].clock:
            yield tick, [s for s in seen[:i] if s.event["type"] in of.events and tick - of.window < s.at <= tick]
            tick += rule.every


def ceiling(at: datetime, every: timedelta) -> datetime:
    """The first multiple of `every` since the epoch that is not before `at`."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + -(-(at - epoch) // every) * every


@dataclass
class Held:
    opened: datetime
    last_true: datetime
    value: float
    peak: float
    times: int = 0
    fired: datetime | None = None
    details: Any = None


class Life:
    """The episodes of a rule in a plain model."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.open: dict[tuple[tuple[str, str], ...], Held] = {}
        self._done: list[tuple[tuple[tuple[str, str], ...], Held]] = []

    def over(self, clock: datetime) -> None:
        """End what is over at `clock`."""
        for key in [k for k, held in self.open.items() if clock >= held.last_true + self.rule.keep]:
            self._done.append((key, self.open.pop(key)))

    def true(self, key: tuple[tuple[str, str], ...], clock: datetime, value: float, details: Any = None) -> None:
        self.over(clock)
        held = self.open.get(key)
        if held is None:
            held = self.open[key] = Held(clock, clock, value, value, details=details)
        elif value > held.peak:
            held.details = details
        held.last_true, held.peak, held.times = clock, max(held.peak, value), held.times + 1
        if held.fired is None and clock >= held.opened + self.rule.hold:
            held.fired, held.value = clock, value

    def found(self, clock: datetime) -> Iterator[tuple[Found, Any]]:
        """The episodes at the end, each with its details."""
        self.over(clock)
        closed = [(key, held, held.last_true + self.rule.keep) for key, held in self._done if held.fired]
        for key, held, until in [*closed, *((key, held, None) for key, held in self.open.items())]:
            named = json.dumps(dict(key), separators=(",", ":"))
            instants = (held.opened, held.fired, held.last_true, until)
            yield (self.rule.name, named, *instants, held.value, held.peak, held.times), held.details


def found_in(store: Store) -> set[Found]:
    rows = store.rows(
        "SELECT rule, key, opened_at, fired_at, last_true_at, closed_at, value, peak, times FROM alert_episodes"
    )
    found: set[Found] = set()
    for name, key, opened, fired, last_true, closed, *numbers in rows:
        instants = (None if at is None else at.replace(tzinfo=UTC) for at in (opened, fired, last_true, closed))
        found.add((name, key, *instants, *numbers))
    return found


def details_in(store: Store) -> dict[tuple[str, str, datetime], Any]:
    """The details of each episode, by rule, key and the instant at which it was opened."""
    rows = store.rows("SELECT rule, key, opened_at, details FROM alert_episodes")
    return {(rule, key, opened.replace(tzinfo=UTC)): json.loads(details) for rule, key, opened, details in rows}


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
            engine.release(store, {COUPON: instant_of(complete).replace(tzinfo=None)})
        if random_.random() < 0.2:
            store.cache(engine.Engine).rolled_back()  # as after a restart: nothing is left in memory
    return found_in(store)


def batches_of(random_: random.Random, deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    """Batches in which each partition is read in its order, one partition ahead of the other."""
    waiting = {p: [d for d in deliveries if d.partition == p] for p in (0, 1)}
    batches: list[list[Delivery]] = []
    while any(waiting.values()):
        partition = random_.choice([p for p, left in waiting.items() if left])
        size = random_.randint(1, 12)
        batches.append(waiting[partition][:size])
        waiting[partition] = waiting[partition][size:]
    return batches
