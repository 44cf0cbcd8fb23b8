"""Rules across coupons and between topics (LIFECYCLE section 4): case by case, and in random worlds against a model
that reads nothing but the events."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery, fold
from coupon_ledger.ledger.rules import CROSS_RULES, types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.projections.attribution import persons as persons_module
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.digest import facts_digest
from coupon_ledger.projections.live import apply as apply_module
from coupon_ledger.projections.live import campaign_rules, cross, order_rules
from coupon_ledger.projections.live.apply import prepare
from coupon_ledger.projections.live.signature import Int64, stable_hash
from coupon_ledger.projections.store import Store
from tests.examples import TIMES, examples
from tests.folding import clear, emptied, frame_of, scratch_store
from tests.mistakes import mistaken, with_mistake

SEED = 20261111
START = datetime(2026, 11, 11, tzinfo=UTC)
GRACE = timedelta(minutes=15)
LATER = START + timedelta(days=2)

Event = dict[str, Any]
Told = tuple[str, Delivery]
Violation = tuple[str, str, str, str | None]
"""Violation, key, event_id, counterpart."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("cross")) as opened:
        yield opened


def consume(store: Store, told: Sequence[Told]) -> None:
    """One batch of all topics, as the consumer folds it."""
    with store.transaction():
        by_topic = {t: [d for topic, d in told if topic == t] for t in INPUT_TOPICS}
        batches = [prepare(t, frame_of(t, deliveries)) for t, deliveries in by_topic.items() if deliveries]
        changes = [apply_module.fold_in(store, batch)[1] for batch in batches]
        cross.settle(store, changes)


def stored(store: Reading) -> dict[Violation, tuple[str, datetime]]:
    """Each violation with its topic and instant; none stands twice."""
    rows = store.frame(
        "SELECT violation, key, event_id, counterpart, topic, occurred_at FROM violations WHERE scope = 'cross'"
    ).rows()
    found = {row[:4]: (row[4], row[5].replace(tzinfo=UTC)) for row in rows}
    assert len(found) == len(rows)
    return found


# ── An independent model: from LIFECYCLE section 4, over all events, with plain loops ────────────────────────


def facts(topic: str, told: Sequence[Told]) -> dict[str, list[Event]]:
    """Per key, the content of each identity at its first position, in canonical order."""
    first: dict[tuple[str, str], Event] = {}
    for _, d in sorted((p for p in told if p[0] == topic), key=lambda p: p[1].position):
        event = dict(d.event)
        first.setdefault((event[KEY_FIELD[topic]], event["event_id"]), event)
    order = types(topic)
    found: dict[str, list[Event]] = {}
    for (key, _), event in first.items():
        found.setdefault(key, []).append(event)
    for events in found.values():
        events.sort(key=lambda e: (e["occurred_at"], order.index(e["type"]), e["event_id"].encode()))
    return found


def clock_of(told: Sequence[Told]) -> datetime:
    """The data's clock when all this came at once: of each event at its first position."""
    kept: dict[tuple[str, str, str], Delivery] = {}
    for topic, d in sorted(told, key=lambda p: p[1].position):
        kept.setdefault((topic, d.event[KEY_FIELD[topic]], d.event["event_id"]), d)
    clock: datetime = max(
        min(d.event["occurred_at"], datetime.fromtimestamp(d.recorded_at / 1e6, UTC)) for d in kept.values()
    )
    return clock


def expected(
    told: Sequence[Told], grace: timedelta = GRACE, clock: datetime | None = None
) -> dict[Violation, tuple[str, datetime]]:
    clock = clock or clock_of(told)
    by_coupon: dict[str, list[Delivery]] = {}
    for topic, d in told:
        if topic == COUPON:
            by_coupon.setdefault(d.event["coupon_id"], []).append(d)
    folded = {coupon: fold(deliveries) for coupon, deliveries in by_coupon.items()}
    found: dict[Violation, tuple[str, datetime]] = {}
    for violation, event, coupon in within_campaigns(folded, facts(CAMPAIGN, told), persons(told)):
        found[violation, coupon, event["event_id"], None] = (COUPON, event["occurred_at"])
    for violation, topic, key, event, counterpart, trigger in between_topics(folded, facts(ORDER, told)):
        if clock >= trigger["occurred_at"] + grace:
            found[violation, key, event["event_id"], counterpart] = (topic, event["occurred_at"])
    return found


def persons(told: Sequence[Told]) -> dict[str, frozenset[str]]:
    """Per linked id, all ids of its person."""
    groups: dict[str, frozenset[str]] = {}
    for user, events in facts(USER, told).items():
        for event in events:
            if event["type"] == "linked":
                alias = event["alias_id"]
                joined = groups.get(user, frozenset((user,))) | groups.get(alias, frozenset((alias,)))
                groups |= dict.fromkeys(joined, joined)
    return groups


def value_at(events: Sequence[Event], name: str, instant: datetime) -> Any:
    """In force then: of the campaign's own events."""
    own = ("drafted", "published", "unpublished", "amended", "ended", *types(ORDER))
    carried = [e[name] for e in events if e["type"] in own and e["occurred_at"] <= instant and e.get(name) is not None]
    return carried[-1] if carried else None


def within_campaigns(
    folded: Any, campaigns: dict[str, list[Event]], people: dict[str, frozenset[str]]
) -> Iterator[tuple[str, Event, str]]:
    acquired: dict[str, list[tuple[Any, Event, str]]] = {}
    for coupon, whole in folded.items():
        for step in whole.steps:
            kind, user = step.event["type"], step.event.get("user_id")
            if step.before != step.after and (kind == "claimed" or (kind == "issued" and user is not None)):
                place = (step.event["occurred_at"], step.event["event_id"].encode(), coupon.encode())
                if whole.coupon.campaign_id is not None:
                    acquired.setdefault(whole.coupon.campaign_id, []).append((place, step.event, coupon))
                break
    for campaign, those in acquired.items():
        events = campaigns.get(campaign, [])
        users: dict[str, int] = {}
        owners: dict[frozenset[str], int] = {}
        for rank, (_, event, coupon) in enumerate(sorted(those, key=lambda a: a[0]), start=1):
            at, user = event["occurred_at"], event["user_id"]
            users[user] = users.get(user, 0) + 1
            person = people.get(user, frozenset((user,)))
            owners[person] = owners.get(person, 0) + 1
            values = {
                name: value_at(events, name, at) for name in ("quantity", "per_user_limit", "claim_from", "claim_until")
            }
            if values["quantity"] is not None and rank > values["quantity"]:
                yield "over_issue", event, coupon
            if values["per_user_limit"] is not None and users[user] > values["per_user_limit"]:
                yield "over_user_limit", event, coupon
            elif values["per_user_limit"] is not None and owners[person] > values["per_user_limit"]:
                yield "over_person_limit", event, coupon
            early = values["claim_from"] is not None and at < values["claim_from"]
            if early or (values["claim_until"] is not None and at > values["claim_until"]):
                yield "outside_claim_window", event, coupon


