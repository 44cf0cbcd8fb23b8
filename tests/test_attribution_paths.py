"""Paths to orders as a projection: whatever came late, was taken back or turned out to be the same person, they are
those of a model that reads nothing but the events; and asked of the past, those that were known then."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from math import floor
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery, fold
from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import COUPON, INPUT_TOPICS, KEY_FIELD, ORDER, USER
from coupon_ledger.projections.attribution import paths as paths_module
from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.attribution.paths import hashed
from coupon_ledger.projections.attribution.persons import persons
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live import apply as apply_module
from coupon_ledger.projections.live import cross
from coupon_ledger.projections.live.apply import prepare
from coupon_ledger.projections.past import Cut, Past
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.attribution import in_place
from tests.examples import examples
from tests.folding import clear, frame_of, scratch_store
from tests.histories import cut, positioned
from tests.test_cross_rules import facts
from tests.test_past import inside, looking

SEED = 20261111
START = datetime(2026, 8, 1, tzinfo=UTC)
SOME = examples(3)
MANY = examples(10)
Event = dict[str, Any]
Told = tuple[str, Delivery]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("paths")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def few_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that also these few are cut off, and a few stale persons are not all."""
    monkeypatch.setattr(paths_module, "MOST", 4)


class Shop:
    """Half a year of a few people under several ids; `told` as it arrives."""

    def __init__(self, seed: int, events: int = 70) -> None:
        self.random = r = random.Random(seed)
        self.n = 0
        self.ids = [f"u-{n}" for n in range(r.choice((2, 5)))] + ["m-1", "m-2", "é"]
        made = [e for _ in range(events) for e in r.choice((self.coupon, self.order, self.order, self.user))()]
        r.shuffle(made)
        if r.random() < 0.5:
            made.sort(key=lambda e: e[1]["occurred_at"] + r.choice((0, 0, 9)) * timedelta(days=1))
        made += r.choices(made, k=len(made) // 10)
        deliveries = positioned(r, [event for _, event in made])
        self.told: list[Told] = [(topic, d) for (topic, _), d in zip(made, deliveries, strict=True)]

    def event(self, topic: str, key: str, kind: str, /, at: datetime | None = None, **more: Any) -> tuple[str, Event]:
        self.n += 1
        happened = at or START + timedelta(days=self.random.randrange(180), microseconds=self.random.choice((0, 1)))
        head = {"event_id": f"e{self.n}", "type": kind, "occurred_at": happened, "source": "s", KEY_FIELD[topic]: key}
        return topic, head | {k: v for k, v in more.items() if v is not None}

    def coupon(self) -> Iterator[tuple[str, Event]]:
        r, coupon = self.random, f"c-{self.random.randrange(20)}"
        for kind in r.choice(("created issued claimed used", "issued claimed", "claimed", "issued", "revoked")).split():
            yield self.event(
                COUPON, coupon, kind,
                at=START + timedelta(days=r.randrange(180)) if r.random() < 0.5 else START + timedelta(days=50),
                user_id=r.choice((*self.ids, *([None] if kind == "issued" else []))),
                campaign_id=r.choice(("k-1", "k-2")), coupon_type="cash", channel=r.choice(("app", "sms")),
                order_id=f"o-{r.randrange(9)}", discount_minor=1, reason="fraud",
            )  # fmt: skip

    def order(self) -> Iterator[tuple[str, Event]]:
        r, order = self.random, f"o-{self.random.randrange(9)}"
        kind = r.choice(("placed", "paid", "paid", "paid", "cancelled", "refunded"))
        money = {"currency": r.choice(("CNY", "USD")), "gross_minor": 9, "net_minor": r.choice((0, 4, 8))}
        told: Event = {"user_id": r.choice(self.ids), **money} if kind in ("placed", "paid") else {}
        yield self.event(
            ORDER, order, kind, **told, reason="r", refund_minor=r.choice((1, 4)) if kind == "refunded" else None,
            coupon_ids=r.choice((None, [], ["c-1"])), cost_of_goods_minor=r.choice((None, 3)),
        )  # fmt: skip

    def user(self) -> Iterator[tuple[str, Event]]:
        r, user = self.random, self.random.choice(self.ids)
        kind = r.choice(("touched", "touched", "touched", "touched", "linked"))
        if kind == "linked":
            yield self.event(USER, user, kind, alias_id=r.choice(self.ids))
        else:
            yield self.event(
                USER, user, kind, kind=r.choice(("view", "ad")), channel=r.choice((None, "app", "web")),
                campaign_id=r.choice((None, "k-1")),
            )  # fmt: skip

    def batches(self) -> Iterator[Sequence[Told]]:
        at = 0
        for batch in cut(self.random, [d for _, d in self.told]):
            yield self.told[at : at + len(batch)]
            at += len(batch)


def consume(store: Store, told: Sequence[Told]) -> None:
    """One batch of all topics, as the consumer folds it."""
    with store.transaction():
        by_topic = {t: [d for topic, d in told if topic == t] for t in INPUT_TOPICS}
        batches = [prepare(t, frame_of(t, deliveries)) for t, deliveries in by_topic.items() if deliveries]
        cross.settle(store, [apply_module.fold_in(store, batch)[1] for batch in batches])


def emptied(store: Store) -> None:
    clear(store)
    with store.transaction():
        upkeep.settle_all(store)


# ── The model: plain loops over events ───────────────────────────────────────────────────────────────────────


def who(users: dict[str, list[Event]]) -> dict[str, str]:
    links = {(u, e["alias_id"]) for u, events in users.items() for e in events if e["type"] == "linked"}
    links = {(u, a) for u, a in links if u != a}
    groups: list[set[str]] = []
    for link in links:
        joined = [g for g in groups if g & set(link)]
        groups = [g for g in groups if not g & set(link)] + [set(link).union(*joined)]
    aliases = {a for _, a in links}
    found: dict[str, str] = {}
    for group in groups:
        person = min(group - aliases or group, key=str.encode)
        found |= dict.fromkeys(group, person)
    return found


def standing_orders(orders: dict[str, list[Event]], whose: dict[str, str]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for order, events in orders.items():
        last = {k: v for e in events for k, v in e.items() if v is not None}
        refunds = [e["refund_minor"] for e in events if e["type"] == "refunded"]
        refunded = sum(refunds)
        standing = [e["type"] for e in events if e["type"] in ("paid", "cancelled")]
        paid = [e["occurred_at"] for e in events if e["type"] == "paid"]
        if not paid or standing[-1] == "cancelled" or (refunds and refunded >= last["net_minor"]):
            continue
        person = whose.get(last["user_id"], last["user_id"])
        row = {"order_id": order, "at": paid[0], "sales_minor": last["net_minor"] - refunded}
        row["currency"] = last["currency"]
        if (cost := last.get("cost_of_goods_minor")) is not None:
            row["cost_of_goods_minor"] = (
                floor(cost * (row["sales_minor"] / max(last["net_minor"], 1)) + 0.5) if refunded else cost
            )
        row["names_coupons"] = bool(last.get("coupon_ids"))
        found.setdefault(person, []).append(row)
    return {person: sorted(rows, key=lambda row: (row["at"], row["order_id"])) for person, rows in found.items()}


def all_touches(told: Sequence[Told], users: dict[str, list[Event]], whose: dict[str, str]) -> dict[str, list[Any]]:
    found: list[tuple[str, datetime, str, str | None, str | None]] = []
    by_coupon: dict[str, list[Delivery]] = {}
    for topic, d in told:
        if topic == COUPON:
            by_coupon.setdefault(d.event["coupon_id"], []).append(d)
    for deliveries in by_coupon.values():
        folded = fold(deliveries)
        row = folded.coupon
        came = {s.event["type"]: s.event for s in reversed(folded.steps) if s.before != s.after}
        issued, claimed = came.get("issued"), came.get("claimed")
        if issued and issued.get("user_id"):
            found.append((issued["user_id"], issued["occurred_at"], "issued", issued["channel"], row.campaign_id))
        if claimed:
            found.append((claimed["user_id"], claimed["occurred_at"], "claimed", claimed["channel"], row.campaign_id))
    for user, events in users.items():
        for e in events:
            if e["type"] == "touched":
                found.append((user, e["occurred_at"], e["kind"], e.get("channel"), e.get("campaign_id")))
    mine: dict[str, list[Any]] = {}
    for user, *touch in found:
        mine.setdefault(whose.get(user, user), []).append(tuple(touch))
    return mine


def expected(told: Sequence[Told]) -> list[Any]:
    users = facts(USER, told)
    whose = who(users)
    orders = standing_orders(facts(ORDER, told), whose)
    found = []
    touched = all_touches(told, users, whose)
    for person in touched.keys() | orders.keys():
        touches = touched.get(person, [])
        mine = orders.get(person, [])
        for before, order in zip([None, *mine], mine, strict=False):
            within = [t for t in touches if timedelta(0) <= order["at"] - t[0] <= timedelta(days=90)]
            found.append(_row(person, within, order, before["at"] if before else None))
        lost = [(n, t) for t in touches for n in [sum(o["at"] < t[0] for o in mine)]]
        lost = [(n, t) for n, t in lost if n == len(mine) or mine[n]["at"] - t[0] > timedelta(days=90)]
        for _, run in groupby(sorted(lost, key=lambda one: (one[0], one[1][0])), key=lambda one: one[0]):
            within = [t for _, t in run]
            found.append(_row(person, within, {"at": max(t[0] for t in within)}, None))
    return sorted(found, key=repr)


def _row(person: str, touches: list[Any], end: Event, previous: datetime | None) -> Any:
    order = {"issued": 0, "claimed": 1}
    latest = sorted(touches, key=lambda t: (t[0], order.get(t[1], 2)))
    # Which of several at one instant stand before the cut depends on a hash, which the model does not know.
    instants = [t[0] for t in latest][-paths_module.MOST :]
    known = sorted(t for t in map(repr, latest) if len(latest) <= paths_module.MOST)
    return (
        person, end.get("order_id"), end["at"], previous, end.get("currency"), end.get("sales_minor"),
        end.get("cost_of_goods_minor"), end.get("names_coupons"), len(touches), instants, known,
    )  # fmt: skip


def stored(reading: Reading) -> list[Any]:
    sources = {row[0]: row[1:] for row in reading.frame("SELECT * FROM touch_sources").rows()}
    columns = ", ".join(n for n in paths_module.SCHEMA if n != "person_hash")
    found = []
    for row in reading.frame(f"SELECT {columns} FROM paths").iter_rows():
        *plain, touches, of, at = row
        plain = [v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for v in plain]
        instants = [t.replace(tzinfo=UTC) for t in at]
        known = sorted(repr((t, *sources[s])) for t, s in zip(instants, of, strict=True) if touches <= len(at))
        found.append((*plain, touches, instants, known))
    return sorted(found, key=repr)


def kept(store: Store) -> dict[str, list[str]]:
    """Every column of every row."""
    return {t: sorted(map(repr, store.frame(f"SELECT * FROM {t}").rows())) for t in ("persons", "paths")}


# ── The tests ────────────────────────────────────────────────────────────────────────────────────────────────


def check(store: Store, seed: int) -> None:
    shop, told = Shop(seed), list[Told]()
    emptied(store)
    for batch in shop.batches():
        consume(store, batch)
        told += batch
        if shop.random.random() < 0.5:
            with looking(store) as cursor:
                in_place.complete(cursor)
                assert stored(cursor) == expected(told), "an answer is never behind"
        if shop.random.random() < 0.7:
            upkeep.settle(store)
            assert stored(store) == expected(told)
            assert store.rows("SELECT count(*) FROM stale_users") == [(0,)]
    upkeep.settle(store)
    live = kept(store)
    with store.transaction():
        upkeep.settle_all(store)
    assert kept(store) == live, "made again, they are the same"
    for at, known_at in ((True, False), (False, True), (True, True)):
        happened = shop.random.choice(told)[1].event["occurred_at"].replace(tzinfo=None) if at else None
        recorded = shop.random.choice(told)[1].recorded_at if known_at else None
        then = Cut(happened, None if recorded is None else datetime(1970, 1, 1) + timedelta(microseconds=recorded))
        with looking(store) as cursor:
            past = Past(cursor, then)
            for topic in (COUPON, ORDER, USER):
                past.stand_in(topic)
            upkeep.PATHS.stand_in(past)
            assert stored(cursor) == expected([(t, d) for t, d in told if inside(then, d)]), then
            past.close()


def check_beside(store: Store, seed: int) -> None:
    """Paths are made of one state while batches come, and are put in place in pieces between them."""
    shop, told, made = Shop(seed), list[Told](), None
    emptied(store)
    for batch in shop.batches():
        consume(store, batch)
        told += batch
        if made is None:
            with looking(store) as cursor:
                made = upkeep.Made(cursor)
        elif shop.random.random() < 0.7:
            for _ in range(shop.random.choice((1, 2, 100))):
                with store.transaction():
                    if not made.put(store):
                        made = None
                        break
        with looking(store) as cursor:
            in_place.complete(cursor)
            assert stored(cursor) == expected(told), "an answer is never behind"
    upkeep.settle(store)
    assert stored(store) == expected(told)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2, 100])
