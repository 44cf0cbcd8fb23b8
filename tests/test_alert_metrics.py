"""Metric rules: the sums of each bucket against a plain model, whatever the batches and restarts. If they differ, a
dead channel goes unseen, or a rebuild tells another story than the page did."""

from __future__ import annotations

import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.alerts import engine
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.rules import Rule, RuleSet, Sale
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.store import Store
from tests.examples import examples
from tests.folding import frame_of, scratch_store

pytestmark = pytest.mark.long

START = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = 60 * 1_000_000
BUCKET = 10 * MINUTE
TOLERANCE = 5 * MINUTE


def rule(name: str, metric: str, **more: Any) -> Rule:
    expr = {"kind": "metric", "metric": metric, "bucket": "10m", "relative": 0.3, "absolute": 5, **more}
    return Rule.model_validate({"name": name, "expr": expr})


RULES = [
    rule("claims", "claimed"),
    rule("rate", "use_rate", by=["channel"]),
    rule("discount", "discount", by=["source"]),
]


def deliveries(random_: random.Random, number: int) -> list[Delivery]:
    """Claims and uses over some hours, some of them late."""
    at, found = 0, []
    offsets = [0, 0]
    for n in range(number):
        at += random_.choice((0, 1, 3, 20)) * MINUTE
        partition = n % 2
        event = {
            "event_id": f"e{n}",
            "type": random_.choice(("claimed", "claimed", "used")),
            "occurred_at": START + timedelta(microseconds=at - random_.choice((0, 0, 0, 4, 9, 40)) * MINUTE),
            "source": random_.choice(("a", "b")),
            "coupon_id": f"c{n}-{partition}",
            "user_id": "u",
            "order_id": "o",
            "channel": random_.choice(("app", "web", None)),
            "discount_minor": random_.randrange(100),
        }
        event["channel"] = event["channel"] if event["type"] == "used" else event["channel"] or "app"
        recorded = round(START.timestamp() * 1_000_000) + at
        found.append(Delivery(event, recorded, partition, offsets[partition]))
        offsets[partition] += 1
    return found


