"""Rules of kind `violation` in random worlds, against a model that reads nothing but the events. If they differ, an
alert counts what is no fault or hides what is one, or says another amount than is at stake."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import fold
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.projections.alerts.offenders import Offender
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.alerts.offenders import Standing, offenders_of
from coupon_ledger.questions.alerts.violations import SHOWN
from tests.examples import examples
from tests.folding import clear, scratch_store
from tests.test_cross_rules import START, Told, World, clock_of, consume, expected, facts, persons

pytestmark = pytest.mark.long

_ENDED = ("expired", "revoked")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("violations")) as opened:
        yield opened


@dataclass(frozen=True)
class Fault:
    """One violation that counts. `use`: what its money is of; None if it has none."""

    code: str
    key: str
    campaign: str
    channel: str
    at: datetime
    money: int | None
    currency: str | None
    use: object


def faults(told: Sequence[Told]) -> list[Fault]:
    """All violations that count, from the events alone."""
    by_coupon = defaultdict(list)
    for topic, d in told:
        if topic == COUPON:
            by_coupon[d.event["coupon_id"]].append(d)
    folded = {coupon: fold(deliveries) for coupon, deliveries in by_coupon.items()}
    orders = {key: _order(events) for key, events in facts(ORDER, told).items()}
    people, clock = persons(told), clock_of(told)
    found = []
    for coupon, whole in folded.items():
        events = {step.event["event_id"]: step.event for step in whole.steps}
        owners = {step.event["event_id"]: step.owner for step in whole.steps}
        for v in whole.violations:
            event = events[v.event_id]
            if v.violation == "wrong_user" and event["user_id"] in people.get(owners[v.event_id] or "", ()):
                continue
            of_use = v.violation != "conflicting_duplicate" and event["type"] == "used"
            money = event["discount_minor"] if of_use else None
            found.append(_of_coupon(whole.coupon, v.violation, _at(v.occurred_at), money, (coupon, v.event_id), orders))
    for topic in (ORDER, CAMPAIGN, USER):
        found += _conflicts(topic, told, orders, folded)
    for (code, key, event_id, counterpart), (topic, at) in expected(told).items():
        if topic == COUPON:
            c = folded[key].coupon
            entered = [s.event["event_id"] for s in folded[key].steps if s.after == "used" and s.before != "used"]
            use = (key, entered[-1] if c.state == "used" else event_id)
            found.append(_of_coupon(c, code, _at(at), _money(code, c, orders), use, orders))
        else:
            found.append(_of_order(code, key, _at(at), counterpart, orders, folded))
    return [Fault(**{**vars(f), "at": min(f.at, _at(clock))}) for f in found]


def _at(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


def _order(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for event in events for name, value in event.items() if value is not None}


def _of_coupon(c: Any, code: str, at: datetime, money: int | None, use: object, orders: dict[str, Any]) -> Fault:
    currency = orders.get(c.order_id, {}).get("currency") if c.state == "used" else None
    channel = c.claim_channel or c.issue_channel or ""
    money = None if money is None else max(money, 0)
    return Fault(code, c.coupon_id, c.campaign_id or "", channel, at, money, currency or c.currency, use)


def _money(code: str, c: Any, orders: dict[str, Any]) -> int | None:
    if code.startswith("over_") or code == "outside_claim_window":
        return c.discount_minor if c.state == "used" else 0 if c.state in _ENDED else c.face_value_minor
    if c.state != "used":
        return 0
    if code != "discount_above_value":
        return int(c.discount_minor)
    gross = orders.get(c.order_id, {}).get("gross_minor")
    limits = [gross]
    if c.coupon_type in ("cash", "threshold"):
        limits.append(c.face_value_minor)
    elif c.coupon_type == "percent" and gross is not None and c.percent_off_bp is not None:
        limits.append(-(-gross * c.percent_off_bp // 10_000))
    return int(c.discount_minor - min(limit for limit in limits if limit is not None))


def _of_order(
    code: str, key: str, at: datetime, counterpart: str | None, orders: dict[str, Any], folded: dict[str, Any]
) -> Fault:
    order = orders[key]
    in_use = [w.coupon for w in folded.values() if w.coupon.state == "used" and w.coupon.order_id == key]
    named = [folded[coupon].coupon for coupon in order.get("coupon_ids") or () if coupon in folded]
    other = folded[counterpart].coupon if counterpart in folded else None
    campaigns = sorted(c.campaign_id for c in (*in_use, *named) if c.campaign_id)
    campaign = other.campaign_id if other is not None and other.campaign_id else (campaigns or [""])[0]
    money = None
    if code == "discount_mismatch":
        stated = sum(d["amount_minor"] for d in order.get("discounts") or () if d["kind"] == "coupon")
        money = abs(stated - sum(c.discount_minor for c in in_use))
    elif code == "paid_after_cancel":
        money = order.get("net_minor")
    elif code == "unrecorded_use" and other is not None:
        money = 0 if other.state in ("used", *_ENDED) else other.face_value_minor
    elif code == "unrecorded_use":
        money = None
    currency = order.get("currency") or (other.currency if other is not None else None)
    money = None if money is None else max(money, 0)
    return Fault(code, key, campaign or "", order.get("channel") or "", at, money, currency, (key, code, counterpart))


def _conflicts(topic: str, told: Sequence[Told], orders: dict[str, Any], folded: dict[str, Any]) -> Iterator[Fault]:
    """Different contents under one id, outside of coupons."""
    key_field = {ORDER: "order_id", CAMPAIGN: "campaign_id", USER: "user_id"}[topic]
    contents: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _, d in sorted((p for p in told if p[0] == topic), key=lambda p: p[1].position):
        content = {name: value for name, value in d.event.items() if value is not None}
        those = contents[content[key_field], content["event_id"]]
        if content not in those:
            those.append(content)
    for (key, event_id), those in contents.items():
        for other in those[1:]:
            at = _at(other["occurred_at"])
            if topic == ORDER:
                yield _of_order("conflicting_duplicate", key, at, None, orders, folded)
            else:
                campaign = key if topic == CAMPAIGN else ""
                yield Fault("conflicting_duplicate", key, campaign, "", at, None, None, (key, event_id))


Found = dict[tuple[tuple[str, str], ...], tuple[float, datetime, int | None, str | None]]


def modelled(all_faults: Sequence[Fault], rule: Rule, clock: datetime) -> Found:
    """What the rule should find, looking anew at every instant."""
    of: Any = rule.expr
    groups: dict[tuple[tuple[str, str], ...], list[Fault]] = defaultdict(list)
    for fault in all_faults:
        if not of.codes or fault.code in of.codes:
            groups[tuple((name, getattr(fault, name)) for name in of.by)].append(fault)
    found: Found = {}
    for key, group in groups.items():
        money = _once(group)

        def present(at: datetime, group: list[Fault] = group) -> list[Fault]:
            return [f for f in group if f.at <= at and (of.window is None or f.at > at - of.window)]

        now = present(clock)
        sums: dict[str | None, int] = defaultdict(int)
        for f in now:
            if money[id(f)] is not None:
                sums[f.currency] += money[id(f)] or 0
        main = min(sums, key=lambda c: (-sums[c], c is None, c or ""), default=None)

        def holds(
            at: datetime, present: Any = present, main: str | None = main, money: dict[int, int | None] = money
        ) -> bool:
            standing = present(at)
            stake = sum(money[id(f)] or 0 for f in standing if f.currency == main)
            return bool(len(standing) >= of.at_least and stake >= of.min_money_minor)

        if not holds(clock):
            continue
        edges = {f.at for f in group} | {f.at + of.window for f in group if of.window is not None}
        since = clock
        for at in sorted((edge for edge in edges if edge <= clock), reverse=True):
            if not holds(at):
                break
            since = at
        found[key] = (float(len(now)), since, sums[main] if sums else None, main)
    return found


def _once(group: Sequence[Fault]) -> dict[int, int | None]:
    """The money of each fault; of faults of one use, only the one with most money keeps it."""
    if len({f.code for f in group}) == 1:
        return {id(f): f.money for f in group}
    money: dict[int, int | None] = {id(f): None for f in group}
    taken = set()
    for f in sorted(group, key=lambda f: (f.money is None, -(f.money or 0), f.at, f.code)):
        if f.use not in taken:
            taken.add(f.use)
            money[id(f)] = f.money
    return money


def comparable(offenders: Sequence[Offender]) -> Found:
    found = {tuple(o.key.items()): (o.value, o.since, o.money_minor, o.currency) for o in offenders}
    assert len(found) == len(offenders)
    return found


_BY = (("code", "campaign"), ("campaign",), ("code",), ("channel", "code"), ("code", "campaign", "channel"), ())
_CODES = (
    (),
    ("used_when_used", "wrong_user", "over_issue", "orphan_use"),
    ("orphan_use",),
    ("discount_mismatch", "unrecorded_use"),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    minutes = draw(st.sampled_from((None, None, 5, 20, 60)))
    expr = {
        "kind": "violation",
        "codes": draw(st.sampled_from(_CODES)),
        "by": draw(st.sampled_from(_BY)),
        "at_least": draw(st.sampled_from((1, 1, 2, 3))),
        "min_money_minor": draw(st.sampled_from((0, 0, 1, 300, 1000))),
        "window": None if minutes is None else f"PT{minutes}M",
    }
    return Rule.model_validate({"name": "r", "expr": expr})


@examples(12)
@given(seed=st.integers(0, 2**32), drawn=st.lists(rules(), min_size=1, max_size=3), cuts=st.integers(1, 3))
def test_count_since_and_money_are_those_of_the_facts_whatever_the_batches(
    store: Store, seed: int, drawn: list[Rule], cuts: int
) -> None:
    told = World(seed).told
    clear(store)
    draw = random.Random(seed)
    edges = [0, *sorted(draw.randrange(len(told) + 1) for _ in range(cuts - 1)), len(told)]
    cursor, standing = store.cursor(), Standing()
    for first, last in pairwise(edges):
        if first == last:
            continue
        consume(store, told[first:last])
        so_far = told[:last]
        all_faults, clock = faults(so_far), _at(clock_of(so_far))
        cursor.begin()
        for rule in drawn:
            wanted = modelled(all_faults, rule, clock)
            assert comparable(offenders_of(cursor, rule, standing=standing)) == wanted, rule.expr
            assert comparable(offenders_of(cursor, rule)) == wanted, rule.expr
        cursor.end()
    cursor.close()


def test_the_evidence_names_the_latest_coupons_and_no_more_than_fit(store: Store) -> None:
    """Nobody could look at a case, or a message would be as long as the campaign."""
    clear(store)
    with store.transaction():
        store.execute("UPDATE ledger SET data_clock = TIMESTAMP '2026-11-12'")
        store.execute(
            "INSERT INTO violations (key_hash, topic, key, event_id, violation, occurred_at, scope)"
            " SELECT i, 'coupon.events', 'c' || i, 'e' || i, 'used_when_used',"
            " TIMESTAMP '2026-11-11' + to_seconds(i), 'coupon' FROM range(30) t(i)"
        )
    rule = Rule.model_validate({"name": "r", "expr": {"kind": "violation", "at_least": 5}})
    cursor = store.cursor()
    cursor.begin()
    [found] = offenders_of(cursor, rule)
    cursor.close()
    assert found.value == 30 and found.threshold == 5 and found.money_minor is None
    assert found.since == _at(START) + timedelta(seconds=4)
    assert found.details["coupons"] == [f"c{n}" for n in range(29, 29 - SHOWN, -1)]
    assert found.details["first"] == "2026-11-11T00:00:00.000000Z"
    clear(store)
