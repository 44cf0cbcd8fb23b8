"""What drove a metric: contributions add up, and name the part that changed. If they fail, people look at the wrong
channel while the other one is losing money."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.analysis.contributions import Contribution, Sums, of_ratios, of_sums
from coupon_ledger.consumers.alerts.evidence import behind
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.alerts.episodes import SCHEMA
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.measures import MEASURES, summed
from coupon_ledger.projections.alerts.rules import METRICS
from coupon_ledger.projections.live.apply import apply
from coupon_ledger.projections.live.journal import JOURNAL
from tests.command_line import done, ndjson
from tests.examples import examples
from tests.folding import frame_of, scratch_store
from tests.test_alert_metrics import MINUTE, START, released, steady
from tests.test_alert_targets import stretch
from tests.test_alert_thresholds import START_US, Told, rule, told

pytestmark = pytest.mark.long

Divide = Callable[[Mapping[str, Sums], Mapping[str, Sums], float], dict[str, Contribution] | None]
COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.builds(Sums, st.integers(0, 500), st.integers(0, 50)))
EXPECTED = st.floats(0, 10_000).map(lambda value: round(value, 3))


@pytest.mark.parametrize("divide", [of_sums, of_ratios])
@examples(200)
@given(now=COUNTS, before=COUNTS, expected=EXPECTED)
def test_contributions_add_up_to_the_gap(
    divide: Divide, now: dict[str, Sums], before: dict[str, Sums], expected: float
) -> None:
    """Else two people who add up the table get another number than the alert says."""
    parts = divide(now, before, expected)
    of, per = (sum(column) for column in zip(*now.values(), strict=True)) if now else (0.0, 0.0)
    if parts is None:
        assert not sum(s.of for s in before.values()) or not per or not sum(s.per for s in before.values())
        return
    value, decimals = (of, 2) if divide is of_sums else (of / per, 6)
    total = sum((Decimal(str(one.contribution)) for one in parts.values()), Decimal(0))
    assert abs(total - Decimal(value - expected)) <= Decimal(10) ** -decimals
    assert total == round(total, decimals) and parts.keys() == {*now, *before}


@examples(100)
@given(
    parts=st.dictionaries(st.sampled_from("abcd"), st.builds(Sums, st.integers(1, 50), st.integers(1, 50)), min_size=2),
    factor=st.integers(1, 5),
)
def test_a_part_that_is_as_before_contributes_nothing(parts: dict[str, Sums], factor: int) -> None:
    """Else a channel whose rate was always low is blamed for a fall that another one had."""
    more = {part: Sums(s.of * factor, s.per * factor) for part, s in parts.items()}
    same = of_ratios(more, parts, rate(parts))
    assert same is not None and all(one.contribution == 0 for one in same.values())
    same = of_sums(parts, more, sum(s.of for s in parts.values()))
    assert same is not None and all(one.contribution == 0 for one in same.values())
    before = {**parts, "a": Sums(20, 20)}
    changed = of_ratios({**parts, "a": Sums(0, 20)}, before, rate(before))
    assert changed is not None and [part for part, one in changed.items() if one.contribution] == ["a"]


def rate(parts: Mapping[str, Sums]) -> float:
    return sum(s.of for s in parts.values()) / sum(s.per for s in parts.values())


# ── From the journal ─────────────────────────────────────────────────────────────────────────────────────────


def coupon_events(random_: random.Random, number: int) -> list[Delivery]:
    kinds = ("created", "issued", "claimed", "used", "returned", "revoked")
    events: list[Told] = [
        (n, random_.choice(kinds), {"channel": random_.choice(("app", "web")), "reason": "x",
                                    "discount_minor": random_.choice((0, 5, 70)), "coupon_type": "cash",
                                    "coupon_id": f"c{random_.randrange(9)}"})
        for n in range(number)
    ]  # fmt: skip
    return told(*events)


def order_events(random_: random.Random, number: int) -> list[Delivery]:
    made = []
    for n in range(number):
        kind = random_.choice(("placed", "paid", "cancelled", "refunded"))
        discounts = [{"kind": random_.choice(("coupon", "member")), "amount_minor": random_.randrange(9)}]
        event = {"event_id": f"o{n}", "type": kind, "occurred_at": START + timedelta(minutes=n), "source": "s",
                 "order_id": f"o{n}", "user_id": "u", "currency": "CNY", "channel": random_.choice(("app", "web")),
                 "gross_minor": 100 + n, "net_minor": 90 + n, "refund_minor": n, "lines": [], "reason": "x",
                 "discounts": random_.choice(([], discounts, discounts * 2))}  # fmt: skip
        made.append(Delivery(event, START_US + n * MINUTE, 0, n))
    return made


def test_sql_sums_up_what_the_evaluation_sums_up(tmp_path: Path) -> None:
    """Else the contributions are about other numbers than the alert."""
    random_ = random.Random(5)
    with scratch_store(tmp_path) as store:
        for topic, events in ((COUPON, coupon_events(random_, 200)), (ORDER, order_events(random_, 200))):
            with store.transaction():
                apply(store, topic, frame_of(topic, events))
        for metric in METRICS:
            measure = MEASURES[metric]
            journal = store.frame(f"SELECT * FROM {JOURNAL[measure.topic]}")
            per = pl.lit(0) if measure.per is None else measure.per
            wanted = journal.group_by("channel").agg(
                of=measure.of.sum().cast(pl.Float64), per=per.sum().cast(pl.Float64)
            )
            of, per_sql = summed(metric)
            found = store.rows(
                f"SELECT channel, ({of})::DOUBLE, ({per_sql})::DOUBLE FROM {JOURNAL[measure.topic]} GROUP BY channel"
            )
            assert sorted(found) == sorted(wanted.rows()), metric
            assert any(row[1] for row in found) or metric in ("reserved", "released", "expired"), metric


def episodes_with_evidence(
    folder: Path, one: Any, events: list[Delivery], size: int = 40
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    with scratch_store(folder) as store:
        with store.transaction():
            put_in_force(store, [one])
        batches = [events[n : n + size] for n in range(0, len(events), size)]
        released(store, batches, random.Random(1))
        rows = store.frame(f"SELECT {', '.join(SCHEMA)} FROM alert_episodes").to_dicts()
        return [(row, behind(store, one, row).more) for row in rows]


DAY = 24 * 60


def days(web_today: int) -> list[Delivery]:
    """Forty claims in an hour yesterday on each of two channels; today, fewer on one of them."""
    hour: list[Told] = []
    for start, web in ((0, 40), (DAY, web_today)):
        hour += [(start + n, "claimed", {"channel": "app"}) for n in range(40)]
        hour += [(start + n * 40 / web, "claimed", {"channel": "web", "campaign_id": None}) for n in range(web)]
    return told(*sorted([*hour, (DAY + 70, "created", {"coupon_type": "cash"})], key=lambda event: event[0]))


@pytest.mark.parametrize(
    "more",
    [
        {"against": "last_day", "direction": "down", "relative": 0.3},
        {"against": "target", "target": 80, "direction": "down", "relative": 0.3, "at_least": 1},
        {"against": "plan", "direction": "down", "relative": 0.3, "plan": [stretch(DAY, DAY + 120, 160)]},
        {"below": 45, "at_least": 1},
    ],
)
def test_the_channel_that_fell_is_named(tmp_path: Path, more: dict[str, Any]) -> None:
    """Else everybody looks at all channels."""
    less = rule("less", kind="threshold", metric="claimed", window="1h", **more)
    found = episodes_with_evidence(tmp_path, less, days(4))
    [(row, evidence)] = [
        pair for pair in found if pair[0]["opened_at"] > START.replace(tzinfo=None) + timedelta(days=1)
    ]
    by_channel = {one["channel"]: one for one in evidence["by_channel"]}
    assert by_channel["web"]["contribution"] < 2 * by_channel["app"]["contribution"] < 40
    assert sum(one["contribution"] for one in evidence["by_channel"]) == pytest.approx(evidence["gap"], abs=0.01)
    details = json.loads(row["details"])
    expected = details.get("before", row["threshold"])
    in_window = sum(one["value"] for one in evidence["by_channel"])
    assert evidence["gap"] == pytest.approx(in_window - expected, abs=0.01)
    assert in_window == details["measured"] and "late_gap" not in evidence
    assert {one["campaign"] for one in evidence["by_campaign"]} == {"k", None}


def test_an_anomaly_names_the_channel_that_went_dead(tmp_path: Path) -> None:
    """Else the detector says that something is wrong, and nobody knows where."""
    fell = 9 * 24 + 12
    hour_of = [(d.recorded_at - START_US) // (60 * MINUTE) for d in steady(10, None)]
    claims = [
        Delivery({**d.event, "channel": "web" if d.offset % 12 else "app"}, d.recorded_at, 0, d.offset)
        for hour, d in zip(hour_of, steady(10, None), strict=True)
        if hour < fell or not d.offset % 12
    ]
    fall = rule("fall", kind="metric", metric="claimed", bucket="1h", direction="down", absolute=20)
    found = episodes_with_evidence(tmp_path, fall, claims, 2_500)
    assert found
    row, evidence = found[-1]
    details = json.loads(row["details"])
    by_channel = {one["channel"]: one for one in evidence["by_channel"]}
    assert by_channel["web"]["value"] == 0 and by_channel["web"]["contribution"] < -20
    assert abs(by_channel["app"]["contribution"]) < 10
    middle = (details["expected_low"] + details["expected_high"]) / 2
    in_bucket = sum(one["value"] for one in evidence["by_channel"])
    assert evidence["gap"] == pytest.approx(in_bucket - middle, abs=0.01)


def test_a_clock_at_the_edge_of_the_calendar_leaves_the_alert_without_parts(tmp_path: Path) -> None:
    """Else one event with a wrong clock stops the owner's work with all alerts."""
    some = rule("some", kind="threshold", metric="claimed", above=1)
    details = json.dumps({"until": "0001-01-02T00:00:00Z", "measured": 2})
    with scratch_store(tmp_path) as store:
        assert not behind(store, some, {"details": details, "threshold": 1.0, "key": "{}"}).more