def modelled(told: Sequence[Delivery]) -> dict[tuple[str, str, int], tuple[float, float]]:
    """By rule, slice and bucket: the sums of the events that came before the bucket was closed."""
    sums: dict[tuple[str, str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    clock = None
    for d in sorted(told, key=lambda d: (d.recorded_at, d.partition, d.offset)):
        e = d.event
        at = min(round(e["occurred_at"].timestamp() * 1_000_000), d.recorded_at)
        clock = at if clock is None else max(clock, at)
        bucket = at // BUCKET
        if clock >= (bucket + 1) * BUCKET + TOLERANCE:
            continue
        claimed, used = e["type"] == "claimed", e["type"] == "used"
        parts: list[tuple[str, list[str | None], float, float]] = [
            ("claims", [], claimed, 0),
            ("rate", [e["channel"]], used, claimed),
            ("discount", [e["source"]], e["discount_minor"] if used else 0, 0),
        ]
        for name, key, of, per in parts:
            if None not in key and (of or per):
                found = sums[name, json.dumps(key), bucket]
                found[0] += of
                found[1] += per
    return {key: (of, per) for key, (of, per) in sums.items()}


def released(store: Store, batches: Sequence[Sequence[Delivery]], random_: random.Random, topic: str = COUPON) -> None:
    left = [d for batch in batches for d in batch]
    for batch in batches:
        left = left[len(batch) :]
        until = min((d.recorded_at for d in left), default=max(d.recorded_at for d in batch) + 1) - 1
        with store.transaction():
            apply(store, topic, frame_of(topic, batch))
            engine.release(store, {topic: datetime.fromtimestamp(until / 1e6, UTC).replace(tzinfo=None)})
        if random_.random() < 0.3:
            store.cache(engine.Engine).rolled_back()  # as after a restart


def cut(random_: random.Random, told: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """Batches of one log read in the order of recording."""
    ordered = sorted(told, key=lambda d: (d.recorded_at, d.partition, d.offset))
    while ordered:
        size = random_.randint(1, 40)
        yield ordered[:size]
        ordered = ordered[size:]


@examples(10)
@given(seed=st.integers(0, 2**32), number=st.integers(1, 150))
def test_the_sums_are_those_of_the_model_whatever_the_batches(
    seed: int, number: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random_ = random.Random(seed)
    told = deliveries(random_, number)
    with scratch_store(tmp_path_factory.mktemp("metrics")) as store:
        with store.transaction():
            put_in_force(store, RULES)
        released(store, list(cut(random_, told)), random_)
        rows = store.rows(
            "SELECT rule, slice, bucket, of, per FROM (FROM alert_series UNION ALL FROM alert_open_series)"
        )
        assert {(name, key, bucket): (of, per) for name, key, bucket, of, per in rows} == modelled(told)


def steady(days: int, sudden: int | None, *, hourly: int = 60) -> list[Delivery]:
    """Claims through the hours of some days; from the hour `sudden` on, nearly none."""
    random_ = random.Random(3)
    found = []
    for hour in range(days * 24):
        usual = hourly if 8 <= hour % 24 < 22 else hourly // 6
        for n in range(usual if sudden is None or hour < sudden else 1):
            at = round(START.timestamp() * 1e6) + hour * 60 * MINUTE + random_.randrange(60) * MINUTE
            event = {
                "event_id": f"{hour}-{n}",
                "type": "claimed",
                "occurred_at": datetime.fromtimestamp(at / 1e6, UTC),
                "source": "s",
                "coupon_id": f"c-{hour}-{n}",
                "user_id": "u",
                "channel": "app",
            }
            found.append(Delivery(event, at, 0, 0))
    found.sort(key=lambda d: d.recorded_at)
    return [Delivery(d.event, d.recorded_at, 0, offset) for offset, d in enumerate(found)]


def episodes_of(folder: Path, told: Sequence[Delivery], rules: Sequence[Rule], random_: random.Random) -> list[Any]:
    with scratch_store(Path(tempfile.mkdtemp(dir=folder))) as store:
        with store.transaction():
            put_in_force(store, rules)
        released(store, [told[n : n + 2_500] for n in range(0, len(told), 2_500)], random_)
        columns = "rule, key, opened_at, fired_at, closed_at, value, peak, times, details"
        return store.rows(f"SELECT {columns} FROM alert_episodes ORDER BY ALL")


def test_a_channel_gone_dead_is_found_and_a_quiet_week_is_not(tmp_path: Path) -> None:
    claims = rule("claims", "claimed", bucket="1h", direction="down", absolute=20)
    random_ = random.Random(1)
    assert episodes_of(tmp_path, steady(10, None), [claims], random_) == []
    [found] = episodes_of(tmp_path, steady(10, 9 * 24 + 12), [claims], random_)
    assert found[2] == datetime(2026, 3, 11, 13, 5) and json.loads(found[8])["metric"] == "claimed"
    # Restarts and batches do not matter.
    assert episodes_of(tmp_path, steady(10, 9 * 24 + 12), [claims], random.Random(2)) == [found]


def test_an_announced_sale_is_compared_with_the_last_one_like_it(tmp_path: Path) -> None:
    """A planned sale is no anomaly; a sale that sells nothing is one."""
    hour = timedelta(hours=1)
    told = steady(10, None)
    sales = [(8 * 24 + 12, 200), (9 * 24 + 12, 200)]
    sale_hours = {start + n for start, _ in sales for n in range(2)}
    more = [
        (h, n) for h in sale_hours for n in range(400 if h < 9 * 24 else 20)
    ]  # the second sale sells a twentieth of the first
    for h, n in more:
        at = round(START.timestamp() * 1e6) + h * 60 * MINUTE + n % 60 * MINUTE
        event = dict(told[0].event) | {"event_id": f"sale-{h}-{n}", "coupon_id": f"s-{h}-{n}"}
        event["occurred_at"] = datetime.fromtimestamp(at / 1e6, UTC)
        told.append(Delivery(event, at, 0, 0))
    told.sort(key=lambda d: d.recorded_at)
    told = [Delivery(d.event, d.recorded_at, 0, offset) for offset, d in enumerate(told)]
    calendar = tuple(
        Sale(name=name, starts=START + start * hour, ends=START + (start + 2) * hour, like=like)
        for name, start, like in (("first", 8 * 24 + 12, None), ("second", 9 * 24 + 12, "first"))
    )
    claims = rule("claims", "claimed", bucket="1h", absolute=100)
    rules = RuleSet(rules=(claims,), calendar=calendar).in_force()
    [found] = episodes_of(tmp_path, told, rules, random.Random(1))
    assert json.loads(found[8])["sale"] == "second" and found[5] < 100
    announced = {json.loads(f[8]).get("sale") for f in episodes_of(tmp_path, told, [claims], random.Random(1))}
    assert announced == {None}  # without the calendar, the first sale is an anomaly


def test_orders_have_metrics_too(tmp_path: Path) -> None:
    """GMV and the share of discounts come from the orders' own events."""
    random_ = random.Random(4)
    told = []
    for n in range(200):
        at = round(START.timestamp() * 1e6) + n * MINUTE
        event = {
            "event_id": f"e{n}", "type": "paid", "occurred_at": datetime.fromtimestamp(at / 1e6, UTC), "source": "s",
            "order_id": f"o{n}", "user_id": "u", "currency": "CNY", "gross_minor": 1_000, "net_minor": 900,
            "discounts": [{"kind": "coupon", "amount_minor": 60, "funder": None},
                          {"kind": "member", "amount_minor": 40, "funder": None}],
        }  # fmt: skip
        told.append(Delivery(event, at, 0, n))
    rules = [rule("gmv", "gmv"), rule("share", "discount_share")]
    with scratch_store(tmp_path) as store:
        with store.transaction():
            put_in_force(store, rules)
        released(store, list(cut(random_, told)), random_, ORDER)
        sums = store.rows(
            "SELECT rule, sum(of), sum(per) FROM (FROM alert_series UNION ALL FROM alert_open_series)"
            " GROUP BY rule ORDER BY rule"
        )
    assert sums == [("gmv", 200_000.0, 0.0), ("share", 12_000.0, 200_000.0)]


def test_events_centuries_apart_cost_no_time(tmp_path: Path) -> None:
    """A clock in 1970 must not stop the consumer: the empty buckets between are skipped, not counted through."""
    random_ = random.Random(6)
    ages = [Delivery(dict(d.event) | {"event_id": f"old-{n}", "coupon_id": f"old-{n}",
                                      "occurred_at": datetime(1700, 1, 1, tzinfo=UTC)}, d.recorded_at - 1, 0, n)
            for n, d in enumerate(deliveries(random_, 3))]  # fmt: skip
    late = [
        Delivery(dict(d.event) | {"occurred_at": datetime.fromtimestamp(at / 1e6, UTC)}, at, 1, n)
        for n, d in enumerate(deliveries(random_, 40))
        for at in [d.recorded_at + 10**15]
    ]
    rules = [*RULES, rule("minutes", "claimed", bucket="1m")]
    assert isinstance(episodes_of(tmp_path, [*ages, *late], rules, random_), list)
