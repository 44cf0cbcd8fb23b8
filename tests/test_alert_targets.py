"""Threshold rules with targets and plans against a plain model, whatever the batches and restarts; and what the file of
a plan may say. If they fail, a sale that misses its plan goes unseen, or one that meets it wakes people."""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.consumers.alerts.rules import RulesFile
from coupon_ledger.ledger.lifecycle import Delivery
from coupon_ledger.ledger.topics import CAMPAIGN
from coupon_ledger.projections.alerts.in_force import put_in_force
from coupon_ledger.projections.alerts.planned import Plan, Planned
from coupon_ledger.projections.alerts.rules import Rule, Threshold
from coupon_ledger.projections.alerts.rules_file import Loaded, load, load_bytes
from coupon_ledger.projections.alerts.writing import rules_yaml
from coupon_ledger.projections.live.apply import apply
from tests.examples import examples
from tests.folding import frame_of, scratch_store
from tests.test_alert_metrics import MINUTE, START, cut, deliveries, released
from tests.test_alert_thresholds import CAMPAIGN_EVENT, START_US, Told, found, minute_of, rule, told

Target = tuple[int, int]
"""When a target is recorded (minutes after START), and the target in basis points."""


def at(minute: float) -> str:
    return (START + timedelta(minutes=minute)).isoformat()


def stretch(start: float, end: float, value: float, **slices: str) -> dict[str, Any]:
    return {"starts": at(start), "ends": at(end), "value": value, "slice": slices}


# ── Against a plain model ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Held:
    opened: int
    last: int
    value: float
    peak: float
    threshold: float
    befores: list[float] = field(default_factory=list)


Story = tuple[str, int, int | None, float, float, float, int, float]
"""An episode: key, opened and closed in microseconds, value, peak, threshold, how often it was true, the last bound."""


def modelled(rule: Rule, events: Sequence[Delivery], targets: Sequence[Target]) -> list[Story]:
    """The episodes of a rule, minute by minute. The model knows sums of single minutes, and plans as shares of them."""
    of: Any = rule.expr
    windows = of.window // timedelta(minutes=1)
    counts: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    held: dict[str, Held] = {}
    done: list[Story] = []
    clock, following = 0, 0
    keep = round((rule.keep + timedelta(minutes=1)).total_seconds() * 1_000_000)

    def over(until: int) -> None:
        for key in [key for key, one in held.items() if until >= one.last + keep]:
            done.append(story(key, held.pop(key), closed=True))

    def story(key: str, one: Held, *, closed: bool) -> Story:
        end = one.last + keep if closed else None
        return key, one.opened, end, one.value, one.peak, one.threshold, len(one.befores), one.befores[-1]

    for delivery in sorted(events, key=lambda d: (d.recorded_at, d.partition, d.offset)):
        event = delivery.event
        happened = min(round(event["occurred_at"].timestamp() * 1_000_000), delivery.recorded_at)
        clock = max(clock, happened)
        following = following or (clock - MINUTE) // MINUTE
        while (closing := (following + 2) * MINUTE) <= clock:
            window = [counts[n] for n in range(following - windows + 1, following + 1) if n in counts]
            planned = {row.slice["channel"] for row in of.plan}
            for key in {key for one in window for key in one} | planned:
                hits, base = (sum(one[key][i] for one in window if key in one) for i in (0, 1))
                value = hits / base if of.metric == "use_rate" and base else float(hits)
                before = expected(of, key, following - windows + 1, following + 1, targets, delivery.recorded_at)
                change = None if before is None or (of.metric == "use_rate" and not base) else value - before
                wrong = change is not None and (change > 0 if of.direction == "up" else change < 0)
                if not wrong or abs(change or 0) < max(of.absolute, of.relative * abs(before or 0)):
                    continue
                over(closing) if key in held and closing >= held[key].last + keep else None
                one = held.setdefault(key, Held(closing, closing, value, value, before or 0.0))
                worst = max if of.direction == "up" else min
                one.last, one.peak = closing, worst(one.peak, value)
                one.befores.append(before or 0.0)
            over(closing)
            following += 1
        minute = happened // MINUTE
        key = event["campaign_id"] if of.by == ("campaign",) else event["channel"]
        hit, based = event["type"] == ("claimed" if of.metric == "claimed" else "used"), event["type"] == "claimed"
        if minute >= following and key is not None and (hit or (of.metric == "use_rate" and based)):
            counts[minute][key][0] += hit
            counts[minute][key][1] += based
        over(clock)
    return sorted([*done, *(story(key, one, closed=False) for key, one in held.items())])