def between_topics(folded: Any, orders: dict[str, list[Event]]) -> Iterator[Any]:
    in_use: dict[str, list[tuple[str, Any, Event]]] = {}
    uses = set()
    for coupon, whole in folded.items():
        uses |= {(s.event["order_id"], coupon) for s in whole.steps if s.event["type"] == "used"}
        if whole.coupon.state == "used":
            entered = [s.event for s in whole.steps if s.after == "used" and s.before != "used"]
            in_use.setdefault(whole.coupon.order_id, []).append((coupon, whole.coupon, entered[-1]))
    held = {(w.coupon.order_id, coupon) for coupon, w in folded.items() if w.coupon.state == "reserved"}
    for order in {*in_use, *orders}:
        events = orders.get(order, [])
        yield from of_order(order, events, in_use.get(order, []), uses, held)


def of_order(
    order: str, events: list[Event], here: Any, uses: set[tuple[str, str]], held: set[tuple[str, str]]
) -> Iterator[Any]:
    """The event at fault, and the event that triggers."""
    paid = [e for e in events if e["type"] == "paid"]
    refunds = [e for e in events if e["type"] == "refunded"]
    cancelled = [
        e
        for i, e in enumerate(events)
        if e["type"] == "cancelled" and all(later["type"] != "paid" for later in events[i:])
    ]
    repaid = [
        e for i, e in enumerate(events) if e["type"] == "paid" and any(b["type"] == "cancelled" for b in events[:i])
    ]
    end = datetime.max.replace(tzinfo=UTC)
    gross, net, discounts, ids = (
        value_at(events, n, end) for n in ("gross_minor", "net_minor", "discounts", "coupon_ids")
    )
    refunded = sum(e["refund_minor"] for e in refunds)
    fully_refunded = net is not None and bool(refunds) and refunded >= net
    stands = bool(paid) and not cancelled and not fully_refunded
    so_far = [(e, sum(r["refund_minor"] for r in refunds[: i + 1])) for i, e in enumerate(refunds)]
    undone = cancelled[:1]
    if fully_refunded:
        undone.append(next(e for e, total in so_far if total >= net))

    def carrying(*names: str) -> list[Event]:
        return [e for e in events if any(e.get(name) is not None for name in names)]

    def later(first: Event, second: Event) -> Event:
        return second if second["occurred_at"] > first["occurred_at"] else first

    for coupon, row, used in here:
        discount, least = row.discount_minor, row.min_spend_minor
        if not paid:
            yield "orphan_use", COUPON, coupon, used, order, used
        if undone:
            yield "use_not_returned", COUPON, coupon, used, order, min(undone, key=events.index)
        if stands and ids is not None and coupon not in ids:
            yield "use_not_named", COUPON, coupon, used, order, later(used, carrying("coupon_ids")[-1])
        below = gross is not None and least is not None and gross < least
        if below:
            yield "below_min_spend", COUPON, coupon, used, order, later(used, carrying("gross_minor")[-1])
        elif stands and gross is not None and least is not None and gross - refunded < least:
            fell = next(e for e, total in so_far if gross - total < least)
            yield "below_min_after_refund", COUPON, coupon, fell, order, later(fell, used)
        face, share = row.face_value_minor, row.percent_off_bp
        above = gross is not None and discount > gross
        if row.coupon_type == "percent" and share is not None and gross is not None:
            above |= discount > math.ceil(Fraction(gross * share, 10_000))
        if row.coupon_type in ("cash", "threshold") and face is not None and discount > face:
            yield "discount_above_value", COUPON, coupon, used, order, used
        elif above:
            yield "discount_above_value", COUPON, coupon, used, order, later(used, carrying("gross_minor")[-1])
    if stands:
        for coupon in {*(ids or [])}:
            if (order, coupon) not in uses:
                yield "unrecorded_use", ORDER, order, paid[0], coupon, paid[0]
    told = sum(d["amount_minor"] for d in discounts or [] if d["kind"] == "coupon")
    waiting = any((order, coupon) in held for coupon in ids or [])
    judged = stands and ids is not None and (ids or here) and not waiting
    if judged and told != sum(row.discount_minor for _, row, _ in here):
        last = (carrying("discounts") or carrying("coupon_ids"))[-1]
        trigger = carrying("discounts", "coupon_ids")[-1]
        if here:
            trigger = later(trigger, max((used for _, _, used in here), key=lambda e: e["occurred_at"]))
        yield "discount_mismatch", ORDER, order, last, None, trigger
    if repaid:
        yield "paid_after_cancel", ORDER, order, repaid[0], None, repaid[0]


# ── Random worlds ────────────────────────────────────────────────────────────────────────────────────────────