@given(seed=st.integers(0, 2**32))
@SOME
def test_paths_made_beside_the_consumer(store: Store, at_once: int, seed: int) -> None:
    """What came while they were made would be forgotten, or half of a person put in place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "_PATHS_AT_ONCE", at_once)
        patch.setattr(upkeep, "_IDS_AT_ONCE", 3 * at_once)
        check_beside(store, seed)


@pytest.mark.long
def test_the_thread_that_makes_paths_ends_with_the_consumer(store: Store) -> None:
    """It would hold the database open, and keep the next generation from taking its place."""
    emptied(store)
    shop = Shop(SEED, events=200)
    consume(store, shop.told)
    with pytest.MonkeyPatch.context() as patch, upkeep.Upkeep(store) as paths:
        patch.setattr(upkeep, "_SOON_S", -1.0)
        deadline = time.monotonic() + 30
        while store.rows("SELECT count(*) FROM stale_users") != [(0,)] and time.monotonic() < deadline:
            paths(idle=True)
        assert stored(store) == expected(shop.told)
        consume(store, [(ORDER, Delivery(shop.event(ORDER, "o-new", "paid", user_id="u-1", currency="CNY",
                                                    gross_minor=1, net_minor=1)[1], 10**9, 0, 10**6))])  # fmt: skip
        paths(idle=True)
    assert [t.name for t in threading.enumerate() if t.name.startswith("paths")] == []


@pytest.mark.slow
@pytest.mark.parametrize("weak", [False, True])
@given(seed=st.integers(0, 2**32))
@MANY
def test_paths_are_those_of_the_events(store: Store, weak: bool, seed: int) -> None:
    """A channel would be paid for orders that were taken back, or that somebody else brought; also where persons share
    their hashes."""
    with pytest.MonkeyPatch.context() as patch:
        if weak:
            patch.setattr(upkeep, "hashed", weakly_hashed)
            patch.setattr(paths_module, "hashed", weakly_hashed)
            patch.setattr(in_place, "hashed", weakly_hashed)
            patch.setattr(upkeep, "_AT_ONCE", 30)
        check(store, seed)


def weakly_hashed(persons: pl.DataFrame) -> pl.DataFrame:
    return hashed(persons).with_columns(pl.col("person_hash") % 2)


@pytest.mark.long
def test_only_the_affected_rows_change(store: Store) -> None:
    """Else each late refund would cost as much as all of history."""
    emptied(store)
    shop = Shop(SEED, events=200)
    consume(store, shop.told)
    upkeep.settle(store)
    before = store.frame("SELECT person, order_id, rowid FROM paths ORDER BY ALL")
    chosen = before.filter(pl.col("order_id").is_not_null()).row(0, named=True)
    refund = shop.event(ORDER, chosen["order_id"], "refunded", refund_minor=1)[1]
    consume(store, [(ORDER, Delivery(refund, 10**9, 0, 10**6))])
    upkeep.settle(store)
    after = store.frame("SELECT person, order_id, rowid FROM paths ORDER BY ALL")
    others = pl.col("person") != chosen["person"]
    assert before.filter(others).equals(after.filter(others))
    assert not before.filter(~others).equals(after.filter(~others))


@pytest.mark.parametrize("length", [1, 2, 300])
def test_a_long_chain_of_aliases_is_one_person(length: int) -> None:
    """Else who changed their phone twice is another customer."""
    links = pl.DataFrame(
        {"user_id": [f"u{n}" for n in range(length)], "alias_id": [f"u{n + 1}" for n in range(length)]}
    )
    found = persons(links.sample(fraction=1, shuffle=True, seed=SEED))
    assert found["user_id"].to_list() == sorted(f"u{n}" for n in range(length + 1))
    assert set(found["person"]) == {"u0"}
    ring = pl.concat([links, pl.DataFrame({"user_id": [f"u{length}"], "alias_id": ["u0"]})])
    assert set(persons(ring)["person"]) == {"u0"}


def test_types_have_an_order() -> None:
    """An issue and a claim of one instant stand in the order of their types."""
    assert list(paths_module._FIRST_KINDS) == [t for t in types(COUPON) if t in paths_module._FIRST_KINDS]