def expected(of: Threshold, key: str, first: int, end: int, targets: Sequence[Target], known_at: int) -> float | None:
    """What a window of these minutes is compared with."""
    if of.against == "target":
        known = [t for m, t in targets if START_US + m * MINUTE <= known_at]
        return of.target if of.target is not None else known[-1] / 10_000 if known else None
    total = 0.0
    for minute in range(first, end):
        now = datetime.fromtimestamp(minute * 60, UTC)
        mine = [row for row in of.plan if row.slice["channel"] == key and row.starts <= now < row.ends]
        if not mine:
            return None
        total += mine[0].value / ((mine[0].ends - mine[0].starts) / timedelta(minutes=1))
    return total


RULES = [
    rule("fixed", kind="threshold", metric="claimed", by=["channel"], against="target", target=2.5, direction="up",
         relative=0.2, window="20m"),
    rule("ledger", kind="threshold", metric="use_rate", by=["campaign"], against="target", direction="down",
         relative=0.1, window="30m"),
    rule("plan", kind="threshold", metric="used", by=["channel"], against="plan", direction="down", absolute=0.75,
         window="10m", plan=[stretch(0, 32, 8, channel="app"), stretch(32, 96, 4.5, channel="app"),
                             stretch(100, 228, 16, channel="app"), stretch(16, 144, 64, channel="dead")]),
]  # fmt: skip


def stories(folder: Path, events: Sequence[Delivery], targets: Sequence[Target], cuts: random.Random) -> dict[str, Any]:
    with scratch_store(folder) as store:
        with store.transaction():
            put_in_force(store, RULES)
            set_events = [
                Delivery({"event_id": f"t{n:03}", "type": "target_set", "occurred_at": START, "source": "s",
                          "campaign_id": "k", "metric": "use_rate", "target": target}, START_US + minute * MINUTE, 0, n)
                for n, (minute, target) in enumerate(targets, 1)
            ]  # fmt: skip
            known = Delivery(CAMPAIGN_EVENT, START_US - MINUTE, 0, 0)
            apply(store, CAMPAIGN, frame_of(CAMPAIGN, [known, *set_events]))
        released(store, list(cut(cuts, events)), cuts)
        rows = store.rows(
            "SELECT rule, key, epoch_us(opened_at), epoch_us(closed_at), value, peak, threshold, times, details"
            " FROM alert_episodes"
        )
    found_by_rule: dict[str, list[Story]] = {one.name: [] for one in RULES}
    for name, key, *numbers, details in rows:
        [value] = json.loads(key).values()
        found_by_rule[name].append((value, *numbers, json.loads(details)["before"]))
    return {name: sorted(found) for name, found in found_by_rule.items()}