class World:
    """A few campaigns, coupons, users and orders that meet often; `batches` as they arrive."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.n = 0
        self.told: list[Told] = []
        r = self.random
        events = [*self.campaigns(), *self.coupons(), *self.orders(), *self.users()]
        r.shuffle(events)
        if r.random() < 0.6:  # mostly in the order in which they happened
            events.sort(key=lambda e: e[1]["occurred_at"] + timedelta(minutes=r.choice((0, 0, 0, 9))))
        events += r.choices(events, k=len(events) // 10)
        # Recorded long after all happened, or while it does: some events are of the future then.
        base, step = r.choice(((timedelta(days=1), 1), (timedelta(minutes=1), 30)))
        for i, (topic, event) in enumerate(events):
            recorded = START + base + timedelta(seconds=i * step)
            content = dict(event)
            if r.random() < 0.02:
                content["source"] = "another"
            self.told.append((topic, Delivery(content, int(recorded.timestamp() * 1e6), i % 3, i)))

    def event(self, topic: str, key: str, kind: str, minute: int, /, **more: Any) -> tuple[str, Event]:
        self.n += 1
        event_id = self.random.choice(("a", "B", "é", "\uffff", "\U00010000")) + str(self.n)
        at = START + timedelta(minutes=minute)
        head = {"event_id": event_id, "type": kind, "occurred_at": at, "source": "s", KEY_FIELD[topic]: key}
        return topic, head | {k: v for k, v in more.items() if v is not None}

    def minutes(self, n: int) -> list[int]:
        """Instants of a life: mostly one after the other, with ties."""
        r = self.random
        found = sorted(r.randrange(60) for _ in range(n))
        if r.random() < 0.15:
            r.shuffle(found)
        return found

    def campaigns(self) -> Iterator[tuple[str, Event]]:
        r = self.random
        for campaign in ("k-1", "k-2"):
            for minute in self.minutes(r.randrange(5)):
                window = sorted(r.randrange(60) for _ in range(2))
                yield self.event(
                    CAMPAIGN, campaign, r.choice(("drafted", "amended", "ended", "cost_booked")), minute,
                    cost_kind="media", amount_minor=1, currency="CNY",
                    quantity=r.choice((None, 0, 1, 2, 3, 5)),
                    per_user_limit=r.choice((None, None, 0, 1, 2)),
                    claim_from=r.choice((None, START + timedelta(minutes=window[0]))),
                    claim_until=r.choice((None, START + timedelta(minutes=window[1]))),
                )  # fmt: skip

    def coupons(self) -> Iterator[tuple[str, Event]]:
        r = self.random
        for number in range(r.randrange(1, 12)):
            coupon = f"c-{number}"
            kinds = r.choice(
                (
                    "created issued claimed used",
                    "created issued claimed reserved used returned used",
                    "created issued claimed revoked",
                    "created issued used returned",
                    "created issued claimed reserved",
                    "created issued reserved released",
                    "claimed created used used",
                    " ".join(r.choices(types(COUPON), k=5)),
                )
            ).split()
            for kind, minute in zip(kinds, self.minutes(len(kinds)), strict=True):
                yield self.event(
                    COUPON, coupon, kind, minute,
                    campaign_id=r.choice(("k-1", "k-1", "k-2")) if kind == "created" or r.random() < 0.1 else None,
                    coupon_type=r.choice(("cash", "percent", "threshold", "gift")),
                    min_spend_minor=r.choice((None, 4, 5, 6)),
                    face_value_minor=r.choice((None, 2)),
                    percent_off_bp=r.choice((None, 3_333, 5_000)),
                    valid_until=START + timedelta(minutes=r.randrange(60)) if kind == "extended" else None,
                    channel="app",
                    user_id=r.choice(("u-1", "u-1", "u-2", "u-3")) if kind != "issued" or r.random() < 0.3 else None,
                    order_id=f"o-{r.randrange(4)}",
                    discount_minor=r.choice((0, 2, 3)),
                    reason="not_used",
                )  # fmt: skip

    def orders(self) -> Iterator[tuple[str, Event]]:
        r = self.random
        for number in range(4):
            kinds = r.choice(("", "placed", "placed paid", "placed paid cancelled", "paid refunded refunded",
                              "paid paid refunded", "paid cancelled paid", "placed cancelled paid cancelled refunded",
                              "placed cancelled", "paid refunded", "paid refunded refunded")).split()  # fmt: skip
            for kind, minute in zip(kinds, self.minutes(len(kinds)), strict=True):
                items = [{"kind": k, "amount_minor": r.choice((2, 3)), "funder": None} for k in ("coupon", "member")]
                yield self.event(
                    ORDER, f"o-{number}", kind, minute,
                    user_id="u-1", currency="CNY", gross_minor=r.choice((4, 5, 9)), net_minor=r.choice((0, 3, 5, 9)),
                    refund_minor=r.choice((0, 2, 4, 4)), reason="r",
                    discounts=r.choice((None, [], items, items[:1])),
                    coupon_ids=r.choice((None, [], ["c-0"], ["c-1", "c-0", "c-1"])),
                )  # fmt: skip

    def users(self) -> Iterator[tuple[str, Event]]:
        """Who is whom, and what moves the data's clock."""
        for user, alias in (("u-1", "u-2"), ("u-3", "u-1"), ("u-2", "u-9")):
            if self.random.random() < 0.5:
                yield self.event(USER, user, "linked", self.random.choice((0, 30)), alias_id=alias)
        for _ in range(self.random.randrange(3)):
            yield self.event(USER, "u-1", "touched", self.random.choice((20, 65, 200)), kind="view")

    def batches(self, shuffled: bool) -> Iterator[list[Told]]:
        told = list(self.told)
        if shuffled:
            self.random.shuffle(told)
        while told:
            size = self.random.choice((1, 3, 10, 40, len(told)))
            yield told[:size]
            told = told[size:]


@pytest.mark.long
@examples(3)
@given(seed=st.integers(0, 2**32), shuffled=st.booleans())
def test_after_every_batch_it_is_what_the_facts_so_far_say(store: Store, seed: int, shuffled: bool) -> None:
    """A violation would be missing, or stay when late facts took its ground away."""
    check_world(store, seed, shuffled)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_worlds(store: Store, part: int) -> None:
    """The same, in worlds that Hypothesis does not come to in a second."""
    print(f"seed {SEED}")
    for seed in range(SEED + 100 * part, SEED + 100 * part + 8 * TIMES):
        check_world(store, seed, bool(seed % 2))


def check_world(store: Store, seed: int, shuffled: bool) -> None:
    with emptied(store):
        so_far: list[Told] = []
        clock = datetime.min.replace(tzinfo=UTC)
        for batch in World(seed).batches(shuffled):
            consume(store, batch)
            so_far += batch
            clock = max(clock, clock_of(so_far))  # it never goes back, also where an earlier copy comes late
            assert stored(store) == expected(so_far, clock=clock)
            assert in_use(store, "coupons_in_use") == in_use(store, "coupons WHERE state = 'used'")
            ids = dict(store.rows("SELECT user_id, person FROM persons"))
            groups = persons(so_far)
            assert {user: frozenset(u for u, p in ids.items() if p == ids[user]) for user in ids} == {
                user: group for user, group in groups.items() if len(group) > 1
            }


def in_use(store: Reading, table: str) -> list[tuple[Any, ...]]:
    columns = (
        "order_id, key_hash, coupon_id, used_at, used_event_id, discount_minor, min_spend_minor, coupon_type,"
        " face_value_minor, percent_off_bp"
    )
    return store.rows(f"SELECT {columns} FROM {table} ORDER BY ALL")


@pytest.mark.slow
@examples(2)
@given(seed=st.integers(0, 2**32))
def test_any_arrival_ends_in_the_same_digest(store: Store, seed: int) -> None:
    """Two replicas of one log would differ, or a rebuild from what it replaces."""
    teller = Teller()
    teller.time(1_000_000)  # when all is due, events of the future too
    in_the_end = teller.told
    ends = []
    for shuffled in (False, True):
        with emptied(store):
            for batch in [*World(seed).batches(shuffled), in_the_end]:
                consume(store, batch)
            ends.append(facts_digest(store))
    with emptied(store):
        consume(store, [*World(seed).told, *in_the_end])
        ends.append(facts_digest(store))
    assert len(set(ends)) == 1


@pytest.mark.long
def test_worlds_are_full_of_trouble() -> None:
    """The tests above would pass on worlds in which nothing is wrong."""
    found = [v for seed in range(SEED, SEED + 160) for v, *_ in expected(World(seed).told)]
    assert all(found.count(rule) >= 5 for rule in CROSS_RULES), {rule: found.count(rule) for rule in CROSS_RULES}