def test_a_channel_that_the_rule_names_is_no_part(tmp_path: Path) -> None:
    """Else an alert about one channel is explained by that channel."""
    less = rule("less", kind="threshold", metric="claimed", by=["channel"], window="1h", against="last_day",
                direction="down", relative=0.3)  # fmt: skip
    found = episodes_with_evidence(tmp_path, less, days(4))
    web = [evidence for row, evidence in found if json.loads(row["key"]) == {"channel": "web"}]
    assert web and all("by_channel" not in evidence for evidence in web)


@pytest.mark.parametrize("late", [0, 40])
@pytest.mark.parametrize("expr", [{"metric": "claimed", "above": 6}, {"metric": "use_rate", "above": 0.5}])
def test_contributions_and_what_came_too_late_make_up_the_gap(tmp_path: Path, expr: dict[str, Any], late: int) -> None:
    """Else the table is about another window than the alert, or about events that the rule did not count."""
    random_ = random.Random(7)

    def event(n: int) -> Told:
        return DAY * (n // 400) + n % 400 / 2, random_.choice(("claimed", "used")), {"channel": random_.choice("aw")}

    events = [
        Delivery({**d.event, "occurred_at": d.event["occurred_at"] - timedelta(minutes=random_.choice((0, 0, late)))},
                 d.recorded_at, 0, d.offset)
        for d in told(*map(event, range(800)))
    ]  # fmt: skip
    explained = lates = 0
    for row, evidence in episodes_with_evidence(tmp_path, rule("some", kind="threshold", window="7m", **expr), events):
        if evidence:
            gap = json.loads(row["details"])["measured"] - row["threshold"]
            parts = sum(one["contribution"] for one in evidence["by_channel"])
            assert evidence["gap"] == pytest.approx(gap, abs=0.01)
            assert parts + evidence.get("late_gap", 0) == pytest.approx(gap, abs=0.011)
            explained += 1
            lates += "late_gap" in evidence
    assert explained > 2 and bool(lates) == bool(late)


def test_alerts_show_has_the_parts_in_both_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is known stays in the database."""
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(
        "use_defaults: false\ngroups:\n- rules:\n  - alert: fewer_claims\n    expr: {kind: threshold, metric: claimed,"
        " against: last_day, direction: down, relative: 0.3, window: 1h}\n",
        encoding="utf-8",
    )
    lines = [{**d.event, "topic": COUPON, "occurred_at": d.event["occurred_at"].isoformat()} for d in days(4)]
    done("init")
    done("publish", "-", stdin=ndjson(lines))
    done("consume", "--alert-rules", "rules.yaml")
    alert = done("alerts", "list", "--state", "all", "-o", "json").json[-1]["alert_id"]
    shown = done("alerts", "show", alert).out
    assert "by channel" in shown and "contribution" in shown and "distance from what was expected" in shown
    assert "按渠道" in done("alerts", "show", alert, "--lang", "zh").out
    evidence = done("alerts", "show", alert, "-o", "json").json["evidence"]
    assert {one["channel"] for one in evidence["by_channel"]} == {"app", "web"}