@pytest.mark.long
@examples(15)
@given(
    seed=st.integers(0, 2**32),
    number=st.integers(1, 120),
    targets=st.lists(st.tuples(st.integers(-1, 300), st.sampled_from([2_500, 5_000, 10_000])), max_size=3),
)
def test_targets_and_plans_are_those_of_the_model_whatever_the_batches(
    seed: int, number: int, targets: list[Target], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Else a rebuild tells another story than the page did."""
    events = [
        Delivery({**d.event, "campaign_id": "k"}, d.recorded_at, d.partition, d.offset)
        for d in deliveries(random.Random(seed), number)
    ]
    targets = sorted(targets)
    cut_up = stories(tmp_path_factory.mktemp("cut"), events, targets, random.Random(seed))
    assert cut_up == {one.name: modelled(one, events, targets) for one in RULES}


@pytest.mark.long
def test_a_channel_without_any_event_misses_its_plan(tmp_path: Path) -> None:
    """Else the channel that is dead from the start, which the plan is for, is the one that nobody hears of."""
    less = rule("less", kind="threshold", metric="claimed", by=["channel"], against="plan", direction="down",
                relative=0.5, window="10m", plan=[stretch(0, 60, 600, channel="tv")])  # fmt: skip
    events: list[Told] = [(n, "claimed", {}) for n in range(30)]
    [dead] = found(tmp_path, [less], told(*events))
    details = json.loads(dead[8])
    assert json.loads(dead[1]) == {"channel": "tv"} and dead[4] == 0
    assert (details["against"], details["before"], details["change"]) == ("plan", 100, -1)
    assert minute_of(dead[2]) == 11  # the first window that the plan covers, and a minute of tolerance


@pytest.mark.long
@examples(100)
@given(
    edges=st.lists(st.integers(0, 600), min_size=2, max_size=8, unique=True),
    start=st.integers(0, 600),
    length=st.integers(1, 300),
    rate=st.booleans(),
    values=st.lists(st.integers(0, 50), min_size=8, max_size=8),
)
def test_a_plan_without_gaps_says_what_its_minutes_say(
    edges: list[int], start: int, length: int, rate: bool, values: list[int]
) -> None:
    """Else a window over midnight is compared with a part of its plan."""
    edges.sort()
    rows = [
        Planned.model_validate(stretch(a, b, value)) for a, b, value in zip(edges[:-1], edges[1:], values, strict=False)
    ]
    minutes = [
        value / (1 if rate else b - a)
        for a, b, value in zip(edges[:-1], edges[1:], values, strict=False)
        for m in range(a, b)
        if start <= m < start + length
    ]
    got = Plan(rows, (), is_rate=rate).between((), START_US + start * MINUTE, START_US + (start + length) * MINUTE)
    if len(minutes) < length:
        assert got != got
    else:
        assert got == pytest.approx(sum(minutes) / (length if rate else 1))


# ── What may be written ──────────────────────────────────────────────────────────────────────────────────────

TEXT = """\
use_defaults: false
groups:
- rules:
  - alert: behind_plan
    expr: {kind: threshold, metric: claimed, by: [channel], against: plan, plan: plan.csv, direction: down}
"""
PLAN = "starts,ends,channel,value\n2026-11-11T00:00:00+08:00,2026-11-12T00:00:00+08:00,app,5000\n"


def with_plan(folder: Path, plan: str) -> Loaded:
    (folder / "rules.yaml").write_text(TEXT, encoding="utf-8")
    (folder / "plan.csv").write_text(plan, encoding="utf-8")
    return load(folder / "rules.yaml")


def test_a_plan_is_read_from_a_file_and_is_part_of_the_version(tmp_path: Path) -> None:
    """Else a changed plan is not in force, or an alert does not say by which plan it was raised."""
    loaded = with_plan(tmp_path, PLAN)
    assert not loaded.problems and loaded.beside == (tmp_path / "plan.csv",)
    [one] = loaded.rule_set.rules
    other = with_plan(tmp_path, PLAN.replace("5000", "6000")).rule_set.rules[0]
    assert isinstance(one.expr, Threshold) and one.expr.plan[0].value == 5_000 and one.version != other.version
    again = load_bytes(rules_yaml(loaded.rule_set).encode(), "again.yaml")
    assert not again.problems and again.rule_set.rules[0].version == one.version


def test_a_changed_plan_is_read_again_and_so_are_rules_without_their_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the plan of yesterday stays in force until somebody touches the rules file; or, while a plan is not there,
    nothing that is changed comes into force."""
    monkeypatch.setattr("coupon_ledger.consumers.alerts.rules._EVERY_S", 0.0)
    with_plan(tmp_path, PLAN)
    file = RulesFile(tmp_path / "rules.yaml")
    versions = []
    for plan in (PLAN, PLAN.replace("5000", "60000"), None):
        (tmp_path / "plan.csv").unlink() if plan is None else (tmp_path / "plan.csv").write_text(plan)
        loaded = file.changed()
        while (more := file.changed()) is not None:
            loaded = more
        assert loaded is not None
        versions.append([one.version for one in loaded.rule_set.rules])
    assert len({tuple(version) for version in versions}) == 3 and versions[2] == []
    (tmp_path / "rules.yaml").write_text(TEXT.replace("against: plan, plan: plan.csv", "against: last_day"))
    loaded = file.changed()
    assert loaded is not None and not loaded.problems


@pytest.mark.parametrize("plan", ["/dev/zero", "pipe", "a\\0b", "p" * 5_000])
def test_a_plan_that_is_no_file_is_told_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    """Else the consumer waits for a pipe, or reads a device until the memory is full, and folds nothing any more."""
    monkeypatch.setattr("coupon_ledger.consumers.alerts.rules._EVERY_S", 0.0)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "rules.yaml").write_text(TEXT.replace("plan: plan.csv", f'plan: "{plan}"'))
    file = RulesFile(tmp_path / "rules.yaml")
    loaded = file.changed()
    assert loaded is not None
    [problem] = loaded.problems
    assert "is a folder or device, not a file" in str(problem) or "cannot be read" in str(problem)
    file.changed()  # with the plan among the files that are looked at
    assert file.changed() is None


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("", "has no column starts, ends, value"),
        (PLAN.replace("value", "amount"), "has no column value"),
        (PLAN.replace("+08:00,app", ",app"), "line 2: ends: must carry a time zone"),
        (PLAN.replace("5000", "many"), "line 2: value: "),
        (PLAN.replace("11-12", "11-10"), "line 2: ends: ends before it starts"),
        (PLAN.replace(",5000", ""), "line 2: has not as many values"),
        (PLAN.replace("channel", "store"), "slices are not those of by"),
        (PLAN + PLAN.splitlines()[1], "two values for one time and slice"),
        (PLAN.replace("2026-11-12", "2126-11-12"), "more than two years"),
    ],
)
def test_a_mistake_in_a_plan_is_told(tmp_path: Path, plan: str, said: str) -> None:
    """Else whoever exports the plan cannot see why the rule is not there."""
    loaded = with_plan(tmp_path, plan)
    [problem] = loaded.problems
    assert said in str(problem) and "rules.yaml line 5: groups[0].rules[0].expr" in str(problem)
    assert not loaded.rule_set.rules


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("against: target", "has no target, and the ledger has none"),
        ("metric: use_rate, against: target", "has no target, and the ledger has none"),
        ("above: 3, target: 4", "has a target that nothing is compared with"),
        ("against: plan", "against: plan needs a plan"),
        ("against: plan, plan: nowhere.csv", "cannot be read"),
        ("against: plan, plan: [{starts: x}]", "is no instant with a zone"),
        ("against: plan, plan: [{begins: x}]", "no field 'begins'"),
    ],
)
def test_half_a_comparison_is_refused(tmp_path: Path, expr: str, said: str) -> None:
    """Else a rule is in force that never fires."""
    metric = "" if "metric" in expr else "metric: claimed, "
    text = f"use_defaults: false\ngroups:\n- rules:\n  - alert: a\n    expr: {{kind: threshold, {metric}{expr}}}\n"
    loaded = load_bytes(text.encode(), str(tmp_path / "rules.yaml"))
    assert said in " ".join(map(str, loaded.problems)) and not loaded.rule_set.rules


def test_a_target_of_the_ledger_needs_no_number() -> None:
    """Else a target that was set for a campaign has to be written a second time."""
    expr = "{kind: threshold, metric: use_rate, by: [campaign], against: target}"
    text = f"groups:\n- rules:\n  - alert: a\n    expr: {expr}\n"
    assert not load_bytes(text.encode(), "rules.yaml").problems