@pytest.mark.slow
def test_keys_with_equal_hashes_stay_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two campaigns or orders whose hashes happen to be equal would share stock or money."""

    def weak(texts: Any) -> Int64:
        hashes: Int64 = stable_hash(texts) % 2
        return hashes

    for module in (apply_module, campaign_rules, order_rules, persons_module):
        monkeypatch.setattr(module, "stable_hash", weak)
    for seed in range(SEED, SEED + 2):
        check_world(store, seed, True)


# ── Case by case ─────────────────────────────────────────────────────────────────────────────────────────────


class Teller:
    """Events in short: `minute` counts from START; recorded as they are told, long afterwards unless said.

    `arrival`: the way in which a case takes them in.
    """

    def __init__(self, arrival: str = "in order") -> None:
        self.arrival = arrival
        self.told: list[Told] = []

    def tell(
        self, topic: str, key: str, kind: str, minute: float, /, *, recorded: datetime = LATER, **more: Any
    ) -> None:
        n = len(self.told)
        at = START + timedelta(minutes=minute)
        head = {"event_id": f"{key} {kind} {n}", "type": kind, "occurred_at": at, "source": "s", KEY_FIELD[topic]: key}
        self.told.append((topic, Delivery(head | more, int(recorded.timestamp() * 1e6) + n, 0, n)))

    def campaign(self, minute: float, **values: Any) -> None:
        self.tell(CAMPAIGN, "k", "amended", minute, **values)

    def claim(self, coupon: str, minute: float, user: str = "u", **more: Any) -> None:
        """Its creation and issue too, unless told already."""
        if not any(d.event.get("coupon_id") == coupon for _, d in self.told):
            self.tell(COUPON, coupon, "created", -9, campaign_id="k", coupon_type="cash", min_spend_minor=100)
            self.tell(COUPON, coupon, "issued", -8, channel="app")
        self.tell(COUPON, coupon, "claimed", minute, user_id=user, channel="app", **more)

    def use(self, coupon: str, order: str, minute: float, discount: int = 5) -> None:
        if not any(d.event.get("coupon_id") == coupon for _, d in self.told):
            self.claim(coupon, -1)
        self.tell(COUPON, coupon, "used", minute, user_id="u", order_id=order, discount_minor=discount)

    def give_back(self, coupon: str, order: str, minute: float) -> None:
        self.tell(COUPON, coupon, "returned", minute, order_id=order)

    def order(self, order: str, kind: str, minute: float, **more: Any) -> None:
        bought = {"user_id": "u", "currency": "CNY", "gross_minor": 200, "net_minor": 195}
        needed = {"cancelled": {"reason": "r"}, "refunded": {}}.get(kind, bought)
        self.tell(ORDER, order, kind, minute, **(needed | more))

    def time(self, minute: float, recorded: datetime = LATER) -> None:
        """The data's clock comes to this minute."""
        self.tell(USER, "somebody", "touched", minute, kind="view", recorded=recorded)


# How a case's events arrive. What comes late revises most, so that is the way of the fast tests.
ARRIVALS = ["late", *(pytest.param(way, marks=pytest.mark.slow) for way in ("in order", "at once"))]


@pytest.fixture(params=ARRIVALS)
def at(request: pytest.FixtureRequest, store: Store) -> Iterator[Teller]:
    with emptied(store):
        yield Teller(request.param)


def broken(store: Store, at: Teller) -> list[str]:
    """`violation key` (and `/ counterpart`) after these events, which is what the model says."""
    first, second = at.told[: len(at.told) // 2], at.told[len(at.told) // 2 :]
    batches = {"late": [second, first], "in order": [first, second], "at once": [at.told]}[at.arrival]
    clear(store)  # of what the test looked at on the way
    for batch in batches:
        consume(store, batch)
    found = stored(store)
    assert found == expected(at.told)
    return sorted(f"{v} {key}" + (f" / {other}" if other else "") for v, key, _, other in found)


def coupon(discount: int) -> list[dict[str, Any]]:
    return [{"kind": "coupon", "amount_minor": discount, "funder": None}]


@pytest.mark.long
def test_stock_is_exceeded_by_the_first_coupon_above_the_quantity(store: Store, at: Teller) -> None:
    """A campaign would pay for coupons beyond its stock unseen, or honest claimants would be accused."""
    at.campaign(0, quantity=2)
    for minute, coupon_id in ((3, "c"), (1, "a"), (2, "b")):
        at.claim(coupon_id, minute)
    assert broken(store, at) == ["over_issue c"]


@pytest.mark.long
def test_claims_of_one_instant_are_ranked_by_the_bytes_of_their_ids(store: Store, at: Teller) -> None:
    """Two replicas would accuse different people."""
    at.campaign(0, quantity=2)
    for coupon_id, event_id in (("a", "\U00010000"), ("b", "\uffff"), ("c", "Z")):
        at.claim(coupon_id, 1, event_id=event_id)
    assert broken(store, at) == ["over_issue a"]


@pytest.mark.long
def test_a_late_claim_pushes_another_coupon_over(store: Store, at: Teller) -> None:
    """Who was too late would depend on whose event was delayed."""
    at.campaign(0, quantity=1)
    at.claim("a", 5)
    consume(store, at.told)
    assert stored(store) == {}
    at.claim("b", 4)
    assert broken(store, at) == ["over_issue a"]


def test_a_claim_that_never_was_gives_its_place_back(store: Store, at: Teller) -> None:
    """A coupon would stay accused though a revocation told late took the claim before it away."""
    at.campaign(0, quantity=1)
    at.claim("a", 1)
    at.claim("b", 2)
    at.tell(COUPON, "a", "revoked", 0.5, reason="fraud")
    assert broken(store, at) == []


@pytest.mark.long
@pytest.mark.parametrize(("before", "after", "wrong"), [(1, 3, "bd"), (3, 1, "cd"), (0, 9, "ab")])
def test_the_quantity_in_force_at_each_claim_counts(
    store: Store, at: Teller, before: int, after: int, wrong: str
) -> None:
    """A raised stock would accuse nobody afterwards, or excuse those before it."""
    at.campaign(0, quantity=before)
    at.campaign(3, quantity=after)
    for minute, coupon_id in ((1, "a"), (2, "b"), (3, "c"), (4, "d")):
        at.claim(coupon_id, minute)
    assert broken(store, at) == [f"over_issue {c}" for c in wrong]


def test_an_amendment_at_the_instant_of_a_claim_is_in_force(store: Store, at: Teller) -> None:
    """The claim of that microsecond would be judged by old rules."""
    at.campaign(0, quantity=1)
    at.campaign(2, per_user_limit=9)
    at.campaign(2, quantity=2)
    at.claim("a", 1)
    at.claim("b", 2)
    assert broken(store, at) == []


@pytest.mark.long
def test_before_any_value_is_known_no_rule_applies(store: Store, at: Teller) -> None:
    """Campaigns without a stock would be accused of exceeding it."""
    at.campaign(5, quantity=0, per_user_limit=0, claim_until=START)
    at.claim("a", 1)
    assert broken(store, at) == []


@pytest.mark.long
def test_a_coupon_given_directly_counts_like_a_claimed_one_and_once(store: Store, at: Teller) -> None:
    """Direct grants would be free stock, or a coupon would count at its grant and at its claim."""
    at.campaign(-20, quantity=1)
    for coupon_id, minute in (("a", 1), ("b", 2)):
        at.tell(COUPON, coupon_id, "created", 0, campaign_id="k", coupon_type="cash")
        at.tell(COUPON, coupon_id, "issued", minute, channel="app", user_id="u")
        at.tell(COUPON, coupon_id, "claimed", 9, channel="app", user_id="u")
    assert broken(store, at) == ["over_issue b"]
    assert {event_id for _, _, event_id, _ in stored_of(store, at)} == {"b issued 5"}


def stored_of(store: Store, told: Teller) -> dict[Violation, tuple[str, datetime]]:
    with emptied(store):
        consume(store, told.told)
        return stored(store)


@pytest.mark.long
def test_a_users_limit_counts_users_as_written_and_a_persons_all_ids(store: Store, at: Teller) -> None:
    """A second account would double what one person may have, or be taken for the same user."""
    at.campaign(0, per_user_limit=1)
    at.tell(USER, "u", "linked", 0, alias_id="phone")
    for coupon_id, minute, user in (("a", 1, "u"), ("b", 2, "phone"), ("c", 3, "U"), ("d", 4, "u")):
        at.claim(coupon_id, minute, user)
    assert broken(store, at) == ["over_person_limit b", "over_user_limit d"]


@pytest.mark.long
def test_ids_that_are_linked_later_are_one_person_from_the_start(store: Store, at: Teller) -> None:
    """Who is one person would depend on when the link was published."""
    at.campaign(0, per_user_limit=1)
    for coupon_id, minute, user in (("a", 1, "guest-1"), ("b", 2, "guest-2"), ("c", 3, "guest-3")):
        at.claim(coupon_id, minute, user)
    at.tell(USER, "member", "linked", 20, alias_id="guest-1")
    at.tell(USER, "member", "linked", 21, alias_id="guest-2")
    at.tell(USER, "guest-2", "linked", 22, alias_id="guest-3")
    assert broken(store, at) == ["over_person_limit b", "over_person_limit c"]


@pytest.mark.long
def test_a_link_that_turns_out_to_be_another_splits_the_person(store: Store, at: Teller) -> None:
    """A person would stay accused of a stranger's coupons after the link between them is gone."""
    at.campaign(0, per_user_limit=1)
    at.claim("a", 1, "u")
    at.claim("b", 2, "v")
    at.tell(USER, "u", "linked", 3, alias_id="v")
    with emptied(store):
        consume(store, at.told)
        assert [v for v, *_ in stored(store)] == ["over_person_limit"]
        topic, link = at.told[-1]
        at.told.append((topic, Delivery({**link.event, "alias_id": "w"}, link.recorded_at - 1, 0, link.offset)))
        consume(store, at.told[-1:])
        assert stored(store) == expected(at.told) == {}


@pytest.mark.long
def test_both_ends_of_the_claim_window_belong_to_it(store: Store, at: Teller) -> None:
    """The claims of the first and the last instant would be refused their money."""
    at.campaign(0, claim_from=START + timedelta(minutes=10), claim_until=START + timedelta(minutes=20))
    for minute in (9.99, 10, 20, 20.01):
        at.claim(f"at {minute}", minute)
    assert broken(store, at) == ["outside_claim_window at 20.01", "outside_claim_window at 9.99"]


@pytest.mark.long
@pytest.mark.parametrize(("clock", "due"), [(24.999, False), (25, True)])
def test_a_use_without_a_paid_order_is_an_orphan_after_the_grace(
    store: Store, at: Teller, clock: float, due: bool
) -> None:
    """Discounts without an order would go unseen; or every use would be one while its order is under way."""
    at.use("a", "o", 10)
    at.order("o", "placed", 10)
    at.time(clock)
    assert broken(store, at) == (["orphan_use a / o"] if due else [])


@pytest.mark.long
@pytest.mark.parametrize("paid", [12, 90])
def test_an_order_paid_late_takes_the_orphan_back(store: Store, at: Teller, paid: int) -> None:
    """A coupon would stay an orphan after its order's payment came."""
    at.use("a", "o", 10)
    at.time(60)
    at.order("o", "paid", paid)
    assert broken(store, at) == []


@pytest.mark.long
def test_an_event_of_the_future_makes_nothing_due(store: Store, at: Teller) -> None:
    """One producer with a wrong clock would turn all that is under way into violations."""
    soon = START + timedelta(minutes=12)
    at.use("a", "o", 10)
    at.told = [(t, Delivery(d.event, int(soon.timestamp() * 1e6), 0, d.offset)) for t, d in at.told]
    at.time(1_000_000, recorded=soon)
    assert broken(store, at) == []


@pytest.mark.long
def test_an_event_of_the_future_that_comes_again_makes_nothing_due(store: Store, at: Teller) -> None:
    """A producer with a wrong clock and a retry would turn all that is under way into violations."""
    soon, later = START + timedelta(minutes=12), START + timedelta(hours=2)
    at.use("a", "o", 10)
    at.told = [(t, Delivery(d.event, int(soon.timestamp() * 1e6), 0, d.offset)) for t, d in at.told]
    at.time(1_000_000, recorded=soon)
    topic, future = at.told[-1]
    again = (topic, Delivery(future.event, int(later.timestamp() * 1e6), 0, future.offset + 1))
    consume(store, at.told)
    consume(store, [again])
    assert stored(store) == {}


@pytest.mark.long
def test_a_paid_order_names_a_coupon_that_was_never_used_on_it(store: Store, at: Teller) -> None:
    """Discounts given without a redemption would go unseen, or returned ones would be accused of that."""
    at.use("a", "o", 10)
    at.give_back("a", "o", 11)
    at.use("b", "another", 10)
    at.order("another", "paid", 10)
    at.order("o", "paid", 10, coupon_ids=["a", "b", "c", "c"])
    at.order("gone", "paid", 10, coupon_ids=["c"])
    at.order("gone", "cancelled", 11)
    at.order("open", "placed", 10, coupon_ids=["c"])
    at.time(60)
    assert broken(store, at) == ["unrecorded_use o / b", "unrecorded_use o / c"]


@pytest.mark.long
def test_a_use_counts_as_recorded_though_it_was_illegal(store: Store, at: Teller) -> None:
    """A double use would be accused of not being there at all."""
    at.use("a", "first", 10)
    at.use("a", "o", 11)
    at.order("first", "paid", 10)
    at.order("o", "paid", 11, coupon_ids=["a"])
    at.time(60)
    assert broken(store, at) == []


@pytest.mark.long
def test_the_coupon_of_an_order_paid_back_must_be_given_back(store: Store, at: Teller) -> None:
    """A customer would lose the coupon with the order, or keep the money and the discount."""
    for name, refunds in (("none", ()), ("less", (194,)), ("parts", (100, 95)), ("whole", (195,))):
        for coupon_id, order in ((f"kept-{name}", f"o-{name}"), (f"back-{name}", f"p-{name}")):
            at.use(coupon_id, order, 10)
            at.order(order, "paid", 10)
            for i, refund in enumerate(refunds):
                at.order(order, "refunded", 20 + i, refund_minor=refund)
        at.give_back(f"back-{name}", f"p-{name}", 30)
    at.time(90)
    returned = [f"use_not_returned kept-{name} / o-{name}" for name in ("parts", "whole")]
    assert broken(store, at) == ["below_min_after_refund kept-less / o-less", *returned]


@pytest.mark.long
def test_a_free_order_is_not_refunded_before_any_refund(store: Store, at: Teller) -> None:
    """Every order that coupons paid for whole would be accused; or one refunded with nothing would keep its coupon."""
    at.use("a", "o", 10)
    at.order("o", "paid", 10, net_minor=0)
    at.use("b", "p", 10)
    at.order("p", "paid", 10, net_minor=0)
    at.order("p", "refunded", 11, refund_minor=0)
    at.time(60)
    assert broken(store, at) == ["use_not_returned b / p"]


@pytest.mark.long
def test_a_payment_after_a_cancellation_makes_the_order_stand_again(store: Store, at: Teller) -> None:
    """A reopened order would be accused of its coupon for ever, and nobody would look at the money."""
    at.use("a", "o", 10)
    at.order("o", "paid", 10)
    at.order("o", "cancelled", 20)
    at.order("o", "paid", 30)
    at.use("b", "p", 10)
    for kind, minute in (("paid", 10), ("cancelled", 20), ("paid", 30), ("cancelled", 40)):
        at.order("p", kind, minute)
    at.time(90)
    assert broken(store, at) == ["paid_after_cancel o", "paid_after_cancel p", "use_not_returned b / p"]


@pytest.mark.long
def test_an_order_that_stands_names_the_coupons_used_on_it(store: Store, at: Teller) -> None:
    """A coupon edited out of an order would stay used up, unseen; orders that name none at all would be accused."""
    for order, ids in (("named", ["of named"]), ("other", ["x"]), ("none", []), ("untold", None)):
        at.use(f"of {order}", order, 10)
        at.order(order, "paid", 10, **({} if ids is None else {"coupon_ids": ids}), discounts=coupon(5))
    at.order("gone", "paid", 10, coupon_ids=[])
    at.use("of gone", "gone", 10)
    at.order("gone", "refunded", 11, refund_minor=195)
    at.give_back("of gone", "gone", 12)
    at.time(60)
    assert broken(store, at) == [
        "unrecorded_use other / x",
        "use_not_named of none / none",
        "use_not_named of other / other",
    ]


@pytest.mark.long
def test_a_refund_that_takes_an_order_below_its_coupons_threshold(store: Store, at: Teller) -> None:
    """People would buy up to the threshold and send all but the discount back."""
    for order, refund in (("o", 100), ("p", 101)):
        at.use(f"of {order}", order, 10)
        at.order(order, "paid", 10)
        at.order(order, "refunded", 11, refund_minor=50)
        at.order(order, "refunded", 12, refund_minor=refund - 50)
    at.time(60)
    assert broken(store, at) == ["below_min_after_refund of p / p"]


@pytest.mark.long
def test_a_discount_above_what_the_coupon_is_worth(store: Store, at: Teller) -> None:
    """A shop that takes off more than the coupon says would do so on every order of a sale."""
    worth: dict[str, dict[str, Any]] = {
        "cash": {"coupon_type": "cash", "face_value_minor": 5},
        "threshold": {"coupon_type": "threshold", "face_value_minor": 5},
        "gift": {"coupon_type": "gift", "face_value_minor": 5},
        "percent": {"coupon_type": "percent", "percent_off_bp": 333},  # of 200: 6.66, so 7
        "unknown": {"coupon_type": "cash"},
    }
    for name, terms in worth.items():
        for discount in (5, 6, 7, 8, 201):
            key = f"{name} {discount}"
            at.tell(COUPON, key, "created", -9, campaign_id="k", **terms)
            at.tell(COUPON, key, "issued", -8, channel="app", user_id="u")
            at.use(key, f"o {key}", 10, discount)
            at.order(f"o {key}", "paid", 10)
    at.time(60)
    above = {
        "cash": (6, 7, 8, 201),
        "gift": (201,),
        "percent": (8, 201),
        "threshold": (6, 7, 8, 201),
        "unknown": (201,),
    }
    assert broken(store, at) == [
        f"discount_above_value {name} {n} / o {name} {n}"
        for name, those in above.items()
        for n in sorted(those, key=str)
    ]


@pytest.mark.long
def test_orders_that_wait_or_were_abandoned_break_nothing(store: Store, at: Teller) -> None:
    """Every order under way would be a violation, and so would every one that was cancelled in an orderly way."""
    at.claim("a", 1)
    at.tell(COUPON, "a", "reserved", 10, user_id="u", order_id="waiting", hold_until=START + timedelta(days=9))
    at.order("waiting", "paid", 10, coupon_ids=["a"], discounts=coupon(5))
    at.order("abandoned", "placed", 10, coupon_ids=["b"], discounts=coupon(5))
    at.use("c", "undone", 10)
    at.order("undone", "paid", 10, coupon_ids=["c"], discounts=coupon(5))
    at.order("undone", "cancelled", 20)
    at.give_back("c", "undone", 21)
    at.time(60)
    # The one that waits is named by an order that stands, and was never used: that is told, the amount is not.
    assert broken(store, at) == ["unrecorded_use waiting / a"]
    with emptied(store):
        consume(store, at.told)
        at.tell(COUPON, "a", "released", 70, order_id="waiting")
        consume(store, at.told[-1:])
        assert stored(store) == expected(at.told)
        assert "discount_mismatch" in {v for v, *_ in stored(store)}


@pytest.mark.long
@pytest.mark.parametrize(("clock", "due"), [(34, False), (35, True)])
def test_a_cancelled_order_has_the_grace_to_give_its_coupon_back(
    store: Store, at: Teller, clock: float, due: bool
) -> None:
    """Each cancellation would be a violation while the return is under way."""
    at.use("a", "o", 10)
    at.order("o", "paid", 10)
    at.order("o", "cancelled", 20)
    at.time(clock)
    assert broken(store, at) == (["use_not_returned a / o"] if due else [])


@pytest.mark.long
def test_a_coupon_used_again_on_another_order_leaves_the_first(store: Store, at: Teller) -> None:
    """A coupon would be accused of an order that it has been given back from."""
    at.use("a", "o", 10)
    at.order("o", "paid", 10)
    at.order("o", "cancelled", 11)
    at.time(40)
    consume(store, at.told)
    assert len(stored(store)) == 1
    at.give_back("a", "o", 41)
    at.use("a", "p", 42)
    at.order("p", "paid", 42)
    at.time(90)
    assert broken(store, at) == []


@pytest.mark.long
def test_an_order_below_the_coupons_threshold(store: Store, at: Teller) -> None:
    """Threshold coupons would be paid out on any basket."""
    for coupon_id, order, gross in (("a", "o", 99), ("b", "p", 100)):
        at.use(coupon_id, order, 10)
        at.order(order, "paid", 10, gross_minor=gross)
    at.time(60)
    assert broken(store, at) == ["below_min_spend a / o"]


@pytest.mark.long
def test_an_orders_coupon_discounts_against_its_coupons(store: Store, at: Teller) -> None:
    """The books of orders and coupons would drift apart; or shops that name no coupons would be accused."""
    cases: dict[str, tuple[bool, Any]] = {
        "equal": (True, coupon(5)),
        "equal in parts": (True, coupon(2) + coupon(3)),
        "more": (True, coupon(6)),
        "empty": (True, []),
        "untold": (True, None),
        "naming none": (False, coupon(6)),
        "not naming": (False, coupon(6)),
    }
    for order, (named, discounts) in cases.items():
        at.use(f"of {order}", order, 10)
        names = {} if order == "not naming" else {"coupon_ids": [f"of {order}"] if named else []}
        at.order(order, "paid", 10, **names, **({} if discounts is None else {"discounts": discounts}))
    at.time(60)
    wrong = [f"discount_mismatch {order}" for order in ("empty", "more", "naming none", "untold")]
    assert broken(store, at) == [*wrong, "use_not_named of naming none / naming none"]


@pytest.mark.long
def test_another_grace_judges_what_is_there_again(store: Store, at: Teller) -> None:
    """After a change of the setting, old and new orders would be judged differently."""
    at.use("a", "o", 10)
    at.time(20)
    with emptied(store):
        consume(store, at.told)
        for minutes in (10, 11, 15):
            with store.transaction():
                cross.use_grace(store, timedelta(minutes=minutes))
            assert stored(store) == expected(at.told, timedelta(minutes=minutes))
            assert bool(stored(store)) == (minutes == 10)


def test_a_coupons_own_count_leaves_these_rules_out(store: Store, at: Teller) -> None:
    """A coupon's row would blame it for what its campaign or its order did."""
    at.campaign(0, quantity=0)
    at.claim("a", 1)
    with emptied(store):
        consume(store, at.told)
        assert len(stored(store)) == 1
        assert store.frame("SELECT violations FROM coupons").rows() == [(0,)]


def stock_story(seed: int) -> list[Told]:
    """Claims of a few instants on a stock that changes, some of them undone by what comes late; in any order."""
    random_ = random.Random(seed)
    at = Teller()
    for _ in range(random_.randrange(1, 4)):
        at.campaign(random_.randrange(8), quantity=random_.randrange(12), per_user_limit=random_.choice((1, 4, 9)))
    for n in range(24):
        event_id = random_.choice(("Z", "\uffff", "\U00010000"))
        at.claim(f"c-{n}", random_.randrange(8), user=f"u-{n % 4}", event_id=event_id)
        if random_.random() < 0.4:
            at.tell(COUPON, f"c-{n}", "revoked", random_.choice((-5, 3)), reason="r")
    lives = random_.sample(at.told, len(at.told))
    # The stock is known first, and most claims are there before they are undone.
    turn = {"claimed": (1,), "revoked": (1, 2, 2)}
    return sorted(lives, key=lambda t: random_.choice(turn.get(t[1].event["type"], (0,))))


def check_stock(store: Store, seed: int) -> None:
    told = stock_story(seed)
    random_ = random.Random(seed)
    with emptied(store):
        done = 0
        while done < len(told):
            size = len(told) // 2 if done == 0 else random_.choice((1, 2, 5))
            consume(store, told[done : done + size])
            done += size
            assert stored(store) == expected(told[:done])


def check_waiting(store: Store) -> None:
    """The clock comes to the instant at which an order is due, and to nothing else of it."""
    at = Teller()
    at.use("a", "o", 10)
    with emptied(store):
        consume(store, at.told)
        at.time(25)
        consume(store, at.told[-1:])
        assert stored(store) == expected(at.told) != {}


def check_edges(store: Store) -> None:
    """Values of one instant, values left out, a window's last instant, the last refund, what the grace counts from."""
    at = Teller()
    until = START + timedelta(minutes=20)
    at.campaign(0, quantity=9)
    at.campaign(0, quantity=1, claim_until=until)
    at.tell(CAMPAIGN, "k", "drafted", 0, quantity=8)
    at.campaign(5, per_user_limit=9)
    for n, minute in enumerate((1, 2, 6, 20, 20.5)):
        at.claim(f"c-{n}", minute)
    at.use("c-0", "o", 10)
    at.order("o", "paid", 30, gross_minor=99)
    for minute, refund in ((31, 100), (32, 95)):
        at.order("o", "refunded", minute, refund_minor=refund)
    at.time(40)
    with emptied(store):
        consume(store, at.told)
        assert stored(store) == expected(at.told)
        at.time(60)
        consume(store, at.told[-1:])
        assert stored(store) == expected(at.told)
        assert {v for v, *_ in stored(store)} >= {"over_issue", "below_min_spend", "use_not_returned"}


def check_replaced(store: Store) -> None:
    """Another content of a use turns up at an earlier position, and names another order."""
    at = Teller()
    at.use("a", "o", 10)
    topic, used = at.told[-1]
    at.order("o", "paid", 10, coupon_ids=["a"])
    at.time(60)
    with emptied(store):
        consume(store, at.told)
        at.told.append((topic, Delivery({**used.event, "order_id": "p"}, used.recorded_at - 1, 0, used.offset)))
        consume(store, at.told[-1:])
        assert stored(store) == expected(at.told)
        assert {v for v, *_ in stored(store)} >= {"unrecorded_use", "orphan_use"}


def check_linked(store: Store) -> None:
    """A person's other id turns out to have been earlier, and a third one to be the same person."""
    at = Teller()
    at.campaign(0, per_user_limit=1)
    at.tell(USER, "u", "linked", 0, alias_id="v")
    at.claim("a", 10, user="u")
    steps = [list(at.told)]
    at.claim("b", 5, user="v")
    steps.append(at.told[len(steps[0]) :])
    at.claim("c", 20, user="w")
    at.tell(USER, "u", "linked", 30, alias_id="w")
    steps += [[told] for told in at.told[sum(map(len, steps)) :]]
    with emptied(store):
        so_far: list[Told] = []
        for step in steps:
            consume(store, step)
            so_far += step
            assert stored(store) == expected(so_far)
        assert [(v, key) for v, key, *_ in stored(store)] == [("over_person_limit", "a"), ("over_person_limit", "c")]


def check_held(store: Store) -> None:
    """A coupon that a paid order names is held for it, and let go again, in batches of their own."""
    at = Teller()
    at.claim("a", 1)
    at.order("o", "paid", 10, coupon_ids=["a"], discounts=coupon(5))
    at.time(60)
    with emptied(store):
        consume(store, at.told)
        mismatched = []
        for kind in ("reserved", "released", "reserved"):
            at.tell(COUPON, "a", kind, 60 + len(at.told), user_id="u", order_id="o")
            mismatched.append("discount_mismatch" in {v for v, *_ in stored(store)})
            consume(store, at.told[-1:])
            assert stored(store) == expected(at.told)
        assert mismatched == [True, False, True]


@pytest.mark.long
def test_a_coupon_held_for_a_paid_order(store: Store) -> None:
    """A payment under way would stand as a discount that does not match, or a forgotten hold hide one for good."""
    check_held(store)


@pytest.mark.long
def test_another_id_of_a_person_that_was_earlier(store: Store) -> None:
    """The wrong one of a person's two ids would be blamed, or a third would go free."""
    check_linked(store)


@pytest.mark.long
def test_a_use_whose_first_content_comes_late(store: Store) -> None:
    """An order would count a use that was another order's all along."""
    check_replaced(store)


@pytest.mark.long
def test_where_a_rule_begins_to_hold(store: Store) -> None:
    """Whoever claims, refunds or pays at the last instant would be judged as one too late."""
    check_edges(store)


@pytest.mark.parametrize("seed", [SEED, *(pytest.param(SEED + n, marks=pytest.mark.slow) for n in (1, 2, 3))])
@pytest.mark.slow
def test_a_stock_that_claims_fight_over(store: Store, seed: int) -> None:
    """Claims that come late, tie or are undone would leave the wrong coupons over the stock."""
    check_stock(store, seed)


# ── What it costs ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_late_claim_does_not_rank_its_campaign_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sold-out campaign would slow the consumer with every claim that it ever had."""
    asked: list[int] = []
    frame = Store.frame

    def counting(self: Store, *query: Any) -> pl.DataFrame:
        found = frame(self, *query)
        if "acquisitions" in query[0]:
            asked.append(found.height)
        return found

    at = Teller()
    at.campaign(-10, quantity=500)
    for n in range(1_000):
        at.claim(f"c-{n}", n, user=f"u-{n}")
    with emptied(store):
        consume(store, at.told)
        assert len(stored(store)) == 500
        monkeypatch.setattr(Store, "frame", counting)
        for n in range(5):
            before = len(at.told)
            at.claim(f"late-{n}", n + 0.5)
            consume(store, at.told[before:])
        assert sum(asked) <= 5 * 4
        monkeypatch.undo()
        assert stored(store) == expected(at.told)


# ── Mistakes put in on purpose ───────────────────────────────────────────────────────────────────────────────

# A file, what stands there once, and what becomes of it.
MISTAKES = [
    ("between_topics.sql", "FROM u WHERE u.paid_at IS NULL", "FROM u"),
    ("between_topics.sql", "WHERE u.gross_minor < u.min_spend_minor", "WHERE u.gross_minor <= u.min_spend_minor"),
    ("between_topics.sql", "IF d.kind = 'coupon'", "IF d.kind <> ''"),
    ("between_topics.sql", "AND r.so_far >= o.net_minor", "AND r.so_far > o.net_minor"),
    ("between_topics.sql", "(len(o.coupon_ids) > 0 OR t.last_use IS NOT NULL)", "true"),
    ("between_topics.sql", "WHERE o.stands AND o.coupon_ids", "WHERE o.coupon_ids"),
    ("between_topics.sql", "if(v.coupons.occurred_at > u.used_at, v.coupons, NULL)", "NULL"),
    ("between_topics.sql", "(FROM o WHERE stands)", "(FROM o)"),
    ("between_topics.sql", " + 9999", ""),
    ("between_topics.sql", "NOT u.above_face AND ", ""),
    ("between_topics.sql", "i.coupon_type IN ('cash', 'threshold')", "true"),
    ("between_topics.sql", "'paid' AND place > p.first_cancelled", "'paid'"),
    ("between_topics.sql", "place > coalesce(p.last_paid, 0)", "place > 0"),
    ("between_topics.sql", "WHERE u.stands AND u.gross_minor >=", "WHERE u.gross_minor >="),
    ("between_topics.sql", "if(b.used_at > b.event.occurred_at, NULL, b.event)", "b.event"),
    ("terms_from_journal.sql", "quantity IGNORE NULLS", "quantity"),
    ("terms_from_journal.sql", "type_order DESC, event_id DESC", "type_order, event_id"),
    ("cut_edges.sql", "THEN r.later[m.places + 1] END", "THEN m.cut_at END"),
    ("cut_edges.sql", "THEN r.earlier[m.places] END", "THEN r.earlier[1] END"),
    ("awaited_until.sql", "due_at <= $clock", "due_at < $clock"),
    ("ids_in_campaigns.sql", "JOIN persons o ON o.person = p.person", "JOIN persons o ON o.user_id = p.user_id"),
    ("campaign_rules.py", 'pl.col("rank") > pl.col("per_user_limit")', 'pl.col("rank") >= pl.col("per_user_limit")'),
    ("campaign_rules.py", " & ~user", ""),
    ("campaign_rules.py", "regrouped = _of_users(store, relinked)", "regrouped = _NO_MEMBERS"),
    ("campaign_rules.py", "ranked.filter(~_before(_PLACE", "ranked.filter(_before(_PLACE"),
    ("campaign_rules.py", 'at > pl.col("claim_until")', 'at >= pl.col("claim_until")'),
    ("campaign_rules.py", "n=pl.lit(-1)", "n=pl.lit(0)"),
    ("campaign_rules.py", 'pl.col("acquired_at") <= pl.col("last")', 'pl.col("acquired_at") < pl.col("last")'),
    ("campaign_rules.py", 'turn - n + pl.col("places")', 'turn - n + pl.col("places") - 1'),
    ("order_rules.py", 'pl.col("due_at") <= clock', 'pl.col("due_at") < clock'),
    ("order_rules.py", "coupons.journalled, coupons.dropped", "coupons.journalled, coupons.dropped[:0]"),
    ("order_rules.py", 'store.delete("coupons_in_use", before.join(was, on=_COUPON, how="semi")["row_id"])', "pass"),
    ("order_rules.py", "if not held.height:", "if True:"),
    ("order_rules.py", "(was, now, removed, added, _holds_changed(coupons))", "(was, now, removed, added)"),
]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m[0]}: {m[2]}")
def test_a_mistake_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch, mistake: tuple[str, str, str]) -> None:
    """A rule could be wrong in a way that no world shows."""
    name, old, new = mistake
    if name.endswith(".sql"):
        changed = mistaken(Path(campaign_rules.__file__).parent / name, old, new)

        def wrong_sql(package: str, asked: str) -> str:
            return changed if f"{asked}.sql" == name else sql(package, asked)

        for module in (campaign_rules, order_rules):
            monkeypatch.setattr(module, "sql", wrong_sql)
    else:
        module = {"campaign_rules.py": campaign_rules, "order_rules.py": order_rules}[name]
        monkeypatch.setattr(cross, name.removesuffix(".py"), with_mistake(module, old, new))
    try:
        # What finds most, and soon, comes first.
        check_edges(store)
        check_waiting(store)
        check_replaced(store)
        check_linked(store)
        check_held(store)
        check_stock(store, SEED)
        worlds = iter(range(SEED, SEED + 60))
        for seed in islice(worlds, 4):
            check_world(store, seed, bool(seed % 2))
        for seed in range(SEED + 1, SEED + 6):
            check_stock(store, seed)
        for seed in worlds:
            check_world(store, seed, bool(seed % 2))
    except Exception:  # a wrong violation, or something that could not go on
        return
    pytest.fail(f"survived: {name}, {new}", pytrace=False)
